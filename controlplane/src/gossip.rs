//! The gossip's sockets: UDP datagrams and TCP exchanges on port 7946.
//!
//! Owned by the daemon's task. What arrives comes out of [`Sockets::next`]; what is to be sent goes in by [`Sockets::perform`].

use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weft_core::networkdb::stream::{Completeness, completeness};
use weft_core::networkdb::{Input, StreamId};

/// Deadline of a whole TCP exchange (`spec/networkdb.md` 3.2).
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many accepted connections are served at once: memberlist's limit for push/pull (`spec/networkdb.md` 3.2).
const MAX_INBOUND: usize = 128;

/// How many opened connections run at once. A node opens a handful a second; more means that the network is down.
const MAX_OUTBOUND: usize = 256;

/// How many finished exchanges may wait for the daemon.
const EVENT_QUEUE: usize = 512;

/// Receive buffer of the UDP socket, as memberlist asks for it: a burst of a thousand nodes must not be lost.
const UDP_RECEIVE_BUFFER: usize = 2 << 20;

/// The largest UDP payload.
const UDP_MAX: usize = 65536;

/// Accepted connections are numbered from here, opened ones by the core from zero.
const FIRST_INBOUND: u64 = 1 << 63;

struct Event {
    input: Input,
    answer: Option<(StreamId, oneshot::Sender<Option<Vec<u8>>>)>,
}

/// The two sockets and the exchanges on their way.
#[derive(Debug)]
pub struct Sockets {
    udp: Arc<UdpSocket>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    /// Accepted connections that wait for the core's answer.
    waiting: HashMap<StreamId, oneshot::Sender<Option<Vec<u8>>>>,
    tasks: JoinSet<()>,
    outbound: Arc<Semaphore>,
    buffer: Box<[u8]>,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.input.fmt(f)
    }
}

/// How long a start waits for its port, and how often it tries: a daemon that was killed just now may hold it for a moment longer.
const IN_USE_PATIENCE: Duration = Duration::from_secs(2);
const IN_USE_RETRY: Duration = Duration::from_millis(50);

impl Sockets {
    /// Binds both sockets; a port that is in use is waited for a little. The error names the address.
    pub async fn bind(listen: SocketAddr) -> Result<Sockets, String> {
        let deadline = Instant::now() + IN_USE_PATIENCE;
        let opened = loop {
            match Self::open(listen) {
                Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    sleep(IN_USE_RETRY).await;
                }
                opened => break opened,
            }
        };
        let (udp, tcp) = opened.map_err(|(protocol, error)| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("gossip-port: {protocol} {listen} is in use; stop the other program or choose another gossip-port or listen-addr")
            }
            io::ErrorKind::AddrNotAvailable => {
                let ip = listen.ip();
                let any = if ip.is_ipv4() { "0.0.0.0" } else { "::" };
                format!("listen-addr {ip}: this host has no such address; choose one of its own, or {any} for all of them")
            }
            _ => format!("cannot listen on {protocol} {listen} for gossip: {error}"),
        })?;
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(tcp, sender.clone()));
        Ok(Sockets {
            udp: Arc::new(udp),
            events,
            sender,
            waiting: HashMap::new(),
            tasks,
            outbound: Arc::new(Semaphore::new(MAX_OUTBOUND)),
            buffer: vec![0; UDP_MAX].into_boxed_slice(),
        })
    }

    fn open(listen: SocketAddr) -> Result<(UdpSocket, TcpListener), (&'static str, io::Error)> {
        let domain = Domain::for_address(listen);
        // IPv4 stays apart: its senders would have other addresses here than their members have.
        let one_family = |socket: &Socket| match listen {
            SocketAddr::V4(_) => Ok(()),
            SocketAddr::V6(_) => socket.set_only_v6(true),
        };
        let udp = || {
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            let mut size = UDP_RECEIVE_BUFFER;
            while socket.set_recv_buffer_size(size).is_err() && size > 65536 {
                size /= 2;
            }
            one_family(&socket)?;
            socket.set_nonblocking(true)?;
            socket.bind(&listen.into())?;
            UdpSocket::from_std(socket.into())
        };
        let tcp = || {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            one_family(&socket)?;
            socket.set_nonblocking(true)?;
            socket.bind(&listen.into())?;
            socket.listen(MAX_INBOUND as i32)?;
            TcpListener::from_std(socket.into())
        };
        Ok((udp().map_err(|e| ("UDP", e))?, tcp().map_err(|e| ("TCP", e))?))
    }

    /// The next thing that arrived. Cancel-safe.
    pub async fn next(&mut self) -> Input {
        loop {
            tokio::select! {
                received = self.udp.recv_from(&mut self.buffer) => match received {
                    Ok((length, from)) => return Input::Datagram { from, bytes: self.buffer[..length].to_vec() },
                    // ICMP errors of earlier datagrams are reported here; the probe that they belong to times out by itself.
                    Err(error) => tracing::trace!(%error, "gossip datagram"),
                },
                Some(event) = self.events.recv() => {
                    if let Some((stream, answer)) = event.answer {
                        if self.waiting.len() > MAX_INBOUND {
                            // Their connections timed out before the core answered.
                            self.waiting.retain(|_, answer| !answer.is_closed());
                        }
                        self.waiting.insert(stream, answer);
                    }
                    return event.input;
                }
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
        }
    }

    /// Sends a datagram; what the socket does not take at once is lost, as datagrams are.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        if let Err(error) = self.udp.try_send_to(bytes, to) {
            tracing::debug!(%to, %error, "gossip datagram not sent");
        }
    }

    /// Answers an accepted connection, or closes it when there is no answer.
    pub fn answer(&mut self, stream: StreamId, bytes: Option<Vec<u8>>) {
        if let Some(answer) = self.waiting.remove(&stream) {
            // The peer may have gone meanwhile.
            let _ = answer.send(bytes);
        }
    }

    /// Opens a connection, sends, and reads one message if a reply is expected.
    pub fn open_stream(&mut self, stream: StreamId, to: SocketAddr, bytes: Vec<u8>, expects_reply: bool) {
        let sender = self.sender.clone();
        let outbound = Arc::clone(&self.outbound);
        self.tasks.spawn(async move {
            let _permit = outbound.acquire().await;
            let outcome = timeout(EXCHANGE_TIMEOUT, exchange(to, &bytes, expects_reply)).await;
            let input = match outcome {
                Ok(Ok(Some(bytes))) => Input::StreamReply { stream, bytes },
                Ok(Ok(None)) => return,
                Ok(Err(error)) => Input::StreamFailed { stream, error },
                Err(_) => Input::StreamFailed {
                    stream,
                    error: format!("dial tcp {to}: i/o timeout"),
                },
            };
            // The daemon is stopping when nobody listens.
            let _ = sender.send(Event { input, answer: None }).await;
        });
    }
}

