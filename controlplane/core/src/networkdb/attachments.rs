//! Who takes part in which network (`spec/networkdb.md` 3.8 to 3.10).

use super::clock::LATEST;
use super::nodes::NodeState;
use super::tables::EntryKey;
use super::{JoinNetworkError, LeaveNetworkError, NetworkDb, REAP_ENTRY};
use crate::id::{NetworkId, NodeId};
use crate::membership::{Queue, UserKey};
use crate::recording::Happening;
use crate::time::{Duration, Instant};
use crate::wire::gossip::{MessageType, NetworkEntry, NetworkEvent, NetworkPushPull, Presence, envelope, read};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How long an attachment that ended is remembered: until no tombstone of it can be around (`spec/networkdb.md` 3.8).
const REAP_NETWORK: Duration = Duration::from_secs(30 * 60 + 25);

/// How many networks a node may be attached to: as many as an engine has interfaces for, and more.
pub(super) const MAX_NETWORKS: usize = 4096;

/// How many table messages wait in each of a network's two queues. A second of gossip carries about a hundred; what is dropped
/// after minutes of waiting, bulk sync brings.
pub(super) const MAX_TABLE_BROADCASTS: usize = 16_384;

/// The most bytes of attachments in one push/pull. Engines up to 20.10.17 refuse more than 10 MiB, the list of members included
/// (`spec/networkdb.md` 3.2).
const MAX_STATE_BYTES: usize = 6 << 20;

/// What an attachment takes beside its names, at most: tags and lengths, the time, and whether it ended.
const NETWORK_ENTRY_BYTES: usize = 24;

/// Another node's part in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attachment {
    /// Network clock of its last change.
    pub(super) time: u64,
    /// It ended.
    pub(super) leaving: bool,
    /// When one that ended is forgotten.
    pub(super) until: Instant,
}

/// This node's part in a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OwnNetwork {
    pub(super) at: Attachment,
    /// How many members have been asked for all their entries since the join.
    pub(super) asked: usize,
    /// Members asked when this node joined. Until one has answered, nothing is relayed.
    pub(super) waits: BTreeMap<NodeId, Wait>,
    /// What this node changed.
    pub(super) local: Queue<(Box<str>, Box<str>)>,
    /// What others changed: told on when there is room.
    pub(super) relay: Queue<(Box<str>, Box<str>)>,
}

/// A bulk sync that is awaited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wait {
    /// The table clock when it was asked for.
    pub(super) since: u64,
    /// When it is given up.
    pub(super) until: Instant,
}

impl OwnNetwork {
    pub(super) fn queued(&self) -> usize {
        self.local.len() + self.relay.len()
    }

    /// How many messages were pushed out of full queues.
    pub(super) fn dropped(&self) -> u64 {
        self.local.dropped() + self.relay.dropped()
    }

    pub(super) fn clear_queues(&mut self) {
        self.local.clear();
        self.relay.clear();
    }

    /// Whether this node has what the others had when it joined, so that it may relay.
    pub(super) fn in_sync(&self) -> bool {
        self.waits.is_empty()
    }
}

impl NetworkDb {
    /// Takes part in a network: from now on its entries are received and this node's are sent. Does not wait: the entries of the
    /// others arrive as events.
    pub fn join_network(&mut self, now: Instant, network: &NetworkId) -> Result<(), JoinNetworkError> {
        self.record(now, || Happening::JoinNetwork(network.clone()));
        let known = self.own.get(network);
        if known.is_some_and(|own| !own.at.leaving) {
            return Err(JoinNetworkError::AlreadyJoined(network.clone()));
        }
        if known.is_none() && self.own.len() >= MAX_NETWORKS {
            return Err(JoinNetworkError::TooMany {
                network: network.clone(),
                limit: MAX_NETWORKS,
            });
        }
        let time = self.network_clock.increment();
        let own = OwnNetwork {
            at: Attachment {
                time,
                leaving: false,
                until: now,
            },
            asked: 0,
            waits: BTreeMap::new(),
            local: Queue::new(MAX_TABLE_BROADCASTS),
            relay: Queue::new(MAX_TABLE_BROADCASTS),
        };
        if let Some(old) = self.own.insert(network.clone(), own) {
            self.dropped_messages += old.dropped();
        }
        self.add_member(network, &self.name.clone());
        self.announce_attachment(network, Presence::Join, time);
        self.sync_joined(now, network);
        Ok(())
    }

    /// Whether what the others had of a network when this node joined it is here, or nobody is left to wait for. An unknown network
    /// has nothing to wait for.
    pub fn is_synced(&self, network: &NetworkId) -> bool {
        self.own.get(network).is_none_or(OwnNetwork::in_sync)
    }

