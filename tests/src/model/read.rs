//! Reading and rewriting of IPv4 packets (RFC 791, RFC 768, RFC 9293, RFC 1071, RFC 1624).

use super::{Change, Way};
use crate::packet::Ip;
use weft_dataplane::abi::Counter;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Length of an Ethernet header.
pub(super) const ETHERNET: usize = 14;

/// TCP's control bits.
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

/// An IPv4 packet inside a frame.
#[derive(Clone, Debug)]
pub(super) struct Ipv4 {
    pub(super) source: Ip,
    pub(super) destination: Ip,
    pub(super) protocol: u8,
    /// Length of its header.
    pub(super) header: usize,
    /// As its header says; that of the rest of the frame if it says zero, as packets do that are still to be cut into segments.
    pub(super) length: usize,
    pub(super) fragment: bool,
    pub(super) fragment_offset: u16,
    pub(super) identification: u16,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// Ports, of TCP and UDP that is no fragment, or the first.
    pub(super) ports: Option<(u16, u16)>,
    /// Control bits; zero if it is not TCP.
    pub(super) flags: u8,
    /// Where its transport header starts in the frame.
    pub(super) transport: usize,
}

/// Reads the packet at `at`, which reaches to the end of the frame.
pub(super) fn ipv4(frame: &[u8], at: usize) -> Result<Ipv4, Counter> {
    if frame.len() < at + 20 {
        return Err(Counter::DropTruncated);
    }
    let header = usize::from(frame[at] & 0x0f) * 4;
    if frame[at] >> 4 != 4 || header < 20 {
        return Err(Counter::DropUnknownProtocol);
    }
    let length = match usize::from(word(frame, at + 2)) {
        0 => frame.len() - at,
        length if length < header || at + length > frame.len() => return Err(Counter::DropTruncated),
        length => length,
    };
    let fragment = word(frame, at + 6);
    let mut packet = Ipv4 {
        source: array(frame, at + 12),
        destination: array(frame, at + 16),
        protocol: frame[at + 9],
        header,
        length,
        fragment: fragment & 0x3fff != 0,
        fragment_offset: fragment & 0x1fff,
        identification: word(frame, at + 4),
        tos: frame[at + 1],
        ttl: frame[at + 8],
        ports: None,
        flags: 0,
        transport: at + header,
    };
    let needed = match packet.protocol {
        _ if packet.fragment_offset != 0 => return Ok(packet),
        TCP => 20,
        UDP => 8,
        _ => return Ok(packet),
    };
    let transport = packet.transport;
    if frame.len() < transport + needed {
        return Err(Counter::DropTruncated);
    }
    packet.ports = Some((word(frame, transport), word(frame, transport + 2)));
    if packet.protocol == TCP {
        packet.flags = frame[transport + 13];
        // A header of no length at all has no ports to speak of.
        if frame[transport + 12] >> 4 == 0 {
            packet.ports = None;
        }
    }
    Ok(packet)
}

impl Ipv4 {
    /// Whether it asks for a new connection.
    pub(super) fn opens(&self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// The direction of a connection that it belongs to.
    pub(super) fn way(&self, vni: u32, ports: (u16, u16)) -> Way {
        Way {
            vni,
            protocol: self.protocol,
            source: (self.source, ports.0),
            destination: (self.destination, ports.1),
        }
    }

    /// Writes other addresses and ports into the packet of which this was read, and keeps its checksums as right or wrong as they were.
    pub(super) fn rewrite(&self, frame: &mut [u8], change: &Change) {
        let at = self.transport - self.header;
        let old = [self.source, self.destination].concat();
        let new = [change.source.0, change.destination.0].concat();
        frame[at + 12..at + 20].copy_from_slice(&new);
        update(frame, at + 10, &old, &new);
        let Some(ports) = self.ports else { return };
        self.update_transport(frame, &old, &new);
        let to = (change.source.1, change.destination.1);
        if ports == to {
            return;
        }
        self.update_transport(frame, &ports.0.to_be_bytes(), &to.0.to_be_bytes());
        self.update_transport(frame, &ports.1.to_be_bytes(), &to.1.to_be_bytes());
        frame[self.transport..self.transport + 2].copy_from_slice(&to.0.to_be_bytes());
        frame[self.transport + 2..self.transport + 4].copy_from_slice(&to.1.to_be_bytes());
    }

    fn update_transport(&self, frame: &mut [u8], old: &[u8], new: &[u8]) {
        if self.protocol == TCP {
            return update(frame, self.transport + 16, old, new);
        }
        let at = self.transport + 6;
        // Zero says that there is none, so a sum of zero is written as all ones (RFC 768).
        if word(frame, at) != 0 {
            update(frame, at, old, new);
            if word(frame, at) == 0 {
                frame[at..at + 2].fill(0xff);
            }
        }
    }
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    !fold(sum)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Writes the checksum at `at` after some covered bytes changed: HC' = ~(~HC + ~m + m') (RFC 1624 section 3).
pub(super) fn update(frame: &mut [u8], at: usize, old: &[u8], new: &[u8]) {
    let mut sum = u64::from(!word(frame, at));
    for (old, new) in old.chunks(2).zip(new.chunks(2)) {
        sum += u64::from(!word(old, 0)) + u64::from(word(new, 0));
    }
    frame[at..at + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
}

/// The pseudo-header of TCP over IPv4.
pub(super) fn pseudo_header(source: Ip, destination: Ip, protocol: u8, length: usize) -> Vec<u8> {
    [
        &source[..],
        &destination,
        &[0, protocol],
        &(length as u16).to_be_bytes(),
    ]
    .concat()
}

/// An IPv4 header without options, which must not be fragmented and has no identification.
pub(super) fn own_header(tos: u8, length: usize, protocol: u8, source: Ip, destination: Ip) -> Vec<u8> {
    let mut header = vec![0x45, tos];
    header.extend((length as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(source);
    header.extend(destination);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header
}
