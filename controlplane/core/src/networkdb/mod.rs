//! What everybody knows: tables per network, owned entries, tombstones, bulk sync (`spec/networkdb.md` 3.5 to 3.12).
//!
//! One [`NetworkDb`] per node. It owns its [`Membership`] and speaks with the world by [`Input`]s, [`Effect`]s
//! and one deadline. It ends with [`Effect::Left`], or with the process; a node that comes back is a new one with a new name.
//!
//! What it does better than Docker's while speaking with it: names are compared whole and not by prefix, equal Lamport times are
//! decided by the owner's name, bulk syncs are cut below the size that an engine refuses, joining a network never waits, and
//! weft's nodes compare digests every second in place of a bulk sync every thirty.

mod api;
mod attachments;
mod clock;
mod cluster;
mod digest;
mod entries;
#[cfg(any(test, feature = "simulation"))]
mod inspect;
mod nodes;
mod receive;
mod repair;
mod snapshot;
pub mod stream;
mod sync;
mod tables;
#[cfg(test)]
mod tests;

pub use crate::membership::{InvalidKey, Key, Keyring, KeyringError, LogLevel, OpenError, StreamId};
pub use api::{
    Config, Effect, EntryError, EntryName, Event, Input, JoinNetworkError, LeaveNetworkError, META, OwnerState,
    PACKET_BUDGET_BYTES, Row, Stats,
};

pub use snapshot::{HeldRow, Standing};

use crate::id::{NetworkId, NodeId};
use crate::membership::{self, GOSSIP_INTERVAL, GOSSIP_NODES, Membership, Output, Random, retransmit_limit};
use crate::recording::{Happening, Tap};
use crate::time::{Duration, Instant};
use crate::wire::gossip::compound;
use crate::wire::keyring::OVERHEAD_BYTES;
use attachments::{Attachment, OwnNetwork};
use clock::Clock;
use cluster::Cluster;
use nodes::NodeRecord;
use receive::Origin;
use repair::Repair;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use sync::BulkStream;
use tables::{EntryKey, Tables};

/// How long a tombstone, and an entry of a failed node, is remembered (`spec/networkdb.md` 3.8).
pub(crate) const REAP_ENTRY: Duration = Duration::from_secs(30 * 60);

/// How often what has ended is looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(5);

/// Tombstones go this early, so that none is ever sent with zero seconds left, which would mean 30 minutes.
const REAP_MARGIN: Duration = Duration::from_secs(1);

/// What ends within this time is not compared any more: what one node has forgotten another may still remember for a moment, and
/// neither is to tell the other.
const DIGEST_MARGIN: Duration = Duration::from_secs(5 * 60);

/// How often a bad health score is told.
const HEALTH_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What one table message costs in a packet beyond itself: two tags and two lengths of at most 3 bytes.
const TABLE_PART_BYTES: usize = 8;

/// What a packet of table messages costs: checksum, type byte, the envelope's type, tag and length.
const TABLE_PACKET_BYTES: usize = 5 + 1 + 2 + 1 + 3;

/// The tables of the cluster as seen from this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkDb {
    name: NodeId,
    packet_budget: usize,
    membership: Membership,
    random: Random,
    network_clock: Clock,
    table_clock: Clock,
    tables: Tables,
    nodes: BTreeMap<NodeId, NodeRecord>,
    /// Which other nodes take part in which networks.
    attachments: BTreeMap<NodeId, BTreeMap<NetworkId, Attachment>>,
    /// This node's own networks.
    own: BTreeMap<NetworkId, OwnNetwork>,
    /// Live members of each network, this node included, in the order in which they were learnt.
    members: BTreeMap<NetworkId, Vec<NodeId>>,
    /// When the first ended attachment is forgotten, or earlier.
    attachments_until: Option<Instant>,
    /// The nodes that are failed, to be tried again.
    failed: BTreeSet<NodeId>,
    /// Nodes whose place another one took, and until when their entries show.
    #[serde(default)]
    replaced: BTreeMap<NodeId, Instant>,
    cluster: Cluster,
    bulk_streams: BTreeMap<StreamId, BulkStream>,
    table_gossip_at: Instant,
    bulk_sync_at: Instant,
    repair: Repair,
    reap_at: Instant,
    health_log_at: Instant,
    #[serde(skip)]
    effects: VecDeque<Effect>,
    #[serde(skip)]
    tap: Option<Box<Tap>>,
    #[serde(skip)]
    refused_gossip: u64,
    #[serde(skip)]
    refused_entries: u64,
    /// What networks that this node takes part in no more dropped.
    #[serde(skip)]
    dropped_messages: u64,
}

