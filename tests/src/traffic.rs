//! Real traffic between namespaces: echo requests, UDP echoes, TCP transfers. Each waits at most [`DEADLINE`].

mod ping;

pub use ping::{ping, ping6};

use crate::namespace::Namespace;
use crate::rig::{Container, Netns};
use crate::story::inside;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long anything may take, on a machine that is busy with other things.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// How long a lost packet is waited for before it is sent again.
const RETRY: Duration = Duration::from_millis(200);

/// Where traffic begins and ends.
pub trait Place: Sync {
    /// Does something inside the namespace.
    fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T;
}

impl Place for Namespace {
    fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        Namespace::enter(self, action)
    }
}

impl Place for Netns {
    fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        inside(self, action).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Place for Container {
    fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        self.netns().enter(action)
    }
}

/// A UDP socket that gives every datagram back, until dropped.
#[derive(Debug)]
pub struct UdpEcho {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl UdpEcho {
    /// Starts it; each answer begins with `tag`.
    pub fn start(namespace: &impl Place, address: SocketAddr, tag: &'static [u8]) -> Self {
        let socket = namespace.enter(|| UdpSocket::bind(address).expect("a free port"));
        socket.set_read_timeout(Some(RETRY)).expect("a timeout");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let answer = [tag, &buffer[..length]].concat();
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        UdpEcho {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A TCP server that gives every byte back, until dropped.
#[derive(Debug)]
pub struct TcpEcho {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl TcpEcho {
    /// Starts it.
    pub fn start(place: &impl Place, address: SocketAddr) -> Self {
        let listener = place.enter(|| TcpListener::bind(address).expect("a free port"));
        listener.set_nonblocking(true).expect("a socket");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(std::thread::spawn(move || echo(stream))),
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
            }
        });
        TcpEcho {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ends with the connection.
fn echo(mut stream: TcpStream) -> Result<(), String> {
    limit(&stream)?;
    let mut buffer = vec![0; 65536];
    loop {
        let length = stream.read(&mut buffer).map_err(|error| error.to_string())?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).map_err(|error| error.to_string())?;
    }
}

/// A connection to a [`TcpEcho`] that is used all the time, until dropped.
#[derive(Debug)]
pub struct Chat {
    rounds: std::sync::Arc<std::sync::atomic::AtomicU64>,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<(), String>>>,
}

/// Bytes of one round of a [`Chat`]: several segments.
const ROUND: usize = 4000;

/// Rounds that show that a [`Chat`] goes on.
const ROUNDS: u64 = 100;

impl Chat {
    /// Connects and begins.
    pub fn start(from: &impl Place, to: SocketAddr) -> Result<Self, String> {
        Chat::every(from, to, Duration::from_millis(2))
    }

    /// The same with a pause of this length after each round: all the time, but not all of the CPU, for others are tested beside it.
    pub fn every(from: &impl Place, to: SocketAddr, pause: Duration) -> Result<Self, String> {
        let connect = || TcpStream::connect_timeout(&to, DEADLINE);
        let mut stream = from.enter(connect).map_err(|error| format!("TCP to {to}: {error}"))?;
        limit(&stream)?;
        let rounds = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (count, stopped) = (rounds.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; ROUND];
            let mut round: u32 = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                round = round.wrapping_add(1);
                let sent = pattern(round, ROUND);
                let asked = stream.write_all(&sent).and_then(|()| stream.read_exact(&mut buffer));
                asked.map_err(|error| format!("TCP to {to}, round {round}: {error}"))?;
                if buffer != sent {
                    return Err(format!("TCP to {to}, round {round}: other bytes came back"));
                }
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                std::thread::park_timeout(pause);
            }
            Ok(())
        });
        Ok(Chat {
            rounds,
            stop,
            thread: Some(thread),
        })
    }

    /// Stops; how many rounds were done, or why the connection ended before.
    pub fn finish(mut self) -> Result<u64, String> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        match self.thread.take().map(std::thread::JoinHandle::join) {
            Some(Ok(Ok(()))) => Ok(self.rounds.load(std::sync::atomic::Ordering::Relaxed)),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err("the connection had ended already".to_owned()),
        }
    }

