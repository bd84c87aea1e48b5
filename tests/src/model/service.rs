//! Virtual IPs: every connection has one backend, and its answers come from the virtual IP.

use super::read::{ACK, ETHERNET, FIN, ICMP, Ipv4, RST, SYN, TCP, UDP, update};
use super::{Attachment, Change, End, Way, World, container, error, policy, quoted};
use crate::packet::{Ip, Mac};
use weft_dataplane::abi::Counter;

/// Where a backend lives.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Client,
    Here(Mac),
    There((Ip, Mac)),
}

/// A packet to a virtual IP.
pub(super) fn process(world: &mut World, attachment: &Attachment, frame: &[u8], packet: &Ipv4) -> End {
    let backends = world.services[&(attachment.vni, packet.destination)].clone();
    if packet.protocol != TCP && packet.protocol != UDP {
        return other_protocol(world, attachment, frame, packet, !backends.is_empty());
    }
    let Some(ports) = ports(world, attachment.vni, frame, packet) else {
        return End::dropped(frame, Counter::DropVipFragment);
    };
    let way = packet.way(attachment.vni, ports);
    match choose(world, attachment, packet, way, &backends) {
        Ok((change, place, is_new)) => {
            let end = go(world, attachment, frame, packet, &change, place);
            if is_new {
                end.counting(Counter::FlowCreated)
            } else {
                end
            }
        }
        Err(reason) => refuse(world, attachment, frame, packet, &backends, reason),
    }
}

/// Translates a packet and hands it to whom it is for.
pub(super) fn go(
    world: &World,
    attachment: &Attachment,
    frame: &[u8],
    packet: &Ipv4,
    change: &Change,
    place: Place,
) -> End {
    let translated = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        packet.rewrite(&mut frame, change);
        frame
    };
    match place {
        Place::There(peer) => container::to_peer(world, attachment, frame, packet, peer, translated),
        Place::Client => {
            let mut frame = translated(frame);
            frame[..6].copy_from_slice(&attachment.mac);
            frame[6..12].copy_from_slice(&world.gateway.0);
            End::redirected(frame, Counter::DeliveredLocally)
        }
        Place::Here(mac) => {
            let mut frame = translated(frame);
            frame[..6].copy_from_slice(&mac);
            End::redirected(frame, Counter::DeliveredLocally)
        }
    }
}

/// The ports of TCP or UDP. Of fragments only the first has them; it tells those that follow.
fn ports(world: &mut World, vni: u32, frame: &[u8], packet: &Ipv4) -> Option<(u16, u16)> {
    let of_packet = (
        vni,
        packet.protocol,
        packet.source,
        packet.destination,
        packet.identification,
    );
    if packet.fragment_offset != 0 {
        return world.fragments.get(&of_packet).copied();
    }
    let at = packet.transport;
    let ports = (super::read::word(frame, at), super::read::word(frame, at + 2));
    if packet.fragment {
        world.fragments.insert(of_packet, ports);
    }
    Some(ports)
}

/// The connection's translation, where its backend is, and whether it is new.
fn choose(
    world: &mut World,
    attachment: &Attachment,
    packet: &Ipv4,
    way: Way,
    backends: &[Ip],
) -> Result<(Change, Place, bool), Counter> {
    if let Some(change) = find(world, way) {
        let over = packet.opens() && (change.client_finished || change.backend_finished || change.reset);
        let place = locate(world, attachment, change.destination.0);
        match place {
            Some(place) if !over => {
                follow(world, way, change, packet);
                return Ok((change, place, false));
            }
            None if !over && packet.protocol == TCP && !packet.opens() => return Err(Counter::DropBackendGone),
            _ => forget(world, way, &change),
        }
    }
    if backends.is_empty() {
        return Err(Counter::DropNoBackend);
    }
    let backend = policy::choose(world, way, backends);
    let place = locate(world, attachment, backend).ok_or(Counter::DropBackendGone)?;
    let mut change = Change {
        // A client must not see itself as the other end.
        source: match place {
            Place::Client => (way.destination.0, way.source.1),
            _ => way.source,
        },
        destination: (backend, way.destination.1),
        ..Change::default()
    };
    change.source.1 = free_port(world, way, &change).ok_or(Counter::DropNoFreePort)?;
    policy::begin(world, way, &mut change);
    remember(world, way, change);
    Ok((change, place, true))
}

