//! What alive, suspect and dead messages change (`spec/networkdb.md` 3.4).

use super::refusals::Reason;
use super::timing::{FORMER_TOLD_AFTER, GOSSIP_TO_THE_DEAD, PROBE_INTERVAL};
use super::{LogLevel, Member, Membership, Output};
use crate::id::NodeId;
use crate::time::{Duration, Instant};
use crate::wire::message::{Accusation, Alive, Message, VERSIONS};
use crate::wire::stream::NodeState;
use std::net::SocketAddr;

impl Membership {
    /// A node is said to be alive.
    pub(super) fn alive(&mut self, now: Instant, alive: Alive) {
        if alive.node == self.config.name {
            self.alive_self(now, alive);
            return;
        }
        let [least, greatest, ..] = alive.versions;
        if least == 0 || greatest == 0 || least > greatest || alive.address.port() == 0 {
            let message = format!(
                "alive message for {} with versions {:?} at {}",
                alive.node, alive.versions, alive.address
            );
            self.log(LogLevel::Debug, message);
            return;
        }
        let was_gone = match self.roster.get(&alive.node) {
            // Incarnations start at 1.
            None if alive.incarnation == 0 => return,
            None => true,
            Some(known) => {
                let moved = known.address != alive.address;
                if moved && known.state != NodeState::Left {
                    let address = known.address;
                    self.conflict(now, alive.node, address, alive.address);
                    return;
                }
                if alive.incarnation <= known.incarnation && !moved {
                    return;
                }
                known.gone()
            }
        };
        self.store_alive(now, alive, was_gone);
    }

    fn store_alive(&mut self, now: Instant, alive: Alive, was_gone: bool) {
        let message = Message::Alive(alive.clone()).encode();
        let Alive {
            incarnation,
            node,
            address,
            meta,
            versions,
        } = alive;
        let since = match self.roster.get(&node) {
            Some(known) if known.state == NodeState::Alive => known.since,
            _ => now,
        };
        let member = Member {
            address,
            incarnation,
            state: NodeState::Alive,
            since,
            meta,
            versions,
        };
        if let Some(known) = self.roster.get_mut(&node) {
            *known = member;
        } else if !self.roster.insert(node.clone(), member, &mut self.random) {
            self.log(
                LogLevel::Warn,
                format!("member {node} is not taken: too many are known"),
            );
            return;
        }
        self.suspicions.cancel(&node);
        if was_gone {
            self.outputs.push_back(Output::Up(node.clone(), address));
        }
        if address == self.config.advertise {
            // An earlier life of this node, as old news tell. Nobody knows better that it is over.
            self.bury(now, &node, incarnation, NodeState::Dead);
            self.former.insert(node, now + FORMER_TOLD_AFTER);
        } else {
            self.broadcast_own(node, message);
        }
    }

    /// Tells of the ends of this node's earlier lives.
    pub(super) fn tell_of_former(&mut self, now: Instant) {
        let due: Vec<_> = self.former.extract_if(.., |_, at| *at <= now).collect();
        for (node, _) in due {
            let known = self.roster.get(&node).filter(|known| known.state == NodeState::Dead);
            let Some(incarnation) = known.map(|known| known.incarnation) else {
                continue;
            };
            let from = self.config.name.clone();
            let accusation = Accusation {
                incarnation,
                node: node.clone(),
                from,
            };
            self.broadcast_own(node, Message::Dead(accusation).encode());
        }
    }

    pub(super) fn former_timeout(&self) -> Option<Instant> {
        self.former.values().min().copied()
    }

    /// Somebody tells of this node itself: an echo, a leftover of another life, or a second node of this name.
    fn alive_self(&mut self, now: Instant, alive: Alive) {
        if self.leaving.is_some() {
            return;
        }
        if alive.address != self.config.advertise {
            self.conflict(now, alive.node, self.config.advertise, alive.address);
            return;
        }
        let same =
            alive.incarnation == self.incarnation && alive.meta == self.config.meta && alive.versions == VERSIONS;
        if alive.incarnation < self.incarnation || same {
            return;
        }
        self.refute(alive.incarnation);
    }

    /// Two nodes have one name: the one that is known stays, the other one is not taken.
    fn conflict(&mut self, now: Instant, node: NodeId, known: SocketAddr, other: SocketAddr) {
        let whose = if node == self.config.name {
            "this node"
        } else {
            "the one that is known"
        };
        let message = format!(
            "two nodes have the name {node}: {whose} at {known}, and one at {other}, which is not taken; \
             give one of them another name (restart it)"
        );
        self.warn_rarely(now, Reason::Conflict(node), message);
    }

