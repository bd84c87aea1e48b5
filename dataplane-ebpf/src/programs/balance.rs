//! Virtual IPs: a connection's packets go to one backend, and the answers come back from the virtual IP.
//!
//! Balancing happens once, on the client's node; the backend's node sees a plain packet of a peer. Ports stay, addresses change.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::verdict::Verdict;
use super::{answer, encap, helper, local, maps};
use weft_dataplane::abi::flow::{CLOSING, Protocol, REPLY, TOUCH_INTERVAL_NS, UDP_IDLE_NS};
use weft_dataplane::abi::{Attachment, BackendKey, Counter, Endpoint, Flow, FlowKey, OverlayAddress, Peer, Service};
use weft_dataplane::packet::{icmp, ipv4};

/// Where an address of the overlay lives.
enum Place {
    /// The client itself.
    Client,
    Here(Endpoint),
    There(Remote),
}

/// A peer, aligned because the verifier wants accesses to the stack aligned.
#[repr(align(8))]
struct Remote(Peer);

/// Sends a packet for a virtual IP to its connection's backend.
#[inline(always)]
pub(super) fn to_backend(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram,
    service: &Service,
) -> Verdict {
    if datagram.fragment {
        return Verdict::Drop(Counter::DropVipFragment);
    }
    if datagram.protocol != ipv4::TCP && datagram.protocol != ipv4::UDP {
        return not_balanced(packet, attachment, datagram, service);
    }
    let key = datagram.flow_key(attachment.vni);
    let (flow, place) = match find_or_choose(attachment, datagram, service, &key) {
        Ok(found) => found,
        Err(counter) => return refuse(packet, attachment, datagram, service, counter),
    };
    match &place {
        Place::There(Remote(peer)) => to_peer(packet, attachment, datagram, &flow, peer),
        Place::Client => {
            let (ifindex, gateway) = (packet.ifindex(), Some(attachment.gateway_mac));
            deliver(packet, datagram, &flow, (ifindex, attachment.mac), gateway)
        }
        Place::Here(endpoint) => deliver(packet, datagram, &flow, (endpoint.ifindex, endpoint.mac), None),
    }
}

#[inline(always)]
fn to_peer(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram, flow: &Flow, peer: &Peer) -> Verdict {
    // Before the translation: of a packet that does not fit the sender is told as it knows it.
    let node = match encap::way(packet, datagram, peer) {
        Ok(node) => node,
        Err(refused) => return encap::tell(packet, attachment, datagram, refused),
    };
    match datagram.translate(packet, flow.source, flow.destination) {
        Ok(()) => encap::send_by(packet, attachment, datagram, peer, &node),
        Err(_) => Verdict::Drop(Counter::DropTruncated),
    }
}

#[inline(always)]
fn deliver(
    packet: &mut Packet,
    datagram: &Datagram,
    flow: &Flow,
    (ifindex, mac): (u32, [u8; 6]),
    source: Option<[u8; 6]>,
) -> Verdict {
    match datagram.translate(packet, flow.source, flow.destination) {
        Ok(()) => local::deliver(packet, ifindex, mac, source, Counter::DeliveredLocally),
        Err(_) => Verdict::Drop(Counter::DropTruncated),
    }
}

/// A virtual IP is as alive as its backends: it answers a ping exactly when it has one. It speaks no other protocol.
#[inline(always)]
fn not_balanced(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram, service: &Service) -> Verdict {
    if datagram.protocol == ipv4::ICMP {
        if service.backend_count > 0
            && let Some(answered) = answer::echo(packet, attachment, datagram)
        {
            return answered;
        }
        return Verdict::Drop(Counter::DropVipProtocol);
    }
    let error = answer::Unreachable {
        from: datagram.destination,
        code: icmp::PROTOCOL,
        mtu: 0,
        reason: Counter::DropVipProtocol,
    };
    answer::unreachable(packet, attachment, datagram, &error)
}

/// Nobody takes the packet. If that is for good the client is told, as by a host on which nobody listens.
#[inline(always)]
fn refuse(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram,
    service: &Service,
    reason: Counter,
) -> Verdict {
    let tcp = datagram.protocol == ipv4::TCP;
    // An opened connection has lost its backend; a new one that met a backend of which nothing is known yet may try again.
    let lost = reason == Counter::DropBackendGone && tcp && !datagram.opens();
    if !lost && service.backend_count != 0 {
        return Verdict::Drop(reason);
    }
    if tcp {
        return answer::reset(packet, attachment, datagram, reason);
    }
    let error = answer::Unreachable {
        from: datagram.destination,
        code: icmp::PORT,
        mtu: 0,
        reason,
    };
    answer::unreachable(packet, attachment, datagram, &error)
}