    /// Takes part no more: its entries vanish here, and this node's entries at the others.
    pub fn leave_network(&mut self, now: Instant, network: &NetworkId) -> Result<(), LeaveNetworkError> {
        self.record(now, || Happening::LeaveNetwork(network.clone()));
        let Some(own) = self.own.get_mut(network).filter(|own| !own.at.leaving) else {
            return Err(LeaveNetworkError(network.clone()));
        };
        let time = self.network_clock.increment();
        own.at = Attachment {
            time,
            leaving: true,
            until: now + REAP_NETWORK,
        };
        own.waits.clear();
        own.clear_queues();
        self.ends_at(now + REAP_NETWORK);
        self.announce_attachment(network, Presence::Leave, time);
        self.remove_member(network, &self.name.clone());
        let keys: Vec<_> = self
            .tables
            .of_network(network)
            .map(|(table, key, _)| EntryKey::new(network, table, key))
            .collect();
        for key in keys {
            self.leave_entry(now, &key);
        }
        Ok(())
    }

    /// Own entries become tombstones, which a later return to the network brings along; others' are none of our business.
    fn leave_entry(&mut self, now: Instant, key: &EntryKey) {
        let Some(entry) = self.tables.find(key).cloned() else {
            return;
        };
        if entry.owner != self.name {
            self.tables.remove(key);
        } else if !entry.deleted {
            let time = self.taken_back(&key.network, entry.time);
            self.tables.change(key, |entry| {
                // Not the time now: somebody may write the key until this node is back.
                entry.time = time;
                entry.deleted = true;
                entry.until = now + REAP_ENTRY;
            });
        }
        if entry.visible() {
            self.tell_gone(key, entry.value, entry.owner);
        }
    }

    fn announce_attachment(&mut self, network: &NetworkId, presence: Presence, time: u64) {
        let event = network_event(presence, time, &self.name, network);
        let key = UserKey::Attachment(self.name.clone(), network.clone());
        self.membership
            .broadcast(key, envelope(MessageType::NetworkEvent, &event));
    }

