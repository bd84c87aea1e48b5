//! VXLAN (RFC 7348 section 5), and what it adds to a packet.

use super::{Ethernet, Header, Ipv4, Ipv6, Udp, header};

header! {
    /// A VXLAN header.
    Vxlan, 8 {
        /// Flags: the I flag says that the VNI is valid.
        flags: 1,
        /// Reserved; zero when sent, ignored when received.
        reserved_1: 3,
        /// VXLAN network identifier.
        vni: 3,
        /// Reserved; zero when sent, ignored when received.
        reserved_2: 1,
    }
}

/// The I flag: the VNI is valid.
pub const VALID_VNI: u8 = 0x08;

/// What encapsulation adds between the outer and the inner IPv4 header: outer IPv4, UDP, VXLAN, inner Ethernet.
pub const OVERHEAD: usize = Ipv4::LENGTH + Udp::LENGTH + Vxlan::LENGTH + Ethernet::LENGTH;

/// What it adds when the outer header is IPv6.
pub const OVERHEAD6: usize = Ipv6::LENGTH + Udp::LENGTH + Vxlan::LENGTH + Ethernet::LENGTH;

const _: () = assert!(OVERHEAD == 50 && OVERHEAD6 == 70);

impl Vxlan {
    /// The header of a frame in the network `vni`, of which the lower 24 bits count.
    #[inline(always)]
    pub const fn new(vni: u32) -> Self {
        let [_, a, b, c] = vni.to_be_bytes();
        Vxlan {
            flags: [VALID_VNI],
            reserved_1: [0; 3],
            vni: [a, b, c],
            reserved_2: [0],
        }
    }

    /// The network identifier.
    #[inline(always)]
    pub const fn vni(&self) -> u32 {
        let [a, b, c] = self.vni;
        u32::from_be_bytes([0, a, b, c])
    }

    /// Whether the sender declared the network identifier valid.
    #[inline(always)]
    pub const fn is_valid(&self) -> bool {
        self.flags[0] & VALID_VNI != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_survives() {
        for vni in [1, 4096, 4097, 0x0012_3456, 0x00ff_ffff] {
            let mut bytes = [0xaa; 8];
            Vxlan::new(vni).write(&mut bytes).unwrap();
            let header = Vxlan::read(&bytes).unwrap();
            assert_eq!(header.vni(), vni);
            assert!(header.is_valid());
            assert_eq!(bytes[0], 0x08);
            assert_eq!([bytes[1], bytes[2], bytes[3], bytes[7]], [0; 4]);
        }
    }
}