impl NetworkDb {
    /// A node alone in its cluster, in no network.
    pub fn new(now: Instant, config: Config) -> NetworkDb {
        let Config {
            name,
            advertise,
            seed,
            packet_budget,
            keyring,
            meta,
        } = config;
        let mut random = Random::new(seed.rotate_left(32) ^ 0x6e64_6274_626c_6573);
        let speaks = meta == META;
        let member = membership::Config {
            name: name.clone(),
            advertise,
            seed,
            packet_budget,
            keyring,
            meta,
        };
        NetworkDb {
            packet_budget: packet_budget.saturating_sub(OVERHEAD_BYTES),
            membership: Membership::new(now, member),
            network_clock: Clock::default(),
            table_clock: Clock::default(),
            tables: Tables::default(),
            nodes: BTreeMap::from([(name.clone(), NodeRecord::active(advertise))]),
            attachments: BTreeMap::new(),
            own: BTreeMap::new(),
            members: BTreeMap::new(),
            attachments_until: None,
            failed: BTreeSet::new(),
            replaced: BTreeMap::new(),
            cluster: Cluster::new(now, advertise, &mut random),
            bulk_streams: BTreeMap::new(),
            table_gossip_at: now + random.stagger(GOSSIP_INTERVAL),
            bulk_sync_at: now + random.stagger(sync::BULK_SYNC_INTERVAL),
            repair: Repair::new(now, speaks, &mut random),
            reap_at: now + random.stagger(REAP_INTERVAL),
            health_log_at: now + HEALTH_LOG_INTERVAL,
            effects: VecDeque::new(),
            tap: None,
            refused_gossip: 0,
            refused_entries: 0,
            dropped_messages: 0,
            name,
            random,
        }
    }

    /// Handles what came in.
    pub fn handle(&mut self, now: Instant, input: Input) {
        let opened = self.open(input);
        self.record(now, || opened.clone());
        self.handle_opened(now, opened);
    }

