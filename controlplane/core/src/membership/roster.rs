//! The members that are known, and the order in which they are probed.

use super::random::Random;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::{Alive, Versions};
use crate::wire::stream::{NodeState, PushNode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How many members are kept at most. Docker's largest clusters have a few thousand; beyond this somebody makes names up.
pub(crate) const MAX_MEMBERS: usize = 65_536;

/// A member as it is seen from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it gossips.
    pub address: SocketAddr,
    /// Its latest known life.
    pub incarnation: u32,
    /// How it is seen.
    pub state: NodeState,
    /// Since when.
    pub since: Instant,
    /// Empty in Docker's clusters.
    pub meta: Vec<u8>,
    /// What it speaks.
    pub versions: Versions,
}

impl Member {
    /// Whether it has failed or left.
    pub fn gone(&self) -> bool {
        matches!(self.state, NodeState::Dead | NodeState::Left)
    }

    /// Whether it checks a checksum in front of a datagram.
    pub(crate) fn takes_checksum(&self) -> bool {
        let [_, greatest, ..] = self.versions;
        greatest >= 5
    }

    /// Whether it answers an indirect ping that failed.
    pub(crate) fn sends_nack(&self) -> bool {
        let [_, greatest, ..] = self.versions;
        greatest >= 4
    }
}

/// All members, this node included.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Roster {
    members: BTreeMap<NodeId, Member>,
    /// The same names, in the order of probing.
    ring: Vec<NodeId>,
    next: usize,
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(node)
    }

    pub(crate) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Member> {
        self.members.get_mut(node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.members.iter()
    }

    /// Adds a member at a random place of the ring, so that nodes do not probe a newcomer all at once. False when full.
    pub(crate) fn insert(&mut self, node: NodeId, member: Member, random: &mut Random) -> bool {
        if self.members.len() >= MAX_MEMBERS {
            return false;
        }
        if self.members.insert(node.clone(), member).is_none() {
            let place = random.below(self.ring.len() + 1);
            self.ring.push(node);
            let last = self.ring.len() - 1;
            self.ring.swap(place, last);
        }
        true
    }

    /// At most `count` different random members that `fits`.
    pub(crate) fn pick(
        &self,
        random: &mut Random,
        count: usize,
        fits: impl Fn(&NodeId, &Member) -> bool,
    ) -> Vec<(NodeId, Member)> {
        let fits = |node: &NodeId| self.members.get(node).is_some_and(|member| fits(node, member));
        let picked = random.pick(&self.ring, count, fits);
        picked
            .into_iter()
            .filter_map(|node| Some((node.clone(), self.members.get(node)?.clone())))
            .collect()
    }

    /// The next member to be probed: neither this node nor gone. At the end of the ring, those gone before `forget` are dropped
    /// and the ring is shuffled.
    pub(crate) fn next_to_probe(&mut self, own: &NodeId, forget: Instant, random: &mut Random) -> Option<NodeId> {
        for _ in 0..=self.ring.len() {
            let Some(node) = self.ring.get(self.next) else {
                self.next = 0;
                self.wrap(own, forget, random);
                continue;
            };
            self.next += 1;
            if node != own && self.members.get(node).is_some_and(|member| !member.gone()) {
                return Some(node.clone());
            }
        }
        None
    }

    fn wrap(&mut self, own: &NodeId, forget: Instant, random: &mut Random) {
        self.members
            .retain(|node, member| node == own || !member.gone() || member.since > forget);
        self.ring.retain(|node| self.members.contains_key(node));
        random.shuffle(&mut self.ring);
    }

    /// The whole view, for a push/pull.
    pub(crate) fn view(&self) -> Vec<PushNode> {
        let node = |(node, member): (&NodeId, &Member)| PushNode {
            alive: Alive {
                incarnation: member.incarnation,
                node: node.clone(),
                address: member.address,
                meta: member.meta.clone(),
                versions: member.versions,
            },
            state: member.state,
        };
        self.members.iter().map(node).collect()
    }
}
