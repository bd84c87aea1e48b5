//! New TCP connections: connect, one byte there and back, reset. What a virtual IP costs is paid here.

use super::request_response::{RoundTrips, summarise};
use super::{CLIENT_CPU, PORT, SERVER_CPU, SERVER_POLL, Stop, finish, listen_all, start};
use crate::error::{Context, Error, Result};
use crate::netns::Netns;
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt::Linger};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections that the client keeps in flight.
const IN_FLIGHT: usize = 32;
/// Connections that may fail in a run before it counts as failed.
const MAX_FAILED: u32 = 100;
/// The listener's place among the server's events.
const LISTENER: u64 = u64::MAX;

/// Opens connections to the addresses in turn for `duration`; the servers behind them answer.
pub fn run(client: &Netns, servers: &[&Netns], addresses: &[Ipv4Addr], duration: Duration) -> Result<RoundTrips> {
    let listeners = listen_all(servers)?;
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let echoes: Vec<_> = servers
            .iter()
            .zip(&listeners)
            .map(|(server, listener)| start(scope, server, SERVER_CPU, || serve(listener, &stop)))
            .collect();
        let opener = start(scope, client, CLIENT_CPU, || Opener::new(addresses)?.run(duration));
        let result = finish(opener);
        drop(stop.when_dropped());
        echoes.into_iter().try_for_each(finish)?;
        result
    })
}

fn failed(what: &'static str) -> impl FnOnce() -> String {
    move || format!("connections: {what}")
}

fn serve(listener: &TcpListener, stop: &Stop) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(failed("epoll"))?;
    epoll
        .add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
        .context(failed("epoll"))?;
    let timeout = EpollTimeout::try_from(SERVER_POLL).unwrap_or(EpollTimeout::ZERO);
    let mut open: BTreeMap<u64, TcpStream> = BTreeMap::new();
    let mut events = [EpollEvent::empty(); 256];
    while !stop.requested() {
        let ready = match epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error).context(failed("epoll")),
        };
        for event in &events[..ready] {
            if event.data() == LISTENER {
                accept_all(listener, &epoll, &mut open)?;
            } else if !echo(open.get(&event.data())) {
                open.remove(&event.data());
            }
        }
    }
    Ok(())
}

fn accept_all(listener: &TcpListener, epoll: &Epoll, open: &mut BTreeMap<u64, TcpStream>) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true).context(failed("non-blocking"))?;
                let key = stream.as_raw_fd() as u64;
                epoll
                    .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))
                    .context(failed("epoll"))?;
                open.insert(key, stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // The client reset it before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context(failed("accept")),
        }
    }
}

/// Answers one message; false when the connection is over.
fn echo(stream: Option<&TcpStream>) -> bool {
    let mut message = [0; 64];
    let Some(mut stream) = stream else { return false };
    match stream.read(&mut message) {
        Ok(0) => false,
        Ok(length) => stream.write_all(&message[..length]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

struct Opener<'a> {
    epoll: Epoll,
    addresses: &'a [Ipv4Addr],
    opened: usize,
    flights: Vec<Option<Flight>>,
    microseconds: Vec<f64>,
    failures: u32,
}

struct Flight {
    stream: TcpStream,
    since: Instant,
}

impl<'a> Opener<'a> {
    fn new(addresses: &'a [Ipv4Addr]) -> Result<Self> {
        Ok(Opener {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context(failed("epoll"))?,
            addresses,
            opened: 0,
            flights: (0..IN_FLIGHT).map(|_| None).collect(),
            microseconds: Vec::with_capacity(1 << 17),
            failures: 0,
        })
    }

    fn run(mut self, duration: Duration) -> Result<RoundTrips> {
        let start = Instant::now();
        for slot in 0..IN_FLIGHT {
            self.open(slot)?;
        }
        let mut events = [EpollEvent::empty(); 2 * IN_FLIGHT];
        while start.elapsed() < duration {
            let ready = match self.epoll.wait(&mut events, 200u8) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error).context(failed("epoll")),
            };
            for event in &events[..ready] {
                self.advance(event.data() as usize, event.events())?;
            }
        }
        summarise(self.microseconds, start.elapsed())
    }

    fn open(&mut self, slot: usize) -> Result<()> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, flags, None).context(failed("socket"))?;
        // Closing resets, so that no port stays in TIME_WAIT.
        let reset = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&fd, Linger, &reset).context(failed("SO_LINGER"))?;
        let turn = self.opened.checked_rem(self.addresses.len());
        let address = *turn
            .and_then(|turn| self.addresses.get(turn))
            .context(failed("no address"))?;
        self.opened += 1;
        let since = Instant::now();
        match connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, PORT))) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error).context(|| format!("connections: cannot connect to {address}")),
        }
        self.epoll
            .add(&fd, EpollEvent::new(EpollFlags::EPOLLOUT, slot as u64))
            .context(failed("epoll"))?;
        self.flights[slot] = Some(Flight {
            stream: TcpStream::from(fd),
            since,
        });
        Ok(())
    }

    fn advance(&mut self, slot: usize, events: EpollFlags) -> Result<()> {
        let Some(flight) = self.flights.get_mut(slot).and_then(Option::as_mut) else {
            return Ok(());
        };
        let done = if events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            None
        } else if events.contains(EpollFlags::EPOLLOUT) {
            let next = &mut EpollEvent::new(EpollFlags::EPOLLIN, slot as u64);
            self.epoll.modify(&flight.stream, next).context(failed("epoll"))?;
            match flight.stream.write(b"x") {
                Ok(1) => return Ok(()),
                _ => None,
            }
        } else {
            matches!(flight.stream.read(&mut [0; 64]), Ok(1)).then(|| flight.since.elapsed())
        };
        match done {
            Some(elapsed) => self.microseconds.push(elapsed.as_secs_f64() * 1e6),
            None => self.failures += 1,
        }
        if self.failures > MAX_FAILED {
            return Err(Error::new(format!(
                "connections to {:?}: {} failed",
                self.addresses, self.failures
            )));
        }
        self.flights[slot] = None;
        self.open(slot)
    }
}
