//! Frames as they pass an interface, each read to its end and every checksum in it computed again, by nothing that the programs use.

use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use weft_tests::namespace::Namespace;

/// The IANA port of VXLAN (RFC 7348 section 5).
const VXLAN: u16 = 4789;

/// Room for all that passes during one cell.
const BUFFER: usize = 64 << 20;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;

/// Messages of neighbour discovery (RFC 4861 section 4), which nobody asked for.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// Whatever passes one interface, both ways, since it was last looked at.
pub(crate) struct Capture {
    socket: OwnedFd,
    ifindex: usize,
}

impl Capture {
    pub(crate) fn start(namespace: &Namespace, interface: &str) -> Self {
        let ifindex = namespace.ifindex(interface) as usize;
        let socket = namespace.enter(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK,
                SockProtocol::EthAll,
            )
            .expect("a packet socket");
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).expect("a large buffer");
            socket
        });
        Capture { socket, ifindex }
    }

    /// The frames that came and went since the last call.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 1 << 17];
        let mut frames = Vec::new();
        // Ends when nothing waits.
        while let Ok((length, from)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
            if from.is_some_and(|from| from.ifindex() == self.ifindex) {
                frames.push(buffer[..length].to_vec());
            }
        }
        frames
    }
}

/// What is in a frame of VXLAN, and what is around it.
pub(crate) struct Tunnelled<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) vni: u32,
    pub(crate) source_port: u16,
    /// What an outer IPv4 header has in its field of flags and offset.
    pub(crate) fragment: Option<u16>,
    pub(crate) inner: &'a [u8],
}

/// Reads a frame of VXLAN; `None` of anything else. The outer headers must be right.
pub(crate) fn tunnelled(frame: &[u8]) -> Result<Option<Tunnelled<'_>>, String> {
    let Some(outer) = Packet::read(frame)? else {
        return Ok(None);
    };
    let payload = outer.payload;
    if outer.protocol != UDP || payload.len() < 8 || word(payload, 2) != VXLAN {
        return Ok(None);
    }
    let wrong = |what: String| Err(format!("outer {what}, from {} to {}", outer.from, outer.to));
    if usize::from(word(payload, 4)) != payload.len() {
        return wrong(format!("UDP length {} of {} bytes", word(payload, 4), payload.len()));
    }
    // None is allowed: RFC 7348 section 5, and RFC 6935 for IPv6.
    if word(payload, 6) != 0 && outer.sum(payload) != 0xffff {
        return wrong(format!("UDP checksum {:#06x} is wrong", word(payload, 6)));
    }
    let Some(header) = payload.get(8..16) else {
        return wrong("packet ends in its VXLAN header".to_owned());
    };
    if header[0] != 8 || header[1..4] != [0; 3] || header[7] != 0 {
        return wrong(format!("VXLAN header {header:02x?}"));
    }
    Ok(Some(Tunnelled {
        from: outer.from,
        to: outer.to,
        vni: u32::from_be_bytes([0, header[4], header[5], header[6]]),
        source_port: word(payload, 0),
        fragment: outer.from.is_ipv4().then(|| word(frame, 14 + 6)),
        inner: &payload[16..],
    }))
}

/// An IP packet: a whole one, or a fragment.
struct Packet<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    /// Bytes from the IP header on.
    length: usize,
    fragment: Option<Fragment>,
    payload: &'a [u8],
}

#[derive(Clone, Copy)]
struct Fragment {
    number: u32,
    offset: usize,
    more: bool,
}

impl<'a> Packet<'a> {
    /// Reads the IP header, whose checksum and lengths must be right; `None` if it is another protocol.
    fn read(frame: &'a [u8]) -> Result<Option<Self>, String> {
        let Some((ethernet, packet)) = frame.split_at_checked(14) else {
            return Err(format!("frame of {} bytes", frame.len()));
        };
        match word(ethernet, 12) {
            0x0800 => Packet::ipv4(packet).map(Some),
            0x86dd => Packet::ipv6(packet).map(Some),
            _ => Ok(None),
        }
    }

    fn ipv4(packet: &'a [u8]) -> Result<Self, String> {
        let header_length = usize::from(packet.first().copied().unwrap_or(0) & 0xf) * 4;
        let header = packet.get(..header_length).filter(|header| header.len() >= 20);
        let header = header.ok_or_else(|| format!("IPv4 header of {header_length} bytes"))?;
        let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let (from, to) = (address(12), address(16));
        if sum(0, header) != 0xffff {
            return Err(format!(
                "IPv4 checksum {:#06x} is wrong, from {from} to {to}",
                word(header, 10)
            ));
        }
        let length = usize::from(word(header, 2));
        let payload = packet.get(header_length..length);
        let payload =
            payload.ok_or_else(|| format!("IPv4 length {length} of {} bytes, {from} to {to}", packet.len()))?;
        let flags = word(header, 6);
        let fragment = (flags & 0x3fff != 0).then(|| Fragment {
            number: word(header, 4).into(),
            offset: usize::from(flags & 0x1fff) * 8,
            more: flags & 0x2000 != 0,
        });
        Ok(Packet {
            from: from.into(),
            to: to.into(),
            protocol: header[9],
            length,
            fragment,
            payload,
        })
    }

