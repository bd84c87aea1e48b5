//! Repair between weft's nodes: every second each asks another whether both know the same, and only what differs is sent.
//!
//! Docker's engines exchange all entries every 30 seconds and know no such question: they never see these messages, and are synced
//! as they expect ([`sync`](super::sync)). The question costs nothing when nothing is missing. A row that gossip lost is back within
//! a second or two, and so is news of a node's part in a network, without which its rows are refused.
//!
//! ```text
//! A                                    B
//!   Digest: a number for each network ->   equal: nothing more
//!   <- Buckets: a number for each bucket   of a network that differs
//!   Summary: items of the buckets that differ ->
//!   <- Rows: what A lacks or has older     and Wanted: what B lacks or has older
//!   Rows ->
//! ```
//!
//! No side remembers anything of the other between two messages.

use super::attachments::network_event;
use super::digest::{BUCKETS, Item, Sums, bucket_of};
use super::entries::table_event;
use super::receive::Origin;
use super::tables::EntryKey;
use super::{Effect, META, NetworkDb};
use crate::id::{NetworkId, NodeId};
use crate::membership::{GOSSIP_INTERVAL, Random};
use crate::time::{Duration, Instant};
use crate::wire::gossip::{
    BucketsMessage, Change, DigestMessage, MessageType, NetworkDigest, Presence, RowsMessage, SummaryMessage,
    WantedMessage, compound, envelope,
};
use crate::wire::stream::encode_user;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How often a node asks another.
const REPAIR_INTERVAL: Duration = Duration::from_secs(1);

/// How many networks one question holds: as many as fit into a packet. Of more, others are asked about the next time.
const MAX_DIGESTS: usize = 20;

/// Of how many networks that differ one answer tells; the others are for the next second.
const MAX_ANSWERS: usize = 8;

/// The most items or keys that are looked at in one message: all that a network can hold in one bucket, many times over.
const MAX_ITEMS: usize = 65_536;

/// The most bytes of rows in one answer; what is missing then is asked for a second later.
const MAX_ROWS_BYTES: usize = 4 << 20;

/// How often a peer that knows nodes which are unknown here is asked for all members.
const INTRODUCE_INTERVAL: Duration = Duration::from_secs(2);

/// What a node remembers of its own questions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Repair {
    at: Instant,
    introduce_at: Instant,
    /// An attachment of an unknown node was told of.
    pub(super) strangers: bool,
    /// Whether this node tells others that it speaks so.
    speaks: bool,
    /// Questions sent.
    #[serde(skip)]
    pub(super) asked: u64,
    /// Networks that differed from those of a peer that asked.
    #[serde(skip)]
    pub(super) differed: u64,
    /// Rows and attachments sent to peers that lacked them.
    #[serde(skip)]
    pub(super) sent: u64,
}

impl Repair {
    pub(super) fn new(now: Instant, speaks: bool, random: &mut Random) -> Self {
        Repair {
            at: now + random.stagger(REPAIR_INTERVAL),
            introduce_at: now,
            strangers: false,
            speaks,
            asked: 0,
            differed: 0,
            sent: 0,
        }
    }
}

impl NetworkDb {
    pub(super) fn repair_timeout(&self) -> Option<Instant> {
        (self.repair.speaks && !self.own.is_empty()).then_some(self.repair.at)
    }

    /// Something was refused that a peer could explain: the next question comes soon.
    pub(super) fn repair_soon(&mut self, now: Instant) {
        self.repair.at = self.repair.at.min(now + GOSSIP_INTERVAL);
    }

    /// Whether this node and another one may speak what only weft speaks.
    pub(super) fn is_weft(&self, node: &NodeId) -> bool {
        self.repair.speaks && self.membership.member(node).is_some_and(|member| member.meta == META)
    }

