//! What a simulation may see and set.

use super::{Membership, Random};

impl Membership {
    /// From here on chance takes another course.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }
}
