//! Bulk TCP with a check that every byte arrives as it was sent: only that catches a wrong segmentation.

use crate::{Outcome, while_trying};
use clap::Args;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

/// Bytes a system call.
const CHUNK: usize = 128 * 1024;

/// Nothing for so long means that the path swallows segments.
const STALLED: Duration = Duration::from_secs(10);

/// Take streams of `tcp-send` one after the other, check their bytes, and answer with how many came
#[derive(Debug, Args)]
pub(crate) struct Sink {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:7000")]
    listen: SocketAddrV4,
}

/// Send a stream to `tcp-sink` and print how many bytes it got; an error unless it got them all
#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The sink
    server: SocketAddrV4,
    /// How many bytes
    #[arg(long, default_value_t = 10_000_000)]
    bytes: u64,
}

/// The byte at a place of the stream: a period that no segment size shares, so that a shift is seen.
fn byte_at(place: u64) -> u8 {
    u8::try_from(place % 251).unwrap_or_default()
}

pub(crate) fn sink(arguments: &Sink) -> Outcome {
    let listener =
        TcpListener::bind(arguments.listen).map_err(while_trying(format!("listen on {}", arguments.listen)))?;
    for connection in listener.incoming() {
        if let Err(error) = connection.and_then(take) {
            eprintln!("stream: {error}");
        }
    }
    Ok(())
}

fn take(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_read_timeout(Some(STALLED))?;
    let mut chunk = vec![0; CHUNK];
    let mut count = 0_u64;
    loop {
        let length = connection.read(&mut chunk)?;
        if length == 0 {
            return connection.write_all(format!("{count}\n").as_bytes());
        }
        for byte in &chunk[..length] {
            if *byte != byte_at(count) {
                return connection.write_all(format!("wrong byte at {count}\n").as_bytes());
            }
            count += 1;
        }
    }
}

pub(crate) fn send(arguments: &Send) -> Outcome {
    let server = arguments.server;
    let failed = || while_trying(format!("send to {server}"));
    let mut connection =
        TcpStream::connect_timeout(&server.into(), STALLED).map_err(while_trying(format!("connect to {server}")))?;
    connection.set_write_timeout(Some(STALLED)).map_err(failed())?;
    connection.set_read_timeout(Some(STALLED)).map_err(failed())?;
    let mut sent = 0;
    while sent < arguments.bytes {
        let length = (arguments.bytes - sent).min(CHUNK as u64);
        let chunk: Vec<u8> = (sent..sent + length).map(byte_at).collect();
        connection.write_all(&chunk).map_err(failed())?;
        sent += length;
    }
    connection.shutdown(Shutdown::Write).map_err(failed())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).map_err(failed())?;
    if answer.trim() == arguments.bytes.to_string() {
        println!("{} bytes", arguments.bytes);
        Ok(())
    } else {
        Err(format!("{server} got {:?} of {} bytes", answer.trim(), arguments.bytes))
    }
}
