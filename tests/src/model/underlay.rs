//! Out of the overlay: VXLAN by the uplink (RFC 7348).

use super::read::{ETHERNET, ipv4, update, word};
use super::{End, World, clamp, service};
use crate::packet::{Ip, Mac};
use weft_dataplane::abi::Counter;

const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;

pub(super) fn process(world: &mut World, frame: &[u8]) -> End {
    let Some((source, header)) = outer(world, frame) else {
        return End::passed(frame, &[]);
    };
    let tunnel = ETHERNET + header + UDP_HEADER;
    if frame.len() < tunnel + VXLAN_HEADER {
        return End::passed(frame, &[]);
    }
    let vni = u32::from_be_bytes([0, frame[tunnel + 4], frame[tunnel + 5], frame[tunnel + 6]]);
    if !world.networks.contains(&vni) {
        return End::passed(frame, &[Counter::PassedForeignVni]);
    }
    if header != 20 {
        return End::dropped(frame, Counter::DropOuterOptions);
    }
    if frame[tunnel] & 0x08 == 0 {
        return End::dropped(frame, Counter::DropBadVxlan);
    }
    match receive(world, frame, vni, source, tunnel + VXLAN_HEADER) {
        Ok(frame) => End::redirected(frame, Counter::Delivered),
        Err(reason) => End::dropped(frame, reason),
    }
}

/// Source address and header length of a whole datagram to this host and the data path's port.
fn outer(world: &World, frame: &[u8]) -> Option<(Ip, usize)> {
    if frame[..6] != world.uplink || word(frame, 12) != 0x0800 || frame.len() < ETHERNET + 20 {
        return None;
    }
    let header = usize::from(frame[ETHERNET] & 0x0f) * 4;
    let is_ipv4 = frame[ETHERNET] >> 4 == 4 && header >= 20;
    let whole = word(frame, ETHERNET + 6) & 0x3fff == 0;
    let udp = ETHERNET + header;
    if !is_ipv4 || !whole || frame[ETHERNET + 9] != 17 || frame.len() < udp + UDP_HEADER {
        return None;
    }
    let source = super::read::array(frame, ETHERNET + 12);
    (word(frame, udp + 2) == world.port).then_some((source, header))
}

/// The inner frame as its endpoint gets it.
fn receive(world: &mut World, frame: &[u8], vni: u32, vtep: Ip, inner: usize) -> Result<Vec<u8>, Counter> {
    let tos = frame[ETHERNET + 1];
    if frame.len() < inner + ETHERNET {
        return Err(Counter::DropTruncated);
    }
    if word(frame, inner + 12) != 0x0800 {
        return Err(Counter::DropInnerProtocol);
    }
    let packet = ipv4(&frame[inner..], ETHERNET).map_err(|reason| match reason {
        Counter::DropUnknownProtocol => Counter::DropInnerProtocol,
        other => other,
    })?;
    let mac: Mac = *world
        .endpoints
        .get(&(vni, packet.destination))
        .ok_or(Counter::DropNoEndpoint)?;
    // Only the node that the tables name for the source may send in its name.
    match world.peers.get(&(vni, packet.source)) {
        Some((home, _)) if *home == vtep => {}
        _ => return Err(Counter::DropUnknownPeer),
    }
    // Congestion that the underlay met is handed on, or the packet dropped that cannot say so (RFC 6040 section 4.2).
    let mut frame = frame[inner..].to_vec();
    let congested = tos & 3 == 3;
    if congested && packet.tos & 3 == 0 {
        return Err(Counter::DropCongestionMark);
    }
    if congested && packet.tos & 3 != 3 {
        let old = [frame[ETHERNET], packet.tos];
        frame[ETHERNET + 1] |= 3;
        let new = [frame[ETHERNET], frame[ETHERNET + 1]];
        update(&mut frame, ETHERNET + 10, &old, &new);
    }
    let frame = clamp::clamped(world, vni, &frame, &packet, Some(vtep));
    let mut delivered = service::answer(world, vni, &frame, &packet);
    delivered[..6].copy_from_slice(&mac);
    Ok(delivered)
}
