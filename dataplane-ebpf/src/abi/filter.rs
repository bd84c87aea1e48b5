//! `flow_filter`, `flow_filter_state`: a few bits in the place of a look-up in `flows` that would find nothing. Most packets are of no
//! balanced connection, and a million of those are more than the caches hold.
//!
//! Each key has three bits of one word, so that one line of the caches is read. If one of them is not set, no connection has this key; if
//! all are, that says nothing (Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", 1970). Of a million connections'
//! two million keys all but one in thirty others are told apart. Bits cannot be taken away one by one, so there are two halves: the kernel sets the bits of
//! each new connection in both and reads the one that is in force; the daemon clears the other, sets the bits of all connections that there
//! are, and puts it in force.

use super::{FlowKey, V4};

/// Name of the map: array that can be mapped into memory, word -> `u64`, 64 bits.
pub const NAME: &str = "flow_filter";

/// Words of one half: 16,777,216 bits, eight for each key of a million connections.
pub const HALF: u32 = 1 << 18;
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

/// Where the bits of a connection are: their word within a half, and their mask. Both directions of packets that are not translated have the
/// same.
#[inline(always)]
pub fn bits(key: &FlowKey<V4>) -> (u32, u64) {
    let end = |address: V4, port: [u8; 2]| {
        let end = (u64::from(u32::from_ne_bytes(address)) << 16 | u64::from(u16::from_ne_bytes(port)))
            .wrapping_mul(0xff51_afd7_ed55_8ccd);
        end ^ end >> 32
    };
    let ends = end(key.source, key.source_port).wrapping_add(end(key.destination, key.destination_port));
    let hash = (ends ^ u64::from(key.network)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let bit = |shift: u32| 1 << (hash >> shift & 63);
    ((hash >> 28) as u32 & (HALF - 1), bit(58) | bit(52) | bit(46))
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
    fn both_directions_have_the_same_bits() {
        for port in 0..1000 {
            let key = key([10, 0, 0, 2], [10, 0, 0, 3], port);
            assert_eq!(bits(&key), bits(&key.opposite()));
        }
    }

    #[test]
    fn a_million_connections_leave_nearly_all_other_keys_unknown() {
        let mut words = std::vec![0_u64; HALF as usize];
        let mut know = |key: &FlowKey| {
            let (word, mask) = bits(key);
            assert!(mask != 0 && mask.count_ones() <= 3);
            words[word as usize] |= mask;
        };
        for index in 0..10_000_u32 {
            let [_, _, high, low] = index.to_be_bytes();
            for port in 20_000..20_100 {
                know(&key([10, 16, 0, 2], [10, 32, high, low], port));
                know(&key([10, 16, 0, 2], [10, 64, high, low], port));
            }
        }
        let mut known = 0;
        for index in 0..100_000_u32 {
            let [_, a, b, c] = index.to_be_bytes();
            let (word, mask) = bits(&key([10, 16, 0, 2], [10, 96 + a, b, c], 40_000));
            known += u32::from(words[word as usize] & mask == mask);
        }
        // Three in a hundred, of keys drawn at random.
        assert!(known <= 5_000, "{known} of 100,000");
    }
}
