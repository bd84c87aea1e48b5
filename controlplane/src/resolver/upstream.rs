//! The host's name servers, asked for what is not ours.

use super::conf::name_servers;
use super::wire::{MESSAGE_MAX, Query, Transport, response_code};
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many servers are asked, one after the other: as many as resolv.conf(5) has.
pub const SERVERS_MAX: usize = 3;

/// How long one server may take, as Docker's resolver gives it: three of them take less than the 15 s after which clients give up.
const TRY: Duration = Duration::from_secs(4);

/// How many queries of all containers together may wait for servers: each holds a descriptor, and the daemon needs some for itself.
const WAITING_MAX: usize = 4096;

/// A `resolv.conf` has a few lines; what is behind this many bytes is none.
const CONF_MAX: u64 = 65536;

/// SERVFAIL and REFUSED (RFC 1035 section 4.1.1): another server may know better.
const NOT_MY_ANSWER: [u8; 2] = [2, 5];

/// Which servers are asked.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    Fixed(Vec<SocketAddr>),
}

/// The servers behind all resolvers of a node.
#[derive(Debug)]
pub struct Upstreams {
    source: Source,
    waiting: Semaphore,
}

/// Why nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Too many queries are waiting.
    Busy,
    /// There is no server, or none gave an answer.
    Failed,
}

impl Upstreams {
    /// The `nameserver` lines of a `resolv.conf`. It is read for each query, so that a change counts at once; that costs
    /// microseconds beside the query's milliseconds, and a missing file is one without servers.
    pub fn from_resolv_conf(path: impl Into<PathBuf>) -> Upstreams {
        Upstreams::new(Source::File(path.into()))
    }

    /// These servers, in this order; those after the third are not asked.
    pub fn fixed(servers: Vec<SocketAddr>) -> Upstreams {
        Upstreams::new(Source::Fixed(servers))
    }

    fn new(source: Source) -> Upstreams {
        Upstreams {
            source,
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    /// The servers as they are now, in order.
    pub fn servers(&self) -> Vec<SocketAddr> {
        match &self.source {
            Source::File(path) => read(path).map(|text| name_servers(&text)).unwrap_or_default(),
            Source::Fixed(servers) => servers.iter().copied().take(SERVERS_MAX).collect(),
        }
    }

    /// Asks one server after the other, over the client's own transport, until one answers with more than SERVFAIL or REFUSED.
    pub(super) async fn ask(&self, query: &Query, transport: Transport) -> Result<Vec<u8>, NoAnswer> {
        let _waiting = self.waiting.try_acquire().map_err(|_| NoAnswer::Busy)?;
        for server in self.servers() {
            let tried = match transport {
                Transport::Udp => timeout(TRY, ask_udp(server, query)).await,
                Transport::Tcp => timeout(TRY, ask_tcp(server, query)).await,
            };
            match tried {
                Ok(Ok(response)) if NOT_MY_ANSWER.contains(&response_code(&response)) => {
                    tracing::debug!(%server, "name server cannot answer");
                }
                Ok(Ok(response)) => return Ok(query.pass_on(response)),
                Ok(Err(error)) => tracing::debug!(%server, %error, "name server does not answer"),
                Err(_) => tracing::debug!(%server, "name server does not answer in time"),
            }
        }
        Err(NoAnswer::Failed)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONF_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The query under an id that nobody can guess. The kernel chooses the port as well (RFC 5452 section 9.2).
fn disguise(query: &Query) -> io::Result<(u16, Vec<u8>)> {
    let id = getrandom::u32().map_err(io::Error::other)? as u16;
    let mut bytes = query.bytes.clone();
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    Ok((id, bytes))
}

async fn ask_udp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let (id, bytes) = disguise(query)?;
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    loop {
        let response = receive(&socket).await?;
        if query.is_answered_by(&response, id) {
            return Ok(response);
        }
    }
}

/// Waits for a datagram or for the host's word that nobody listens there, which epoll tells as an error only.
async fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let receive = || {
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        // The buffer comes after the wait: thousands of queries may be waiting.
        let mut response = vec![0; MESSAGE_MAX];
        let length = socket.try_recv(&mut response)?;
        response.truncate(length);
        Ok(response)
    };
    socket.async_io(Interest::READABLE | Interest::ERROR, receive).await
}

async fn ask_tcp(server: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let (id, bytes) = disguise(query)?;
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut response = vec![0; usize::from(length)];
    stream.read_exact(&mut response).await?;
    if query.is_answered_by(&response, id) {
        Ok(response)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the response is not to the query",
        ))
    }
}