    fn ipv6(packet: &'a [u8]) -> Result<Self, String> {
        let header = packet
            .get(..40)
            .ok_or_else(|| format!("IPv6 header of {} bytes", packet.len()))?;
        let address = |at: usize| {
            let octets: [u8; 16] = std::array::from_fn(|index| header[at + index]);
            Ipv6Addr::from(octets)
        };
        let (from, to) = (address(8), address(24));
        let length = 40 + usize::from(word(header, 4));
        let payload = packet.get(40..length);
        let payload =
            payload.ok_or_else(|| format!("IPv6 length {length} of {} bytes, {from} to {to}", packet.len()))?;
        let mut read = Packet {
            from: from.into(),
            to: to.into(),
            protocol: header[6],
            length,
            fragment: None,
            payload,
        };
        if read.protocol == FRAGMENT {
            let (header, rest) = payload.split_at_checked(8).ok_or("IPv6 fragment header cut off")?;
            read.protocol = header[0];
            read.fragment = Some(Fragment {
                number: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                offset: usize::from(word(header, 2) & 0xfff8),
                more: header[3] & 1 != 0,
            });
            read.payload = rest;
        }
        Ok(read)
    }

    /// The sum over what the checksum of its protocol covers: 0xffff if that is right.
    fn sum(&self, transport: &[u8]) -> u16 {
        let start = match (self.from, self.to) {
            _ if self.protocol == ICMP => 0,
            (IpAddr::V4(from), IpAddr::V4(to)) => pseudo(&[from.octets(), to.octets()].concat(), self, transport),
            (IpAddr::V6(from), IpAddr::V6(to)) => pseudo(&[from.octets(), to.octets()].concat(), self, transport),
            _ => 0,
        };
        sum(start, transport)
    }
}

fn pseudo(addresses: &[u8], packet: &Packet<'_>, transport: &[u8]) -> u32 {
    u32::from(sum(0, addresses)) + u32::from(packet.protocol) + transport.len() as u32
}

/// Ones' complement (RFC 1071).
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum = words.fold(u64::from(start), |sum, word| sum + u64::from(word));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Who talked to whom by which protocol, and what was seen of it.
pub(crate) type Conversations = BTreeMap<(IpAddr, IpAddr, u8), Seen>;

/// What was seen of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Packets that were not cut, with right checksums.
    pub(crate) whole: usize,
    /// Fragments.
    pub(crate) fragments: usize,
    /// Packets that were put together again of all their fragments, with right checksums.
    pub(crate) put_together: usize,
    /// The longest packet or fragment, bytes from its IP header on.
    pub(crate) longest: usize,
}

/// Reads frames, whose checksums must be right, those over all fragments of a packet too.
pub(crate) fn conversations<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Result<Conversations, String> {
    let mut conversations = Conversations::new();
    let mut fragments: BTreeMap<(IpAddr, IpAddr, u8, u32), Vec<Packet<'_>>> = BTreeMap::new();
    for frame in frames {
        // To everybody: neighbours and routers are asked for, and nobody answers.
        let Some(packet) = Packet::read(frame)?.filter(|_| frame[0] & 1 == 0) else {
            continue;
        };
        if packet.protocol == ICMPV6 && packet.payload.first().is_some_and(|kind| DISCOVERY.contains(kind)) {
            check(&packet, packet.payload)?;
            continue;
        }
        let who = (packet.from, packet.to, packet.protocol);
        let seen = conversations.entry(who).or_default();
        seen.longest = seen.longest.max(packet.length);
        match packet.fragment {
            None => {
                check(&packet, packet.payload)?;
                seen.whole += 1;
            }
            Some(fragment) => {
                seen.fragments += 1;
                let key = (packet.from, packet.to, packet.protocol, fragment.number);
                fragments.entry(key).or_default().push(packet);
            }
        }
    }
    for ((from, to, protocol, _), parts) in &fragments {
        if let Some(whole) = put_together(parts) {
            check(&parts[0], &whole)?;
            conversations.entry((*from, *to, *protocol)).or_default().put_together += 1;
        }
    }
    Ok(conversations)
}

