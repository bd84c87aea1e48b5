//! What a read of memory at random costs on this machine, while the one before must end first: the floor under every look-up in a table
//! that is larger than the caches.

use std::hint::black_box;
use std::time::Instant;

/// Sizes of the memory that is read, MiB: a table of 100,000 short entries on each of two hosts, several of them, and the connections.
pub const MEBIBYTES: [usize; 4] = [4, 12, 32, 256];

const LINE_WORDS: usize = 8;
const READS: u32 = 1_000_000;
const ROUNDS: usize = 3;

/// Nanoseconds a read in so many MiB, in pages as the system gives them; the least of a few rounds.
pub fn read_nanoseconds(mebibytes: usize) -> f64 {
    // Ones, for the kernel gives out zeros without memory behind them.
    let words = vec![1_u64; (mebibytes << 20) / size_of::<u64>()];
    let lines = words.len() / LINE_WORDS;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut read = 0;
    let rounds = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        for _ in 0..READS {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let line = (state.wrapping_add(read) % lines as u64) as usize;
            read = black_box(words[line * LINE_WORDS]);
        }
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(READS)
    });
    rounds.fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_takes_time() {
        let nanoseconds = read_nanoseconds(MEBIBYTES[0]);
        assert!(nanoseconds.is_finite() && nanoseconds > 0.0, "{nanoseconds}");
    }
}
