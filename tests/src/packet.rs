//! Packets as a table of fields: built, read back, and compared field by field.

use std::fmt::Write;
use std::net::Ipv4Addr;
use weft_dataplane::packet::{Arp, Ethernet, Header, Ipv4, Tcp, Udp, Vxlan, checksum, ethernet, ipv4, vxlan};

/// A MAC address.
pub type Mac = [u8; 6];
/// An IPv4 address.
pub type Ip = [u8; 4];

/// What an IPv4 packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// TCP: source port, destination port, control bits, data.
    Tcp(u16, u16, u8, Vec<u8>),
    /// TCP with options, a multiple of four bytes: source port, destination port, control bits, options.
    TcpOptions(u16, u16, u8, Vec<u8>),
    /// UDP with its checksum: source port, destination port, data.
    Udp(u16, u16, Vec<u8>),
    /// UDP without a checksum.
    UdpWithoutChecksum(u16, u16, Vec<u8>),
    /// An ICMP echo request with this sequence number.
    Echo(u16),
    /// Any protocol, any bytes.
    Raw(u8, Vec<u8>),
}

/// An IPv4 packet in an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Ethernet source and destination.
    pub macs: (Mac, Mac),
    /// IPv4 source and destination.
    pub ips: (Ip, Ip),
    /// Flags and fragment offset.
    pub fragment: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Time to live.
    pub ttl: u8,
    /// Differentiated services and congestion notification.
    pub tos: u8,
    /// What it carries.
    pub payload: Payload,
}

impl Datagram {
    /// A packet between two stations, each given as MAC and address.
    pub fn new(from: (Mac, Ip), to: (Mac, Ip), payload: Payload) -> Self {
        Datagram {
            macs: (from.0, to.0),
            ips: (from.1, to.1),
            fragment: ipv4::DONT_FRAGMENT,
            options: Vec::new(),
            ttl: 64,
            tos: 0,
            payload,
        }
    }

    /// The same packet with other Ethernet addresses.
    pub fn with_macs(mut self, source: Mac, destination: Mac) -> Self {
        self.macs = (source, destination);
        self
    }

    /// The same packet with other IPv4 addresses; its checksums are computed anew.
    pub fn with_ips(mut self, source: Ip, destination: Ip) -> Self {
        self.ips = (source, destination);
        self
    }

    /// The same packet with other flags and fragment offset.
    pub fn with_fragment(mut self, fragment: u16) -> Self {
        self.fragment = fragment;
        self
    }

    /// The same packet with IPv4 options.
    pub fn with_options(mut self, options: &[u8]) -> Self {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40);
        self.options = options.to_vec();
        self
    }

    /// The frame's bytes, all checksums right.
    pub fn bytes(&self) -> Vec<u8> {
        let (protocol, payload) = transport_bytes(self.ips, &self.payload);
        let header_length = Ipv4::LENGTH + self.options.len();
        let mut frame = ethernet_bytes(self.macs, ethernet::IPV4);
        let start = frame.len();
        let header = Ipv4 {
            version_ihl: [0x40 | (header_length / 4) as u8],
            tos: [self.tos],
            total_length: ((header_length + payload.len()) as u16).to_be_bytes(),
            identification: [0x12, 0x34],
            fragment: self.fragment.to_be_bytes(),
            ttl: [self.ttl],
            protocol: [protocol],
            checksum: [0; 2],
            source: self.ips.0,
            destination: self.ips.1,
        };
        append(&mut frame, &header);
        frame.extend(&self.options);
        let sum = checksum::of(0, &frame[start..]).to_be_bytes();
        frame[start + ipv4::CHECKSUM_OFFSET..start + ipv4::CHECKSUM_OFFSET + 2].copy_from_slice(&sum);
        frame.extend(payload);
        frame
    }
}

/// A frame in VXLAN, as another node sends it.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Outer Ethernet source and destination.
    pub macs: (Mac, Mac),
    /// Outer IPv4 source and destination.
    pub ips: (Ip, Ip),
    /// Outer UDP ports.
    pub ports: (u16, u16),
    /// VXLAN flags.
    pub flags: u8,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Outer IPv4 options.
    pub options: Vec<u8>,
    /// Outer differentiated services and congestion notification.
    pub tos: u8,
}

