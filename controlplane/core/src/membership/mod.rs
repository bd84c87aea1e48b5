//! Who is alive: SWIM as memberlist speaks it (`spec/networkdb.md` 3.2 to 3.4).
//!
//! One [`Membership`] per node, owned by [`NetworkDb`](crate::networkdb::NetworkDb), which hands it what arrives, asks it when it
//! wants to be called again, and takes its [`Output`]s. It carries the layer above: broadcasts on its own datagrams, and a state
//! on each push/pull.

mod exchange;
#[cfg(any(test, feature = "simulation"))]
mod inspect;
mod probe;
mod queue;
mod random;
mod refusals;
mod roster;
mod rules;
mod snapshot;
mod suspicion;
#[cfg(test)]
mod tests;
mod timing;

pub use crate::wire::keyring::{InvalidKey, Key, Keyring, KeyringError, OpenError};
#[cfg(any(test, feature = "simulation"))]
pub(crate) use inspect::{Held, OPEN_STREAMS, OPEN_STREAMS_AT_REST, QUEUED_AT_REST};
pub use roster::Member;

pub(crate) use queue::{Queue, retransmit_limit};
pub(crate) use random::Random;
pub(crate) use snapshot::MAX_COUNT;
pub(crate) use timing::{GOSSIP_INTERVAL, GOSSIP_NODES};

use crate::id::{NetworkId, NodeId};
use crate::time::{Duration, Instant};
use crate::wire::keyring::{Nonces, OVERHEAD_BYTES};
use crate::wire::message::{MAX_META_BYTES, Message, VERSIONS};
use crate::wire::packet::{self, COMPOUND_BYTES, COMPOUND_PART_BYTES, COMPOUND_PARTS, CRC_BYTES};
use crate::wire::stream::{self, NodeState, PushPull};
use exchange::Exchange;
use probe::{Probe, Relay};
use refusals::Refusals;
use roster::Roster;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use suspicion::Suspicions;
use timing::{GOSSIP_TO_THE_DEAD, PROBE_INTERVAL, exchange_scale, push_pull_interval};

/// How many messages about members wait to be broadcast: memberlist's hand-off depth for each of its queues.
const MAX_OWN_BROADCASTS: usize = 4096;

/// How many messages of the layer above wait to be broadcast with ours.
const MAX_USER_BROADCASTS: usize = 4096;

/// How long a leave message may take to go out (`spec/networkdb.md` 3.4).
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A TCP exchange: opened ones are numbered from zero by this side, accepted ones by the caller, from wherever it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// What came in, as the keys opened it, or why they refused it.
pub type Opened = Result<Vec<u8>, OpenError>;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For those who look for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is wrong, and the node copes.
    Warn,
    /// Something is wrong, and somebody should act.
    Error,
}

/// Who this node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Its name; never the name of an earlier start.
    pub name: NodeId,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Where its choices come from.
    #[serde(skip)]
    pub seed: u64,
    /// The largest datagram.
    pub packet_budget: usize,
    /// The keys.
    #[serde(skip)]
    pub keyring: Keyring,
    /// What it tells about itself with its address, at most 512 bytes.
    pub meta: Vec<u8>,
}

/// Which broadcast of the layer above a newer one takes the place of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UserKey {
    /// A node's part in a network.
    Attachment(NodeId, NetworkId),
    /// A node's coming to the cluster or leaving it, at this time of its network clock: each is news of its own.
    Presence(NodeId, u64),
}

