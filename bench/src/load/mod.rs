//! The generators: what a client in one container does to a server in another.
//!
//! Client threads stand on [`CLIENT_CPU`], server threads on [`SERVER_CPU`]. A veth hands packets on in the softirq of the
//! sender, so the client's CPU also pays for both hosts' data path: throughput is one over the sum of both.

pub mod connections;
pub mod live_frames;
pub mod request_response;
pub mod tcp_stream;
pub mod udp_flood;

use crate::error::{Context, Error, Result};
use crate::netns::Netns;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Where clients run.
pub const CLIENT_CPU: usize = 0;
/// Where servers run.
pub const SERVER_CPU: usize = 1;
/// How long a peer may be silent before the measurement counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How often an idle server looks whether it may stop.
const SERVER_POLL: Duration = Duration::from_millis(100);
/// Where every server listens: namespaces keep them apart.
const PORT: u16 = 7001;

/// A running load: the thread that will tell what it saw.
pub(crate) type Worker<'scope, T> = ScopedJoinHandle<'scope, Result<T>>;

/// Starts `work` on a thread of its own inside a namespace, on one CPU.
pub(crate) fn start<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    netns: &'env Netns,
    cpu: usize,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Worker<'scope, T> {
    scope.spawn(move || {
        netns.enter()?;
        pin(cpu)?;
        work()
    })
}

/// Waits for a worker.
pub(crate) fn finish<T>(worker: Worker<'_, T>) -> Result<T> {
    worker.join().map_err(|_| Error::new("a load generator panicked"))?
}

/// Keeps the calling thread on one CPU.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context(|| format!("CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).context(|| format!("cannot run on CPU {cpu} (the bench needs two CPUs)"))
}

/// Tells servers to stop when the client is done, also when it failed.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    /// Whether the client is done.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Requests the stop when dropped.
    pub(crate) fn when_dropped(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a AtomicBool);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Guard(&self.0)
    }
}

/// A listener in the given namespace, made on a thread of its own so that the caller stays where it is.
pub(crate) fn listen(netns: &Netns) -> Result<TcpListener> {
    netns.within(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))
            .context(|| format!("cannot listen on TCP port {PORT} in {}", netns.name()))?;
        listener
            .set_nonblocking(true)
            .context(|| "cannot make the listener non-blocking".to_owned())?;
        Ok(listener)
    })
}

/// A listener in each of the namespaces.
pub(crate) fn listen_all(servers: &[&Netns]) -> Result<Vec<TcpListener>> {
    servers.iter().map(|server| listen(server)).collect()
}

/// Accepts one connection before [`PATIENCE`] ends, on whichever listener it comes. Several threads may wait; each gets one connection.
pub(crate) fn accept(listeners: &[TcpListener]) -> Result<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    let stream = loop {
        wait_readable(listeners, deadline.saturating_duration_since(Instant::now()))?;
        match listeners.iter().find_map(accept_now) {
            Some(accepted) => break accepted.context(|| "cannot accept a connection".to_owned())?,
            // Another thread was faster.
            None => continue,
        }
    };
    stream
        .set_nonblocking(false)
        .context(|| "cannot make a connection blocking".to_owned())?;
    prepare(&stream)?;
    Ok(stream)
}

/// A connection that waits to be accepted, if there is one.
fn accept_now(listener: &TcpListener) -> Option<std::io::Result<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Some(Ok(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error)),
    }
}

/// Connects to the server in the other container.
pub(crate) fn connect(address: Ipv4Addr) -> Result<TcpStream> {
    let target = SocketAddrV4::new(address, PORT);
    let stream =
        TcpStream::connect_timeout(&target.into(), PATIENCE).context(|| format!("cannot connect to {target}"))?;
    prepare(&stream)?;
    Ok(stream)
}

fn prepare(stream: &TcpStream) -> Result<()> {
    let set = || {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))
    };
    set().context(|| "cannot set the options of a connection".to_owned())
}

fn wait_readable(sockets: &[impl AsFd], patience: Duration) -> Result<()> {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let mut sockets: Vec<_> = sockets
        .iter()
        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
        .collect();
    match poll(&mut sockets, timeout).context(|| "cannot wait for a connection".to_owned())? {
        0 => Err(Error::new("nobody connected in time")),
        _ => Ok(()),
    }
}

/// Tries until a TCP connection from one container to the other succeeds, and gives how long that took.
pub fn wait_connected(client: &Netns, server: &Netns, address: Ipv4Addr, patience: Duration) -> Result<Duration> {
    let _listener = listen(server)?;
    let start = Instant::now();
    client.within(|| {
        loop {
            let target = SocketAddrV4::new(address, PORT);
            match TcpStream::connect_timeout(&target.into(), Duration::from_millis(200)) {
                Ok(_) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > patience => {
                    return Err(error).context(|| format!("{target} is not reachable from {}", client.name()));
                }
                // A refusal comes at once, a lost packet after the time-out: neither needs a busy loop.
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
            crate::interrupt::check()?;
        }
    })
}