    /// Handles what came in, opened with this node's keys or refused by them.
    fn handle_opened(&mut self, now: Instant, opened: Happening) {
        if self.cluster.has_left() {
            if let Happening::StreamRequest { stream, .. } = opened {
                self.effects.push_back(Effect::Close { stream });
            }
            return;
        }
        match opened {
            Happening::Datagram { from, opened } => self.membership.handle_opened_datagram(now, from, opened),
            Happening::StreamRequest { stream, from, opened } => {
                self.membership.handle_opened_request(now, stream, from, opened);
            }
            Happening::StreamReply { stream, opened } => match self.bulk_streams.remove(&stream) {
                // Nobody answers a bulk sync on its own stream.
                Some(_) => {}
                None => self.membership.handle_opened_reply(now, stream, opened),
            },
            Happening::StreamFailed { stream, error } => match self.bulk_streams.remove(&stream) {
                Some(bulk) => self.bulk_sync_failed(now, bulk, &error),
                None => self.membership.handle_failure(stream, error),
            },
            // The node's own doing does not come in.
            _ => {}
        }
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.cluster.has_left() {
            return None;
        }
        let queued = self.own.values().any(|network| network.queued() > 0);
        let retire = self.tables.next_lasting_end().map(|end| end.before(DIGEST_MARGIN));
        let reap = [self.tables.next_end(), self.attachments_end(), retire];
        let reap = reap.into_iter().flatten().min().map(|end| end.max(self.reap_at));
        [
            self.membership.poll_timeout(),
            queued.then_some(self.table_gossip_at),
            (!self.own.is_empty()).then_some(self.bulk_sync_at),
            self.repair_timeout(),
            self.handover_end(),
            reap,
            Some(self.health_log_at),
            self.cluster_timeout(),
            self.sync_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.record(now, || Happening::Timeout);
        if self.cluster.has_left() {
            return;
        }
        self.membership.handle_timeout(now);
        self.settle(now);
        if self.table_gossip_at <= now {
            self.gossip_tables(now);
        }
        if self.bulk_sync_at <= now {
            self.bulk_sync_at = now + sync::BULK_SYNC_INTERVAL;
            self.sync_periodically(now);
        }
        self.repair(now);
        self.end_handovers(now);
        if self.reap_at <= now {
            self.reap_at = now + REAP_INTERVAL;
            self.reap(now);
        }
        if self.health_log_at <= now {
            self.health_log_at = now + HEALTH_LOG_INTERVAL;
            self.log_health();
        }
        self.expire_syncs(now);
        self.advance_cluster(now);
        self.settle(now);
    }

    /// What is to be done next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if let (Some(tap), Some(effect)) = (&mut self.tap, &effect) {
            tap.effect(effect);
        }
        effect
    }

    /// Takes over what membership decided, until it has nothing more to say.
    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.membership.poll_output() {
            match output {
                Output::Datagram { to, bytes } => self.effects.push_back(Effect::Datagram { to, bytes }),
                Output::OpenStream {
                    stream,
                    to,
                    bytes,
                    expects_reply,
                } => {
                    self.effects.push_back(Effect::OpenStream {
                        stream,
                        to,
                        bytes,
                        expects_reply,
                    });
                }
                Output::Reply { stream, bytes } => self.effects.push_back(Effect::Reply { stream, bytes }),
                Output::Close { stream } => self.effects.push_back(Effect::Close { stream }),
                Output::Up(node, address) => self.node_up(&node, address),
                Output::Down(node) => self.node_down(now, &node),
                Output::There(node) => self.node_is_there(now, &node),
                Output::Sought(by) => self.introduce(now, by),
                Output::User { bytes } => self.receive(now, &bytes, Origin::Gossip),
                Output::UserState(bytes) => self.receive_state(now, &bytes),
                Output::PushPullDue(to) => {
                    let state = self.state();
                    self.membership.push_pull(now, to, false, state);
                }
                Output::PushPullAsked(stream, from, theirs) => {
                    let state = self.state();
                    self.membership.answer_push_pull(now, stream, from, theirs, state);
                }
                Output::PushPullDone(stream, result) => self.push_pull_done(now, stream, result),
                Output::Left => self.left(),
                Output::Log(level, message) => self.effects.push_back(Effect::Log { level, message }),
            }
        }
        self.advance_leave(now);
    }

    /// Sends waiting table messages of each network to a few of its members.
    fn gossip_tables(&mut self, now: Instant) {
        self.table_gossip_at = now + GOSSIP_INTERVAL;
        for (network, own) in self.own.iter_mut().filter(|(_, own)| own.queued() > 0) {
            let members = self.members.get(network).map(Vec::as_slice).unwrap_or_default();
            let peers = members.iter().filter(|member| **member != self.name).count();
            let picked = self.random.pick(members, GOSSIP_NODES, |member| *member != self.name);
            if peers == 0 {
                // Who joins later gets everything by bulk sync.
                own.clear_queues();
            }
            if picked.is_empty() {
                continue;
            }
            let mut budget = self.packet_budget.saturating_sub(TABLE_PACKET_BYTES);
            let limit = retransmit_limit(peers);
            let mut parts = own.local.take(TABLE_PART_BYTES, &mut budget, usize::MAX, limit);
            parts.extend(own.relay.take(TABLE_PART_BYTES, &mut budget, usize::MAX, limit));
            let bytes = compound(parts);
            for node in picked {
                self.membership.send_user(node, bytes.clone());
            }
        }
    }

    /// The longest table message that fits into a packet.
    fn table_message_limit(&self) -> usize {
        self.packet_budget.saturating_sub(TABLE_PACKET_BYTES + TABLE_PART_BYTES)
    }

    /// Forgets what has ended.
    fn reap(&mut self, now: Instant) {
        self.tables.expire(now + REAP_MARGIN);
        self.tables.retire(now + DIGEST_MARGIN);
        self.reap_attachments(now);
        self.reap_nodes(now);
    }

    fn log_health(&mut self) {
        let score = self.membership.health_score();
        if score != 0 {
            let message = format!(
                "NetworkDB stats {} - healthscore:{score} (connectivity issues)",
                self.name
            );
            self.log(LogLevel::Warn, message);
        }
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.effects.push_back(Effect::Log { level, message });
    }

    fn tell(&mut self, event: Event) {
        self.effects.push_back(Effect::Event(event));
    }

    fn tell_set(&mut self, key: &EntryKey, value: Vec<u8>, owner: NodeId) {
        let EntryKey { network, table, key } = key.clone();
        self.tell(Event::EntrySet {
            network,
            table: table.into(),
            key: key.into(),
            value,
            owner,
        });
    }

    fn tell_gone(&mut self, key: &EntryKey, value: Vec<u8>, owner: NodeId) {
        let EntryKey { network, table, key } = key.clone();
        self.tell(Event::EntryGone {
            network,
            table: table.into(),
            key: key.into(),
            value,
            owner,
        });
    }

    /// This node's name.
    pub fn name(&self) -> &NodeId {
        &self.name
    }

    /// 0 (healthy) to 7: how far this node should distrust its own probes.
    pub fn health_score(&self) -> u32 {
        self.membership.health_score()
    }

    /// Gossips with these keys from now on. A key is replaced by adding it to the rings of all nodes, then using it on all, then
    /// removing the old one from all; messages on their way meanwhile are opened by either.
    pub fn set_keyring(&mut self, now: Instant, keyring: Keyring) {
        self.record(now, || Happening::Keys(keyring.keys().len()));
        self.membership.set_keyring(keyring);
    }

    /// The keys.
    pub fn keyring(&self) -> &Keyring {
        self.membership.keyring()
    }

    /// What a member tells about itself; Docker's tell nothing.
    pub fn member_meta(&self, node: &NodeId) -> Option<&[u8]> {
        self.membership.member(node).map(|member| member.meta.as_slice())
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        let counters = self.membership.counters();
        Stats {
            datagrams: counters.datagrams,
            refused_messages: counters.refused_messages,
            refused_streams: counters.refused_streams,
            refused_plaintext: counters.refused_plaintext,
            refused_keys: counters.refused_keys,
            refused_gossip: self.refused_gossip,
            refused_entries: self.refused_entries,
            dropped_messages: self.dropped_messages
                + self.own.values().map(OwnNetwork::dropped).sum::<u64>()
                + self.membership.dropped_broadcasts(),
            refutations: counters.refutations,
            failed_probes: counters.failed_probes,
            comparisons: self.repair.asked,
            differences: self.repair.differed,
            repaired: self.repair.sent,
            entries: self.tables.len(),
            queued: self.own.values().map(OwnNetwork::queued).sum(),
        }
    }
}
