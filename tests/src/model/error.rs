//! What is told of packets that go nowhere (RFC 792, RFC 1122, RFC 1191, RFC 9293).

use super::read::{ACK, ETHERNET, FIN, ICMP, Ipv4, RST, SYN, TCP, checksum, own_header, pseudo_header};
use super::{Attachment, End, World};
use crate::packet::Ip;
use weft_dataplane::abi::Counter;

/// Types.
pub(super) const UNREACHABLE: u8 = 3;
pub(super) const TIME_EXCEEDED: u8 = 11;
/// Codes of "destination unreachable".
pub(super) const PROTOCOL: u8 = 2;
pub(super) const PORT: u8 = 3;
pub(super) const FRAGMENTATION_NEEDED: u8 = 4;

/// Precedence of errors: internetwork control (RFC 1812 section 4.3.2.5).
const CONTROL: u8 = 0xc0;

/// An error, and why there is one.
pub(super) struct Unreachable {
    pub(super) from: Ip,
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) mtu: u16,
    pub(super) reason: Counter,
}

/// The sender is told, unless the packet is an error itself, a later fragment, has options, or is too short to be quoted.
pub(super) fn unreachable(
    world: &World,
    attachment: &Attachment,
    frame: &[u8],
    packet: &Ipv4,
    error: &Unreachable,
) -> End {
    // As much as tells the sender's socket: of TCP its header, of others eight bytes.
    let quoted = if packet.protocol == TCP { 40 } else { 28 };
    let is_query = packet.protocol != ICMP || frame.get(packet.transport).is_some_and(|kind| is_query(*kind));
    if packet.header != 20 || packet.fragment_offset != 0 || !is_query || frame.len() < ETHERNET + quoted {
        return End::dropped(frame, error.reason);
    }
    let mut icmp = vec![error.kind, error.code, 0, 0, 0, 0];
    icmp.extend(error.mtu.to_be_bytes());
    icmp.extend(&frame[ETHERNET..ETHERNET + quoted]);
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let header = own_header(CONTROL, 20 + icmp.len(), ICMP, error.from, attachment.ip);
    back(
        world,
        attachment,
        &[header, icmp].concat(),
        error.reason,
        Counter::UnreachableSent,
    )
}

/// Echo, its reply, time stamps, information and address masks are asked and answered; all else tells of errors.
pub(super) fn is_query(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 13..=18)
}

/// A connection is reset as by a host that does not have it (RFC 9293 section 3.10.7.1); a reset is not.
pub(super) fn reset(world: &World, attachment: &Attachment, frame: &[u8], packet: &Ipv4, reason: Counter) -> End {
    if packet.header != 20 || packet.fragment_offset != 0 || packet.flags & RST != 0 {
        return End::dropped(frame, reason);
    }
    let at = packet.transport;
    let number = |offset: usize| u32::from_be_bytes(super::read::array(frame, at + offset));
    let data = packet.length as i64 - 20 - i64::from(frame[at + 12] >> 4) * 4;
    let controls = i64::from(packet.flags & SYN != 0) + i64::from(packet.flags & FIN != 0);
    let next = number(4).wrapping_add((data + controls) as u32);
    let (sequence, acknowledgment, flags) = match packet.flags & ACK {
        0 => (0, next, RST | ACK),
        _ => (number(8), 0, RST),
    };
    let mut tcp = [&frame[at + 2..at + 4], &frame[at..at + 2]].concat();
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgment.to_be_bytes());
    tcp.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let pseudo = pseudo_header(packet.destination, attachment.ip, TCP, tcp.len());
    let sum = checksum(&[pseudo, tcp.clone()].concat()).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    let header = own_header(0, 40, TCP, packet.destination, attachment.ip);
    back(world, attachment, &[header, tcp].concat(), reason, Counter::ResetSent)
}

fn back(world: &World, attachment: &Attachment, packet: &[u8], reason: Counter, sent: Counter) -> End {
    let mut frame = attachment.mac.to_vec();
    frame.extend(world.gateway.0);
    frame.extend([0x08, 0x00]);
    frame.extend(packet);
    End::redirected(frame, reason).counting(sent)
}
