//! Nodes and their lives: active, failed, left (`spec/networkdb.md` 3.11).

use super::{Event, LogLevel, NetworkDb, REAP_ENTRY};
use crate::id::NodeId;
use crate::time::{Duration, Instant};
use crate::wire::stream::NodeState as MemberState;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// How long a failed or left node is remembered.
const REAP_NODE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the entries of a node stay that another one has replaced at its address: a daemon that is started anew writes the same ones
/// under its new name, and until they are here the old ones are true. A bulk sync that is lost and several repairs fit into it, and
/// what the next life does not write is not shown for longer than a failure takes to be noticed.
pub(super) const HANDOVER: Duration = Duration::from_secs(5);

/// How many nodes are remembered at most, gone ones included.
pub(super) const MAX_NODES: usize = 65_536;

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NodeState {
    /// It takes part.
    Active,
    /// It does not answer; its entries are hidden.
    Failed,
    /// It left; its entries are gone.
    Left,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) address: SocketAddr,
    pub(super) state: NodeState,
    /// Network clock of its last node event.
    pub(super) time: u64,
    /// When a gone node is forgotten.
    pub(super) until: Instant,
    /// It was taken as gone because another one answered at its address.
    pub(super) displaced: bool,
}

impl NodeRecord {
    pub(super) fn active(address: SocketAddr) -> Self {
        NodeRecord {
            address,
            state: NodeState::Active,
            time: 0,
            until: Instant::ZERO,
            displaced: false,
        }
    }
}

impl NetworkDb {
    /// The state of a node; `None` if it is not known.
    pub(super) fn node_state(&self, node: &NodeId) -> Option<NodeState> {
        self.nodes.get(node).map(|record| record.state)
    }

    pub(super) fn is_active(&self, node: &NodeId) -> bool {
        self.node_state(node) == Some(NodeState::Active)
    }

    /// Membership says that a node is there.
    pub(super) fn node_up(&mut self, node: &NodeId, address: SocketAddr) {
        match self.nodes.get_mut(node) {
            Some(record) => {
                record.address = address;
                if record.state == NodeState::Active {
                    return;
                }
                record.state = NodeState::Active;
                record.displaced = false;
                self.failed.remove(node);
                self.replaced.remove(node);
            }
            None => {
                if self.nodes.len() >= MAX_NODES {
                    self.forget_oldest_node();
                }
                self.nodes.insert(node.clone(), NodeRecord::active(address));
            }
        }
        self.ask_who_is_there(node);
        self.log(
            LogLevel::Info,
            format!("Node {node}/{}, joined gossip cluster", address.ip()),
        );
        self.tell(Event::NodeUp {
            name: node.clone(),
            address: address.ip(),
        });
        self.tables.set_live(node, true);
        self.restore(node);
    }

    /// The other nodes at an address that have not left.
    fn others_at(&self, node: &NodeId, address: SocketAddr) -> impl Iterator<Item = (&NodeId, NodeState)> {
        let others = self.nodes.iter().filter(move |(other, record)| {
            record.address == address && record.state != NodeState::Left && *other != node && **other != self.name
        });
        others.map(|(other, record)| (other, record.state))
    }

    /// If several nodes are said to be at a node's address, they are asked which of them is. Only one can answer, and that ends what
    /// is left of the others.
    pub(super) fn ask_who_is_there(&mut self, node: &NodeId) {
        let Some(record) = self.nodes.get(node) else { return };
        let address = record.address;
        let others: Vec<_> = self
            .others_at(node, address)
            .map(|(other, state)| (other.clone(), state))
            .collect();
        if others.is_empty() {
            return;
        }
        let own = (node.clone(), record.state);
        for (claimant, state) in others.into_iter().chain([own]) {
            if state == NodeState::Active {
                self.membership.ask_whether_there(&claimant);
            }
        }
    }

    /// A node proved that it is the one at its address: what other names left behind there is gone. Hearsay would not do, for old news
    /// may arrive after new ones, and would purge the living for the dead.
    pub(super) fn node_is_there(&mut self, now: Instant, node: &NodeId) {
        let Some(record) = self.nodes.get(node) else { return };
        let address = record.address;
        if record.displaced {
            self.node_up(node, address);
        }
        let old: Vec<_> = self
            .others_at(node, address)
            .map(|(other, state)| (other.clone(), state))
            .collect();
        for (other, state) in old {
            let was = if state == NodeState::Active { "active" } else { "failed" };
            let message = format!(
                "Node {node}/{}, is the new incarnation of the {was} node {other}",
                address.ip()
            );
            self.log(LogLevel::Info, message);
            self.node_replaced(now, &other);
            if let Some(record) = self.nodes.get_mut(&other) {
                record.displaced = true;
            }
            // Should it answer after all, it was the true one.
            self.membership.ask_whether_there(&other);
        }
    }

    /// Membership says that a node is gone.
    pub(super) fn node_down(&mut self, now: Instant, node: &NodeId) {
        let Some(record) = self.nodes.get(node).filter(|record| record.state == NodeState::Active) else {
            return;
        };
        let at = record.address;
        let address = at.ip();
        let left = self
            .membership
            .member(node)
            .is_some_and(|member| member.state == MemberState::Left);
        if left || at == self.advertise() {
            self.node_left(now, node);
            return;
        }
        // Nobody comes back to an address at which another one is.
        if self.others_at(node, at).any(|(_, state)| state == NodeState::Active) {
            self.node_replaced(now, node);
            return;
        }
        let Some(record) = self.nodes.get_mut(node) else { return };
        record.state = NodeState::Failed;
        record.until = now + REAP_NODE;
        self.failed.insert(node.clone());
        self.log(LogLevel::Info, format!("Node {node}/{address}, left gossip cluster"));
        self.log(
            LogLevel::Info,
            format!("Node {node} change state NodeActive --> NodeFailed"),
        );
        self.tell(Event::NodeDown {
            name: node.clone(),
            address,
            left: false,
        });
        self.leave_member_lists(node);
        self.stop_waiting_for(node);
        self.tables.set_live(node, false);
        self.hide(now, node);
    }

