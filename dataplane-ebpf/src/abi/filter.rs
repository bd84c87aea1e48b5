//! `flow_filter`, `flow_filter_state`: a few bits in the place of a look-up in `flows` that would find nothing. Most packets are of no
//! balanced connection, and a million of those are more than the caches hold.
//!
//! A bit that is not set says that no connection has this key; one that is set says nothing (Bloom, "Space/Time Trade-offs in Hash Coding
//! with Allowable Errors", 1970, with one hash). Bits cannot be taken away one by one, so there are two halves: the kernel sets the bits of
//! each new connection in both and reads the one that is in force; the daemon clears the other, sets the bits of all connections that there
//! are, and puts it in force.

use super::{FlowKey, V4};

/// Name of the map: array that can be mapped into memory, word -> `u64`, 64 bits.
pub const NAME: &str = "flow_filter";

/// Words of one half: 8,388,608 bits, four for each key of a million connections.
pub const HALF: u32 = 1 << 17;
/// Both halves.
pub const MAX_ENTRIES: u32 = 2 * HALF;

/// Name of the map: array with one entry, [`OFF`], [`FIRST`] or [`SECOND`].
pub const STATE_NAME: &str = "flow_filter_state";
/// One entry.
pub const STATE_ENTRIES: u32 = 1;

/// No half is in force: it is not known yet whether all connections have their bits.
pub const OFF: u32 = 0;
/// Words 0 to `HALF - 1`.
pub const FIRST: u32 = 1;
/// Words `HALF` to `2 * HALF - 1`.
pub const SECOND: u32 = 2;

/// Where the bit of a connection is: its word within a half, and its mask. Both directions of packets that are not translated have the same.
#[inline(always)]
pub fn bit(key: &FlowKey<V4>) -> (u32, u64) {
    let end = |address: V4, port: [u8; 2]| {
        let end = (u64::from(u32::from_ne_bytes(address)) << 16 | u64::from(u16::from_ne_bytes(port)))
            .wrapping_mul(0xff51_afd7_ed55_8ccd);
        end ^ end >> 32
    };
    let ends = end(key.source, key.source_port).wrapping_add(end(key.destination, key.destination_port));
    let hash = (ends ^ u64::from(key.network)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((hash >> 38) as u32 & (HALF - 1), 1 << (hash >> 58))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::flow::{RESERVED, network};

    fn key(client: [u8; 4], backend: [u8; 4], port: u16) -> FlowKey {
        FlowKey {
            source: client,
            destination: backend,
            source_port: port.to_be_bytes(),
            destination_port: [0, 80],
            network: network(4096, 6),
            reserved: RESERVED,
        }
    }

    #[test]
    fn both_directions_have_one_bit() {
        for port in 0..1000 {
            let key = key([10, 0, 0, 2], [10, 0, 0, 3], port);
            assert_eq!(bit(&key), bit(&key.opposite()));
        }
    }

    #[test]
    fn connections_that_differ_a_little_have_other_bits() {
        let mut bits = std::collections::BTreeSet::new();
        let mut count = 0_u32;
        for client in 2..22 {
            for backend in 2..22 {
                for port in 40_000..40_250 {
                    let (word, mask) = bit(&key([10, 0, 0, client], [10, 0, 0, backend], port));
                    assert!(word < HALF && mask.is_power_of_two());
                    bits.insert((word, mask));
                    count += 1;
                }
            }
        }
        // Of 100,000 drawn at random out of eight million, 600 meet another.
        assert!(count - bits.len() as u32 <= 1200, "{} of {count} bits", bits.len());
    }
}
