//! Bulk sync: all entries of a network, from node to node (`spec/networkdb.md` 3.9 and 3.10).

use super::attachments::{MAX_NETWORKS, Wait, network_event};
use super::entries::table_event;
use super::receive::Origin;
use super::tables::EntryKey;
use super::{Effect, LogLevel, NetworkDb};
use crate::id::{NetworkId, NodeId};
use crate::time::{Duration, Instant};
use crate::wire::gossip::{BulkSyncMessage, Change, MessageType, Presence, compound, envelope};
use crate::wire::stream::encode_user;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How often each network is synced with a random member.
pub(super) const BULK_SYNC_INTERVAL: Duration = Duration::from_secs(30);

/// How long the answer to a bulk sync is awaited.
const BULK_SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// The same, if a node of weft is asked: from then on it is asked whether both know the same, as ever. A peer that takes this node for
/// failed yet does not answer at all.
const WEFT_SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// When a bulk sync that was sent counts as arrived, if nobody says that it failed: after the stream's deadline.
const STREAM_DEADLINE: Duration = Duration::from_secs(15);

/// How many members are asked for all their entries when a network is joined. The others are told of this node only: a thousand
/// copies of the same tables would say no more than three.
const JOIN_SYNC_PEERS: usize = 3;

/// The most bytes of entries in one message. Engines up to 20.10.17 refuse more than 10 MiB (`spec/networkdb.md` 3.2).
const MAX_PAYLOAD_BYTES: usize = 8 << 20;

/// A bulk sync that was sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BulkStream {
    node: NodeId,
    networks: Vec<NetworkId>,
    /// Who is tried if this fails.
    instead: Option<NodeId>,
    end: Instant,
}

impl NetworkDb {
    /// A network was joined: a few members are asked for all they have, all others told of this node.
    pub(super) fn sync_joined(&mut self, now: Instant, network: &NetworkId) {
        let mut members = self.members.get(network).cloned().unwrap_or_default();
        members.retain(|member| *member != self.name);
        self.random.shuffle(&mut members);
        for (place, node) in members.into_iter().enumerate() {
            if place < JOIN_SYNC_PEERS {
                let timeout = if self.is_weft(&node) {
                    WEFT_SYNC_TIMEOUT
                } else {
                    BULK_SYNC_TIMEOUT
                };
                let wait = Wait {
                    since: self.table_clock.time(),
                    until: now + timeout,
                };
                if let Some(own) = self.own.get_mut(network) {
                    own.waits.insert(node.clone(), wait);
                }
                self.ask(now, network, &node);
            } else {
                self.send_bulk_sync(now, &node, vec![network.clone()], false, None);
            }
        }
    }

    /// A member is learnt of: if fewer than enough could be asked when the network was joined, it is asked now.
    pub(super) fn ask_newcomer(&mut self, now: Instant, network: &NetworkId, node: &NodeId) {
        if self
            .own
            .get(network)
            .is_some_and(|own| !own.at.leaving && own.asked < JOIN_SYNC_PEERS)
        {
            self.ask(now, network, node);
        }
    }

    /// Asks a member for all its entries.
    fn ask(&mut self, now: Instant, network: &NetworkId, node: &NodeId) {
        if let Some(own) = self.own.get_mut(network) {
            own.asked += 1;
        }
        let networks = self.common_networks(node);
        self.send_bulk_sync(now, node, networks, true, None);
    }

    /// Each network is synced with one random member, together with all other networks that it shares.
    pub(super) fn sync_periodically(&mut self, now: Instant) {
        let networks: Vec<_> = self.joined_networks().cloned().collect();
        let mut synced = BTreeSet::new();
        for network in networks {
            if synced.contains(&network) {
                continue;
            }
            let members = self.members.get(&network).map(Vec::as_slice).unwrap_or_default();
            // Weft's nodes compare every second.
            let mut others: Vec<_> = members
                .iter()
                .filter(|member| **member != self.name && !self.is_weft(member))
                .collect();
            self.random.shuffle(&mut others);
            let picked = others;
            let mut picked = picked.into_iter().cloned();
            let Some(node) = picked.next() else { continue };
            let common = self.common_networks(&node);
            synced.extend(common.iter().cloned());
            self.send_bulk_sync(now, &node, common, true, picked.next());
        }
    }

    /// A node is back after a failure: everything is compared with it.
    pub(super) fn sync_with(&mut self, now: Instant, node: &NodeId) {
        let networks = self.common_networks(node);
        if self.is_weft(node) {
            self.ask_whether_equal(node, &networks);
        } else if !networks.is_empty() {
            self.send_bulk_sync(now, node, networks, true, None);
        }
    }

    pub(super) fn common_networks(&self, node: &NodeId) -> Vec<NetworkId> {
        self.joined_networks()
            .filter(|network| self.is_attached(node, network))
            .cloned()
            .collect()
    }

