//! Lamport clocks (`spec/networkdb.md` 3.6).

use serde::{Deserialize, Serialize};

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
        if time >= self.0 {
            self.0 = time.saturating_add(1);
        }
    }
}
