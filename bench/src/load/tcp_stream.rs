//! Bulk data over one or several TCP connections.

use super::{CLIENT_CPU, SERVER_CPU, accept, connect, finish, listen_all, start};
use crate::error::{Context, Error, Result};
use crate::netns::Netns;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Bytes a system call, on both sides. The same as iperf3's default, so that figures are comparable.
const CHUNK: usize = 128 * 1024;

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    /// Payload bytes that the server read.
    pub bytes: u64,
    /// From the first byte to the last.
    pub elapsed: Duration,
}

impl Throughput {
    /// Payload, Gbit/s.
    pub fn gigabits_per_second(self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64() / 1e9
    }
}

/// Sends as fast as TCP allows for `duration` over `streams` connections at once, to whichever of the servers answers at `address`.
pub fn run(
    client: &Netns,
    servers: &[&Netns],
    address: Ipv4Addr,
    streams: usize,
    duration: Duration,
) -> Result<Throughput> {
    let listeners = listen_all(servers)?;
    // A reader needs no namespace: its socket has one.
    let server = servers.first().context(|| "TCP stream: no server".to_owned())?;
    let ready = Barrier::new(streams);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..streams)
            .map(|_| start(scope, server, SERVER_CPU, || receive(&listeners)))
            .collect();
        let writers: Vec<_> = (0..streams)
            .map(|_| start(scope, client, CLIENT_CPU, || send(address, &ready, duration)))
            .collect();
        let sent: Result<Vec<()>> = writers.into_iter().map(finish).collect();
        let received: Result<Vec<_>> = readers.into_iter().map(finish).collect();
        sent?;
        total(&received?)
    })
}

fn send(address: Ipv4Addr, ready: &Barrier, duration: Duration) -> Result<()> {
    let connection = connect(address);
    // Also after a failure, or the others would wait for ever.
    ready.wait();
    let mut stream = connection?;
    let chunk = vec![0x55; CHUNK];
    let end = Instant::now() + duration;
    while Instant::now() < end {
        stream
            .write(&chunk)
            .context(|| format!("TCP stream to {address}: cannot write"))?;
    }
    Ok(())
}

/// Time of the first byte, time of the last, bytes.
fn receive(listeners: &[TcpListener]) -> Result<(Instant, Instant, u64)> {
    let mut stream = accept(listeners)?;
    let mut chunk = vec![0; CHUNK];
    let mut read = || {
        stream
            .read(&mut chunk)
            .context(|| "TCP stream: the sender went silent".to_owned())
    };
    let mut bytes = read()? as u64;
    let first = Instant::now();
    let mut last = first;
    loop {
        match read()? {
            0 => return Ok((first, last, bytes)),
            n => {
                bytes += n as u64;
                last = Instant::now();
            }
        }
    }
}

fn total(streams: &[(Instant, Instant, u64)]) -> Result<Throughput> {
    let first = streams.iter().map(|s| s.0).min();
    let last = streams.iter().map(|s| s.1).max();
    let bytes = streams.iter().map(|s| s.2).sum();
    match (first, last) {
        (Some(first), Some(last)) if last > first => Ok(Throughput {
            bytes,
            elapsed: last - first,
        }),
        _ => Err(Error::new("TCP stream: no data arrived")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_add_up_over_the_whole_span() {
        let origin = Instant::now();
        let at = |ms| origin + Duration::from_millis(ms);
        let sum = total(&[(at(0), at(900), 500_000_000), (at(100), at(1000), 750_000_000)]).unwrap();
        assert_eq!(sum.elapsed, Duration::from_secs(1));
        assert!((sum.gigabits_per_second() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_received_is_a_failure() {
        assert!(total(&[]).is_err());
        let now = Instant::now();
        assert!(total(&[(now, now, 0)]).is_err());
    }
}
