//! Choices from a seed.

use crate::time::Duration;
use rand_core::Rng;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

/// A stream of choices; the same seed gives the same ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Random(Pcg32);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(Pcg32::new(seed, 0xa02b_dbf7_bb3c_0a7a))
    }

    /// A number below `bound`; zero for a bound of zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // Multiply and shift: the bias is under 2^-32 of the bound, which no choice of peers notices.
        ((u128::from(self.0.next_u32()) * bound as u128) >> 32) as usize
    }

    /// A time below `interval`, so that nodes started together do not act together.
    pub(crate) fn stagger(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(f64::from(self.0.next_u32()) / f64::from(u32::MAX))
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// At most `count` different items that `fits`, tried in random order, each looked at about three times at most: with few
    /// fitting among many it may find fewer than there are, as memberlist's own choice does.
    pub(crate) fn pick<'a, T: Ord>(&mut self, items: &'a [T], count: usize, fits: impl Fn(&T) -> bool) -> Vec<&'a T> {
        let mut picked: Vec<&T> = Vec::with_capacity(count);
        for _ in 0..3 * items.len() {
            if picked.len() == count {
                break;
            }
            if let Some(item) = items.get(self.below(items.len()))
                && fits(item)
                && !picked.contains(&item)
            {
                picked.push(item);
            }
        }
        picked
    }
}
