//! Lamport clocks (`spec/networkdb.md` 3.6).

use serde::{Deserialize, Serialize};

/// The latest time that is believed. A cluster that counts a million events a second gets there in 146,000 years; whoever tells of a
/// later one would leave no time for the writes of all others.
pub(super) const LATEST: u64 = 1 << 62;

/// Counts events, ahead of every event that it has seen.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Clock(u64);

impl Clock {
    /// The time now.
    pub(super) fn time(self) -> u64 {
        self.0
    }

    /// The time of a new event.
    pub(super) fn increment(&mut self) -> u64 {
        self.0 = self.0.saturating_add(1);
        self.0
    }

    /// Somebody else's event is seen.
    pub(super) fn witness(&mut self, time: u64) {
        if (self.0..=LATEST).contains(&time) {
            self.0 = time.saturating_add(1);
        }
    }
}
