//! Out of a container.

use super::read::{ETHERNET, Ipv4, array, ipv4, own_header, word};
use super::service::Place;
use super::{Attachment, End, World, clamp, error, service};
use crate::packet::{Ip, Mac};
use weft_dataplane::abi::Counter;

/// Ethernet, IPv4, UDP and VXLAN header: how much longer a packet gets.
const OVERHEAD: usize = 50;

pub(super) fn process(world: &mut World, ifindex: u32, frame: &[u8]) -> End {
    let Some(attachment) = world.attachments.get(&ifindex).copied() else {
        return End::dropped(frame, Counter::DropNotAttached);
    };
    if frame.len() < ETHERNET {
        return End::dropped(frame, Counter::DropTruncated);
    }
    match word(frame, 12) {
        0x0800 => {}
        0x0806 => return arp(world, &attachment, frame),
        _ => return End::dropped(frame, Counter::DropUnknownProtocol),
    }
    let packet = match ipv4(frame, ETHERNET) {
        Ok(packet) => packet,
        Err(reason) => return End::dropped(frame, reason),
    };
    // The group bit of Ethernet; IPv4's classes D and E, broadcast among them.
    if frame[0] & 1 == 1 || packet.destination[0] >= 224 {
        return End::dropped(frame, Counter::DropMulticast);
    }
    if frame[6..12] != attachment.mac || packet.source != attachment.ip {
        return End::dropped(frame, Counter::DropSpoofedSource);
    }
    if packet.ttl == 0 {
        let error = error::Unreachable {
            from: world.gateway.1,
            kind: error::TIME_EXCEEDED,
            code: 0,
            mtu: 0,
            reason: Counter::DropTtlExpired,
        };
        return error::unreachable(world, &attachment, frame, &packet, &error);
    }
    let vtep = world
        .peers
        .get(&(attachment.vni, packet.destination))
        .map(|(vtep, _)| *vtep);
    let frame = clamp::clamped(world, attachment.vni, frame, &packet, vtep);
    route(world, &attachment, &frame, &packet)
}

fn route(world: &mut World, attachment: &Attachment, frame: &[u8], packet: &Ipv4) -> End {
    let to = (attachment.vni, packet.destination);
    if let Some(peer) = world.peers.get(&to).copied() {
        return match service::beside(world, attachment.vni, packet) {
            Ok(None) => to_peer(world, attachment, frame, packet, peer, |frame| frame.to_vec()),
            Ok(Some(change)) => service::go(world, attachment, frame, packet, &change, Place::There(peer)),
            Err(reason) => End::dropped(frame, reason),
        };
    }
    if let Some(mac) = world.endpoints.get(&to).copied() {
        match service::beside(world, attachment.vni, packet) {
            Ok(None) => {}
            Ok(Some(change)) => return service::go(world, attachment, frame, packet, &change, Place::Here(mac)),
            Err(reason) => return End::dropped(frame, reason),
        }
        let mut frame = service::answer(world, attachment.vni, frame, packet);
        frame[..6].copy_from_slice(&mac);
        return End::redirected(frame, Counter::DeliveredLocally);
    }
    if world.services.contains_key(&to) {
        return service::process(world, attachment, frame, packet);
    }
    if packet.destination == world.gateway.1
        && let Some(end) = service::echo(world, attachment, frame, packet)
    {
        return end;
    }
    End::dropped(frame, Counter::DropUnknownDestination)
}

/// Sends a packet to a peer, changed as `change` says, unless it does not fit the way there.
pub(super) fn to_peer(
    world: &World,
    attachment: &Attachment,
    frame: &[u8],
    packet: &Ipv4,
    (vtep, mac): (Ip, Mac),
    change: impl Fn(&[u8]) -> Vec<u8>,
) -> End {
    let Some((source, mtu)) = world.nodes.get(&vtep).copied() else {
        return End::dropped(frame, Counter::DropNoRoute);
    };
    let length = frame.len() - ETHERNET + OVERHEAD;
    if length > mtu as usize {
        let fits = (mtu as usize - OVERHEAD) as u16;
        let error = error::Unreachable {
            from: world.gateway.1,
            kind: error::UNREACHABLE,
            code: error::FRAGMENTATION_NEEDED,
            mtu: fits,
            reason: Counter::DropTooBig,
        };
        return error::unreachable(world, attachment, frame, packet, &error);
    }
    // The kernel writes the outer Ethernet header when it sends the packet; until then it is the frame's own.
    let mut sent = frame[..ETHERNET].to_vec();
    sent.extend(own_header(packet.tos & 3, length, super::read::UDP, source, vtep));
    sent.extend([0, 0]);
    sent.extend(world.port.to_be_bytes());
    sent.extend(((length - 20) as u16).to_be_bytes());
    // No checksum, and a VXLAN header with its flag I (RFC 7348 section 5).
    sent.extend([0, 0, 0x08, 0, 0, 0]);
    sent.extend((attachment.vni << 8).to_be_bytes());
    sent.extend(mac);
    sent.extend(attachment.mac);
    sent.extend([0x08, 0x00]);
    sent.extend(&change(frame)[ETHERNET..]);
    End::redirected(sent, Counter::Encapsulated)
}

/// A request is answered for all whom the maps know (RFC 826).
fn arp(world: &World, attachment: &Attachment, frame: &[u8]) -> End {
    if frame.len() < ETHERNET + 28 {
        return End::dropped(frame, Counter::DropTruncated);
    }
    if frame[6..12] != attachment.mac {
        return End::dropped(frame, Counter::DropSpoofedSource);
    }
    // Ethernet, IPv4, their lengths, a request.
    if frame[14..22] != [0, 1, 8, 0, 6, 4, 0, 1] {
        return End::dropped(frame, Counter::DropUnexpectedArp);
    }
    let sender: (Mac, Ip) = (array(frame, 22), array(frame, 28));
    let target: Ip = array(frame, 38);
    if sender.0 != attachment.mac || sender.1 != attachment.ip && sender.1 != [0; 4] {
        return End::dropped(frame, Counter::DropSpoofedSource);
    }
    if target == attachment.ip {
        return End::dropped(frame, Counter::DropUnexpectedArp);
    }
    let address = (attachment.vni, target);
    let stands_for_gateway = target == world.gateway.1 || world.services.contains_key(&address);
    let mac = if let Some((_, mac)) = world.peers.get(&address) {
        *mac
    } else if let Some(mac) = world.endpoints.get(&address) {
        *mac
    } else if stands_for_gateway {
        world.gateway.0
    } else {
        return End::dropped(frame, Counter::DropUnknownArpTarget);
    };
    let mut answer = frame.to_vec();
    answer[..6].copy_from_slice(&attachment.mac);
    answer[6..12].copy_from_slice(&mac);
    answer[21] = 2;
    answer[22..28].copy_from_slice(&mac);
    answer[28..32].copy_from_slice(&target);
    answer[32..38].copy_from_slice(&sender.0);
    answer[38..42].copy_from_slice(&sender.1);
    End::redirected(answer, Counter::ArpAnswered)
}
