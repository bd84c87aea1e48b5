//! Notices that the underlay changed.

use super::{GRO_DEVICE, HOST_INTERFACE_PREFIX, Link, NetlinkError};
use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteType;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Routes, links or addresses of the host changed: look routes up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderlayChanged;

/// How long it must be quiet before a notice goes out: a link that comes up brings a dozen messages within some milliseconds.
const QUIET: Duration = Duration::from_millis(50);

/// For how many times as long a notice is held back while it does not get quiet, as a routing daemon loading its table.
const PATIENCE: u32 = 20;

/// Pause after the socket failed, so that a lasting failure does not spin.
const RETRY: Duration = Duration::from_secs(1);

/// One notice waiting is as good as many: it means "look again".
const NOTICES: usize = 1;

/// `RTNLGRP_LINK`, `_TC`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, the same of IPv6, and `_NEXTHOP` (`linux/rtnetlink.h`).
const GROUPS: [u32; 9] = [1, 4, 5, 7, 8, 9, 11, 19, 32];

/// The same for the neighbour table: who reads it pauses by itself.
const NEIGHBOR_QUIET: Duration = Duration::from_millis(1);

/// `RTNLGRP_LINK` and `_NEIGH`.
const NEIGHBOR_GROUPS: [u32; 2] = [1, 3];

/// A notice each time that routes, links or addresses in the namespace of the calling thread have changed and are quiet again.
/// Interfaces of weft itself do not count, but that an endpoint's is removed does: its namespace may have ended. Ends when the receiver is dropped. Needs a tokio runtime.
pub fn watch_underlay() -> Result<mpsc::Receiver<UnderlayChanged>, NetlinkError> {
    watch(&GROUPS, UnderlayChanged, QUIET)
}

/// A notice soon after the kernel's neighbour table has changed, or a link. Needs a tokio runtime.
pub fn watch_neighbors() -> Result<mpsc::Receiver<()>, NetlinkError> {
    watch(&NEIGHBOR_GROUPS, (), NEIGHBOR_QUIET)
}

fn watch<T: Copy + Send + 'static>(
    groups: &[u32],
    notice: T,
    quiet: Duration,
) -> Result<mpsc::Receiver<T>, NetlinkError> {
    let runtime = super::runtime()?;
    let socket = subscribe(groups).map_err(NetlinkError::Open)?;
    let (notices, receiver) = mpsc::channel(NOTICES);
    runtime.spawn(async move {
        tokio::select! {
            () = follow(socket, &notices, notice, quiet) => {}
            () = notices.closed() => {}
        }
    });
    Ok(receiver)
}

fn subscribe(groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

async fn follow<T: Copy>(socket: TokioSocket, notices: &mpsc::Sender<T>, notice: T, quiet: Duration) {
    loop {
        while !changed(&socket).await {}
        let latest = Instant::now() + quiet * PATIENCE;
        let mut until = Instant::now() + quiet;
        while let Ok(relevant) = timeout_at(until.min(latest), changed(&socket)).await {
            if relevant {
                until = Instant::now() + quiet;
            }
        }
        // A full channel holds a notice that nobody has read yet.
        let _ = notices.try_send(notice);
    }
}

/// Waits for one datagram and tells whether it matters.
async fn changed(socket: &TokioSocket) -> bool {
    match socket.recv_from_full().await {
        Ok((datagram, sender)) => sender.port_number() == 0 && matters(&datagram),
        // Messages were lost, so anything may have changed.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => true,
        Err(error) => {
            tracing::warn!(%error, "cannot read changes of the underlay");
            sleep_until(Instant::now() + RETRY).await;
            true
        }
    }
}

/// Whether a datagram has a message about something else than weft's own interfaces, or about the removal of an endpoint's. What
/// cannot be read may matter.
fn matters(mut datagram: &[u8]) -> bool {
    while !datagram.is_empty() {
        let Ok(buffer) = NetlinkBuffer::new_checked(datagram) else {
            return true;
        };
        let length = (buffer.length() as usize).next_multiple_of(4).min(datagram.len());
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else {
            return true;
        };
        if !is_own(&message) {
            return true;
        }
        datagram = &datagram[length..];
    }
    false
}

fn is_own(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    use RouteNetlinkMessage::{DelLink, DelRoute, NewLink, NewQueueDiscipline, NewRoute, NewTrafficFilter};
    // Every interface that comes up has a route to IPv6's multicast groups, ours too; a VTEP is none.
    if let NetlinkPayload::InnerMessage(NewRoute(route) | DelRoute(route)) = &message.payload
        && route.header.kind == RouteType::Multicast
    {
        return true;
    }
    // That one of ours is removed matters; each that is put back or replaced would be seen as well.
    if let NetlinkPayload::InnerMessage(NewTrafficFilter(_) | NewQueueDiscipline(_)) = &message.payload {
        return true;
    }
    let (link, removed) = match &message.payload {
        NetlinkPayload::InnerMessage(NewLink(link)) => (link, false),
        NetlinkPayload::InnerMessage(DelLink(link)) => (link, true),
        _ => return false,
    };
    let link = Link::from_message(link);
    link.name == GRO_DEVICE || (!removed && link.kind == "veth" && link.name.starts_with(HOST_INTERFACE_PREFIX))
}

#[cfg(test)]
mod tests;
