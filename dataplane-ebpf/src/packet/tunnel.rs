//! All that VXLAN over IPv4 puts before an inner packet (RFC 7348 section 5), as one header of few words: what makes up the load is read
//! and written in these.

use super::{checksum, header, ipv4, vxlan};

header! {
    /// IPv4 without options, UDP, VXLAN, and the inner Ethernet header.
    TunnelIpv4, 50 {
        /// Version and header length, differentiated services, total length.
        begin: 4,
        /// Identification, flags and fragment offset.
        fragment: 4,
        /// Time to live, protocol, header checksum.
        protocol: 4,
        /// Source address.
        source: 4,
        /// Destination address.
        destination: 4,
        /// Source and destination port.
        ports: 4,
        /// Length and checksum of UDP.
        udp: 4,
        /// Flags and VNI.
        vxlan: 8,
        /// Destination MAC of the inner frame.
        destination_mac: 6,
        /// Source MAC of the inner frame.
        source_mac: 6,
        /// EtherType of the inner frame.
        ethertype: 2,
    }
}

/// Version 4, header of 20 bytes.
const WITHOUT_OPTIONS: u32 = 0x45;
/// Length of the IPv4 header.
const IPV4_LENGTH: u16 = 20;
/// Both bits of congestion notification: the underlay met congestion (RFC 3168 section 5).
const CONGESTION: u32 = 3;

impl TunnelIpv4 {
    /// Writes the IPv4 and the UDP header of a packet of `length` bytes, without a UDP checksum (RFC 7348 section 5).
    #[inline(always)]
    pub fn set_outer(&mut self, tos: u8, length: u16, ttl: u8, addresses: [[u8; 4]; 2], ports: [u16; 2]) {
        let [source, destination] = addresses;
        let begin = (WITHOUT_OPTIONS << 24 | (tos as u32) << 16 | length as u32).to_be_bytes();
        let fragment = (ipv4::DONT_FRAGMENT as u32).to_be_bytes();
        let protocol = ((ttl as u32) << 24 | (ipv4::UDP as u32) << 16).to_be_bytes();
        // Of words as they lie in memory: the sum does not depend on the order of bytes (RFC 1071 section 2 (B)).
        let sum = [begin, fragment, protocol, source, destination]
            .map(|word| u64::from(u32::from_ne_bytes(word)))
            .iter()
            .sum();
        let sum = checksum::fold(sum);
        let [a, b] = checksum::finish((sum & 0xffff) + (sum >> 16)).to_ne_bytes();
        let [ttl, protocol, ..] = protocol;
        self.begin = begin;
        self.fragment = fragment;
        self.protocol = [ttl, protocol, a, b];
        self.source = source;
        self.destination = destination;
        self.ports = ((ports[0] as u32) << 16 | ports[1] as u32).to_be_bytes();
        self.udp = (((length - IPV4_LENGTH) as u32) << 16).to_be_bytes();
    }

    /// Writes the VXLAN header of a frame in the network `vni`.
    #[inline(always)]
    pub fn set_vni(&mut self, vni: u32) {
        self.vxlan = ((vxlan::VALID_VNI as u64) << 56 | (vni as u64 & 0x00ff_ffff) << 8).to_be_bytes();
    }

    /// Whether it is a whole IPv4 packet without options that carries valid VXLAN to `port`, and met no congestion.
    #[inline(always)]
    pub fn is_plain(&self, port: u16) -> bool {
        let begin = u32::from_be_bytes(self.begin) >> 16;
        let protocol = u32::from_be_bytes(self.protocol) >> 16 & 0xff;
        begin >> 8 == WITHOUT_OPTIONS
            && begin & CONGESTION != CONGESTION
            && u32::from_be_bytes(self.fragment) & ipv4::IS_FRAGMENT as u32 == 0
            && protocol == ipv4::UDP as u32
            && u32::from_be_bytes(self.ports) & 0xffff == port as u32
            && self.vxlan[0] & vxlan::VALID_VNI != 0
    }

    /// The network identifier.
    #[inline(always)]
    pub fn vni(&self) -> u32 {
        let [.., a, b, c, d] = self.vxlan;
        u32::from_be_bytes([a, b, c, d]) >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Header, Ipv4, Udp, Vxlan};

    fn written(tos: u8) -> [u8; 50] {
        let mut header = TunnelIpv4::read(&[0xaa; 50]).unwrap();
        header.set_outer(tos, 1234, 64, [[192, 168, 50, 1], [192, 168, 50, 255]], [50_000, 4789]);
        header.set_vni(0x0012_3456);
        let mut bytes = [0; 50];
        header.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_reads_as_the_single_headers() {
        let bytes = written(2);
        let ip = Ipv4::read(&bytes).unwrap();
        assert_eq!(ip.header_length(), Some(20));
        assert_eq!((ip.tos, ip.total_length(), ip.identification), ([2], 1234, [0; 2]));
        assert_eq!((ip.fragment, ip.ttl, ip.protocol), ([0x40, 0], [64], [17]));
        assert_eq!((ip.source, ip.destination), ([192, 168, 50, 1], [192, 168, 50, 255]));
        assert_eq!(ip.checksum, ip.computed_checksum());
        let udp = Udp::read(&bytes[20..]).unwrap();
        assert_eq!(
            (udp.source, udp.destination),
            (50_000u16.to_be_bytes(), 4789u16.to_be_bytes())
        );
        assert_eq!((udp.length, udp.checksum), (1214u16.to_be_bytes(), [0; 2]));
        assert_eq!(Vxlan::read(&bytes[28..]).unwrap(), Vxlan::new(0x0012_3456));
        assert_eq!(bytes[36..], [0xaa; 14]);
    }

    #[test]
    fn sums_that_carry_are_folded() {
        for byte in [0, 0x7f, 0xff] {
            let mut header = TunnelIpv4::read(&[0; 50]).unwrap();
            header.set_outer(0xff, 0xffff, byte, [[byte; 4], [0xff; 4]], [0; 2]);
            let mut bytes = [0; 50];
            header.write(&mut bytes).unwrap();
            assert_eq!(checksum::of(0, &bytes[..20]), 0, "{byte}");
        }
    }

    #[test]
    fn each_way_not_to_be_plain_is_noticed() {
        let plain = written(0);
        assert!(TunnelIpv4::read(&plain).unwrap().is_plain(4789));
        assert_eq!(TunnelIpv4::read(&plain).unwrap().vni(), 0x0012_3456);
        let changes = [
            (0, 0x46),
            (0, 0x65),
            (1, 3),
            (6, 0x20),
            (6, 0x01),
            (7, 1),
            (9, 6),
            (22, 0),
            (23, 0),
            (28, 0),
        ];
        for (place, byte) in changes {
            let mut bytes = plain;
            bytes[place] = byte;
            assert!(!TunnelIpv4::read(&bytes).unwrap().is_plain(4789), "{place} {byte:#x}");
        }
        for (place, byte) in [(1, 2), (6, 0x80), (28, 0xff), (29, 1)] {
            let mut bytes = plain;
            bytes[place] = byte;
            assert!(TunnelIpv4::read(&bytes).unwrap().is_plain(4789), "{place} {byte:#x}");
        }
    }
}
