//! ICMP for IPv6 (RFC 4443) and neighbour discovery (RFC 4861).

use super::{checksum, header};

header! {
    /// An ICMPv6 header.
    Icmpv6, 8 {
        /// Type: errors are below 128.
        kind: 1,
        /// Code, which tells more about the type.
        code: 1,
        /// Checksum over pseudo-header, header and payload.
        checksum: 2,
        /// Of "packet too big" the MTU of the next hop; of an echo its identifier and sequence number; else zero.
        data: 4,
    }
}

header! {
    /// A neighbour solicitation or advertisement without options (RFC 4861 sections 4.3 and 4.4).
    Neighbor, 24 {
        /// Type.
        kind: 1,
        /// Code: zero.
        code: 1,
        /// Checksum.
        checksum: 2,
        /// Flags of an advertisement.
        flags: 4,
        /// The address that it is about.
        target: 16,
    }
}

header! {
    /// The option that carries a MAC (RFC 4861 section 4.6.1).
    LinkLayerAddress, 8 {
        /// Type: 1 the source's, 2 the target's.
        kind: 1,
        /// Length in units of 8 bytes: 1.
        length: 1,
        /// The MAC.
        mac: 6,
    }
}

header! {
    /// The beginning of a packet without extension headers that an error quotes: IPv6 header and 8 bytes.
    Quote6, 48 {
        /// All of it.
        bytes: 48,
    }
}

header! {
    /// An IPv6 header and a TCP header without options.
    QuoteTcp6, 60 {
        /// All of it.
        bytes: 60,
    }
}

/// Type "destination unreachable".
pub const UNREACHABLE: u8 = 1;
/// Type "packet too big".
pub const TOO_BIG: u8 = 2;
/// Type "time exceeded".
pub const TIME_EXCEEDED: u8 = 3;
/// Type "parameter problem".
pub const PARAMETER_PROBLEM: u8 = 4;
/// Type of an echo.
pub const ECHO: u8 = 128;
/// Type of an echo's answer.
pub const ECHO_REPLY: u8 = 129;
/// Type "neighbour solicitation".
pub const SOLICITATION: u8 = 135;
/// Type "neighbour advertisement".
pub const ADVERTISEMENT: u8 = 136;

/// Code of [`UNREACHABLE`]: nobody listens on the port.
pub const PORT: u8 = 4;
/// Code of [`PARAMETER_PROBLEM`]: the protocol is not spoken.
pub const NEXT_HEADER: u8 = 1;

/// Flags of an advertisement: it was solicited, and it overrides what was known.
pub const SOLICITED_OVERRIDE: [u8; 4] = [0x60, 0, 0, 0];
/// The option with the target's MAC.
pub const TARGET_MAC: u8 = 2;

/// Adds up the words of a header of an even number of bytes.
#[inline(always)]
fn sum(bytes: &[u8]) -> u32 {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum()
}

impl Neighbor {
    /// The sum of its words (RFC 1071).
    #[inline(always)]
    pub fn sum(&self) -> u32 {
        sum(&[self.kind[0], self.code[0]]) + sum(&self.checksum) + sum(&self.flags) + sum(&self.target)
    }
}

impl LinkLayerAddress {
    /// The sum of its words (RFC 1071).
    #[inline(always)]
    pub fn sum(&self) -> u32 {
        sum(&[self.kind[0], self.length[0]]) + sum(&self.mac)
    }
}

impl Icmpv6 {
    /// Whether an error may be sent about it: it is no error itself (RFC 4443 section 2.4 (e)).
    #[inline(always)]
    pub const fn is_query(&self) -> bool {
        self.kind[0] >= 128
    }

    /// The answer to this echo: another type, and the checksum that follows from it (RFC 1624).
    #[inline(always)]
    pub const fn echo_reply(&self) -> Icmpv6 {
        let (old, new) = ([self.kind[0], self.code[0], 0, 0], [ECHO_REPLY, self.code[0], 0, 0]);
        let mut reply = *self;
        reply.kind = [ECHO_REPLY];
        reply.checksum = checksum::replace(u16::from_be_bytes(self.checksum), old, new).to_be_bytes();
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Header;

    #[test]
    fn an_echo_reply_keeps_all_but_its_type() {
        let payload = [7; 33];
        let sum = |header: &Icmpv6| {
            let mut bytes = vec![0; Icmpv6::LENGTH];
            header.write(&mut bytes).unwrap();
            bytes.extend_from_slice(&payload);
            checksum::of(0x1234, &bytes)
        };
        let mut echo = Icmpv6 {
            kind: [ECHO],
            code: [0],
            checksum: [0; 2],
            data: [1, 2, 3, 4],
        };
        echo.checksum = sum(&echo).to_be_bytes();
        let reply = echo.echo_reply();
        assert_eq!((reply.kind, reply.data), ([ECHO_REPLY], [1, 2, 3, 4]));
        assert_eq!(sum(&reply), 0);
    }

    #[test]
    fn errors_are_below_128() {
        let kind = |kind: u8| Icmpv6 {
            kind: [kind],
            code: [0],
            checksum: [0; 2],
            data: [0; 4],
        };
        for error in [UNREACHABLE, TOO_BIG, TIME_EXCEEDED, PARAMETER_PROBLEM, 127] {
            assert!(!kind(error).is_query());
        }
        for query in [ECHO, ECHO_REPLY, SOLICITATION] {
            assert!(kind(query).is_query());
        }
    }
}