    /// A node left of its own will: so do its entries.
    pub(super) fn node_left(&mut self, now: Instant, node: &NodeId) {
        if self.node_ended(now, node).is_some() {
            self.forget_entries(node);
        }
    }

    /// Another node took a node's place. What showed of its entries shows until those of the other one had time to arrive.
    fn node_replaced(&mut self, now: Instant, node: &NodeId) {
        match self.node_ended(now, node) {
            Some(NodeState::Active) => {
                self.tables.set_live(node, false);
                self.replaced.insert(node.clone(), now + HANDOVER);
            }
            Some(_) => self.forget_entries(node),
            None => {}
        }
    }

    /// Whether another node took the place of this one, whose entries may still show.
    pub(super) fn is_replaced(&self, node: &NodeId) -> bool {
        self.replaced.contains_key(node)
    }

    /// When the entries of the first replaced node end.
    pub(super) fn handover_end(&self) -> Option<Instant> {
        self.replaced.values().min().copied()
    }

    /// Forgets what replaced nodes wrote and those in their places did not.
    pub(super) fn end_handovers(&mut self, now: Instant) {
        let ended: Vec<_> = self
            .replaced
            .extract_if(.., |_, until| *until <= now)
            .map(|(node, _)| node)
            .collect();
        for node in ended {
            self.forget_entries(&node);
        }
    }

    /// A node is gone for good; returns how it was if that is news.
    fn node_ended(&mut self, now: Instant, node: &NodeId) -> Option<NodeState> {
        let record = self.nodes.get_mut(node)?;
        let (was, address) = (record.state, record.address.ip());
        match was {
            NodeState::Left => return None,
            NodeState::Active => record.until = now + REAP_NODE,
            NodeState::Failed => {}
        }
        record.state = NodeState::Left;
        self.failed.remove(node);
        if was == NodeState::Active {
            self.log(LogLevel::Info, format!("Node {node}/{address}, left gossip cluster"));
            self.tell(Event::NodeDown {
                name: node.clone(),
                address,
                left: true,
            });
        }
        self.leave_member_lists(node);
        self.stop_waiting_for(node);
        self.attachments.remove(node);
        Some(was)
    }

    /// Nothing of a node is left.
    fn forget_entries(&mut self, node: &NodeId) {
        self.replaced.remove(node);
        self.drop_entries(node, None);
        self.tables.set_live(node, true);
    }

    fn leave_member_lists(&mut self, node: &NodeId) {
        for network in self
            .attachments
            .get(node)
            .into_iter()
            .flat_map(|attachments| attachments.keys())
        {
            if let Some(members) = self.members.get_mut(network) {
                members.retain(|member| member != node);
            }
        }
        self.members.retain(|_, members| !members.is_empty());
    }

    /// The entries of a failed node are kept for its return, and nobody sees them.
    fn hide(&mut self, now: Instant, node: &NodeId) {
        for key in self.tables.owned_by(node, None) {
            let Some(entry) = self.tables.find(&key).filter(|entry| entry.visible()).cloned() else {
                continue;
            };
            self.tables.change(&key, |entry| {
                entry.hidden = true;
                entry.until = now + REAP_ENTRY;
            });
            self.tell_gone(&key, entry.value, entry.owner);
        }
    }

    /// A node is back: so are its memberships and its entries.
    fn restore(&mut self, node: &NodeId) {
        let networks = self.attachments.get(node).into_iter().flatten();
        let networks: Vec<_> = networks
            .filter(|(_, at)| !at.leaving)
            .map(|(network, _)| network.clone())
            .collect();
        for network in networks {
            self.add_member(&network, node);
        }
        for key in self.tables.owned_by(node, None) {
            if !self
                .tables
                .find(&key)
                .is_some_and(|entry| entry.hidden && !entry.deleted)
            {
                continue;
            }
            if let Some(entry) = self.tables.change(&key, |entry| entry.hidden = false) {
                self.tell_set(&key, entry.value, entry.owner);
            }
        }
    }

    pub(super) fn reap_nodes(&mut self, now: Instant) {
        let gone = |_: &NodeId, record: &mut NodeRecord| record.state != NodeState::Active && record.until <= now;
        let forgotten: Vec<_> = self.nodes.extract_if(.., gone).map(|(node, _)| node).collect();
        for node in forgotten {
            self.failed.remove(&node);
            self.attachments.remove(&node);
            self.forget_entries(&node);
        }
    }

    fn forget_oldest_node(&mut self) {
        let gone = self
            .nodes
            .iter()
            .filter(|(_, record)| record.state != NodeState::Active);
        let Some(oldest) = gone
            .min_by_key(|(_, record)| record.until)
            .map(|(node, _)| node.clone())
        else {
            return;
        };
        self.nodes.remove(&oldest);
        self.failed.remove(&oldest);
        self.attachments.remove(&oldest);
        self.forget_entries(&oldest);
    }

    /// Live nodes, this one included, by name.
    pub fn cluster_peers(&self) -> Vec<(NodeId, IpAddr)> {
        let active = self
            .nodes
            .iter()
            .filter(|(_, record)| record.state == NodeState::Active);
        active
            .map(|(node, record)| (node.clone(), record.address.ip()))
            .collect()
    }
}