    /// A node is suspected.
    pub(super) fn suspect(&mut self, now: Instant, accusation: Accusation) {
        let patience = self.patience();
        let Some(known) = self.roster.get_mut(&accusation.node) else {
            return;
        };
        if accusation.incarnation < known.incarnation {
            return;
        }
        if self.suspicions.contains(&accusation.node) {
            if self.suspicions.confirm(&accusation.node, &accusation.from) {
                self.broadcast_own(accusation.node.clone(), Message::Suspect(accusation).encode());
            }
            return;
        }
        if known.state != NodeState::Alive {
            return;
        }
        if accusation.node == self.config.name {
            let message = format!("Refuting a suspect message (from: {})", accusation.from);
            self.log(LogLevel::Warn, message);
            self.refute(accusation.incarnation);
            return;
        }
        known.incarnation = accusation.incarnation;
        known.state = NodeState::Suspect;
        known.since = now;
        let (suspect, accuser) = (accusation.node.clone(), accusation.from.clone());
        // The dead confirm nothing: waiting for them would make the last ones of a cluster that broke down wait longest.
        let members = self.roster.iter().filter(|(_, member)| !member.gone()).count();
        self.suspicions.start(now, suspect, accuser, members, patience);
        self.broadcast_own(accusation.node.clone(), Message::Suspect(accusation).encode());
    }

    /// A node is dead or has left.
    pub(super) fn dead(&mut self, now: Instant, accusation: Accusation) {
        let Some(known) = self.roster.get_mut(&accusation.node) else {
            return;
        };
        if accusation.incarnation < known.incarnation {
            return;
        }
        if accusation.node == self.config.name && self.leaving.is_none() {
            self.log(
                LogLevel::Warn,
                format!("Refuting a dead message (from: {})", accusation.from),
            );
            self.refute(accusation.incarnation);
            return;
        }
        let state = if accusation.node == accusation.from {
            NodeState::Left
        } else {
            NodeState::Dead
        };
        if self.bury(now, &accusation.node, accusation.incarnation, state) {
            self.broadcast_own(accusation.node.clone(), Message::Dead(accusation).encode());
        }
    }

    /// A node is gone; true if that is news.
    fn bury(&mut self, now: Instant, node: &NodeId, incarnation: u32, state: NodeState) -> bool {
        let known = self.roster.get_mut(node).filter(|known| !known.gone());
        let is_news = known.is_some();
        if let Some(known) = known {
            known.incarnation = incarnation;
            known.state = state;
            known.since = now;
        }
        self.suspicions.cancel(node);
        self.doubt_no_more(node);
        if is_news && *node != self.config.name {
            self.outputs.push_back(Output::Down(node.clone()));
        }
        is_news
    }

    /// Says that this node is alive, with an incarnation above the accused one.
    fn refute(&mut self, accused: u32) {
        self.counters.refutations += 1;
        self.incarnation = self.incarnation.max(accused).saturating_add(1);
        self.change_health(1);
        let name = self.config.name.clone();
        if let Some(own) = self.roster.get_mut(&name) {
            own.incarnation = self.incarnation;
        }
        let alive = Alive {
            incarnation: self.incarnation,
            node: name.clone(),
            address: self.config.advertise,
            meta: self.config.meta.clone(),
            versions: VERSIONS,
        };
        self.broadcast_own(name, Message::Alive(alive).encode());
    }

    pub(super) fn announce_leave(&mut self, now: Instant) {
        let name = self.config.name.clone();
        self.dead(
            now,
            Accusation {
                incarnation: self.incarnation,
                node: name.clone(),
                from: name,
            },
        );
    }

    fn broadcast_own(&mut self, node: NodeId, message: Vec<u8>) {
        if message.len() + crate::wire::packet::COMPOUND_PART_BYTES <= self.message_budget() {
            self.own.push(Some(node), message);
        }
    }

    /// Suspects that did not refute in time are dead.
    pub(super) fn expire_suspicions(&mut self, now: Instant) {
        while let Some(node) = self.suspicions.expired(now) {
            let Some(incarnation) = self.roster.get(&node).map(|member| member.incarnation) else {
                continue;
            };
            self.log(
                LogLevel::Info,
                format!("Marking {node} as failed, suspect timeout reached"),
            );
            self.dead(
                now,
                Accusation {
                    incarnation,
                    node,
                    from: self.config.name.clone(),
                },
            );
        }
    }

    /// The next member to be probed.
    pub(super) fn next_to_probe(&mut self, now: Instant) -> Option<NodeId> {
        // Before the origin plus the delay nobody can have been gone for long enough.
        let elapsed = now.since_origin().checked_sub(GOSSIP_TO_THE_DEAD).unwrap_or_default();
        self.roster
            .next_to_probe(&self.config.name, Instant::from_origin(elapsed), &mut self.random)
    }

    /// How many times longer the shortest suspicion lasts here: a node that missed nacks is slow itself, and so hears late that a
    /// suspect has refuted. Up to three members the shortest suspicion is the only one, four seconds, and memberlist's own slow node
    /// takes the healthy ones for dead by it. With one other member there is nobody to send nacks, so nothing is known of one's own
    /// health.
    fn patience(&self) -> u32 {
        if self.roster.len() <= 2 { 1 } else { self.health + 1 }
    }

    /// How long a probe may take, longer the worse this node's own health is.
    pub(super) fn probe_interval(&self) -> Duration {
        PROBE_INTERVAL * (self.health + 1)
    }
}