    /// Asks one random weft member of each network whether it knows the same; about all networks that both share at once.
    pub(super) fn repair(&mut self, now: Instant) {
        if self.repair.at > now || !self.repair.speaks {
            return;
        }
        self.repair.at = now + REPAIR_INTERVAL;
        let mut networks: Vec<_> = self.joined_networks().cloned().collect();
        // The first ones are asked about surely, so chance decides which they are.
        self.random.shuffle(&mut networks);
        let mut asked = BTreeSet::new();
        for network in networks {
            if asked.contains(&network) {
                continue;
            }
            let members = self.members.get(&network).map(Vec::as_slice).unwrap_or_default();
            let membership = &self.membership;
            let weft = |node: &NodeId| membership.member(node).is_some_and(|member| member.meta == META);
            let picked = self
                .random
                .pick(members, 1, |member| *member != self.name && weft(member));
            let Some(peer) = picked.first().copied().cloned() else {
                continue;
            };
            let mut common = self.common_networks(&peer);
            common.retain(|other| !asked.contains(other));
            self.random.shuffle(&mut common);
            common.truncate(MAX_DIGESTS);
            asked.extend(common.iter().cloned());
            self.ask_whether_equal(&peer, &common);
        }
    }

    /// Asks a peer whether it knows the same of some networks.
    pub(super) fn ask_whether_equal(&mut self, peer: &NodeId, networks: &[NetworkId]) {
        let digest = |network: &NetworkId| NetworkDigest {
            network_id: network.to_string(),
            total: self.sums(network).total(),
        };
        // Until what the others had when it was joined is here, everything differs.
        let synced = networks.iter().filter(|network| self.is_synced(network));
        let networks: Vec<_> = synced.map(digest).collect();
        if networks.is_empty() {
            return;
        }
        let message = DigestMessage {
            node_name: self.name.to_string(),
            networks,
        };
        self.repair.asked += 1;
        self.send_to_weft(peer, envelope(MessageType::Digest, &message));
    }

    pub(super) fn receive_digest(&mut self, digest: DigestMessage) {
        let Some(peer) = self.weft_peer(&digest.node_name) else {
            return;
        };
        let mut answers = 0;
        for NetworkDigest { network_id, total } in digest.networks.into_iter().take(MAX_DIGESTS) {
            let Some(network) = self.comparable(&network_id) else {
                continue;
            };
            let sums = self.sums(&network);
            if sums.total() == total || answers >= MAX_ANSWERS {
                continue;
            }
            answers += 1;
            self.repair.differed += 1;
            let message = BucketsMessage {
                node_name: self.name.to_string(),
                network_id,
                sums: sums.buckets().to_vec(),
            };
            self.send_to_weft(&peer, envelope(MessageType::Buckets, &message));
        }
    }

    pub(super) fn receive_buckets(&mut self, buckets: &BucketsMessage) {
        let Some(peer) = self.weft_peer(&buckets.node_name) else {
            return;
        };
        let Some(network) = self.comparable(&buckets.network_id) else {
            return;
        };
        let Ok(theirs) = <&[u64; BUCKETS]>::try_from(buckets.sums.as_slice()) else {
            self.refused_gossip += 1;
            return;
        };
        let mask = self.sums(&network).difference(theirs);
        if mask == 0 {
            return;
        }
        let items = self.items(&network, mask, true);
        let message = SummaryMessage {
            node_name: self.name.to_string(),
            network_id: network.to_string(),
            buckets: mask,
            keys: items.iter().map(|item| item.key).collect(),
            times: items.iter().map(|item| item.time).collect(),
            contents: items.iter().map(|item| item.content).collect(),
        };
        self.send_to_weft(&peer, envelope(MessageType::Summary, &message));
    }