    /// Waits until many more rounds are done on the same connection.
    pub fn goes_on(&mut self) -> Result<(), String> {
        let begin = self.rounds.load(std::sync::atomic::Ordering::Relaxed);
        let start = Instant::now();
        loop {
            let done = self.rounds.load(std::sync::atomic::Ordering::Relaxed) - begin;
            if done >= ROUNDS {
                return Ok(());
            }
            if self.thread.as_ref().is_none_or(std::thread::JoinHandle::is_finished) {
                let ended = self.thread.take().map(std::thread::JoinHandle::join);
                return Err(format!(
                    "the connection ended after {begin} and {done} rounds: {ended:?}"
                ));
            }
            if start.elapsed() > DEADLINE {
                return Err(format!("the connection did {done} rounds in {DEADLINE:?}"));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends `size` bytes from a connected socket until they come back behind a tag; returns the tag. A connected socket takes answers only
/// from the address that it sent to.
pub fn udp_ask(from: &impl Place, to: SocketAddr, size: usize) -> Result<Vec<u8>, String> {
    from.enter(|| {
        let text = |error: io::Error| format!("UDP to {to}: {error}");
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).map_err(text)?;
        socket.connect(to).map_err(text)?;
        socket.set_read_timeout(Some(RETRY)).map_err(text)?;
        let question: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let start = Instant::now();
        let mut buffer = vec![0; 65536];
        while start.elapsed() < DEADLINE {
            let _ = socket.send(&question);
            if let Ok(length) = socket.recv(&mut buffer)
                && let Some(tag) = buffer[..length].strip_suffix(question.as_slice())
            {
                return Ok(tag.to_vec());
            }
        }
        Err(format!("UDP to {to}: no answer in {DEADLINE:?}"))
    })
}

/// Listens in `server` and transfers `bytes` from `client` there and as many back, over one connection to `address`; what arrives
/// must be what was sent. Returns the address that the server saw.
pub fn tcp_both_ways(
    server: &impl Place,
    listen: SocketAddr,
    client: &impl Place,
    address: SocketAddr,
    bytes: usize,
) -> Result<SocketAddr, String> {
    let listener = server
        .enter(|| TcpListener::bind(listen))
        .map_err(|error| format!("TCP at {listen}: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, from) = accept(&listener)?;
            receive(&mut stream, bytes, 1)?;
            send(&mut stream, bytes, 2)?;
            Ok(from)
        });
        let sent: Result<(), String> = client.enter(|| {
            let text = |error: io::Error| format!("TCP to {address}: {error}");
            let mut stream = TcpStream::connect_timeout(&address, DEADLINE).map_err(text)?;
            limit(&stream)?;
            send(&mut stream, bytes, 1)?;
            receive(&mut stream, bytes, 2)
        });
        let received: Result<SocketAddr, String> =
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent?;
        received
    })
}

fn limit(stream: &TcpStream) -> Result<(), String> {
    stream.set_nonblocking(false).map_err(|error| error.to_string())?;
    stream
        .set_read_timeout(Some(DEADLINE))
        .map_err(|error| error.to_string())?;
    stream
        .set_write_timeout(Some(DEADLINE))
        .map_err(|error| error.to_string())
}

fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr), String> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                limit(&stream)?;
                return Ok((stream, from));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < DEADLINE => {
                std::thread::yield_now();
                std::thread::park_timeout(Duration::from_millis(2));
            }
            Err(error) => return Err(format!("accept: {error}")),
        }
    }
}

/// The bytes of a transfer: a sequence that shows loss, doubling and reordering. Made in numbered blocks, because byte by byte it would
/// take an emulated machine longer than the transfer.
fn pattern(seed: u32, bytes: usize) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let mut block = Vec::with_capacity(BLOCK);
    let mut state = seed;
    while block.len() < BLOCK {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        block.extend(state.to_be_bytes());
    }
    let mut pattern = Vec::with_capacity(bytes + BLOCK);
    for number in 0..bytes.div_ceil(BLOCK) {
        block[..8].copy_from_slice(&(number as u64).to_be_bytes());
        pattern.extend_from_slice(&block);
    }
    pattern.truncate(bytes);
    pattern
}

fn send(stream: &mut TcpStream, bytes: usize, seed: u32) -> Result<(), String> {
    stream
        .write_all(&pattern(seed, bytes))
        .map_err(|error| format!("sending: {error}"))?;
    stream
        .shutdown(Shutdown::Write)
        .map_err(|error| format!("sending: {error}"))
}

fn receive(stream: &mut TcpStream, bytes: usize, seed: u32) -> Result<(), String> {
    let mut received = Vec::with_capacity(bytes);
    stream
        .read_to_end(&mut received)
        .map_err(|error| format!("after {} bytes: {error}", received.len()))?;
    if received == pattern(seed, bytes) {
        Ok(())
    } else {
        Err(format!(
            "received {} bytes that are not the {bytes} sent",
            received.len()
        ))
    }
}
