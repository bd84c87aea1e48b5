//! What a simulation may see and set.

use super::{MAX_OWN_BROADCASTS, MAX_USER_BROADCASTS, Membership, Random, probe::MAX_RELAYS, roster::MAX_MEMBERS};

/// How much of something is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Of what.
    pub(crate) what: &'static str,
    /// How much.
    pub(crate) count: usize,
    /// How much may be held.
    pub(crate) limit: usize,
    /// How much may be held when nothing has happened for a while.
    pub(crate) at_rest: usize,
}

/// How many streams may be open: all that can be opened within the 15 seconds that a stream is waited for.
pub(crate) const OPEN_STREAMS: usize = 1024;

/// How many may be open at rest: views are exchanged now and then, and a bulk sync counts for 15 seconds as nobody reports its end.
pub(crate) const OPEN_STREAMS_AT_REST: usize = 64;

/// How many messages may wait at rest: views are exchanged now and then, and what is new in them is told on.
pub(crate) const QUEUED_AT_REST: usize = 16;

impl Membership {
    /// From here on chance takes another course.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// Whether anything waits to be gossiped.
    pub(crate) fn busy(&self) -> bool {
        !(self.own.is_empty() && self.user.is_empty())
    }

    /// Nothing waits to be gossiped any more.
    pub(crate) fn hush(&mut self) {
        self.own.clear();
        self.user.clear();
    }

    /// What is held, and how much may be.
    pub(crate) fn held(&self) -> Vec<Held> {
        let held = |what, count, limit, at_rest| Held {
            what,
            count,
            limit,
            at_rest,
        };
        // Alone, there is nobody to tell; what waits is told to who comes.
        let queued = |limit| if self.alone() { limit } else { QUEUED_AT_REST };
        let (own, user) = (queued(MAX_OWN_BROADCASTS), queued(MAX_USER_BROADCASTS));
        vec![
            held("members", self.roster.len(), MAX_MEMBERS, MAX_MEMBERS),
            held("messages about members", self.own.len(), MAX_OWN_BROADCASTS, own),
            held("broadcasts", self.user.len(), MAX_USER_BROADCASTS, user),
            held("doubted members", self.doubted.len(), MAX_RELAYS, QUEUED_AT_REST),
            held("indirect pings", self.relays.len(), MAX_RELAYS, QUEUED_AT_REST),
            held("streams", self.exchanges.len(), OPEN_STREAMS, OPEN_STREAMS_AT_REST),
            held("outputs", self.outputs.len(), 0, 0),
        ]
    }
}
