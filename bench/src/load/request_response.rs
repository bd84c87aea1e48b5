//! One request at a time, the next when the answer is there: the round trip.

use super::{CLIENT_CPU, PATIENCE, PORT, SERVER_CPU, SERVER_POLL, Stop, accept, connect, finish, listen_all, start};
use crate::error::{Context, Error, Result};
use crate::netns::Netns;
use crate::statistics::percentile;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// Bytes of a request and of its answer.
const MESSAGE: usize = 64;
/// More round trips a run than any path on one machine makes in a minute; what exceeds it is not recorded.
const MAX_SAMPLES: usize = 8_000_000;
/// How many lost datagrams end a run: then the path does not work and waiting longer tells nothing.
const MAX_LOST: u32 = 5;

/// Round trips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundTrips {
    /// How many a second.
    pub per_second: f64,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
}

/// Over one TCP connection, with whichever of the servers answers at `address`.
pub fn tcp(client: &Netns, servers: &[&Netns], address: Ipv4Addr, duration: Duration) -> Result<RoundTrips> {
    let listeners = listen_all(servers)?;
    // Who echoes needs no namespace: its socket has one.
    let server = servers.first().context(|| "TCP round trips: no server".to_owned())?;
    std::thread::scope(|scope| {
        let echo = start(scope, server, SERVER_CPU, || echo_tcp(&listeners));
        let asker = start(scope, client, CLIENT_CPU, || ask_tcp(address, duration));
        let result = finish(asker);
        finish(echo).and(result)
    })
}

/// Over UDP.
pub fn udp(client: &Netns, server: &Netns, address: Ipv4Addr, duration: Duration) -> Result<RoundTrips> {
    let socket = server.within(|| bind(PORT, SERVER_POLL))?;
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let echo = start(scope, server, SERVER_CPU, || echo_udp(&socket, &stop));
        let asker = start(scope, client, CLIENT_CPU, || ask_udp(address, duration));
        let result = finish(asker);
        drop(stop.when_dropped());
        finish(echo).and(result)
    })
}

fn echo_tcp(listeners: &[TcpListener]) -> Result<()> {
    let mut stream = accept(listeners)?;
    let mut message = [0; MESSAGE];
    loop {
        let length = stream
            .read(&mut message)
            .context(|| "TCP echo: the client went silent".to_owned())?;
        if length == 0 {
            return Ok(());
        }
        stream
            .write_all(&message[..length])
            .context(|| "TCP echo: cannot answer".to_owned())?;
    }
}

fn ask_tcp(address: Ipv4Addr, duration: Duration) -> Result<RoundTrips> {
    let mut stream = connect(address)?;
    let mut message = [0x55; MESSAGE];
    timed(duration, || {
        stream
            .write_all(&message)
            .context(|| format!("TCP round trip to {address}: cannot send"))?;
        stream
            .read_exact(&mut message)
            .context(|| format!("TCP round trip to {address}: no answer"))?;
        Ok(true)
    })
}

fn bind(port: u16, timeout: Duration) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context(|| format!("cannot bind UDP port {port}"))?;
    socket
        .set_read_timeout(Some(timeout))
        .context(|| "cannot set a time-out".to_owned())?;
    Ok(socket)
}

fn echo_udp(socket: &UdpSocket, stop: &Stop) -> Result<()> {
    let mut message = [0; MESSAGE];
    loop {
        match socket.recv_from(&mut message) {
            Ok((length, from)) => {
                socket
                    .send_to(&message[..length], from)
                    .context(|| "UDP echo: cannot answer".to_owned())?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && stop.requested() => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context(|| "UDP echo: cannot receive".to_owned()),
        }
    }
}

fn ask_udp(address: Ipv4Addr, duration: Duration) -> Result<RoundTrips> {
    let socket = bind(0, PATIENCE / 10)?;
    socket
        .connect((address, PORT))
        .context(|| format!("no route to {address}"))?;
    let mut message = [0x55; MESSAGE];
    let mut lost = 0;
    timed(duration, || {
        socket
            .send(&message)
            .context(|| format!("UDP round trip to {address}: cannot send"))?;
        match socket.recv(&mut message) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock && lost < MAX_LOST => {
                lost += 1;
                Ok(false)
            }
            Err(error) => Err(error).context(|| format!("UDP round trip to {address}: no answer")),
        }
    })
}

/// Repeats a round trip; `false` means that it was lost and does not count.
fn timed(duration: Duration, mut round_trip: impl FnMut() -> Result<bool>) -> Result<RoundTrips> {
    let mut samples = Vec::with_capacity(MAX_SAMPLES.min(1 << 18));
    let start = Instant::now();
    let mut before = start;
    while before - start < duration {
        let answered = round_trip()?;
        let after = Instant::now();
        if answered && samples.len() < MAX_SAMPLES {
            samples.push((after - before).as_secs_f64() * 1e6);
        }
        before = after;
    }
    summarise(samples, before - start)
}

pub(super) fn summarise(mut microseconds: Vec<f64>, elapsed: Duration) -> Result<RoundTrips> {
    let per_second = microseconds.len() as f64 / elapsed.as_secs_f64();
    microseconds.sort_unstable_by(f64::total_cmp);
    match (percentile(&microseconds, 50.0), percentile(&microseconds, 99.0)) {
        (Some(p50_us), Some(p99_us)) => Ok(RoundTrips {
            per_second,
            p50_us,
            p99_us,
        }),
        _ => Err(Error::new("no round trip was completed")),
    }
}
