//! What the programs must know of an IP packet, copied out of it.

use super::cursor::Packet;
use super::family::Family;
use weft_dataplane::abi::{Counter, FlowKey, FragmentKey, Ip, V6, flow};
use weft_dataplane::packet::{Extension, FragmentHeader, Header, Ports, Tcp, Udp, ipv4, ipv6, transport};

/// An IP packet.
///
/// Order and alignment matter: the compiler moves neighbouring fields at once, and the verifier wants accesses to the stack aligned.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Datagram<A> {
    /// Source address.
    pub(super) source: A,
    /// Destination address.
    pub(super) destination: A,
    /// Ports; zero if it is neither TCP nor UDP, or a fragment that is not the first.
    pub(super) ports: Ports,
    /// Number of the packet that it is a fragment of, as it stands in it; else 0.
    pub(super) identification: u32,
    /// IANA protocol number of the transport.
    pub(super) protocol: u8,
    /// TCP control bits; 0 if it is not TCP.
    pub(super) tcp_flags: u8,
    /// Differentiated services and congestion notification.
    pub(super) traffic_class: u8,
    /// Time to live, or hop limit.
    pub(super) ttl: u8,
    /// Whether it is a fragment.
    pub(super) fragment: bool,
    /// Whether it is a fragment that is not the first. (Not the other way round, so that a new one is all zeros: what is written on the
    /// stack in one go must be aligned.)
    pub(super) later: bool,
    padding: [u8; 2],
    /// Length of the IP header with options or extension headers in bytes.
    pub(super) header_length: usize,
    /// Length of the transport header in bytes; 0 if it is neither TCP nor UDP, or a fragment that is not the first.
    pub(super) transport_length: usize,
}

impl<A: Ip> Default for Datagram<A> {
    /// Nothing: all zeros.
    #[inline(always)]
    fn default() -> Self {
        Datagram {
            source: A::default(),
            destination: A::default(),
            ports: Ports {
                source: [0; 2],
                destination: [0; 2],
            },
            identification: 0,
            protocol: 0,
            tcp_flags: 0,
            traffic_class: 0,
            ttl: 0,
            fragment: false,
            later: false,
            padding: [0; 2],
            header_length: 0,
            transport_length: 0,
        }
    }
}

impl<A: Ip> Datagram<A> {
    /// A packet of which nothing is known but its addresses.
    #[inline(always)]
    pub(super) fn new(source: A, destination: A) -> Self {
        Datagram {
            source,
            destination,
            ..Datagram::default()
        }
    }

    /// Reads the transport header, `offset` bytes after the start of the frame, if there is one.
    #[inline(always)]
    pub(super) fn read_transport(&mut self, packet: &mut Packet, offset: usize) -> Result<(), Counter> {
        if self.later {
            return Ok(());
        }
        if self.protocol == ipv4::TCP {
            packet.pull(offset + Tcp::LENGTH);
            let mut headers = packet.headers();
            headers.skip(offset);
            let tcp = headers.next::<Tcp>().ok_or(Counter::DropTruncated)?;
            self.tcp_flags = tcp.flags[0];
            self.ports.source = tcp.source;
            self.ports.destination = tcp.destination;
            self.transport_length = tcp.header_length();
        } else if self.protocol == ipv4::UDP {
            packet.pull(offset + Udp::LENGTH);
            let mut headers = packet.headers();
            headers.skip(offset);
            let udp = headers.next::<Udp>().ok_or(Counter::DropTruncated)?;
            self.ports.source = udp.source;
            self.ports.destination = udp.destination;
            self.transport_length = Udp::LENGTH;
        }
        Ok(())
    }

    /// Whether it has ports: TCP or UDP, and no fragment but the first.
    #[inline(always)]
    pub(super) fn has_ports(&self) -> bool {
        self.transport_length != 0
    }

    /// Whether it carries the beginning of its packet: no fragment, or the first.
    #[inline(always)]
    pub(super) fn is_first(&self) -> bool {
        !self.later
    }

    /// Whether it is TCP and opens a connection.
    #[inline(always)]
    pub(super) fn opens(&self) -> bool {
        transport::opens(self.tcp_flags)
    }

    /// Whether it is TCP or UDP, which virtual IPs balance.
    #[inline(always)]
    pub(super) fn is_balanced(&self) -> bool {
        self.protocol == ipv4::TCP || self.protocol == ipv4::UDP
    }

    /// The key of its flow, as it stands.
    #[inline(always)]
    pub(super) fn flow_key(&self, vni: u32) -> FlowKey<A> {
        FlowKey {
            network: flow::network(vni, self.protocol),
            source: self.source,
            destination: self.destination,
            source_port: self.ports.source,
            destination_port: self.ports.destination,
            reserved: flow::RESERVED,
        }
    }

    /// The key of the packet that it is a fragment of.
    #[inline(always)]
    pub(super) fn fragment_key(&self, vni: u32) -> FragmentKey<A> {
        FragmentKey {
            network: flow::network(vni, self.protocol),
            identification: self.identification,
            source: self.source,
            destination: self.destination,
        }
    }

    /// A hash of its flow: what its socket or its device knew, else one of our own.
    #[inline(always)]
    pub(super) fn hash<F: Family<Ip = A>>(&self, packet: &Packet) -> u32 {
        match packet.hash() {
            0 => F::hash(self),
            known => known,
        }
    }
}

impl Datagram<V6> {
    /// Passes over the extension headers (RFC 8200 section 4); `self.protocol` is the first one's number, and becomes the transport's.
    #[inline(always)]
    pub(super) fn skip_extensions(&mut self, packet: &mut Packet, offset: usize) -> Result<(), Counter> {
        for _ in 0..ipv6::MAX_EXTENSIONS {
            let start = offset + self.header_length;
            match self.protocol {
                ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS => {
                    packet.pull(start + Extension::LENGTH);
                    let mut headers = packet.headers();
                    headers.skip(start);
                    let extension = headers.next::<Extension>().ok_or(Counter::DropTruncated)?;
                    [self.protocol] = extension.next_header;
                    self.header_length += extension.length();
                }
                ipv6::FRAGMENT => {
                    packet.pull(start + FragmentHeader::LENGTH);
                    let mut headers = packet.headers();
                    headers.skip(start);
                    let fragment = headers.next::<FragmentHeader>().ok_or(Counter::DropTruncated)?;
                    [self.protocol] = fragment.next_header;
                    self.fragment = true;
                    self.later = fragment.offset() != 0;
                    self.identification = u32::from_ne_bytes(fragment.identification);
                    self.header_length += FragmentHeader::LENGTH;
                    if self.later {
                        // What follows is not the packet's beginning, so not a header.
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
        match self.protocol {
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS | ipv6::FRAGMENT => {
                Err(Counter::DropExtensionHeaders)
            }
            _ => Ok(()),
        }
    }
}
