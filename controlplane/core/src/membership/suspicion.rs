//! Suspicions and their end: the more members confirm one, the sooner (`spec/networkdb.md` 3.2, Lifeguard).

use super::timing::{SUSPICION_CONFIRMATIONS, expected_confirmations, suspicion_bounds, suspicion_timeout};
use crate::id::NodeId;
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Suspicion {
    /// The first accuser and those who confirmed.
    accusers: BTreeSet<NodeId>,
    confirmed: u32,
    expected: u32,
    shortest: Duration,
    longest: Duration,
    start: Instant,
    end: Instant,
}

/// The suspicions that run; at most one a member.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Suspicions {
    running: BTreeMap<NodeId, Suspicion>,
    ends: BTreeSet<(Instant, NodeId)>,
}

impl Suspicions {
    /// A member is suspected for the first time. The shortest suspicion lasts `patience` times as long as usual.
    pub(crate) fn start(&mut self, now: Instant, node: NodeId, accuser: NodeId, members: usize, patience: u32) {
        let expected = expected_confirmations(members);
        let (shortest, longest) = suspicion_bounds(members);
        let shortest = longest.min(shortest * patience);
        let end = now + suspicion_timeout(0, expected, shortest, longest);
        self.cancel(&node);
        self.ends.insert((end, node.clone()));
        let accusers = BTreeSet::from([accuser]);
        let suspicion = Suspicion {
            accusers,
            confirmed: 0,
            expected,
            shortest,
            longest,
            start: now,
            end,
        };
        self.running.insert(node, suspicion);
    }

    pub(crate) fn contains(&self, node: &NodeId) -> bool {
        self.running.contains_key(node)
    }

    /// Another accuser; true if that is news that others should hear.
    pub(crate) fn confirm(&mut self, node: &NodeId, accuser: &NodeId) -> bool {
        let Some(suspicion) = self.running.get_mut(node) else {
            return false;
        };
        if suspicion.confirmed >= suspicion.expected || !suspicion.accusers.insert(accuser.clone()) {
            return false;
        }
        suspicion.confirmed += 1;
        let Suspicion {
            confirmed,
            expected,
            shortest,
            longest,
            ..
        } = *suspicion;
        self.ends.remove(&(suspicion.end, node.clone()));
        suspicion.end = suspicion.start + suspicion_timeout(confirmed, expected, shortest, longest);
        self.ends.insert((suspicion.end, node.clone()));
        true
    }

    /// The member proved to be alive, or is known to be gone.
    pub(crate) fn cancel(&mut self, node: &NodeId) {
        if let Some(suspicion) = self.running.remove(node) {
            self.ends.remove(&(suspicion.end, node.clone()));
        }
    }

    /// The suspected members.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.running.keys()
    }

    /// Whether reckoning on with the numbers is safe.
    pub(crate) fn is_plausible(&self) -> bool {
        let most = SUSPICION_CONFIRMATIONS;
        self.running
            .values()
            .all(|suspicion| suspicion.confirmed <= most && suspicion.expected <= most)
    }

    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// A member whose suspicion ended by `now`; the suspicion is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<NodeId> {
        let (end, node) = self.ends.first()?;
        if *end > now {
            return None;
        }
        let node = node.clone();
        self.cancel(&node);
        Some(node)
    }
}
