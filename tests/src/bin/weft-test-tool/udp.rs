//! UDP there and back.

use crate::{Outcome, while_trying};
use clap::Args;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

/// The largest payload of a UDP datagram over IPv4.
const MAX_PAYLOAD: u16 = 65_507;

/// Send every datagram back
#[derive(Debug, Args)]
pub(crate) struct Echo {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:7001")]
    listen: SocketAddrV4,
}

/// Send datagrams to `udp-echo`, one at a time, and print how many came back
#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// The echo server
    server: SocketAddrV4,
    /// How many
    #[arg(short = 'n', long, default_value_t = 1)]
    times: u32,
    /// Bytes of payload
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..=i64::from(MAX_PAYLOAD)))]
    size: u16,
    /// Milliseconds to wait for each
    #[arg(long, default_value_t = 1000)]
    timeout: u64,
}

pub(crate) fn echo(arguments: &Echo) -> Outcome {
    let socket = UdpSocket::bind(arguments.listen).map_err(while_trying(format!("listen on {}", arguments.listen)))?;
    let mut datagram = vec![0; usize::from(MAX_PAYLOAD)];
    loop {
        // An error here is an ICMP message about an earlier answer: its client has gone.
        if let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], client);
        }
    }
}

pub(crate) fn ping(arguments: &Ping) -> Outcome {
    let failed = || while_trying(format!("ping {}", arguments.server));
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed())?;
    socket.connect(arguments.server).map_err(failed())?;
    socket
        .set_read_timeout(Some(Duration::from_millis(arguments.timeout.max(1))))
        .map_err(failed())?;
    let mut came_back = 0;
    let mut answer = vec![0; usize::from(MAX_PAYLOAD)];
    for number in 0..arguments.times {
        let mut datagram = vec![0; usize::from(arguments.size)];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        if socket.send(&datagram).is_ok()
            && socket
                .recv(&mut answer)
                .is_ok_and(|length| answer[..length] == datagram)
        {
            came_back += 1;
        }
    }
    println!("{came_back} of {} came back", arguments.times);
    if came_back > 0 {
        Ok(())
    } else {
        Err(format!("{} does not answer", arguments.server))
    }
}
