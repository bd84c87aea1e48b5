//! Small UDP datagrams as fast as one socket can send them.

use super::{CLIENT_CPU, PORT, SERVER_CPU, SERVER_POLL, Stop, finish, start};
use crate::error::{Context, Error, Result};
use crate::netns::Netns;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt::RcvBufForce,
    sockopt::SndBufForce,
};
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Datagrams a system call.
const BATCH: usize = 64;
/// Socket buffer, bytes: a server that is late by a few milliseconds must not count as loss of the data path.
const SOCKET_BUFFER: usize = 32 << 20;

/// What was sent and what arrived, datagrams a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Handed to the kernel.
    pub sent_per_second: f64,
    /// Read by the server.
    pub received_per_second: f64,
}

/// Floods for `duration` with datagrams of `payload` bytes.
pub fn run(client: &Netns, server: &Netns, address: Ipv4Addr, payload: usize, duration: Duration) -> Result<Rate> {
    let socket = server.within(|| {
        let socket =
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).context(|| format!("cannot bind UDP port {PORT}"))?;
        setsockopt(&socket, RcvBufForce, &SOCKET_BUFFER).context(|| "cannot set SO_RCVBUFFORCE".to_owned())?;
        socket
            .set_read_timeout(Some(SERVER_POLL))
            .context(|| "cannot set a time-out".to_owned())?;
        Ok(socket)
    })?;
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let receiver = start(scope, server, SERVER_CPU, || receive(&socket, &stop));
        let sender = start(scope, client, CLIENT_CPU, || {
            let _stop = stop.when_dropped();
            send(address, payload, duration)
        });
        let sent = finish(sender);
        // The sender may have failed before it could tell the receiver.
        drop(stop.when_dropped());
        let received = finish(receiver);
        Ok(Rate {
            sent_per_second: sent?,
            received_per_second: received?,
        })
    })
}

fn send(address: Ipv4Addr, payload: usize, duration: Duration) -> Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context(|| "cannot make a UDP socket".to_owned())?;
    setsockopt(&socket, SndBufForce, &SOCKET_BUFFER).context(|| "cannot set SO_SNDBUFFORCE".to_owned())?;
    socket
        .connect((address, PORT))
        .context(|| format!("no route to {address}"))?;
    let datagram = vec![0x55; payload];
    let batch: Vec<[IoSlice<'_>; 1]> = (0..BATCH).map(|_| [IoSlice::new(&datagram)]).collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let no_control: [ControlMessage<'_>; 0] = [];
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < duration {
        let result = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &batch,
            [None; BATCH],
            no_control,
            MsgFlags::empty(),
        );
        match result {
            Ok(messages) => sent += messages.count(),
            // No buffer left, or nobody listens yet: the next turn tries again.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error).context(|| format!("UDP flood to {address}: cannot send")),
        }
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

fn receive(socket: &UdpSocket, stop: &Stop) -> Result<f64> {
    let mut buffers = vec![[0u8; 2048]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut received = 0;
    let mut span: Option<(Instant, Instant)> = None;
    loop {
        let mut batch: Vec<[IoSliceMut<'_>; 1]> = buffers.iter_mut().map(|b| [IoSliceMut::new(b)]).collect();
        match recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &mut batch,
            MsgFlags::MSG_WAITFORONE,
            None,
        ) {
            Ok(messages) => {
                received += messages.count();
                let now = Instant::now();
                span = Some((span.map_or(now, |(first, _)| first), now));
            }
            // The queue is empty for as long as the time-out.
            Err(Errno::EAGAIN) if stop.requested() => break,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context(|| "UDP flood: cannot receive".to_owned()),
        }
    }
    match span {
        Some((first, last)) if last > first => Ok(received as f64 / (last - first).as_secs_f64()),
        _ => Err(Error::new("UDP flood: nothing arrived")),
    }
}
