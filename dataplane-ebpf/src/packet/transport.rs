//! What the overlay must know of TCP (RFC 9293) and UDP (RFC 768).

use super::header;

header! {
    /// The ports, which TCP and UDP have at the same place.
    Ports, 4 {
        /// Source port.
        source: 2,
        /// Destination port.
        destination: 2,
    }
}

header! {
    /// A TCP header without its options.
    Tcp, 20 {
        /// Source port.
        source: 2,
        /// Destination port.
        destination: 2,
        /// Sequence number.
        sequence: 4,
        /// Acknowledgment number.
        acknowledgment: 4,
        /// Data offset, in words of four bytes, in the upper half.
        data_offset: 1,
        /// Control bits.
        flags: 1,
        /// Window.
        window: 2,
        /// Checksum.
        checksum: 2,
        /// Urgent pointer.
        urgent: 2,
    }
}

header! {
    /// A UDP header.
    Udp, 8 {
        /// Source port.
        source: 2,
        /// Destination port.
        destination: 2,
        /// Length of header and payload.
        length: 2,
        /// Checksum; zero if there is none.
        checksum: 2,
    }
}

/// TCP control bit: no more data from sender.
pub const FIN: u8 = 0x01;
/// TCP control bit: synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// TCP control bit: reset the connection.
pub const RST: u8 = 0x04;
/// TCP control bit: the acknowledgment number is significant.
pub const ACK: u8 = 0x10;

/// TCP option (RFC 9293 section 3.1): the end of all.
pub const OPTION_END: u8 = 0;
/// TCP option: nothing, one byte.
pub const OPTION_NONE: u8 = 1;
/// TCP option: maximum segment size.
pub const OPTION_MSS: u8 = 2;
/// Its length.
pub const OPTION_MSS_LENGTH: u8 = 4;

/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM_OFFSET: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM_OFFSET: usize = 6;

impl Tcp {
    /// The checksum that the header should carry when nothing follows it; `pseudo` is the sum of the pseudo-header.
    #[inline(always)]
    pub fn computed_checksum(&self, pseudo: u32) -> [u8; 2] {
        let word = |pair: [u8; 2]| u32::from(u16::from_be_bytes(pair));
        let words = |four: [u8; 4]| word([four[0], four[1]]) + word([four[2], four[3]]);
        let sum = word(self.source)
            + word(self.destination)
            + words(self.sequence)
            + words(self.acknowledgment)
            + word([self.data_offset[0], self.flags[0]])
            + word(self.window)
            + word(self.urgent);
        super::checksum::finish(sum + pseudo).to_be_bytes()
    }

    /// The reset that answers this segment, without its checksum; `acknowledges` is whether it carries an acknowledgment, `length` how
    /// many sequence numbers it takes (RFC 9293 section 3.10.7.1).
    #[inline(always)]
    pub const fn reset(&self, acknowledges: bool, length: u32) -> Tcp {
        let after = u32::from_be_bytes(self.sequence).wrapping_add(length);
        let (sequence, acknowledgment, flags) = if acknowledges {
            (self.acknowledgment, [0; 4], RST)
        } else {
            ([0; 4], after.to_be_bytes(), RST | ACK)
        };
        Tcp {
            source: self.destination,
            destination: self.source,
            sequence,
            acknowledgment,
            data_offset: [0x50],
            flags: [flags],
            window: [0; 2],
            checksum: [0; 2],
            urgent: [0; 2],
        }
    }

    /// Length of the header with its options in bytes, as the header says.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        (self.data_offset[0] >> 4) as usize * 4
    }
}

/// Whether the control bits open a connection: SYN without ACK (RFC 9293 section 3.5).
#[inline(always)]
pub const fn opens(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// Whether the control bits end a connection or one half of it.
#[inline(always)]
pub const fn closes(flags: u8) -> bool {
    flags & (FIN | RST) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Header;

    #[test]
    fn a_tcp_header_is_read_in_wire_order() {
        let bytes = [
            0x9c, 0x40, 0x00, 0x50, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, SYN, 0xff, 0xfe, 0xab, 0xcd, 0, 1,
        ];
        let header = Tcp::read(&bytes).unwrap();
        assert_eq!((header.source, header.destination), ([0x9c, 0x40], [0x00, 0x50]));
        assert_eq!(header.header_length(), 32);
        assert_eq!(header.checksum, bytes[TCP_CHECKSUM_OFFSET..TCP_CHECKSUM_OFFSET + 2]);
        assert_eq!(Ports::read(&bytes).unwrap().destination, header.destination);
    }

    #[test]
    fn the_checksum_of_a_bare_header_is_that_of_its_bytes() {
        let bytes = [
            0x9c, 0x40, 0x00, 0x50, 1, 2, 3, 4, 0xff, 6, 7, 8, 0x50, RST, 0xff, 0xfe, 0, 0, 0xff, 1,
        ];
        let header = Tcp::read(&bytes).unwrap();
        for pseudo in [0, 0x1234, 0x3fffc] {
            let expected = crate::packet::checksum::of(pseudo, &bytes).to_be_bytes();
            assert_eq!(header.computed_checksum(pseudo), expected);
        }
    }

    #[test]
    fn a_udp_header_is_read_in_wire_order() {
        let bytes = [0, 53, 0x9c, 0x40, 0, 12, 0xab, 0xcd];
        let header = Udp::read(&bytes).unwrap();
        assert_eq!(header.checksum, bytes[UDP_CHECKSUM_OFFSET..UDP_CHECKSUM_OFFSET + 2]);
        assert_eq!(header.length, [0, 12]);
    }

    #[test]
    fn control_bits_open_and_close() {
        for flags in 0..=255u8 {
            assert_eq!(opens(flags), flags & SYN != 0 && flags & ACK == 0, "{flags:#x}");
            assert_eq!(closes(flags), flags & FIN != 0 || flags & RST != 0, "{flags:#x}");
        }
    }
}
