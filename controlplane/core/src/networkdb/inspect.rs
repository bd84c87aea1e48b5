//! What a simulation may see and set.

use super::{NetworkDb, Random};

impl NetworkDb {
    /// From here on chance takes another course.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed.rotate_left(32));
        self.membership.reseed(seed);
    }
}
