//! IPv6 (RFC 8200).

use super::header;

header! {
    /// An IPv6 header without extension headers.
    Ipv6, 40 {
        /// Version, traffic class and flow label.
        version_class_flow: 4,
        /// Length of all that follows this header; zero in a segment too big for the field.
        payload_length: 2,
        /// Protocol of what follows.
        next_header: 1,
        /// Hop limit.
        hop_limit: 1,
        /// Source address.
        source: 16,
        /// Destination address.
        destination: 16,
    }
}

header! {
    /// The beginning that all extension headers but that of fragments have (RFC 6564 section 4).
    Extension, 8 {
        /// Protocol of what follows.
        next_header: 1,
        /// Length in units of 8 bytes, the first 8 not counted.
        length: 1,
        /// Its own.
        data: 6,
    }
}

header! {
    /// The fragment header (RFC 8200 section 4.5).
    FragmentHeader, 8 {
        /// Protocol of what follows.
        next_header: 1,
        /// Reserved.
        reserved: 1,
        /// Offset in units of 8 bytes in the upper 13 bits; the lowest: more fragments follow.
        offset: 2,
        /// Number of the packet.
        identification: 4,
    }
}

/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing header.
pub const ROUTING: u8 = 43;
/// Next header: fragment header.
pub const FRAGMENT: u8 = 44;
/// Next header: ICMPv6.
pub const ICMP: u8 = 58;
/// Next header: destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// More extension headers than this in one packet are refused: no stack sends so many.
pub const MAX_EXTENSIONS: usize = 4;

/// Offset of the source address in the header.
pub const SOURCE_OFFSET: usize = 8;
/// Offset of the destination address in the header.
pub const DESTINATION_OFFSET: usize = 24;

impl Ipv6 {
    /// Whether it is an IPv6 header at all.
    #[inline(always)]
    pub const fn is_valid(&self) -> bool {
        self.version_class_flow[0] >> 4 == 6
    }

    /// Length of all that follows this header, as it says.
    #[inline(always)]
    pub const fn payload_length(&self) -> usize {
        u16::from_be_bytes(self.payload_length) as usize
    }

    /// The traffic class.
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        self.version_class_flow[0] << 4 | self.version_class_flow[1] >> 4
    }
}

impl Extension {
    /// Its length in bytes.
    #[inline(always)]
    pub const fn length(&self) -> usize {
        self.length[0] as usize * 8 + 8
    }
}

impl FragmentHeader {
    /// Offset of this fragment's data in units of 8 bytes.
    #[inline(always)]
    pub const fn offset(&self) -> u16 {
        u16::from_be_bytes(self.offset) >> 3
    }

    /// Whether more fragments follow.
    #[inline(always)]
    pub const fn more(&self) -> bool {
        self.offset[1] & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Header;

    #[test]
    fn fields_come_out() {
        let mut bytes = [0u8; 40];
        bytes[..8].copy_from_slice(&[0x6a, 0xb1, 0x23, 0x45, 0x05, 0x78, 17, 64]);
        bytes[23] = 1;
        bytes[39] = 2;
        let header = Ipv6::read(&bytes).unwrap();
        assert!(header.is_valid());
        assert_eq!(header.traffic_class(), 0xab);
        assert_eq!(header.payload_length(), 1400);
        assert_eq!((header.next_header, header.hop_limit), ([17], [64]));
        assert_eq!(header.source, bytes[SOURCE_OFFSET..SOURCE_OFFSET + 16]);
        assert_eq!(header.destination, bytes[DESTINATION_OFFSET..]);
        bytes[0] = 0x45;
        assert!(!Ipv6::read(&bytes).unwrap().is_valid());
    }

    #[test]
    fn extension_and_fragment_headers() {
        let extension = Extension::read(&[17, 2, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!((extension.next_header, extension.length()), ([17], 24));
        let fragment = FragmentHeader::read(&[17, 0, 0x05, 0xa9, 1, 2, 3, 4]).unwrap();
        assert_eq!((fragment.offset(), fragment.more()), (181, true));
        assert!(!FragmentHeader::read(&[17, 0, 0, 0, 1, 2, 3, 4]).unwrap().more());
    }
}
