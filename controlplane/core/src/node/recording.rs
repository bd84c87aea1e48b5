//! Recording what enters the node's gossip.

use super::Node;
use crate::recording::{Ending, StartError};
use crate::time::Instant;

impl Node {
    /// From now on all that enters the gossip is written down; see [`crate::recording`].
    pub fn start_recording(&mut self, now: Instant, weft: &str, node: &str, unix_nanos: i64) -> Result<(), StartError> {
        self.gossip.start_recording(now, weft, node, unix_nanos)
    }

    /// What was written down since the last call.
    pub fn take_recorded(&mut self) -> Vec<u8> {
        self.gossip.take_recorded()
    }

    /// Ends the recording; returns its end. `whole`: all that was taken before is kept.
    pub fn finish_recording(&mut self, now: Instant, why: Ending, whole: bool) -> Vec<u8> {
        self.gossip.finish_recording(now, why, whole)
    }
}
