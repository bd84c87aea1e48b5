//! The resolver that a container sees at 127.0.0.11: DNS sockets inside its namespace, answered from outside.
//!
//! It behaves as Docker's embedded one (`spec/service-discovery-lb.md` 5.8), with two differences: it needs no packet filter, for
//! it listens on port 53 itself; and its answers live shorter, so that no client keeps the address of a dead task for ten minutes
//! (5.9): see [`TTL_ONE`] and [`TTL_MANY`].

mod conf;
mod server;
mod upstream;
mod wire;

pub use conf::resolv_conf;
pub use server::{CONNECTIONS_MAX, FORWARDED_MAX, QUERIES_MAX};
pub use upstream::{SERVERS_MAX, Upstreams};
pub use wire::{TTL_MANY, TTL_ONE};

use crate::netlink::{Netlink, NetlinkError};
use crate::netns::{Netns, NetnsError};
use server::Server;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::task::AbortHandle;
use weft_core::dns::{Decision, Question};
use weft_core::id::EndpointId;

/// Where a container finds its resolver: Docker's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The port of DNS (RFC 1035 section 4.2).
pub const PORT: u16 = 53;

const SOCKET: SocketAddr = SocketAddr::new(IpAddr::V4(ADDRESS), PORT);

/// Who knows the answers: the daemon. An `async` closure from question to decision is one.
pub trait Lookup: Send + Sync + 'static {
    /// What to answer; `None` when there is nobody to ask any more, which the container sees as SERVFAIL.
    fn lookup(&self, question: Question) -> impl Future<Output = Option<Decision>> + Send;
}

impl<F, A> Lookup for F
where
    F: Fn(Question) -> A + Send + Sync + 'static,
    A: Future<Output = Option<Decision>> + Send,
{
    fn lookup(&self, question: Question) -> impl Future<Output = Option<Decision>> + Send {
        self(question)
    }
}

/// Why a resolver could not be started. Nothing is left open.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(NetnsError),
    /// The namespace's loopback could not be set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Something listens there already.
    #[error(
        "{protocol} port {PORT} of {ADDRESS} is in use in {place}: a DNS server there must listen on its own address \
         instead of all addresses, and a namespace has one resolver only"
    )]
    PortInUse {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// The namespace.
        place: String,
    },
    /// The runtime did not take the sockets.
    #[error("cannot serve DNS in {place}: {source}")]
    Socket {
        /// The namespace.
        place: String,
        /// Why.
        source: io::Error,
    },
}

impl From<NetnsError> for ResolverError {
    fn from(error: NetnsError) -> ResolverError {
        match error {
            NetnsError::Bind {
                protocol, spec, source, ..
            } if source.kind() == io::ErrorKind::AddrInUse => ResolverError::PortInUse {
                protocol,
                place: spec.to_string(),
            },
            error => ResolverError::Netns(error),
        }
    }
}

/// Starts resolvers.
#[derive(Debug)]
pub struct Resolver;

/// A running resolver: one a namespace, owned by whoever keeps the endpoint. It stops, sockets and all, when this is dropped.
#[derive(Debug)]
pub struct ResolverHandle {
    tasks: [AbortHandle; 2],
}

impl Drop for ResolverHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Resolver {
    /// Opens UDP and TCP 127.0.0.11:53 inside `netns`, its loopback up first, and serves them from outside: questions go to
    /// `lookup`, and what it answers with [`Decision::Forward`] to `upstreams`, from the namespace of the runtime's threads.
    /// `endpoint` names the asker in the log. Needs a tokio runtime.
    pub async fn start(
        netns: &Netns,
        endpoint: EndpointId,
        lookup: impl Lookup,
        upstreams: Arc<Upstreams>,
    ) -> Result<ResolverHandle, ResolverError> {
        Netlink::open_in(netns)?.loopback_up().await?;
        Resolver::serve(netns, endpoint, lookup, upstreams)
    }

    /// The same in a namespace whose loopback is up, as every connected one's is.
    pub fn serve(
        netns: &Netns,
        endpoint: EndpointId,
        lookup: impl Lookup,
        upstreams: Arc<Upstreams>,
    ) -> Result<ResolverHandle, ResolverError> {
        let udp = netns.udp_socket(SOCKET)?;
        let tcp = netns.tcp_listener(SOCKET)?;
        let socket_error = |source| ResolverError::Socket {
            place: netns.spec().to_string(),
            source,
        };
        // Set after binding, so that a taken port is noticed, and yet a server may bind UDP 0.0.0.0:53 beside it.
        socket2::SockRef::from(&udp)
            .set_reuse_address(true)
            .map_err(socket_error)?;
        udp.set_nonblocking(true).map_err(socket_error)?;
        tcp.set_nonblocking(true).map_err(socket_error)?;
        let udp = tokio::net::UdpSocket::from_std(udp).map_err(socket_error)?;
        let tcp = tokio::net::TcpListener::from_std(tcp).map_err(socket_error)?;
        let server = Arc::new(Server::new(endpoint, lookup, upstreams));
        let datagrams = tokio::spawn(Arc::clone(&server).serve_udp(udp)).abort_handle();
        let streams = tokio::spawn(server.serve_tcp(tcp)).abort_handle();
        Ok(ResolverHandle {
            tasks: [datagrams, streams],
        })
    }
}