    pub(super) fn receive_summary(&mut self, now: Instant, summary: &SummaryMessage) {
        let Some(peer) = self.weft_peer(&summary.node_name) else {
            return;
        };
        let Some(network) = self.comparable(&summary.network_id) else {
            return;
        };
        let (keys, times, contents) = (&summary.keys, &summary.times, &summary.contents);
        if keys.len() != times.len() || keys.len() != contents.len() || keys.len() > MAX_ITEMS {
            self.refused_gossip += 1;
            return;
        }
        let theirs: BTreeMap<u64, (u64, u64)> = keys
            .iter()
            .zip(times.iter().zip(contents))
            .map(|(key, (time, content))| (*key, (*time, *content)))
            .collect();
        let mut wanted = Vec::new();
        let mut newer = BTreeSet::new();
        let mut held = BTreeSet::new();
        // What is about to be forgotten here is not sent, but it is known.
        for item in self.items(&network, summary.buckets, false) {
            held.insert(item.key);
            match theirs.get(&item.key) {
                Some((time, content)) if (*time, *content) == (item.time, item.content) => {}
                Some((time, _)) if *time > item.time => wanted.push(item.key),
                Some((time, _)) => {
                    newer.insert(item.key);
                    if *time == item.time {
                        // Whose write wins is decided where both are known.
                        wanted.push(item.key);
                    }
                }
                None => {}
            }
        }
        let lacked = self.items(&network, summary.buckets, true);
        newer.extend(
            lacked
                .iter()
                .map(|item| item.key)
                .filter(|key| !theirs.contains_key(key)),
        );
        wanted.extend(theirs.keys().filter(|key| !held.contains(*key)));
        self.send_rows(now, &peer, &network, &newer);
        if !wanted.is_empty() {
            let message = WantedMessage {
                node_name: self.name.to_string(),
                network_id: network.to_string(),
                keys: wanted,
            };
            self.send_to_weft(&peer, envelope(MessageType::Wanted, &message));
        }
    }

    pub(super) fn receive_wanted(&mut self, now: Instant, wanted: &WantedMessage) {
        let Some(peer) = self.weft_peer(&wanted.node_name) else {
            return;
        };
        let Some(network) = self.comparable(&wanted.network_id) else {
            return;
        };
        let keys = wanted.keys.iter().take(MAX_ITEMS).copied().collect();
        self.send_rows(now, &peer, &network, &keys);
    }

    pub(super) fn receive_rows(&mut self, now: Instant, rows: &RowsMessage) {
        self.table_clock.witness(rows.l_time);
        if let Some(peer) = self.weft_peer(&rows.node_name) {
            self.repair.strangers = false;
            self.receive(now, &rows.payload, Origin::Bulk);
            self.be_introduced(now, &peer);
        }
    }

    /// A peer that tells of members that are unknown here is asked for all of them.
    fn be_introduced(&mut self, now: Instant, peer: &NodeId) {
        if self.repair.introduce_at > now || !self.repair.strangers {
            return;
        }
        self.repair.introduce_at = now + INTRODUCE_INTERVAL;
        if let Some(to) = self.nodes.get(peer).map(|record| record.address) {
            let state = self.state();
            self.membership.push_pull(now, to, false, state);
        }
    }

    /// All that is known of a network, as sums.
    fn sums(&self, network: &NetworkId) -> Sums {
        let mut sums = self.tables.sums(network);
        for item in self.attachment_items(network) {
            sums.add(item.1);
        }
        sums
    }

    /// The live members of a network, this node included.
    fn attachment_items(&self, network: &NetworkId) -> impl Iterator<Item = (&NodeId, Item)> {
        let members = self.members.get(network).into_iter().flatten();
        members.filter_map(|node| Some((node, Item::attachment(node, self.attachment_time(node, network)?))))
    }

    fn attachment_time(&self, node: &NodeId, network: &NetworkId) -> Option<u64> {
        if *node == self.name {
            return self.own.get(network).map(|own| own.at.time);
        }
        self.attachments.get(node)?.get(network).map(|at| at.time)
    }

