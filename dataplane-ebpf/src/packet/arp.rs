//! ARP for IPv4 over Ethernet (RFC 826).

use super::header;

header! {
    /// An ARP packet for IPv4 over Ethernet.
    Arp, 28 {
        /// Hardware type.
        hardware_type: 2,
        /// Protocol type.
        protocol_type: 2,
        /// Length of a hardware address.
        hardware_length: 1,
        /// Length of a protocol address.
        protocol_length: 1,
        /// Request or reply.
        operation: 2,
        /// Sender's MAC.
        sender_mac: 6,
        /// Sender's IPv4 address; zero in a probe (RFC 5227 section 1.1).
        sender_ip: 4,
        /// Target's MAC; zero in a request.
        target_mac: 6,
        /// Target's IPv4 address.
        target_ip: 4,
    }
}

/// Operation: request.
pub const REQUEST: [u8; 2] = [0, 1];
/// Operation: reply.
pub const REPLY: [u8; 2] = [0, 2];

impl Arp {
    /// An operation between two stations.
    pub const fn new(operation: [u8; 2], sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> Self {
        Arp {
            hardware_type: [0, 1],
            protocol_type: super::ethernet::IPV4,
            hardware_length: [6],
            protocol_length: [4],
            operation,
            sender_mac: sender.0,
            sender_ip: sender.1,
            target_mac: target.0,
            target_ip: target.1,
        }
    }

    /// Whether it asks for the MAC of an IPv4 address on Ethernet.
    #[inline(always)]
    pub fn is_ipv4_request(&self) -> bool {
        self.hardware_type == [0, 1]
            && self.protocol_type == super::ethernet::IPV4
            && self.hardware_length == [6]
            && self.protocol_length == [4]
            && self.operation == REQUEST
    }

    /// The answer to this request: `mac` has the address that was asked for.
    #[inline(always)]
    pub const fn answer(&self, mac: [u8; 6]) -> Self {
        Arp::new(REPLY, (mac, self.target_ip), (self.sender_mac, self.sender_ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Header;

    const REQUEST_BYTES: [u8; 28] = [
        0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 3,
    ];

    #[test]
    fn a_request_is_known_and_answered() {
        let request = Arp::read(&REQUEST_BYTES).unwrap();
        assert!(request.is_ipv4_request());
        let mut answer = [0; 28];
        request.answer([3; 6]).write(&mut answer).unwrap();
        assert_eq!(
            answer,
            [
                0, 1, 8, 0, 6, 4, 0, 2, 3, 3, 3, 3, 3, 3, 10, 0, 0, 3, 2, 2, 2, 2, 2, 2, 10, 0, 0, 2
            ]
        );
    }

    #[test]
    fn each_wrong_field_makes_it_no_request() {
        for index in 0..8 {
            let mut bytes = REQUEST_BYTES;
            bytes[index] ^= 0x10;
            assert!(!Arp::read(&bytes).unwrap().is_ipv4_request(), "byte {index}");
        }
    }
}
