//! A membership that is written down and goes on elsewhere: what the derived reading cannot check.

use super::{Membership, timing::AWARENESS_LIMIT};
use crate::wire::keyring::Nonces;

/// Numbers that only grow, one at a time, stay below this in any life of a node.
pub(crate) const MAX_COUNT: u64 = 1 << 62;

/// The largest datagram that there can be.
const MAX_PACKET_BYTES: usize = 65_536;

/// A membership that was written down has no key, so none of these is ever used with one.
pub(super) fn nonces() -> Nonces {
    Nonces::new(0)
}

impl Membership {
    /// Whether all numbers are such as a node can have, so that reckoning on with them is safe.
    pub(crate) fn is_plausible(&self) -> bool {
        self.health < AWARENESS_LIMIT
            && self.next_stream < MAX_COUNT
            && self.config.packet_budget <= MAX_PACKET_BYTES
            && self.own.is_plausible()
            && self.user.is_plausible()
            && self.suspicions.is_plausible()
            && self.probe.as_ref().is_none_or(super::Probe::is_plausible)
    }

    /// The members that are suspected.
    pub(crate) fn suspects(&self) -> impl Iterator<Item = &crate::id::NodeId> {
        self.suspicions.nodes()
    }
}
