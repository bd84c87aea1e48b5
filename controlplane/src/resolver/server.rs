//! The loops over a resolver's two sockets.

use super::wire::{QUERY_MAX, Query, Received, Transport, receive};
use super::{Lookup, Upstreams};
use crate::resolver::upstream::NoAnswer;
use hickory_proto::op::ResponseCode;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use weft_core::dns::Decision;
use weft_core::id::EndpointId;

/// How many queries of one container may wait for upstream servers: Docker's number. Each holds a socket for up to 12 s; one more
/// is answered REFUSED, so that the client sees at once that it asks too much.
pub const FORWARDED_MAX: usize = 1024;

/// How many datagrams of one container may be in work. It is above [`FORWARDED_MAX`], so that slow upstream servers never keep local
/// names from being answered; when it is reached, the kernel's socket buffer fills and drops.
pub const QUERIES_MAX: usize = 2 * FORWARDED_MAX;

/// How many TCP connections a container may have open. Clients open one a truncated answer; beyond, the oldest is closed, as
/// RFC 7766 section 6.2.3 allows.
pub const CONNECTIONS_MAX: usize = 128;

/// How long a client may take to send one message, and to take one (RFC 7766 section 6.2.3: some seconds).
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// How long the daemon may take to decide. It answers from memory; longer means that it hangs.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(4);

/// Pause after a socket failed, so that a lasting failure (no descriptors left) does not spin.
const RETRY: Duration = Duration::from_millis(100);

/// At most one line in the log so often about too many queries.
const COMPLAIN_EVERY: Duration = Duration::from_secs(2);

/// One container's resolver.
pub(super) struct Server<L> {
    endpoint: EndpointId,
    lookup: L,
    upstreams: Arc<Upstreams>,
    forwarded: Semaphore,
    complaint: Occasion,
}

impl<L: Lookup> Server<L> {
    pub(super) fn new(endpoint: EndpointId, lookup: L, upstreams: Arc<Upstreams>) -> Server<L> {
        let forwarded = Semaphore::new(FORWARDED_MAX);
        Server {
            endpoint,
            lookup,
            upstreams,
            forwarded,
            complaint: Occasion::new(COMPLAIN_EVERY),
        }
    }

    /// Answers datagrams until the task is aborted.
    pub(super) async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut queries = JoinSet::new();
        let mut buffer = vec![0; usize::from(QUERY_MAX)];
        loop {
            if queries.len() >= QUERIES_MAX {
                queries.join_next().await;
            }
            tokio::select! {
                Some(_) = queries.join_next(), if !queries.is_empty() => {}
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((length, client)) => {
                        let bytes = buffer[..length].to_vec();
                        queries.spawn(Arc::clone(&self).answer_datagram(Arc::clone(&socket), bytes, client));
                    }
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    async fn answer_datagram(self: Arc<Self>, socket: Arc<UdpSocket>, bytes: Vec<u8>, client: SocketAddr) {
        if let Some(answer) = self.answer(&bytes, Transport::Udp).await
            && let Err(error) = socket.send_to(&answer, client).await
        {
            tracing::debug!(endpoint = %self.endpoint, %client, %error, "cannot answer");
        }
    }

    /// Answers connections until the task is aborted.
    pub(super) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        by_age.retain(|connection| !connection.is_finished());
                        if by_age.len() >= CONNECTIONS_MAX && let Some(oldest) = by_age.pop_front() {
                            oldest.abort();
                        }
                        by_age.push_back(connections.spawn(Arc::clone(&self).answer_stream(stream)));
                    }
                    Err(error) => self.pause(&error).await,
                },
            }
        }
    }

    async fn answer_stream(self: Arc<Self>, mut stream: TcpStream) {
        loop {
            let Ok(Ok(query)) = timeout(CLIENT_PATIENCE, read_message(&mut stream)).await else {
                return;
            };
            let Some(answer) = self.answer(&query, Transport::Tcp).await else {
                return;
            };
            let Ok(Ok(())) = timeout(CLIENT_PATIENCE, write_message(&mut stream, &answer)).await else {
                return;
            };
        }
    }

    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = match receive(bytes, transport) {
            Received::Nothing => return None,
            Received::Refused(answer) => return Some(answer),
            Received::Query(query) => query,
        };
        let decision = timeout(LOOKUP_PATIENCE, self.lookup.lookup(query.question.clone())).await;
        Some(match decision.ok().flatten() {
            Some(Decision::Forward) => self.forward(&query, transport).await,
            Some(decision) => query.answer(&decision),
            None => query.error(ResponseCode::ServFail),
        })
    }

    async fn forward(&self, query: &Query, transport: Transport) -> Vec<u8> {
        let asked = match self.forwarded.try_acquire() {
            Ok(_waiting) => self.upstreams.ask(query, transport).await,
            Err(_) => Err(NoAnswer::Busy),
        };
        match asked {
            Ok(response) => response,
            Err(NoAnswer::Failed) => query.error(ResponseCode::ServFail),
            Err(NoAnswer::Busy) => {
                if self.complaint.has_come() {
                    let (endpoint, limit) = (&self.endpoint, FORWARDED_MAX);
                    tracing::warn!(%endpoint, limit, "too many concurrent queries to forward: refused");
                }
                query.error(ResponseCode::Refused)
            }
        }
    }

    async fn pause(&self, error: &io::Error) {
        tracing::debug!(endpoint = %self.endpoint, %error, "cannot receive a query");
        sleep(RETRY).await;
    }
}

/// Two bytes of length go before a message (RFC 1035 section 4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat()).await
}

/// Comes at most once in a while.
struct Occasion {
    start: Instant,
    every: Duration,
    /// Milliseconds after `start` before which it does not come.
    next: AtomicU64,
}

impl Occasion {
    fn new(every: Duration) -> Occasion {
        Occasion {
            start: Instant::now(),
            every,
            next: AtomicU64::new(0),
        }
    }

    fn has_come(&self) -> bool {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = millis(self.start.elapsed());
        let next = self.next.load(Ordering::Relaxed);
        let after = now.saturating_add(millis(self.every));
        now >= next
            && self
                .next
                .compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