/// The packet's connection and where its backend lives.
#[inline(always)]
fn find_or_choose(
    attachment: &Attachment,
    datagram: &Datagram,
    service: &Service,
    key: &FlowKey,
) -> Result<(Flow, Place), Counter> {
    let now = helper::now_ns();
    let may_choose = datagram.protocol == ipv4::UDP || datagram.opens();
    let Some(flow) = maps::flow(key) else {
        return choose(attachment, service, key, now);
    };
    let ended = if datagram.protocol == ipv4::UDP {
        now.saturating_sub(flow.last_seen_ns) > UDP_IDLE_NS
    } else {
        datagram.opens() && flow.flags & CLOSING != 0
    };
    if !ended {
        if let Some(place) = locate(attachment, flow.destination) {
            touch(key, &flow, datagram, now);
            return Ok((flow, place));
        }
        if !may_choose {
            return Err(Counter::DropBackendGone);
        }
    }
    // Late packets of the old backend are not of the new connection.
    maps::remove_flow(&key.twin(&flow));
    choose(attachment, service, key, now)
}

/// Chooses the next backend and remembers the choice, in both directions.
#[inline(always)]
fn choose(attachment: &Attachment, service: &Service, key: &FlowKey, now: u64) -> Result<(Flow, Place), Counter> {
    if service.backend_count == 0 {
        return Err(Counter::DropNoBackend);
    }
    let vip = OverlayAddress {
        vni: key.vni,
        ip: key.destination,
    };
    let turn = maps::next_rotation(&vip).unwrap_or_else(helper::random);
    let slot = BackendKey {
        vni: key.vni,
        vip: key.destination,
        slot: turn % service.backend_count,
    };
    let backend = maps::backend(&slot).ok_or(Counter::DropNoBackend)?;
    let place = locate(attachment, backend.ip).ok_or(Counter::DropBackendGone)?;
    let flow = Flow {
        last_seen_ns: now,
        source: match place {
            // The client is its own backend: it must not see itself as the other end, so the virtual IP is.
            Place::Client => key.destination,
            _ => key.source,
        },
        destination: backend.ip,
        flags: 0,
        padding: 0,
    };
    if !remember(key, &flow) {
        return Err(Counter::DropFlowTableFull);
    }
    maps::count(Counter::FlowCreated);
    Ok((flow, place))
}

#[inline(always)]
fn locate(attachment: &Attachment, ip: [u8; 4]) -> Option<Place> {
    if ip == attachment.ip {
        return Some(Place::Client);
    }
    let address = OverlayAddress {
        vni: attachment.vni,
        ip,
    };
    if let Some(peer) = maps::peer(&address) {
        return Some(Place::There(Remote(peer)));
    }
    maps::endpoint(&address).map(Place::Here)
}

/// If the packet, which is about to be delivered on this node, answers a balanced connection, it comes from the virtual IP.
#[inline(always)]
pub(super) fn translate_reply(packet: &mut Packet, vni: u32, datagram: &Datagram) -> Result<(), Counter> {
    if !datagram.has_ports() {
        return Ok(());
    }
    let key = datagram.flow_key(vni);
    let Some(flow) = maps::flow(&key) else {
        return Ok(());
    };
    if flow.flags & REPLY == 0 {
        return Ok(());
    }
    let now = helper::now_ns();
    let idle = datagram.protocol == ipv4::UDP && now.saturating_sub(flow.last_seen_ns) > UDP_IDLE_NS;
    if idle || datagram.opens() {
        // A new conversation between the same two ports, not an answer.
        maps::remove_flow(&key);
        return Ok(());
    }
    touch(&key, &flow, datagram, now);
    datagram
        .translate(packet, flow.source, flow.destination)
        .map_err(|_| Counter::DropTruncated)
}

/// A client opens a TCP connection to another endpoint, not to a virtual IP: the answers are not those of an earlier, balanced
/// connection between the same two ports.
#[inline(always)]
pub(super) fn forget_reply_of_direct(vni: u32, datagram: &Datagram) {
    if !datagram.opens() {
        return;
    }
    let key = FlowKey {
        vni,
        source: datagram.destination,
        destination: datagram.source,
        source_port: datagram.ports.destination,
        destination_port: datagram.ports.source,
        protocol: Protocol::from(datagram.protocol),
    };
    if maps::flow(&key).is_some_and(|flow| flow.flags & REPLY != 0) {
        maps::remove_flow(&key);
    }
}

/// Notes that a packet of the connection was seen, if that is due.
#[inline(always)]
fn touch(key: &FlowKey, flow: &Flow, datagram: &Datagram, now: u64) {
    let closes = datagram.closes() && flow.flags & CLOSING == 0;
    let due = now.saturating_sub(flow.last_seen_ns) > TOUCH_INTERVAL_NS;
    if !closes && !due && !datagram.opens() {
        return;
    }
    let mut seen = *flow;
    seen.last_seen_ns = now;
    if closes {
        seen.flags |= CLOSING;
    }
    remember(key, &seen);
}

/// Writes both directions of a connection; false if the map refused one.
#[inline(always)]
fn remember(key: &FlowKey, flow: &Flow) -> bool {
    if !maps::put_flow(key, flow) {
        return false;
    }
    let (twin_key, twin) = (key.twin(flow), flow.twin(key));
    // A client that is its own backend and talks from a port to the same port: one entry serves both directions.
    if (twin_key.source, twin_key.destination, twin_key.source_port) == (key.source, key.destination, key.source_port) {
        return true;
    }
    // An answer of a backend that the connection has left must not bring the connection back to it.
    if flow.flags & REPLY != 0 && maps::flow(&twin_key).is_some_and(|now| now.destination != twin.destination) {
        return true;
    }
    maps::put_flow(&twin_key, &twin)
}
