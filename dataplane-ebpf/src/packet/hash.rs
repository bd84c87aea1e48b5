//! The outer UDP source port: one per flow, so that the underlay spreads flows over paths and queues (RFC 7348 section 5).

use super::Ports;
use crate::abi::V6;

/// First port of the dynamic range (RFC 6335 section 6), from which RFC 7348 wants the source port.
pub const FIRST_PORT: u16 = 49152;
/// The size of the range, less one: the range is all ports from [`FIRST_PORT`].
pub const MASK: u32 = 0x3fff;

/// The port for a flow's hash.
#[inline(always)]
pub const fn source_port(hash: u32) -> u16 {
    FIRST_PORT + (hash & MASK) as u16
}

/// A hash of a packet's addresses, ports and protocol. Both directions of a flow differ. It need not withstand an attacker, who may
/// choose his ports anyway; the kernel's own hash, which does, costs more than all other work of encapsulation.
#[inline(always)]
pub const fn flow(source: [u8; 4], destination: [u8; 4], ports: Ports, protocol: u8) -> u32 {
    let addresses = (u32::from_ne_bytes(source) as u64) << 32 | u32::from_ne_bytes(destination) as u64;
    let ports = (u16::from_ne_bytes(ports.source) as u64) << 32 | u16::from_ne_bytes(ports.destination) as u64;
    // Both factors are odd, so each step is one-to-one; a shift brings the upper bits, which depend on all of the input, down.
    let word = addresses.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ ports ^ (protocol as u64) << 16;
    let word = (word ^ word >> 32).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (word >> 32) as u32
}

#[inline(always)]
const fn mix(word: u64, half: u64) -> u64 {
    let word = (word ^ half).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^ word >> 32
}

/// The same of an IPv6 packet.
#[inline(always)]
pub fn flow6(source: V6, destination: V6, ports: Ports, protocol: u8) -> u32 {
    let ([a, b], [c, d]) = (source.halves(), destination.halves());
    // No loop: the compiler makes a function of its body, and kernels before 6.3 refuse a call that is followed by a loop's head.
    let word = mix(mix(mix(mix(0, a), b), c), d);
    let ports = (u16::from_ne_bytes(ports.source) as u64) << 32 | u16::from_ne_bytes(ports.destination) as u64;
    let word = (word ^ ports ^ (protocol as u64) << 16).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_differ_in_one_port_spread_over_the_whole_range() {
        // 64 buckets of 256 ports; 16,384 flows put 256 into each, give or take. Six deviations of a fair spread are 96.
        for varied in 0..3u32 {
            let mut buckets = [0u32; 64];
            for value in 0..16_384u16 {
                let fixed = 5555u16.to_be_bytes();
                let (address, source, destination) = match varied {
                    0 => ([10, 0, 0, 3], (40_000 + value).to_be_bytes(), fixed),
                    1 => ([10, 0, 0, 3], fixed, value.to_be_bytes()),
                    _ => ([10, 0, value.to_be_bytes()[0], value.to_be_bytes()[1]], fixed, fixed),
                };
                let port = source_port(flow([10, 0, 0, 2], address, Ports { source, destination }, 17));
                buckets[usize::from(port - FIRST_PORT) / 256] += 1;
            }
            assert!(
                buckets.iter().all(|count| (160..352).contains(count)),
                "{varied}: {buckets:?}"
            );
        }
    }

    #[test]
    fn every_part_of_the_flow_counts() {
        let ports = |source: u16, destination: u16| Ports {
            source: source.to_be_bytes(),
            destination: destination.to_be_bytes(),
        };
        let (a, b) = ([10, 0, 0, 2], [10, 0, 0, 3]);
        let hashes = [
            flow(a, b, ports(1, 2), 6),
            flow(b, a, ports(1, 2), 6),
            flow(a, b, ports(2, 1), 6),
            flow(a, b, ports(1, 2), 17),
            flow(a, [10, 0, 0, 4], ports(1, 2), 6),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}: {hashes:?}");
        }
        assert_eq!(hashes[0], flow(a, b, ports(1, 2), 6));
    }

    #[test]
    fn the_port_stays_in_the_dynamic_range() {
        assert_eq!(source_port(0), 49152);
        assert_eq!(source_port(0x3fff), 65535);
        assert_eq!(source_port(0x4000), 49152);
        assert_eq!(source_port(u32::MAX), 65535);
    }
}