    fn send_bulk_sync(
        &mut self,
        now: Instant,
        node: &NodeId,
        networks: Vec<NetworkId>,
        unsolicited: bool,
        instead: Option<NodeId>,
    ) {
        let Some(to) = self.nodes.get(node).map(|record| record.address) else {
            return;
        };
        let payloads = self.payloads(now, &networks, node);
        let last = payloads.len() - 1;
        for (place, payload) in payloads.into_iter().enumerate() {
            let message = BulkSyncMessage {
                l_time: self.table_clock.time(),
                unsolicited: unsolicited && place == last,
                node_name: self.name.to_string(),
                networks: networks.iter().map(NetworkId::to_string).collect(),
                payload,
            };
            let bytes = encode_user(&envelope(MessageType::BulkSync, &message));
            let bytes = self.membership.seal_stream(bytes);
            let stream = self.membership.next_stream();
            if place == last {
                let (node, networks, instead) = (node.clone(), networks.clone(), instead.clone());
                let bulk = BulkStream {
                    node,
                    networks,
                    instead,
                    end: now + STREAM_DEADLINE,
                };
                self.bulk_streams.insert(stream, bulk);
            }
            self.effects.push_back(Effect::OpenStream {
                stream,
                to,
                bytes,
                expects_reply: false,
            });
        }
    }

    /// The entries of some networks for `node`, in as many messages as needed, at least one. In front go the attachments, without
    /// which the receiver would refuse entries of nodes whose coming it missed.
    fn payloads(&self, now: Instant, networks: &[NetworkId], node: &NodeId) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        let mut parts = Vec::new();
        let mut bytes = 0;
        let mut add = |part: Vec<u8>| {
            if bytes + part.len() > MAX_PAYLOAD_BYTES {
                payloads.push(compound(std::mem::take(&mut parts)));
                bytes = 0;
            }
            bytes += part.len() + 10;
            parts.push(part);
        };
        for network in networks {
            self.attachment_messages(network, node, &mut add);
            let entries = self.tables.of_network(network);
            // Of a replaced node nobody takes any.
            for (table, key, entry) in entries.filter(|(.., entry)| !self.is_replaced(&entry.owner)) {
                let change = if entry.deleted { Change::Delete } else { Change::Create };
                let key = EntryKey::new(network, table, key);
                add(envelope(
                    MessageType::TableEvent,
                    &table_event(now, change, &key, entry),
                ));
            }
        }
        payloads.push(compound(parts));
        payloads
    }

    fn attachment_messages(&self, network: &NetworkId, receiver: &NodeId, add: &mut impl FnMut(Vec<u8>)) {
        let own = self.own.get(network).map(|own| (&self.name, &own.at));
        let others = self.attachments.iter().filter(|(node, _)| *node != receiver);
        let others = others.filter_map(|(node, networks)| Some((node, networks.get(network)?)));
        for (node, at) in own.into_iter().chain(others) {
            let presence = if at.leaving { Presence::Leave } else { Presence::Join };
            let event = network_event(presence, at.time, node, network);
            add(envelope(MessageType::NetworkEvent, &event));
        }
    }

    pub(super) fn receive_bulk_sync(&mut self, now: Instant, sync: BulkSyncMessage) {
        self.table_clock.witness(sync.l_time);
        let Ok(node) = NodeId::new(&*sync.node_name) else {
            self.refused_gossip += 1;
            return;
        };
        if node == self.name {
            return;
        }
        self.receive(now, &sync.payload, Origin::Bulk);
        for own in self.own.values_mut() {
            if own.waits.get(&node).is_some_and(|wait| wait.since < sync.l_time) {
                // What one member has is enough to relay on.
                own.waits.clear();
            }
        }
        if sync.unsolicited && self.is_active(&node) {
            let networks = sync.networks.into_iter().take(MAX_NETWORKS);
            let networks: BTreeSet<_> = networks.filter_map(|network| NetworkId::new(network).ok()).collect();
            self.send_bulk_sync(now, &node, networks.into_iter().collect(), false, None);
        }
    }

    pub(super) fn bulk_sync_failed(&mut self, now: Instant, bulk: BulkStream, error: &str) {
        let BulkStream {
            node,
            networks,
            instead,
            ..
        } = bulk;
        self.log(LogLevel::Warn, format!("Bulk sync to node {node} failed: {error}"));
        for network in &networks {
            self.stop_waiting_in(network, &node);
        }
        if let Some(instead) = instead.filter(|instead| self.is_active(instead)) {
            let common = self.common_networks(&instead);
            self.send_bulk_sync(now, &instead, common, true, None);
        }
    }

    pub(super) fn stop_waiting_in(&mut self, network: &NetworkId, node: &NodeId) {
        if let Some(own) = self.own.get_mut(network) {
            own.waits.remove(node);
        }
    }

    pub(super) fn stop_waiting_for(&mut self, node: &NodeId) {
        for own in self.own.values_mut() {
            own.waits.remove(node);
        }
    }

    pub(super) fn sync_timeout(&self) -> Option<Instant> {
        let waits = self
            .own
            .values()
            .flat_map(|own| own.waits.values())
            .map(|wait| wait.until)
            .min();
        // Numbers are given in order of time and all wait equally long.
        let stream = self.bulk_streams.values().next().map(|bulk| bulk.end);
        waits.into_iter().chain(stream).min()
    }

    pub(super) fn expire_syncs(&mut self, now: Instant) {
        self.bulk_streams.retain(|_, bulk| bulk.end > now);
        let mut late = BTreeSet::new();
        for own in self.own.values_mut() {
            late.extend(
                own.waits
                    .extract_if(.., |_, wait| wait.until <= now)
                    .map(|(node, _)| node),
            );
        }
        for node in late {
            self.log(LogLevel::Warn, format!("Bulk sync to node {node} timed out"));
        }
    }
}