async fn exchange(to: SocketAddr, bytes: &[u8], expects_reply: bool) -> Result<Option<Vec<u8>>, String> {
    let mut stream = TcpStream::connect(to)
        .await
        .map_err(|error| format!("dial tcp {to}: {}", dial_error(&error)))?;
    stream
        .write_all(bytes)
        .await
        .map_err(|error| format!("write tcp {to}: {error}"))?;
    if !expects_reply {
        // Without the shutdown a close with unread bytes could reset the connection before the peer has read.
        stream
            .shutdown()
            .await
            .map_err(|error| format!("write tcp {to}: {error}"))?;
        return Ok(None);
    }
    read_message(&mut stream)
        .await
        .map(Some)
        .map_err(|error| format!("read tcp {to}: {error}"))
}

/// The words that Docker's engine uses (`spec/diag-api.md` 1.5).
fn dial_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

async fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut message = Vec::with_capacity(4096);
    loop {
        match completeness(&message) {
            Completeness::Whole(length) => {
                message.truncate(length);
                return Ok(message);
            }
            Completeness::Invalid(reason) => return Err(reason),
            Completeness::More => {}
        }
        if stream.read_buf(&mut message).await.map_err(|error| error.to_string())? == 0 {
            return Err(format!(
                "the connection was closed after {} bytes of a message",
                message.len()
            ));
        }
    }
}

async fn accept(listener: TcpListener, sender: mpsc::Sender<Event>) {
    let inbound = Arc::new(Semaphore::new(MAX_INBOUND));
    let mut next = FIRST_INBOUND;
    loop {
        let Ok(permit) = Arc::clone(&inbound).acquire_owned().await else {
            return;
        };
        let (mut stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "gossip connection not accepted");
                // Out of file descriptors, say: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let id = StreamId(next);
        next = next.wrapping_add(1).max(FIRST_INBOUND);
        let sender = sender.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let served = timeout(EXCHANGE_TIMEOUT, async {
                let bytes = read_message(&mut stream).await?;
                let (answer, answered) = oneshot::channel();
                let input = Input::StreamRequest {
                    stream: id,
                    from,
                    bytes,
                };
                sender
                    .send(Event {
                        input,
                        answer: Some((id, answer)),
                    })
                    .await
                    .map_err(|_| "stopping".to_owned())?;
                if let Ok(Some(reply)) = answered.await {
                    stream.write_all(&reply).await.map_err(|error| error.to_string())?;
                    stream.shutdown().await.map_err(|error| error.to_string())?;
                }
                Ok::<_, String>(())
            });
            match served.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%from, error, "gossip connection"),
                Err(_) => tracing::debug!(%from, "gossip connection timed out"),
            }
        });
    }
}
