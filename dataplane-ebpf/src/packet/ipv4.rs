//! IPv4 (RFC 791).

use super::{checksum, header};

header! {
    /// An IPv4 header without its options.
    Ipv4, 20 {
        /// Version and header length.
        version_ihl: 1,
        /// Differentiated services and congestion notification.
        tos: 1,
        /// Length of header and payload.
        total_length: 2,
        /// Identification.
        identification: 2,
        /// Flags and fragment offset.
        fragment: 2,
        /// Time to live.
        ttl: 1,
        /// Protocol of the payload.
        protocol: 1,
        /// Header checksum.
        checksum: 2,
        /// Source address.
        source: 4,
        /// Destination address.
        destination: 4,
    }
}

header! {
    /// An IPv4 header without options and the first 8 bytes behind it: what an ICMP error quotes at least (RFC 792).
    Quote, 28 {
        /// All of it.
        bytes: 28,
    }
}

header! {
    /// An IPv4 header without options and a TCP header without options.
    QuoteTcp, 40 {
        /// All of it.
        bytes: 40,
    }
}

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// The flag "don't fragment".
pub const DONT_FRAGMENT: u16 = 0x4000;
/// What is not zero in any fragment: the flag "more fragments", or the offset.
pub const IS_FRAGMENT: u16 = 0x3fff;
/// The flag "more fragments".
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset, in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// First byte of the first multicast group; all above are groups, reserved, or broadcast (RFC 1112 section 4).
pub const FIRST_GROUP: u8 = 224;

/// Offset of the header checksum in the header.
pub const CHECKSUM_OFFSET: usize = 10;
/// Offset of the source address in the header.
pub const SOURCE_OFFSET: usize = 12;
/// Offset of the destination address in the header.
pub const DESTINATION_OFFSET: usize = 16;

impl Ipv4 {
    /// Length of the header with its options in bytes; `None` if it is no IPv4 header at all.
    #[inline(always)]
    pub const fn header_length(&self) -> Option<usize> {
        let [version_ihl] = self.version_ihl;
        if version_ihl >> 4 != 4 || version_ihl & 0x0f < 5 {
            return None;
        }
        Some((version_ihl & 0x0f) as usize * 4)
    }

    /// Length of header and payload in bytes, as the header says.
    #[inline(always)]
    pub const fn total_length(&self) -> usize {
        u16::from_be_bytes(self.total_length) as usize
    }

    /// Whether it is one of several fragments, the first included.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.fragment) & IS_FRAGMENT != 0
    }

    /// Whether it carries the beginning of its packet.
    #[inline(always)]
    pub const fn is_first_fragment(&self) -> bool {
        u16::from_be_bytes(self.fragment) & FRAGMENT_OFFSET == 0
    }

    /// Writes the field of differentiated services, and the checksum that follows from it (RFC 1624).
    #[inline(always)]
    pub fn set_tos(&mut self, tos: u8) {
        let word = |tos: u8| [self.version_ihl[0], tos, 0, 0];
        let checksum = checksum::replace(u16::from_be_bytes(self.checksum), word(self.tos[0]), word(tos));
        self.checksum = checksum.to_be_bytes();
        self.tos = [tos];
    }

    /// Whether the destination is a multicast group or the limited broadcast (RFC 1112 section 4, RFC 919 section 7).
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        self.destination[0] >= 224
    }

    /// The checksum that the header without options should carry (RFC 791 section 3.1).
    #[inline(always)]
    pub fn computed_checksum(&self) -> [u8; 2] {
        // The sum does not depend on the byte order (RFC 1071 section 2 (B)), so the words need not be swapped.
        // Words of four bytes fold to the same sum as words of two, because 2^16 is 1 modulo 2^16 - 1.
        let word = |pair: [u8; 2]| u64::from(u16::from_ne_bytes(pair));
        let sum = word([self.version_ihl[0], self.tos[0]])
            + word(self.total_length)
            + word(self.identification)
            + word(self.fragment)
            + word([self.ttl[0], self.protocol[0]])
            + u64::from(u32::from_ne_bytes(self.source))
            + u64::from(u32::from_ne_bytes(self.destination));
        // Below 2^34: two halves sum to less than 2^19, which `finish` folds.
        checksum::finish(((sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32)) as u32).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Header;

    /// The example of RFC 1071's kind that many texts use: its checksum is 0xb861.
    const EXAMPLE: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8,
        0x00, 0xc7,
    ];

    #[test]
    fn the_checksum_follows_a_new_tos() {
        let mut header = Ipv4::read(&EXAMPLE).unwrap();
        for tos in [3, 0xff, 0] {
            header.set_tos(tos);
            assert_eq!(header.tos, [tos]);
            assert_eq!(
                header.checksum,
                Ipv4 {
                    checksum: [0; 2],
                    ..header
                }
                .computed_checksum()
            );
        }
    }

    #[test]
    fn fields_come_out() {
        let header = Ipv4::read(&EXAMPLE).unwrap();
        assert_eq!(header.header_length(), Some(20));
        assert_eq!(header.total_length(), 0x73);
        assert_eq!(header.protocol, [UDP]);
        assert!(!header.is_fragment());
        assert!(!header.is_multicast());
        assert_eq!(header.computed_checksum(), header.checksum);
    }

    #[test]
    fn the_checksum_is_that_of_the_bytes() {
        for (source, destination) in [
            ([0xff; 4], [0xff; 4]),
            ([0; 4], [0; 4]),
            ([10, 0, 0, 1], [0xff, 0xff, 0, 1]),
        ] {
            let mut header = Ipv4::read(&EXAMPLE).unwrap();
            (header.source, header.destination, header.total_length) = (source, destination, [0xff; 2]);
            header.checksum = [0; 2];
            let mut bytes = [0; 20];
            header.write(&mut bytes).unwrap();
            assert_eq!(header.computed_checksum(), checksum::of(0, &bytes).to_be_bytes());
        }
    }

    #[test]
    fn every_other_first_byte_is_refused() {
        for byte in 0..=255u8 {
            let mut bytes = EXAMPLE;
            bytes[0] = byte;
            let length = Ipv4::read(&bytes).unwrap().header_length();
            let expected = (0x45..=0x4f).contains(&byte).then(|| usize::from(byte - 0x40) * 4);
            assert_eq!(length, expected, "first byte {byte:#x}");
        }
    }

    #[test]
    fn fragments_are_first_middle_and_last() {
        for (flags, fragment) in [
            (0, false),
            (DONT_FRAGMENT, false),
            (MORE_FRAGMENTS, true),
            (MORE_FRAGMENTS | 185, true),
            (185, true),
        ] {
            let mut header = Ipv4::read(&EXAMPLE).unwrap();
            header.fragment = u16::to_be_bytes(flags);
            assert_eq!(header.is_fragment(), fragment, "{flags:#x}");
        }
    }
}
