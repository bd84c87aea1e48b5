//! Ethernet (IEEE 802.3).

use super::header;

header! {
    /// An Ethernet header without VLAN tag.
    Ethernet, 14 {
        /// Destination MAC.
        destination: 6,
        /// Source MAC.
        source: 6,
        /// EtherType.
        ethertype: 2,
    }
}

/// EtherType of IPv4.
pub const IPV4: [u8; 2] = [0x08, 0x00];
/// EtherType of ARP.
pub const ARP: [u8; 2] = [0x08, 0x06];
/// EtherType of IPv6.
pub const IPV6: [u8; 2] = [0x86, 0xdd];

/// Whether a MAC is a group address: broadcast or multicast.
#[inline(always)]
pub const fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Header;

    #[test]
    fn is_read_and_written_in_wire_order() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00, 99];
        let header = Ethernet::read(&bytes).unwrap();
        assert_eq!(header.destination, [1, 2, 3, 4, 5, 6]);
        assert_eq!(header.source, [7, 8, 9, 10, 11, 12]);
        assert_eq!(header.ethertype, IPV4);
        let mut out = [0; 15];
        header.write(&mut out).unwrap();
        assert_eq!(out[..14], bytes[..14]);
        assert_eq!(Ethernet::read(&bytes[..13]), None);
        assert_eq!(header.write(&mut out[..13]), None);
    }

    #[test]
    fn group_addresses_have_the_lowest_bit_of_the_first_byte() {
        assert!(is_group([0xff; 6]));
        assert!(is_group([0x01, 0, 0x5e, 0, 0, 1]));
        assert!(!is_group([0x02, 0x42, 10, 0, 1, 2]));
    }
}