impl Tunnel {
    /// The outer packet around `frame`.
    pub fn around(&self, frame: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        let mut header = Vxlan::new(self.vni);
        header.flags = [self.flags];
        append(&mut data, &header);
        data.extend(frame);
        let payload = Payload::UdpWithoutChecksum(self.ports.0, self.ports.1, data);
        let mut outer = Datagram::new((self.macs.0, self.ips.0), (self.macs.1, self.ips.1), payload);
        outer.options.clone_from(&self.options);
        outer.tos = self.tos;
        outer.bytes()
    }
}

/// An ARP packet in an Ethernet frame.
pub fn arp_bytes(macs: (Mac, Mac), arp: &Arp) -> Vec<u8> {
    let mut frame = ethernet_bytes(macs, ethernet::ARP);
    append(&mut frame, arp);
    frame
}

/// An Ethernet header, source first.
pub fn ethernet_bytes((source, destination): (Mac, Mac), ethertype: [u8; 2]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(
        &mut bytes,
        &Ethernet {
            destination,
            source,
            ethertype,
        },
    );
    bytes
}

fn append(bytes: &mut Vec<u8>, header: &impl Header) {
    let start = bytes.len();
    bytes.resize(start + length_of(header), 0);
    header.write(&mut bytes[start..]).expect("room was just made");
}

fn length_of<H: Header>(_header: &H) -> usize {
    H::LENGTH
}

fn transport_bytes(ips: (Ip, Ip), payload: &Payload) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    match payload {
        Payload::Tcp(source, destination, flags, data) => {
            append(
                &mut bytes,
                &Tcp {
                    source: source.to_be_bytes(),
                    destination: destination.to_be_bytes(),
                    sequence: 1_u32.to_be_bytes(),
                    acknowledgment: 2_u32.to_be_bytes(),
                    data_offset: [5 << 4],
                    flags: [*flags],
                    window: [0xff, 0xff],
                    checksum: [0; 2],
                    urgent: [0; 2],
                },
            );
            bytes.extend(data);
            let sum = transport_checksum(ips, ipv4::TCP, &bytes);
            bytes[16..18].copy_from_slice(&sum.to_be_bytes());
            (ipv4::TCP, bytes)
        }
        Payload::TcpOptions(source, destination, flags, options) => {
            let plain = Payload::Tcp(*source, *destination, *flags, options.clone());
            let (protocol, mut bytes) = transport_bytes(ips, &plain);
            bytes[12] = (((20 + options.len()) / 4) << 4) as u8;
            bytes[16..18].fill(0);
            let sum = transport_checksum(ips, ipv4::TCP, &bytes);
            bytes[16..18].copy_from_slice(&sum.to_be_bytes());
            (protocol, bytes)
        }
        Payload::Udp(source, destination, data) => {
            append(&mut bytes, &udp(*source, *destination, data));
            bytes.extend(data);
            let sum = match transport_checksum(ips, ipv4::UDP, &bytes) {
                0 => 0xffff,
                sum => sum,
            };
            bytes[6..8].copy_from_slice(&sum.to_be_bytes());
            (ipv4::UDP, bytes)
        }
        Payload::UdpWithoutChecksum(source, destination, data) => {
            append(&mut bytes, &udp(*source, *destination, data));
            bytes.extend(data);
            (ipv4::UDP, bytes)
        }
        Payload::Echo(sequence) => {
            let [high, low] = sequence.to_be_bytes();
            bytes.extend([8, 0, 0, 0, 0, 7, high, low]);
            let sum = checksum::of(0, &bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            (ipv4::ICMP, bytes)
        }
        Payload::Raw(protocol, data) => (*protocol, data.clone()),
    }
}

fn udp(source: u16, destination: u16, data: &[u8]) -> Udp {
    Udp {
        source: source.to_be_bytes(),
        destination: destination.to_be_bytes(),
        length: ((Udp::LENGTH + data.len()) as u16).to_be_bytes(),
        checksum: [0; 2],
    }
}