/// What membership wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// Whereto.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Open a stream, send, and read a reply if one is expected.
    OpenStream {
        /// Its number.
        stream: StreamId,
        /// Whereto.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
        /// Whether the peer answers.
        expects_reply: bool,
    },
    /// Answer an accepted stream and close it.
    Reply {
        /// Which.
        stream: StreamId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close an accepted stream without an answer.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// A member came, or came back.
    Up(NodeId, SocketAddr),
    /// A member failed or left.
    Down(NodeId),
    /// A member of whom [`Membership::ask_whether_there`] was called answered under its name.
    There(NodeId),
    /// Somebody who is no member here looks for another node at this node's address: perhaps an earlier life of this node, whose
    /// cluster does not know of its end yet.
    Sought(SocketAddr),
    /// A message for the layer above.
    User {
        /// The message.
        bytes: Vec<u8>,
    },
    /// A peer's state of the layer above.
    UserState(Vec<u8>),
    /// It is time for a push/pull with this member: call [`Membership::push_pull`].
    PushPullDue(SocketAddr),
    /// A peer asks for a push/pull: call [`Membership::answer_push_pull`].
    PushPullAsked(StreamId, SocketAddr, PushPull),
    /// A push/pull that was started here is over.
    PushPullDone(StreamId, Result<(), String>),
    /// The leave message is out.
    Left,
    /// Something to tell.
    Log(LogLevel, String),
}

/// What came in and was refused, and what was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received.
    pub datagrams: u64,
    /// Messages in datagrams that could not be read.
    pub refused_messages: u64,
    /// Streams whose message could not be read.
    pub refused_streams: u64,
    /// Datagrams and streams in the clear, though this node has keys.
    pub refused_plaintext: u64,
    /// Encrypted datagrams and streams that no key of this node opens.
    pub refused_keys: u64,
    /// Times that this node had to say that it is alive after all.
    pub refutations: u64,
    /// Probes that found no answer on any way.
    pub failed_probes: u64,
}

/// The members of the cluster as seen from this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    config: Config,
    #[serde(skip, default = "snapshot::nonces")]
    nonces: Nonces,
    refusals: Refusals,
    random: Random,
    roster: Roster,
    incarnation: u32,
    /// 0 (healthy) to 7: how far this node should distrust its own probes (Lifeguard).
    health: u32,
    sequence: u32,
    next_stream: u64,
    own: Queue<NodeId>,
    user: Queue<UserKey>,
    suspicions: Suspicions,
    probe: Option<Probe>,
    probe_at: Instant,
    relays: BTreeMap<u32, Relay>,
    /// Members that are asked whether they are there, with the number of the ping.
    doubted: BTreeMap<NodeId, u32>,
    exchanges: BTreeMap<StreamId, Exchange>,
    /// Earlier lives of this node, and when the others are told of their end.
    #[serde(default)]
    former: BTreeMap<NodeId, Instant>,
    gossip_at: Instant,
    push_pull_at: Instant,
    leaving: Option<Instant>,
    #[serde(skip)]
    outputs: VecDeque<Output>,
    #[serde(skip)]
    counters: Counters,
}