    /// What is known of a network in some buckets; `lasting` leaves out what is about to be forgotten, or belongs to nodes that are not
    /// live, as the sums do.
    fn items(&self, network: &NetworkId, buckets: u64, lasting: bool) -> Vec<Item> {
        let inside = |item: &Item| buckets >> bucket_of(item.key) & 1 == 1;
        let attachments = self.attachment_items(network).map(|(_, item)| item);
        let mut items: Vec<Item> = attachments.filter(inside).collect();
        if !lasting {
            // Who left is known to have left, as long as that is remembered.
            let left = self.attachments.iter().filter_map(|(node, networks)| {
                let at = networks.get(network).filter(|at| at.leaving)?;
                Some(Item::attachment(node, at.time))
            });
            items.extend(left.filter(inside));
        }
        let entries = self.tables.items(network, buckets, lasting);
        // What a replaced node wrote is no answer to what the one in its place writes.
        let entries = entries.filter(|(.., entry, _)| !self.is_replaced(&entry.owner));
        items.extend(entries.map(|(.., item)| item));
        items.truncate(MAX_ITEMS);
        items
    }

    /// Sends what these keys name, attachments first.
    fn send_rows(&mut self, now: Instant, peer: &NodeId, network: &NetworkId, keys: &BTreeSet<u64>) {
        if keys.is_empty() {
            return;
        }
        let mut parts = Vec::new();
        let own = self.own.get(network).map(|own| (&self.name, &own.at));
        let others = self.attachments.iter().filter(|(node, _)| *node != peer);
        let others = others.filter_map(|(node, networks)| Some((node, networks.get(network)?)));
        for (node, at) in own.into_iter().chain(others) {
            if keys.contains(&Item::attachment_key(node)) {
                let presence = if at.leaving { Presence::Leave } else { Presence::Join };
                let event = network_event(presence, at.time, node, network);
                parts.push(envelope(MessageType::NetworkEvent, &event));
            }
        }
        let mut bytes = 0;
        let buckets = keys.iter().fold(0, |mask, key| mask | 1 << bucket_of(*key));
        for (table, key, entry, item) in self.tables.items(network, buckets, false) {
            if bytes < MAX_ROWS_BYTES && keys.contains(&item.key) {
                let change = if entry.deleted { Change::Delete } else { Change::Create };
                let event = table_event(now, change, &EntryKey::new(network, table, key), entry);
                let part = envelope(MessageType::TableEvent, &event);
                bytes += part.len();
                parts.push(part);
            }
        }
        if parts.is_empty() {
            return;
        }
        self.repair.sent += parts.len() as u64;
        let message = RowsMessage {
            node_name: self.name.to_string(),
            l_time: self.table_clock.time(),
            payload: compound(parts),
        };
        self.send_to_weft(peer, envelope(MessageType::Rows, &message));
    }

    /// Sends in a datagram if it fits, else on a stream.
    fn send_to_weft(&mut self, peer: &NodeId, message: Vec<u8>) {
        if message.len() <= self.table_message_limit() {
            self.membership.send_user(peer, message);
            return;
        }
        let Some(to) = self.nodes.get(peer).map(|record| record.address) else {
            return;
        };
        let bytes = self.membership.seal_stream(encode_user(&message));
        let stream = self.membership.next_stream();
        self.effects.push_back(Effect::OpenStream {
            stream,
            to,
            bytes,
            expects_reply: false,
        });
    }

    /// A live node that speaks as weft does.
    fn weft_peer(&self, name: &str) -> Option<NodeId> {
        let node = NodeId::new(name).ok()?;
        (node != self.name && self.is_active(&node) && self.is_weft(&node)).then_some(node)
    }

    /// A network that this node takes part in, with all that the others had when it joined.
    fn comparable(&self, network: &str) -> Option<NetworkId> {
        let network = NetworkId::new(network).ok()?;
        let own = self.own.get(&network)?;
        (!own.at.leaving && own.in_sync()).then_some(network)
    }
}