fn transport_checksum(ips: (Ip, Ip), protocol: u8, segment: &[u8]) -> u16 {
    checksum::of(
        checksum::pseudo_header(ips.0, ips.1, protocol, segment.len() as u16),
        segment,
    )
}

/// The fields of a frame, layer by layer, in the order of the wire; what no layer claims is `data`.
pub fn fields(frame: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    frame_fields(&mut fields, "", frame);
    fields
}

fn frame_fields(fields: &mut Vec<(String, String)>, prefix: &str, bytes: &[u8]) {
    let mut field = |name: &str, value: String| fields.push((format!("{prefix}{name}"), value));
    let Some(header) = Ethernet::read(bytes) else {
        return field("data", hex(bytes));
    };
    field("ethernet.destination", mac(header.destination));
    field("ethernet.source", mac(header.source));
    field("ethernet.type", hex(&header.ethertype));
    let rest = &bytes[Ethernet::LENGTH..];
    match header.ethertype {
        ethernet::IPV4 => ipv4_fields(fields, prefix, rest),
        ethernet::ARP => arp_fields(fields, prefix, rest),
        _ => field("data", hex(rest)),
    }
}

fn arp_fields(fields: &mut Vec<(String, String)>, prefix: &str, bytes: &[u8]) {
    let mut field = |name: &str, value: String| fields.push((format!("{prefix}{name}"), value));
    let Some(header) = Arp::read(bytes) else {
        return field("data", hex(bytes));
    };
    field("arp.operation", hex(&header.operation));
    field("arp.sender_mac", mac(header.sender_mac));
    field("arp.sender_ip", ip(header.sender_ip));
    field("arp.target_mac", mac(header.target_mac));
    field("arp.target_ip", ip(header.target_ip));
    field("data", hex(&bytes[Arp::LENGTH..]));
}

fn ipv4_fields(fields: &mut Vec<(String, String)>, prefix: &str, bytes: &[u8]) {
    let mut field = |name: &str, value: String| fields.push((format!("{prefix}{name}"), value));
    let header = Ipv4::read(bytes).and_then(|header| Some((header, header.header_length()?)));
    let Some((header, length)) = header.filter(|(_, length)| bytes.len() >= *length) else {
        return field("data", hex(bytes));
    };
    field("ip.version_ihl", hex(&header.version_ihl));
    field("ip.tos", hex(&header.tos));
    field("ip.total_length", header.total_length().to_string());
    field("ip.identification", hex(&header.identification));
    field("ip.fragment", hex(&header.fragment));
    field("ip.ttl", header.ttl[0].to_string());
    field("ip.protocol", header.protocol[0].to_string());
    let right = checksum::of(0, &bytes[..length]) == 0;
    field(
        "ip.checksum",
        if right {
            "right".to_owned()
        } else {
            format!("wrong: {}", hex(&header.checksum))
        },
    );
    field("ip.source", ip(header.source));
    field("ip.destination", ip(header.destination));
    field("ip.options", hex(&bytes[Ipv4::LENGTH..length]));
    let rest = &bytes[length..];
    match header.protocol {
        _ if header.is_fragment() => field("data", hex(rest)),
        [ipv4::TCP] => tcp_fields(fields, prefix, &header, rest),
        [ipv4::UDP] => udp_fields(fields, prefix, &header, rest),
        _ => field("data", hex(rest)),
    }
}

fn checksum_field(header: &Ipv4, segment: &[u8], sum: [u8; 2]) -> String {
    if header.protocol == [ipv4::UDP] && sum == [0; 2] {
        return "none".to_owned();
    }
    match transport_checksum((header.source, header.destination), header.protocol[0], segment) {
        0 => "right".to_owned(),
        _ => format!("wrong: {}", hex(&sum)),
    }
}

fn tcp_fields(fields: &mut Vec<(String, String)>, prefix: &str, header: &Ipv4, bytes: &[u8]) {
    let mut field = |name: &str, value: String| fields.push((format!("{prefix}{name}"), value));
    let Some(tcp) = Tcp::read(bytes) else {
        return field("data", hex(bytes));
    };
    field("tcp.source", port(tcp.source));
    field("tcp.destination", port(tcp.destination));
    field("tcp.flags", hex(&tcp.flags));
    field("tcp.checksum", checksum_field(header, bytes, tcp.checksum));
    field("data", hex(&bytes[Tcp::LENGTH..]));
}