impl Membership {
    /// A cluster of one.
    pub fn new(now: Instant, mut config: Config) -> Self {
        let mut outputs = VecDeque::new();
        if config.meta.len() > MAX_META_BYTES {
            let length = config.meta.len();
            config.meta.clear();
            let message = format!("meta data of {length} bytes is not sent; at most {MAX_META_BYTES} are allowed");
            outputs.push_back(Output::Log(LogLevel::Error, message));
        }
        let mut random = Random::new(config.seed);
        let probe_at = now + random.stagger(PROBE_INTERVAL);
        let gossip_at = now + random.stagger(GOSSIP_INTERVAL);
        let push_pull_at = now + random.stagger(push_pull_interval(1));
        let mut roster = Roster::default();
        let own = Member {
            address: config.advertise,
            incarnation: 1,
            state: NodeState::Alive,
            since: now,
            meta: config.meta.clone(),
            versions: VERSIONS,
        };
        roster.insert(config.name.clone(), own, &mut random);
        Membership {
            nonces: Nonces::new(config.seed),
            refusals: Refusals::default(),
            config,
            random,
            roster,
            incarnation: 1,
            health: 0,
            sequence: 0,
            next_stream: 0,
            own: Queue::new(MAX_OWN_BROADCASTS),
            user: Queue::new(MAX_USER_BROADCASTS),
            suspicions: Suspicions::default(),
            probe: None,
            probe_at,
            relays: BTreeMap::new(),
            doubted: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            former: BTreeMap::new(),
            gossip_at,
            push_pull_at,
            leaving: None,
            outputs,
            counters: Counters::default(),
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Alone, there is nobody to tell; what waits is told to who comes.
        let to_tell = self.roster.len() > 1 && !(self.own.is_empty() && self.user.is_empty());
        let gossip = to_tell.then_some(self.gossip_at);
        [
            Some(self.push_pull_at),
            gossip,
            self.probe_timeout(),
            self.relay_timeout(),
            self.exchange_timeout(),
            self.suspicions.next_end(),
            self.former_timeout(),
            self.leaving,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_relays(now);
        self.expire_exchanges(now);
        self.advance_probe(now);
        // After the probe, which may confirm a suspicion and so end it.
        self.expire_suspicions(now);
        self.tell_of_former(now);
        if self.gossip_at <= now {
            self.gossip_at = now + GOSSIP_INTERVAL;
            self.gossip(now);
        }
        if self.push_pull_at <= now {
            self.push_pull_at = now + push_pull_interval(self.roster.len());
            let own = &self.config.name;
            let alive = |node: &NodeId, member: &Member| node != own && member.state == NodeState::Alive;
            let picked = self.roster.pick(&mut self.random, 1, alive);
            self.outputs.extend(
                picked
                    .into_iter()
                    .map(|(_, member)| Output::PushPullDue(member.address)),
            );
        }
        self.finish_leave(now);
    }

    /// Handles a datagram as it came.
    #[cfg(test)]
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let opened = self.config.keyring.open_datagram(bytes);
        self.handle_opened_datagram(now, from, opened);
    }

    /// Handles a datagram, opened with this node's keys or refused by them.
    pub fn handle_opened_datagram(&mut self, now: Instant, from: SocketAddr, opened: Opened) {
        self.counters.datagrams += 1;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.refuse(now, from, &error);
                return;
            }
        };
        let unpacked = packet::unpack(&opened);
        self.counters.refused_messages += unpacked.errors.len() as u64;
        for error in unpacked.errors {
            self.log(LogLevel::Debug, format!("gossip datagram from {from}: {error}"));
        }
        for message in unpacked.messages {
            self.handle_message(now, from, message);
        }
    }

    fn handle_message(&mut self, now: Instant, from: SocketAddr, message: Message) {
        match message {
            Message::Ping(ping) => self.handle_ping(from, ping),
            Message::IndirectPing(ping) => self.handle_indirect_ping(now, from, ping),
            Message::Ack(sequence) => self.handle_ack(sequence),
            Message::Nack(sequence) => self.handle_nack(sequence),
            Message::Suspect(accusation) => self.suspect(now, accusation),
            Message::Alive(alive) => self.alive(now, alive),
            Message::Dead(accusation) => self.dead(now, accusation),
            Message::User(bytes) => self.outputs.push_back(Output::User { bytes }),
        }
    }

    /// Sends what is to be told to a few random members, the recently dead included, for they may refute.
    fn gossip(&mut self, now: Instant) {
        if self.own.is_empty() && self.user.is_empty() {
            return;
        }
        let own = &self.config.name;
        let reachable = |node: &NodeId, member: &Member| match member.state {
            NodeState::Alive | NodeState::Suspect => node != own,
            NodeState::Dead => now.saturating_since(member.since) < GOSSIP_TO_THE_DEAD,
            NodeState::Left => false,
        };
        let limit = retransmit_limit(self.roster.len());
        for (_, member) in self.roster.pick(&mut self.random, GOSSIP_NODES, reachable) {
            let mut budget = self.message_budget();
            let mut parts = self.own.take(COMPOUND_PART_BYTES, &mut budget, COMPOUND_PARTS, limit);
            let room = COMPOUND_PARTS - parts.len();
            let user = self.user.take(COMPOUND_PART_BYTES + 1, &mut budget, room, limit);
            parts.extend(user.into_iter().map(|bytes| Message::User(bytes).encode()));
            if parts.is_empty() {
                break;
            }
            self.send(member.address, &parts, member.takes_checksum());
        }
    }

    /// Sends a datagram of the layer above.
    pub fn send_user(&mut self, node: &NodeId, bytes: Vec<u8>) {
        let Some(member) = self.roster.get(node) else { return };
        let (to, checksum) = (member.address, member.takes_checksum());
        self.send(to, &[Message::User(bytes).encode()], checksum);
    }

    fn send(&mut self, to: SocketAddr, parts: &[Vec<u8>], checksum: bool) {
        let plain = packet::pack(parts, checksum);
        let bytes = self.config.keyring.seal_datagram(self.nonces.draw(), plain);
        self.outputs.push_back(Output::Datagram { to, bytes });
    }

    /// How many bytes of messages fit into one datagram. Encryption is reckoned with even without keys, so that what waits to be
    /// sent fits also when keys come.
    fn message_budget(&self) -> usize {
        self.config
            .packet_budget
            .saturating_sub(CRC_BYTES + COMPOUND_BYTES + OVERHEAD_BYTES)
    }

    /// Sends with these keys from now on, and accepts what was sealed with them.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.config.keyring = keyring;
    }

    /// The keys.
    pub fn keyring(&self) -> &Keyring {
        &self.config.keyring
    }

    /// A message as it goes over a stream: compressed where that helps, sealed if there are keys.
    pub(crate) fn seal_stream(&mut self, message: Vec<u8>) -> Vec<u8> {
        let packed = stream::pack(message);
        self.config.keyring.seal_stream(self.nonces.draw(), packed)
    }

    /// Broadcasts a message of the layer above to all members. A message that fits into no datagram is not sent.
    pub fn broadcast(&mut self, key: UserKey, bytes: Vec<u8>) {
        if bytes.len() + COMPOUND_PART_BYTES < self.message_budget() {
            self.user.push(Some(key), bytes);
        }
    }

    /// Whether a broadcast is still on its way out.
    pub fn broadcasting(&self, key: &UserKey) -> bool {
        self.user.contains(key)
    }

    /// Tells the others that this node leaves; [`Output::Left`] follows within a second.
    pub fn leave(&mut self, now: Instant) {
        if self.leaving.is_none() {
            self.leaving = Some(now + LEAVE_TIMEOUT);
            self.announce_leave(now);
            self.finish_leave(now);
        }
    }

    fn finish_leave(&mut self, now: Instant) {
        let Some(deadline) = self.leaving else { return };
        if deadline <= now || !self.own.contains(&self.config.name) || self.alone() {
            self.leaving = Some(Instant::from_origin(Duration::MAX));
            self.outputs.push_back(Output::Left);
        }
    }

    /// An interval of a small cluster, in this one: longer the more members there are, as that of exchanging views.
    pub(crate) fn scaled(&self, interval: Duration) -> Duration {
        interval * exchange_scale(self.roster.len())
    }

    /// Whether no other member is known to be alive.
    pub fn alone(&self) -> bool {
        !self
            .roster
            .iter()
            .any(|(node, member)| node != &self.config.name && !member.gone())
    }

    /// A member.
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        self.roster.get(node)
    }

    /// How many members are known, the gone ones included until they are forgotten.
    pub fn members(&self) -> usize {
        self.roster.len()
    }

    /// 0 (healthy) to 7.
    pub fn health_score(&self) -> u32 {
        self.health
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Broadcasts that had to go for newer ones because a queue was full.
    pub fn dropped_broadcasts(&self) -> u64 {
        self.own.dropped() + self.user.dropped()
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.outputs.push_back(Output::Log(level, message));
    }

    fn change_health(&mut self, by: i64) {
        let health = (i64::from(self.health) + by).clamp(0, i64::from(timing::AWARENESS_LIMIT) - 1);
        self.health = health as u32;
    }
}
