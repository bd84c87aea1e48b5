//! The MSS that opens a TCP connection is lowered to what fits (RFC 9293 section 3.7.1), where the network asks for it.

use super::World;
use super::read::{Ipv4, SYN, TCP, array, update, word};
use crate::packet::Ip;

/// Headers of IPv4 and TCP without options.
const HEADERS: u32 = 40;
/// What the encapsulation adds.
const OVERHEAD: u32 = 50;

/// The frame of which `packet` was read, with an MSS that fits the network and the way to `vtep`.
pub(super) fn clamped(world: &World, vni: u32, frame: &[u8], packet: &Ipv4, vtep: Option<Ip>) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(mtu) = world.clamps.get(&vni) else {
        return frame;
    };
    let path = vtep.and_then(|vtep| world.nodes.get(&vtep));
    let path = path.map_or(*mtu, |(_, mtu)| mtu.saturating_sub(OVERHEAD));
    let most = (*mtu).min(path).saturating_sub(HEADERS);
    if packet.protocol != TCP || packet.flags & SYN == 0 || packet.ports.is_none() || most == 0 {
        return frame;
    }
    let end = (packet.transport + usize::from(frame[packet.transport + 12] >> 4) * 4).min(frame.len());
    let Some(at) = mss(&frame, packet.transport + 20, end) else {
        return frame;
    };
    if u32::from(word(&frame, at)) <= most {
        return frame;
    }
    let mut old: [u8; 2] = array(&frame, at);
    let mut new = (most as u16).to_be_bytes();
    frame[at..at + 2].copy_from_slice(&new);
    if (at - packet.transport) % 2 == 1 {
        // Each byte belongs to another word of the checksum; the sum is the same with both exchanged (RFC 1071 section 2).
        old.reverse();
        new.reverse();
    }
    update(&mut frame, packet.transport + 16, &old, &new);
    frame
}

/// Where the value of the option is, among those from `at` to `end`.
fn mss(frame: &[u8], mut at: usize, end: usize) -> Option<usize> {
    while at + 2 <= end {
        match (frame[at], frame[at + 1]) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, 4) => return (at + 4 <= end).then_some(at + 2),
            (_, 0 | 1) => return None,
            (_, length) => at += usize::from(length),
        }
    }
    None
}