fn udp_fields(fields: &mut Vec<(String, String)>, prefix: &str, header: &Ipv4, bytes: &[u8]) {
    let mut field = |name: &str, value: String| fields.push((format!("{prefix}{name}"), value));
    let Some(udp) = Udp::read(bytes) else {
        return field("data", hex(bytes));
    };
    field("udp.source", port(udp.source));
    field("udp.destination", port(udp.destination));
    field("udp.length", u16::from_be_bytes(udp.length).to_string());
    field("udp.checksum", checksum_field(header, bytes, udp.checksum));
    let rest = &bytes[Udp::LENGTH..];
    match Vxlan::read(rest) {
        Some(tunnel) if udp.destination == weft_dataplane::abi::VXLAN_PORT.to_be_bytes() => {
            field("vxlan.flags", hex(&tunnel.flags));
            field(
                "vxlan.reserved",
                hex(&[&tunnel.reserved_1[..], &tunnel.reserved_2[..]].concat()),
            );
            field("vxlan.vni", tunnel.vni().to_string());
            frame_fields(fields, "inner.", &rest[Vxlan::LENGTH..]);
        }
        _ => field("data", hex(rest)),
    }
}

/// The fields in which two frames differ, one a line; empty if they are equal.
pub fn difference(expected: &[u8], got: &[u8]) -> String {
    let mut text = String::new();
    if expected == got {
        return text;
    }
    let (expected_fields, got_fields) = (fields(expected), fields(got));
    for (name, value) in &expected_fields {
        let other = got_fields
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value);
        if other != Some(value) {
            let other = other.map_or("absent", String::as_str);
            let _ = writeln!(text, "  {name}: expected {value}, got {other}");
        }
    }
    for (name, value) in &got_fields {
        if !expected_fields.iter().any(|(other, _)| other == name) {
            let _ = writeln!(text, "  {name}: expected absent, got {value}");
        }
    }
    if text.is_empty() {
        let _ = writeln!(
            text,
            "  bytes: expected {}\n         got      {}",
            hex(expected),
            hex(got)
        );
    }
    text
}

/// How much longer a frame gets by VXLAN.
pub const OVERHEAD: usize = vxlan::OVERHEAD;

fn mac(address: Mac) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

fn ip(address: Ip) -> String {
    Ipv4Addr::from(address).to_string()
}

fn port(bytes: [u8; 2]) -> String {
    u16::from_be_bytes(bytes).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Mac, Ip) = ([2, 0, 0, 0, 0, 1], [10, 0, 0, 1]);
    const B: (Mac, Ip) = ([2, 0, 0, 0, 0, 2], [10, 0, 0, 2]);

    #[test]
    fn built_packets_are_what_another_library_reads() {
        for payload in [
            Payload::Tcp(40000, 80, 2, b"abc".to_vec()),
            Payload::Udp(40000, 53, b"abcd".to_vec()),
        ] {
            let bytes = Datagram::new(A, B, payload.clone()).bytes();
            let packet = etherparse::PacketHeaders::from_ethernet_slice(&bytes).unwrap();
            let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net else {
                panic!("no IPv4: {packet:?}")
            };
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            match packet.transport {
                Some(etherparse::TransportHeader::Tcp(tcp)) => {
                    assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(&ip, b"abc").unwrap());
                }
                Some(etherparse::TransportHeader::Udp(udp)) => {
                    assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, b"abcd").unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_difference_names_the_field() {
        let one = Datagram::new(A, B, Payload::Udp(1, 2, vec![3]));
        let other = one.clone().with_ips(A.1, [10, 0, 0, 3]);
        assert_eq!(difference(&one.bytes(), &one.bytes()), "");
        assert_eq!(
            difference(&one.bytes(), &other.bytes()),
            "  ip.destination: expected 10.0.0.2, got 10.0.0.3\n"
        );
    }
}
