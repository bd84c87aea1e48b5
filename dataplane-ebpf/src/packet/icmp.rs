//! ICMP for IPv4 (RFC 792).

use super::{checksum, header};

header! {
    /// An ICMP header, with the fields that "destination unreachable" uses (RFC 1191 section 4 for the MTU).
    Icmp, 8 {
        /// Type.
        kind: 1,
        /// Code, which tells more about the type.
        code: 1,
        /// Checksum over header and payload.
        checksum: 2,
        /// Of an echo its identifier, else zero.
        identifier: 2,
        /// Of an echo its sequence number; of "fragmentation needed" the MTU of the next hop.
        mtu: 2,
    }
}

/// Type of an echo's answer.
pub const ECHO_REPLY: u8 = 0;
/// Type "destination unreachable".
pub const UNREACHABLE: u8 = 3;
/// Type of an echo.
pub const ECHO: u8 = 8;
/// Type "time exceeded".
pub const TIME_EXCEEDED: u8 = 11;

/// Code of [`UNREACHABLE`]: the host does not speak the protocol.
pub const PROTOCOL: u8 = 2;
/// Code of [`UNREACHABLE`]: nobody listens on the port.
pub const PORT: u8 = 3;
/// Code of [`UNREACHABLE`]: too big for the path, and fragmentation is not allowed.
pub const FRAGMENTATION_NEEDED: u8 = 4;

impl Icmp {
    /// An error that quotes `quoted`, the beginning of the packet that it is about.
    #[inline(always)]
    pub fn error(kind: u8, code: u8, mtu: u16, quoted: &[u8]) -> Icmp {
        let start = (u32::from(kind) << 8 | u32::from(code)) + u32::from(mtu);
        Icmp {
            kind: [kind],
            code: [code],
            checksum: checksum::of(start, quoted).to_be_bytes(),
            identifier: [0; 2],
            mtu: mtu.to_be_bytes(),
        }
    }

    /// The answer to this echo: another type, and the checksum that follows from it (RFC 1624).
    #[inline(always)]
    pub const fn echo_reply(&self) -> Icmp {
        let (old, new) = ([self.kind[0], self.code[0], 0, 0], [ECHO_REPLY, self.code[0], 0, 0]);
        let mut reply = *self;
        reply.kind = [ECHO_REPLY];
        reply.checksum = checksum::replace(u16::from_be_bytes(self.checksum), old, new).to_be_bytes();
        reply
    }

    /// Whether an error may be sent about it: it is no error itself (RFC 1122 section 3.2.2).
    #[inline(always)]
    pub const fn is_query(&self) -> bool {
        matches!(self.kind[0], ECHO | ECHO_REPLY | 13..=18)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Header;

    fn sum(header: &Icmp, payload: &[u8]) -> u16 {
        let mut bytes = vec![0; Icmp::LENGTH];
        header.write(&mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        checksum::of(0, &bytes)
    }

    #[test]
    fn an_error_has_a_right_checksum() {
        let quoted = [0x45, 0, 0xff, 0xfe, 1, 2, 3, 4];
        for (code, mtu) in [(PORT, 0), (FRAGMENTATION_NEEDED, 1450), (FRAGMENTATION_NEEDED, 0xffff)] {
            let header = Icmp::error(UNREACHABLE, code, mtu, &quoted);
            assert_eq!((header.kind, header.code), ([UNREACHABLE], [code]));
            assert_eq!(header.mtu, mtu.to_be_bytes());
            assert_eq!(sum(&header, &quoted), 0, "code {code} mtu {mtu}");
        }
    }

    #[test]
    fn an_echo_reply_keeps_all_but_its_type() {
        let payload = [9; 32];
        let mut echo = Icmp {
            kind: [ECHO],
            code: [0],
            checksum: [0; 2],
            identifier: [0x12, 0x34],
            mtu: [0, 7],
        };
        echo.checksum = sum(&echo, &payload).to_be_bytes();
        let reply = echo.echo_reply();
        assert_eq!(sum(&reply, &payload), 0);
        assert_eq!(
            (reply.kind, reply.identifier, reply.mtu),
            ([ECHO_REPLY], [0x12, 0x34], [0, 7])
        );
    }

    #[test]
    fn errors_are_no_queries() {
        let is_query = |kind: u8| {
            let icmp = Icmp {
                kind: [kind],
                code: [0],
                checksum: [0; 2],
                identifier: [0; 2],
                mtu: [0; 2],
            };
            icmp.is_query()
        };
        for error in [3, 4, 5, 11, 12] {
            assert!(!is_query(error), "type {error}");
        }
        assert!(is_query(ECHO) && is_query(ECHO_REPLY) && is_query(13));
    }
}
