//! Virtual IPs: every connection has one backend, and its answers come from the virtual IP.

use super::read::{ACK, ETHERNET, ICMP, Ipv4, TCP, UDP, update};
use super::{Attachment, Change, End, Way, World, container, error};
use crate::packet::{Ip, Mac};
use weft_dataplane::abi::Counter;

/// Where a backend lives.
#[derive(Clone, Copy)]
enum Place {
    Client,
    Here(Mac),
    There((Ip, Mac)),
}

/// A packet to a virtual IP.
pub(super) fn process(world: &mut World, attachment: &Attachment, frame: &[u8], packet: &Ipv4) -> End {
    let backends = world.services[&(attachment.vni, packet.destination)].clone();
    if packet.fragment {
        return End::dropped(frame, Counter::DropVipFragment);
    }
    if packet.protocol != TCP && packet.protocol != UDP {
        return other_protocol(world, attachment, frame, packet, !backends.is_empty());
    }
    let way = packet.way(attachment.vni, ports(frame, packet));
    let (change, place, is_new) = match choose(world, attachment, packet, way, &backends) {
        Ok(chosen) => chosen,
        Err(reason) => return refuse(world, attachment, frame, packet, &backends, reason),
    };
    let translated = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        packet.rewrite(&mut frame, change.source, change.destination);
        frame
    };
    let end = match place {
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
    };
    if is_new {
        end.counting(Counter::FlowCreated)
    } else {
        end
    }
}

/// The ports of TCP or UDP that is no fragment.
fn ports(frame: &[u8], packet: &Ipv4) -> (u16, u16) {
    let at = packet.transport;
    (super::read::word(frame, at), super::read::word(frame, at + 2))
}

/// The connection's translation, where its backend is, and whether it is new.
fn choose(
    world: &mut World,
    attachment: &Attachment,
    packet: &Ipv4,
    way: Way,
    backends: &[Ip],
) -> Result<(Change, Place, bool), Counter> {
    if let Some(change) = world.connections.get(&way).copied() {
        let over = match packet.protocol {
            UDP => change.stale,
            _ => packet.opens() && change.closing,
        };
        let place = locate(world, attachment, change.destination);
        match place {
            Some(place) if !over => {
                see(world, way, change, packet);
                return Ok((change, place, false));
            }
            None if !over && packet.protocol == TCP && !packet.opens() => return Err(Counter::DropBackendGone),
            _ => {}
        }
        world.connections.remove(&twin(way, &change));
    }
    if backends.is_empty() {
        return Err(Counter::DropNoBackend);
    }
    let turn = world.turns.entry((way.vni, way.destination.0)).or_insert(0);
    let backend = backends[*turn % backends.len()];
    *turn += 1;
    let place = locate(world, attachment, backend).ok_or(Counter::DropBackendGone)?;
    let change = Change {
        // A client must not see itself as the other end.
        source: match place {
            Place::Client => way.destination.0,
            _ => way.source.0,
        },
        destination: backend,
        reply: false,
        closing: false,
        stale: false,
    };
    remember(world, way, change);
    Ok((change, place, true))
}

fn locate(world: &World, attachment: &Attachment, ip: Ip) -> Option<Place> {
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
fn twin(way: Way, change: &Change) -> Way {
    Way {
        source: (change.destination, way.destination.1),
        destination: (change.source, way.source.1),
        ..way
    }
}

/// Remembers both directions.
fn remember(world: &mut World, way: Way, change: Change) {
    let other = twin(way, &change);
    let back = Change {
        source: way.destination.0,
        destination: way.source.0,
        reply: !change.reply,
        ..change
    };
    world.connections.insert(way, change);
    let moved = world
        .connections
        .get(&other)
        .is_some_and(|now| now.destination != back.destination);
    // A backend that the connection has left does not get it back; and one entry may serve both directions.
    if other != way && !(change.reply && moved) {
        world.connections.insert(other, back);
    }
}

/// A packet of a connection was seen: an opening or an end is news.
fn see(world: &mut World, way: Way, mut change: Change, packet: &Ipv4) {
    let ends = packet.closes() && !change.closing;
    if ends || packet.opens() || change.stale {
        change.closing |= ends;
        change.stale = false;
        remember(world, way, change);
    }
}

/// A packet to an endpoint of this node: if it answers a balanced connection, it comes from the virtual IP.
pub(super) fn answer(world: &mut World, vni: u32, frame: &[u8], packet: &Ipv4) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(ports) = packet.ports else { return frame };
    let way = packet.way(vni, ports);
    let Some(change) = world.connections.get(&way).copied().filter(|change| change.reply) else {
        return frame;
    };
    if packet.opens() || packet.protocol == UDP && change.stale {
        // Not an answer, but a conversation of its own.
        world.connections.remove(&way);
        return frame;
    }
    see(world, way, change, packet);
    packet.rewrite(&mut frame, change.source, change.destination);
    frame
}

/// A client opens a connection to an endpoint itself: what comes back is not from a virtual IP.
pub(super) fn opens_directly(world: &mut World, vni: u32, packet: &Ipv4) {
    let Some((source, destination)) = packet.ports.filter(|_| packet.opens()) else {
        return;
    };
    let back = Way {
        vni,
        protocol: packet.protocol,
        source: (packet.destination, destination),
        destination: (packet.source, source),
    };
    if world.connections.get(&back).is_some_and(|change| change.reply) {
        world.connections.remove(&back);
    }
}

/// A ping is answered by a virtual IP that has a backend; other ICMP is dropped, and of other protocols the sender is told.
fn other_protocol(world: &World, attachment: &Attachment, frame: &[u8], packet: &Ipv4, alive: bool) -> End {
    let at = packet.transport;
    if packet.protocol != ICMP {
        let error = error::Unreachable {
            from: packet.destination,
            code: error::PROTOCOL,
            mtu: 0,
            reason: Counter::DropVipProtocol,
        };
        return error::unreachable(world, attachment, frame, packet, &error);
    }
    if !alive || frame.len() < at + 8 || frame[at] != 8 {
        return End::dropped(frame, Counter::DropVipProtocol);
    }
    let mut reply = frame.to_vec();
    let old = [reply[at], reply[at + 1]];
    reply[at] = 0;
    update(&mut reply, at + 2, &old, &[0, old[1]]);
    reply[ETHERNET + 12..ETHERNET + 16].copy_from_slice(&packet.destination);
    reply[ETHERNET + 16..ETHERNET + 20].copy_from_slice(&packet.source);
    reply[..6].copy_from_slice(&attachment.mac);
    reply[6..12].copy_from_slice(&world.gateway.0);
    End::redirected(reply, Counter::EchoAnswered)
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
        code: error::PORT,
        mtu: 0,
        reason,
    };
    error::unreachable(world, attachment, frame, packet, &error)
}
