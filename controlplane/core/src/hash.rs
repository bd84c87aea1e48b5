//! Hashes that are the same on every node, whatever it is built with.

/// FNV-1a, with the length mixed in, so that two texts one after the other are not one.
pub(crate) fn bytes(state: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mixed = bytes.iter().fold(state ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    word(mixed, bytes.len() as u64)
}

/// Mixes a word into the state.
pub(crate) fn word(state: u64, word: u64) -> u64 {
    finish(state.rotate_left(23) ^ word)
}

/// The finaliser of SplitMix64: every bit of the input changes half of the output's.
pub(crate) fn finish(mut hash: u64) -> u64 {
    hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}
