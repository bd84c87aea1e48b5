//! What the programs must know of an IPv4 packet, copied out of it.

use super::cursor::Packet;
use super::helper::{AddressPlace, Refused};
use weft_dataplane::abi::flow::Protocol;
use weft_dataplane::abi::{Counter, FlowKey};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ports, Tcp, Udp, hash, ipv4, transport};

/// An IPv4 packet.
///
/// Order and alignment matter: the compiler moves neighbouring fields at once, and the verifier wants accesses to the stack aligned.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Datagram {
    /// Source address.
    pub(super) source: [u8; 4],
    /// Destination address.
    pub(super) destination: [u8; 4],
    /// Ports; zero if it is neither TCP nor UDP, or a fragment.
    pub(super) ports: Ports,
    /// IANA protocol number.
    pub(super) protocol: u8,
    /// TCP control bits; 0 if it is not TCP.
    pub(super) tcp_flags: u8,
    /// Whether it is a fragment: then it has no ports, even if it is the first.
    pub(super) fragment: bool,
    /// Length of the IPv4 header in bytes.
    pub(super) header_length: usize,
    /// Length of the transport header in bytes; 0 if it is neither TCP nor UDP, or a fragment.
    pub(super) transport_length: usize,
}

impl Datagram {
    /// Reads the IPv4 packet that starts `offset` bytes after the start of the frame and reaches to its end.
    #[inline(always)]
    pub(super) fn read(packet: &mut Packet, offset: usize) -> Result<Datagram, Counter> {
        packet.pull(offset + Ipv4::LENGTH);
        let mut headers = packet.headers();
        headers.skip(offset);
        let ip = *headers.next::<Ipv4>().ok_or(Counter::DropTruncated)?;
        let header_length = ip.header_length().ok_or(Counter::DropUnknownProtocol)?;
        // A big TCP segment has no total length (it would not fit): zero, and the frame's end counts.
        if ip.total_length() < header_length && ip.total_length() != 0
            || offset + ip.total_length() > packet.len() as usize
        {
            return Err(Counter::DropTruncated);
        }
        let [protocol] = ip.protocol;
        let mut datagram = Datagram {
            source: ip.source,
            destination: ip.destination,
            protocol,
            fragment: ip.is_fragment(),
            tcp_flags: 0,
            ports: Ports {
                source: [0; 2],
                destination: [0; 2],
            },
            header_length,
            transport_length: 0,
        };
        datagram.read_transport(packet, offset + header_length)?;
        Ok(datagram)
    }

    #[inline(always)]
    fn read_transport(&mut self, packet: &mut Packet, offset: usize) -> Result<(), Counter> {
        if self.fragment {
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

    /// Whether it has ports: TCP or UDP, and no fragment.
    #[inline(always)]
    pub(super) fn has_ports(&self) -> bool {
        self.transport_length != 0
    }

    /// Whether it is TCP and opens a connection.
    #[inline(always)]
    pub(super) fn opens(&self) -> bool {
        transport::opens(self.tcp_flags)
    }

    /// Whether it is TCP and ends a connection.
    #[inline(always)]
    pub(super) fn closes(&self) -> bool {
        transport::closes(self.tcp_flags)
    }

    /// A hash of its flow: what its socket or its device knew, else one of our own.
    #[inline(always)]
    pub(super) fn hash(&self, packet: &Packet) -> u32 {
        match packet.hash() {
            0 => hash::flow(self.source, self.destination, self.ports, self.protocol),
            known => known,
        }
    }

    /// The key of its flow, as it stands.
    #[inline(always)]
    pub(super) fn flow_key(&self, vni: u32) -> FlowKey {
        FlowKey {
            vni,
            source: self.source,
            destination: self.destination,
            source_port: self.ports.source,
            destination_port: self.ports.destination,
            protocol: Protocol::from(self.protocol),
        }
    }

    /// Writes other addresses into the packet, whose IPv4 header follows the Ethernet header, and keeps its checksums right.
    #[inline(always)]
    pub(super) fn translate(&self, packet: &mut Packet, source: [u8; 4], destination: [u8; 4]) -> Result<(), Refused> {
        let ip = Ethernet::LENGTH;
        let udp = self.protocol == ipv4::UDP;
        let checksum = if udp {
            transport::UDP_CHECKSUM_OFFSET
        } else {
            transport::TCP_CHECKSUM_OFFSET
        };
        let mut place = AddressPlace {
            address: (ip + ipv4::SOURCE_OFFSET) as u32,
            ip_checksum: (ip + ipv4::CHECKSUM_OFFSET) as u32,
            transport_checksum: (ip + self.header_length + checksum) as u32,
            zero_is_none: udp,
        };
        if source != self.source {
            packet.replace_address(place, self.source, source)?;
        }
        if destination != self.destination {
            place.address = (ip + ipv4::DESTINATION_OFFSET) as u32;
            packet.replace_address(place, self.destination, destination)?;
        }
        Ok(())
    }
}