    /// Another node's attachment changed; true if that was news.
    pub(super) fn attachment_event(&mut self, now: Instant, event: &NetworkEvent) -> bool {
        self.network_clock.witness(event.l_time);
        let (Ok(node), Ok(network)) = (NodeId::new(&*event.node_name), NetworkId::new(&*event.network_id)) else {
            self.refused_gossip += 1;
            return false;
        };
        let leaving = event.r#type() == Presence::Leave;
        if node == self.name || event.r#type() == Presence::Invalid || event.l_time > LATEST {
            return false;
        }
        if !self.nodes.contains_key(&node) {
            self.repair.strangers = true;
            return false;
        }
        let active = self.is_active(&node);
        if !leaving && self.node_state(&node) == Some(NodeState::Failed) {
            // To whoever tells this it is live: perhaps only this node missed that it said so.
            self.repair.strangers = true;
        }
        let attachments = self.attachments.entry(node.clone()).or_default();
        match attachments.get(&network) {
            Some(known) if known.time >= event.l_time => return false,
            None if leaving || !active || attachments.len() >= MAX_NETWORKS => return false,
            Some(_) | None => {}
        }
        let at = Attachment {
            time: event.l_time,
            leaving,
            until: now + REAP_NETWORK,
        };
        attachments.insert(network.clone(), at);
        if leaving {
            self.ends_at(now + REAP_NETWORK);
            self.remove_member(&network, &node);
            self.drop_entries(&node, Some(&network));
            self.stop_waiting_in(&network, &node);
        } else if active {
            self.add_member(&network, &node);
            self.ask_newcomer(now, &network, &node);
        }
        true
    }

    pub(super) fn add_member(&mut self, network: &NetworkId, node: &NodeId) {
        let members = self.members.entry(network.clone()).or_default();
        if !members.contains(node) {
            members.push(node.clone());
        }
    }

    fn remove_member(&mut self, network: &NetworkId, node: &NodeId) {
        if let Some(members) = self.members.get_mut(network) {
            members.retain(|member| member != node);
            if members.is_empty() {
                self.members.remove(network);
            }
        }
    }

    /// Whether a node takes part in a network, as far as is remembered.
    pub(super) fn is_attached(&self, node: &NodeId, network: &NetworkId) -> bool {
        self.attachments
            .get(node)
            .and_then(|networks| networks.get(network))
            .is_some_and(|at| !at.leaving)
    }

    /// Removes a node's entries without a tombstone.
    pub(super) fn drop_entries(&mut self, node: &NodeId, network: Option<&NetworkId>) {
        for key in self.tables.owned_by(node, network) {
            if let Some(entry) = self.tables.remove(&key)
                && entry.visible()
            {
                self.tell_gone(&key, entry.value, entry.owner);
            }
        }
    }

    /// The attachments that are known, for a push/pull: this node's, then as many of the others' as fit, from a random node on, so that
    /// in time all are told.
    pub(super) fn state(&mut self) -> Vec<u8> {
        let own = self.own.iter().map(|(network, own)| (&self.name, network, &own.at));
        let place = self.random.below(self.attachments.len());
        let others = self.attachments.iter();
        let others = others.clone().skip(place).chain(others.take(place));
        let others = others.flat_map(|(node, networks)| networks.iter().map(move |(network, at)| (node, network, at)));
        let mut bytes = 0;
        let fitting = own.chain(others).take_while(|(node, network, _)| {
            bytes += network.as_str().len() + node.as_str().len() + NETWORK_ENTRY_BYTES;
            bytes <= MAX_STATE_BYTES
        });
        let networks = fitting.map(|(node, network, at)| NetworkEntry {
            network_id: network.to_string(),
            l_time: at.time,
            node_name: node.to_string(),
            leaving: at.leaving,
        });
        let networks = networks.collect();
        let state = NetworkPushPull {
            l_time: self.network_clock.time(),
            networks,
            node_name: self.name.to_string(),
        };
        envelope(MessageType::PushPull, &state)
    }

    /// The same, when this node joins: its own attachments are told anew, so that a peer that remembers older news takes them.
    pub(super) fn state_for_join(&mut self) -> Vec<u8> {
        for own in self.own.values_mut() {
            own.at.time = self.network_clock.increment();
        }
        self.state()
    }

    /// A peer's state, out of a push/pull.
    pub(super) fn receive_state(&mut self, now: Instant, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Some(state) = super::receive::open_envelope(bytes, MessageType::PushPull) else {
            self.refused_gossip += 1;
            return;
        };
        let Ok(state) = read::<NetworkPushPull>(&state) else {
            self.refused_gossip += 1;
            return;
        };
        self.presence_event(now, Presence::Join, state.l_time, &state.node_name);
        for entry in state.networks {
            let presence = if entry.leaving { Presence::Leave } else { Presence::Join };
            let NetworkEntry {
                network_id,
                l_time,
                node_name,
                ..
            } = entry;
            let event = NetworkEvent {
                r#type: presence.into(),
                l_time,
                node_name,
                network_id,
            };
            if self.attachment_event(now, &event) {
                self.relay_attachment(&event, envelope(MessageType::NetworkEvent, &event));
            }
        }
    }

    pub(super) fn relay_attachment(&mut self, event: &NetworkEvent, bytes: Vec<u8>) {
        if let (Ok(node), Ok(network)) = (NodeId::new(&*event.node_name), NetworkId::new(&*event.network_id)) {
            self.membership.broadcast(UserKey::Attachment(node, network), bytes);
        }
    }

    pub(super) fn attachments_end(&self) -> Option<Instant> {
        self.attachments_until
    }

    fn ends_at(&mut self, until: Instant) {
        self.attachments_until = Some(self.attachments_until.map_or(until, |first| first.min(until)));
    }

    pub(super) fn reap_attachments(&mut self, now: Instant) {
        if self.attachments_until.is_none_or(|until| until > now) {
            return;
        }
        let ended = |_: &NetworkId, own: &mut OwnNetwork| own.at.leaving && own.at.until <= now;
        let ended: u64 = self.own.extract_if(.., ended).map(|(_, own)| own.dropped()).sum();
        self.dropped_messages += ended;
        for networks in self.attachments.values_mut() {
            networks.retain(|_, at| !at.leaving || at.until > now);
        }
        self.attachments.retain(|_, networks| !networks.is_empty());
        let own = self.own.values().map(|own| &own.at);
        let others = self.attachments.values().flat_map(BTreeMap::values);
        self.attachments_until = own.chain(others).filter(|at| at.leaving).map(|at| at.until).min();
    }

    /// The networks that this node has joined.
    pub fn joined_networks(&self) -> impl Iterator<Item = &NetworkId> {
        self.own
            .iter()
            .filter(|(_, own)| !own.at.leaving)
            .map(|(network, _)| network)
    }

    /// The members of exactly this network, in the order in which they were learnt: name and address, or `orphan-` and the name
    /// without an address for a member that is no live node.
    pub fn network_peers(&self, network: &NetworkId) -> Vec<(String, Option<IpAddr>)> {
        let members = self.members.get(network).into_iter().flatten();
        let peer = |node: &NodeId| match self.nodes.get(node) {
            Some(record) if self.is_active(node) => (node.to_string(), Some(record.address.ip())),
            _ => (format!("orphan-{node}"), None),
        };
        members.map(peer).collect()
    }

    /// Of a network that this node joined, or left a short time ago: how many entries it has over all tables, tombstones
    /// included, and how many of this node's own changes wait to be gossiped.
    pub fn network_stats(&self, network: &NetworkId) -> Option<(usize, usize)> {
        let own = self.own.get(network)?;
        Some((self.tables.size_of(network), own.local.len()))
    }
}

pub(super) fn network_event(presence: Presence, time: u64, node: &NodeId, network: &NetworkId) -> NetworkEvent {
    let (node_name, network_id) = (node.to_string(), network.to_string());
    NetworkEvent {
        r#type: presence.into(),
        l_time: time,
        node_name,
        network_id,
    }
}