fn check(packet: &Packet<'_>, transport: &[u8]) -> Result<(), String> {
    let (name, at) = match packet.protocol {
        TCP => ("TCP", 16),
        UDP => ("UDP", 6),
        ICMP => ("ICMP", 2),
        ICMPV6 => ("ICMPv6", 2),
        other => return Err(format!("protocol {other}, from {} to {}", packet.from, packet.to)),
    };
    let described = || format!("{} bytes from {} to {}", transport.len(), packet.from, packet.to);
    let checksum = transport
        .get(at..at + 2)
        .ok_or_else(|| format!("{name} of {}", described()))?;
    let none = packet.protocol == UDP && checksum == [0, 0];
    if none || packet.sum(transport) != 0xffff {
        return Err(format!(
            "{name} checksum {:#06x} is wrong: {}",
            word(checksum, 0),
            described()
        ));
    }
    Ok(())
}

/// All bytes behind the IP header, if every fragment is there.
fn put_together(parts: &[Packet<'_>]) -> Option<Vec<u8>> {
    let mut sorted: Vec<(Fragment, &[u8])> = parts
        .iter()
        .filter_map(|part| Some((part.fragment?, part.payload)))
        .collect();
    sorted.sort_by_key(|(fragment, _)| fragment.offset);
    let mut whole = Vec::new();
    for (fragment, bytes) in &sorted {
        if fragment.offset != whole.len() {
            return None;
        }
        whole.extend_from_slice(bytes);
    }
    sorted.last().filter(|(last, _)| !last.more).map(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_tests::packet::{Datagram, Payload, Tunnel};
    use weft_tests::programs::{ALICE, BOB, UPLINK, VTEP};

    fn udp() -> Vec<u8> {
        Datagram::new(ALICE, BOB, Payload::Udp(1, 2, vec![7; 101])).bytes()
    }

    #[test]
    fn right_packets_are_counted_and_one_wrong_bit_is_told() {
        for payload in [
            Payload::Tcp(1, 2, 0x10, vec![1; 99]),
            Payload::Udp(1, 2, vec![2; 100]),
            Payload::Echo(3),
        ] {
            let frame = Datagram::new(ALICE, BOB, payload).bytes();
            let seen = conversations([frame.as_slice()]).expect("all is right");
            let one: Vec<&Seen> = seen.values().collect();
            assert_eq!((one[0].whole, one[0].longest), (1, frame.len() - 14));
            // From the length of the IP header to the last byte: addresses and ports too.
            for at in 16..frame.len() {
                let mut wrong = frame.clone();
                wrong[at] ^= 0x10;
                let told = conversations([wrong.as_slice()]);
                assert!(told.is_err(), "byte {at} of {frame:02x?}");
            }
        }
    }

    #[test]
    fn fragments_are_put_together_when_all_are_there() {
        let whole = udp();
        let transport = &whole[34..];
        let fragment = |fragment: u16, bytes: &[u8]| {
            let raw = Payload::Raw(UDP, bytes.to_vec());
            Datagram::new(ALICE, BOB, raw).with_fragment(fragment).bytes()
        };
        let (first, second) = (fragment(0x2000, &transport[..56]), fragment(7, &transport[56..]));
        let seen = |frames: &[&[u8]]| conversations(frames.iter().copied()).map(|seen| seen.into_values().next());
        let both = seen(&[&second, &first]).expect("all is right").expect("one direction");
        assert_eq!((both.whole, both.fragments, both.put_together), (0, 2, 1));
        let one = seen(&[&first]).expect("nothing is wrong yet").expect("one direction");
        assert_eq!((one.fragments, one.put_together), (1, 0));
        let mut wrong = second.clone();
        wrong[40] ^= 1;
        assert!(seen(&[&first, &wrong]).is_err());
    }

    #[test]
    fn the_headers_around_are_read() {
        let tunnel = Tunnel {
            macs: (UPLINK.0, VTEP.0),
            ips: (UPLINK.1, VTEP.1),
            ports: (50000, VXLAN),
            flags: 8,
            vni: 4242,
            options: vec![],
            tos: 0,
        };
        let frame = tunnel.around(&udp());
        let outer = tunnelled(&frame).expect("all is right").expect("VXLAN");
        assert_eq!(
            (outer.vni, outer.source_port, outer.fragment),
            (4242, 50000, Some(0x4000))
        );
        assert_eq!((outer.from, outer.to), (UPLINK.1.into(), VTEP.1.into()));
        assert_eq!(outer.inner, udp());
        assert!(tunnelled(&udp()).expect("all is right").is_none());
        // Length and checksum of IPv4, length and checksum of UDP, flags and reserved bytes of VXLAN.
        for at in [17, 24, 39, 41, 42, 43, 49] {
            let mut wrong = frame.clone();
            wrong[at] ^= 1;
            assert!(tunnelled(&wrong).is_err(), "byte {at}");
        }
    }
}