/// The client's own port, unless another living connection has it with the same other end; then any other that is free.
fn free_port(world: &World, way: Way, change: &Change) -> Option<u16> {
    let is_free = |port: u16| {
        let mut wanted = *change;
        wanted.source.1 = port;
        let other = twin(way, &wanted);
        world
            .connections
            .get(&other)
            .is_none_or(|taken| is_over(other.protocol, taken) || twin(other, taken) == way)
    };
    if is_free(way.source.1) {
        return Some(way.source.1);
    }
    world.other_port.filter(|port| *port >= 1024 && is_free(*port))
}

pub(super) fn locate(world: &World, attachment: &Attachment, ip: Ip) -> Option<Place> {
    if ip == attachment.ip {
        return Some(Place::Client);
    }
    let address = (attachment.vni, ip);
    if let Some(peer) = world.peers.get(&address) {
        return Some(Place::There(*peer));
    }
    world.endpoints.get(&address).map(|mac| Place::Here(*mac))
}

/// The way of the packets in the other direction.
pub(super) fn twin(way: Way, change: &Change) -> Way {
    Way {
        source: change.destination,
        destination: change.source,
        ..way
    }
}

/// Whether no packet came for too long, minutes that is: only TCP that is established and has not ended lasts longer.
fn is_over(protocol: u8, change: &Change) -> bool {
    let ended = change.client_finished || change.backend_finished || change.reset;
    change.stale && (protocol == UDP || !change.established || ended)
}

/// The connection of a packet that is quoted, if it is not over.
pub(super) fn alive(world: &World, way: Way) -> Option<Change> {
    let change = world.connections.get(&way)?;
    (!is_over(way.protocol, change)).then_some(*change)
}

/// The connection of a packet; one that is over is forgotten.
pub(super) fn find(world: &mut World, way: Way) -> Option<Change> {
    let change = *world.connections.get(&way)?;
    if is_over(way.protocol, &change) {
        forget(world, way, &change);
        world.counted.push(Counter::FlowExpired);
        return None;
    }
    Some(change)
}

pub(super) fn forget(world: &mut World, way: Way, change: &Change) {
    policy::finish(world, way, change);
    world.connections.remove(&twin(way, change));
    world.connections.remove(&way);
}

/// Remembers both directions.
fn remember(world: &mut World, way: Way, change: Change) {
    let back = Change {
        source: way.destination,
        destination: way.source,
        reply: !change.reply,
        counted: false,
        ..change
    };
    world.connections.insert(way, change);
    let other = twin(way, &change);
    // One entry may serve both directions.
    if other != way {
        world.connections.insert(other, back);
    }
}

/// A packet of a connection was seen: what it says of its state is noted in both directions.
fn follow(world: &mut World, way: Way, change: Change, packet: &Ipv4) {
    let tcp = packet.protocol == TCP;
    let news = Change {
        answered: change.reply,
        established: tcp && !change.reply && change.answered && packet.flags & (SYN | ACK) == ACK,
        client_finished: packet.flags & FIN != 0 && !change.reply,
        backend_finished: packet.flags & FIN != 0 && change.reply,
        reset: packet.flags & RST != 0,
        ..Change::default()
    };
    let brings = |has: bool, new: bool| new && !has;
    let is_news = brings(change.answered, news.answered)
        || brings(change.established, news.established)
        || brings(change.client_finished, news.client_finished)
        || brings(change.backend_finished, news.backend_finished)
        || brings(change.reset, news.reset);
    if !is_news && !change.stale {
        return;
    }
    for way in [way, twin(way, &change)] {
        if let Some(entry) = world.connections.get_mut(&way) {
            entry.stale = false;
            entry.answered |= news.answered;
            entry.established |= news.established;
            entry.client_finished |= news.client_finished;
            entry.backend_finished |= news.backend_finished;
            entry.reset |= news.reset;
        }
    }
    let client_finished = change.client_finished || news.client_finished;
    let backend_finished = change.backend_finished || news.backend_finished;
    if is_news && (change.reset || news.reset || client_finished && backend_finished) {
        policy::finish(world, way, &change);
    }
}

/// A packet to an endpoint of this node: if it answers a balanced connection, it comes from the virtual IP.
pub(super) fn answer(world: &mut World, vni: u32, frame: &[u8], packet: &Ipv4) -> Vec<u8> {
    if packet.protocol == ICMP {
        return quoted::from_backend(world, vni, frame, packet);
    }
    let mut frame = frame.to_vec();
    let known = match packet.protocol {
        TCP | UDP if packet.fragment => ports(world, vni, &frame, packet),
        _ => packet.ports,
    };
    let Some(ports) = known else { return frame };
    let way = packet.way(vni, ports);
    if world.connections.get(&way).is_none_or(|change| !change.reply) {
        return frame;
    }
    let Some(change) = find(world, way) else { return frame };
    if packet.opens() {
        // Not an answer, but a conversation of its own.
        forget(world, way, &change);
        return frame;
    }
    follow(world, way, change, packet);
    packet.rewrite(&mut frame, &change);
    frame
}

/// A client talks to an endpoint behind a virtual IP itself: where a balanced connection has the same two ports already, it gets
/// another one.
pub(super) fn beside(world: &mut World, vni: u32, packet: &Ipv4) -> Result<Option<Change>, Counter> {
    let Some(ports) = packet.ports.filter(|_| !packet.fragment) else {
        return Ok(None);
    };
    if !world.is_backend(vni, packet.destination) {
        return Ok(None);
    }
    let way = packet.way(vni, ports);
    if let Some(change) = find(world, way) {
        if !change.direct || change.reply {
            return Ok(None);
        }
        follow(world, way, change, packet);
        return Ok(Some(change));
    }
    if packet.protocol == TCP && !packet.opens() {
        return Ok(None);
    }
    let mut change = Change {
        source: way.source,
        destination: way.destination,
        direct: true,
        ..Change::default()
    };
    change.source.1 = free_port(world, way, &change).ok_or(Counter::DropNoFreePort)?;
    if change.source.1 == way.source.1 {
        return Ok(None);
    }
    remember(world, way, change);
    Ok(Some(change))
}

/// The echo's answer, if the packet is one that can be answered.
pub(super) fn echo(world: &World, attachment: &Attachment, frame: &[u8], packet: &Ipv4) -> Option<End> {
    let at = packet.transport;
    if packet.protocol != ICMP || packet.fragment_offset != 0 || frame.len() < at + 8 || frame[at] != 8 {
        return None;
    }
    let mut reply = frame.to_vec();
    let old = [reply[at], reply[at + 1]];
    reply[at] = 0;
    update(&mut reply, at + 2, &old, &[0, old[1]]);
    reply[ETHERNET + 12..ETHERNET + 16].copy_from_slice(&packet.destination);
    reply[ETHERNET + 16..ETHERNET + 20].copy_from_slice(&packet.source);
    reply[..6].copy_from_slice(&attachment.mac);
    reply[6..12].copy_from_slice(&world.gateway.0);
    Some(End::redirected(reply, Counter::EchoAnswered))
}

/// A ping is answered by a virtual IP that has a backend, and errors go to the backend that they are about; other ICMP is dropped, and of
/// other protocols the sender is told.
fn other_protocol(world: &mut World, attachment: &Attachment, frame: &[u8], packet: &Ipv4, alive: bool) -> End {
    if packet.protocol != ICMP {
        let error = error::Unreachable {
            from: packet.destination,
            kind: error::UNREACHABLE,
            code: error::PROTOCOL,
            mtu: 0,
            reason: Counter::DropVipProtocol,
        };
        return error::unreachable(world, attachment, frame, packet, &error);
    }
    if alive && let Some(end) = echo(world, attachment, frame, packet) {
        return end;
    }
    quoted::from_client(world, attachment, frame, packet)
}

/// Nobody takes the packet; if that is for good, its sender is told.
fn refuse(
    world: &World,
    attachment: &Attachment,
    frame: &[u8],
    packet: &Ipv4,
    backends: &[Ip],
    reason: Counter,
) -> End {
    let lost = reason == Counter::DropBackendGone && packet.protocol == TCP && packet.flags & (2 | ACK) != 2;
    if !lost && !backends.is_empty() {
        return End::dropped(frame, reason);
    }
    if packet.protocol == TCP {
        return error::reset(world, attachment, frame, packet, reason);
    }
    let error = error::Unreachable {
        from: packet.destination,
        kind: error::UNREACHABLE,
        code: error::PORT,
        mtu: 0,
        reason,
    };
    error::unreachable(world, attachment, frame, packet, &error)
}
