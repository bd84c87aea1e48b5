//! Joining the cluster, finding lost parts of it again, and leaving it (`spec/networkdb.md` 3.8 and 3.10).

use super::nodes::NodeState;
use super::{Effect, LogLevel, NetworkDb};
use crate::id::NodeId;
use crate::membership::{MAX_COUNT, Random, StreamId, UserKey};
use crate::recording::Happening;
use crate::time::{Duration, Instant};
use crate::wire::gossip::{MessageType, NodeEvent, Presence, envelope};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// How many addresses one join may name.
const MAX_JOIN_MEMBERS: usize = 256;

/// How many joins may be under way.
const MAX_JOINS: usize = 64;

/// How often a failed node is tried again.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// How many failed nodes are tried at once. An attempt at a dead host takes ten seconds, and others may have come back meanwhile.
const MAX_RECONNECTS: usize = 16;

/// Of so many failed nodes one is tried each second, lest the parts of a large cluster take long to find each other.
const FAILED_PER_RECONNECT: usize = 8;

/// How many are tried each second at most: each gets all that this node knows of members and attachments.
const MAX_RECONNECTS_PER_INTERVAL: usize = 4;

/// How often the bootstrap addresses are tried when no node is live at any of them, in a cluster of at most 32 nodes; in larger ones each
/// node tries less often, as it exchanges views less often.
const REJOIN_INTERVAL: Duration = Duration::from_secs(5);

/// How many times less often those are tried at which no node is live while one is at another: two parts of a cluster may each have some.
const REJOIN_REST: u32 = 12;

/// How long the message that this node leaves may take to go out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a push/pull was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Purpose {
    Join(u64),
    Reconnect(NodeId),
    Rejoin,
}

/// A join under way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Join {
    members: Vec<(StreamId, SocketAddr)>,
    waiting: usize,
    contacted: usize,
    errors: BTreeMap<StreamId, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Leave {
    /// The message of the layer above is going out.
    Announcing(UserKey, Instant),
    /// Membership says goodbye.
    Leaving,
    Left,
}

/// The cluster's joints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Cluster {
    advertise: SocketAddr,
    bootstrap: Vec<SocketAddr>,
    purposes: BTreeMap<StreamId, Purpose>,
    joins: BTreeMap<u64, Join>,
    requests: u64,
    reconnect_at: Instant,
    rejoin_at: Instant,
    /// Before this nobody else who looks for an earlier life of this node is told of it.
    introduce_at: Instant,
    /// How often nothing was tried since, as a bootstrap node was live.
    rested: u32,
    leave: Option<Leave>,
}

impl Cluster {
    pub(super) fn new(now: Instant, advertise: SocketAddr, random: &mut Random) -> Self {
        Cluster {
            advertise,
            bootstrap: Vec::new(),
            purposes: BTreeMap::new(),
            joins: BTreeMap::new(),
            requests: 0,
            reconnect_at: now + random.stagger(RECONNECT_INTERVAL),
            rejoin_at: now + random.stagger(REJOIN_INTERVAL),
            introduce_at: now,
            rested: 0,
            leave: None,
        }
    }

    /// Whether reckoning on with the numbers is safe.
    pub(super) fn is_plausible(&self) -> bool {
        self.requests < MAX_COUNT
            && self
                .joins
                .values()
                .all(|join| (1..=MAX_JOIN_MEMBERS).contains(&join.waiting) && join.contacted <= MAX_JOIN_MEMBERS)
    }

    pub(super) fn has_left(&self) -> bool {
        self.leave == Some(Leave::Left)
    }

    /// The failed nodes that are being tried.
    fn reconnecting(&self) -> BTreeSet<&NodeId> {
        let purposes = self.purposes.values();
        purposes
            .filter_map(|purpose| match purpose {
                Purpose::Reconnect(node) => Some(node),
                Purpose::Join(_) | Purpose::Rejoin => None,
            })
            .collect()
    }
}

impl NetworkDb {
    /// Joins the clusters of these members, and tries them again whenever none of them is live. Returns the number that
    /// [`Effect::Joined`] will carry.
    pub fn join(&mut self, now: Instant, members: &[SocketAddr]) -> u64 {
        self.record(now, || Happening::Join(members.to_vec()));
        self.cluster.requests += 1;
        let request = self.cluster.requests;
        let mut seen = BTreeSet::new();
        let members: Vec<_> = members.iter().copied().filter(|member| seen.insert(*member)).collect();
        if members.len() > MAX_JOIN_MEMBERS || self.cluster.joins.len() >= MAX_JOINS || self.cluster.leave.is_some() {
            let error = if self.cluster.leave.is_some() {
                "the node is leaving the cluster".to_owned()
            } else {
                format!("at most {MAX_JOIN_MEMBERS} members can be joined at once, and {MAX_JOINS} joins be under way")
            };
            self.effects.push_back(Effect::Joined {
                request,
                result: Err(error),
            });
            return request;
        }
        self.cluster.bootstrap = members.clone();
        if members.is_empty() {
            self.effects.push_back(Effect::Joined { request, result: Ok(0) });
            return request;
        }
        let state = self.state_for_join();
        let mut join = Join {
            waiting: members.len(),
            ..Join::default()
        };
        for member in members {
            let stream = self.membership.push_pull(now, member, true, state.clone());
            self.cluster.purposes.insert(stream, Purpose::Join(request));
            join.members.push((stream, member));
        }
        self.cluster.joins.insert(request, join);
        self.settle(now);
        request
    }

    /// A push/pull that was started here is over.
    pub(super) fn push_pull_done(&mut self, now: Instant, stream: StreamId, result: Result<(), String>) {
        match self.cluster.purposes.remove(&stream) {
            Some(Purpose::Join(request)) => self.join_step(request, stream, result),
            Some(Purpose::Reconnect(node)) if result.is_ok() => {
                self.announce(Presence::Join);
                if self.is_active(&node) {
                    self.sync_with(now, &node);
                } else {
                    // Perhaps another one answered, which took its place.
                    self.ask_who_is_there(&node);
                }
            }
            Some(Purpose::Rejoin) if result.is_ok() => {
                self.announce(Presence::Join);
            }
            Some(_) => {}
            None => {
                if let Err(error) = result {
                    self.log(LogLevel::Warn, format!("Push/Pull failed: {error}"));
                }
            }
        }
    }

    fn join_step(&mut self, request: u64, stream: StreamId, result: Result<(), String>) {
        let Some(join) = self.cluster.joins.get_mut(&request) else {
            return;
        };
        join.waiting -= 1;
        match result {
            Ok(()) => join.contacted += 1,
            Err(error) => {
                join.errors.insert(stream, error);
            }
        }
        if join.waiting > 0 {
            return;
        }
        let Some(join) = self.cluster.joins.remove(&request) else {
            return;
        };
        let result = if join.contacted > 0 {
            Ok(join.contacted)
        } else {
            Err(join_errors(&join, self.cluster.advertise.port()))
        };
        if result.is_ok() {
            self.announce(Presence::Join);
        }
        self.effects.push_back(Effect::Joined { request, result });
    }

    fn announce(&mut self, presence: Presence) -> UserKey {
        let time = self.network_clock.increment();
        let event = NodeEvent {
            r#type: presence.into(),
            l_time: time,
            node_name: self.name.to_string(),
        };
        let key = UserKey::Presence(self.name.clone(), time);
        self.membership
            .broadcast(key.clone(), envelope(MessageType::NodeEvent, &event));
        key
    }

    /// This node's own address.
    pub(super) fn advertise(&self) -> SocketAddr {
        self.cluster.advertise
    }

    pub(super) fn cluster_timeout(&self) -> Option<Instant> {
        let cluster = &self.cluster;
        match &cluster.leave {
            None => {}
            Some(Leave::Announcing(_, until)) => return Some(*until),
            Some(Leave::Leaving | Leave::Left) => return None,
        }
        let rejoin = (!cluster.bootstrap.is_empty()).then_some(cluster.rejoin_at);
        let reconnect = (!self.failed.is_empty()).then_some(cluster.reconnect_at);
        [reconnect, rejoin].into_iter().flatten().min()
    }

    pub(super) fn advance_cluster(&mut self, now: Instant) {
        if self.cluster.leave.is_some() {
            return;
        }
        if self.cluster.reconnect_at <= now {
            self.cluster.reconnect_at = now + RECONNECT_INTERVAL;
            self.reconnect(now);
        }
        if self.cluster.rejoin_at <= now && !self.cluster.bootstrap.is_empty() {
            self.cluster.rejoin_at = now + self.membership.scaled(REJOIN_INTERVAL);
            self.rejoin(now);
        }
    }

    /// Tries a few failed nodes that are not being tried.
    fn reconnect(&mut self, now: Instant) {
        let trying = self.cluster.reconnecting();
        let mut idle: Vec<_> = self
            .failed
            .iter()
            .filter(|node| !trying.contains(node))
            .cloned()
            .collect();
        let room = MAX_RECONNECTS.saturating_sub(trying.len());
        let count = idle
            .len()
            .div_ceil(FAILED_PER_RECONNECT)
            .min(MAX_RECONNECTS_PER_INTERVAL);
        self.random.shuffle(&mut idle);
        for node in idle.into_iter().take(count.min(room)) {
            let Some(address) = self.nodes.get(&node).map(|record| record.address) else {
                continue;
            };
            // Its attachments keep their times: who forgot them with this node takes any, and an attempt each second must not be news
            // to all others.
            let state = self.state();
            let stream = self.membership.push_pull(now, address, true, state);
            self.cluster.purposes.insert(stream, Purpose::Reconnect(node));
        }
    }

    /// Tries the bootstrap addresses at which no node is live: soon if none is at any, else now and then. Address and port are compared,
    /// for the real ports are known here.
    fn rejoin(&mut self, now: Instant) {
        let active = self.nodes.values();
        let live: BTreeSet<_> = active
            .filter(|record| record.state == NodeState::Active)
            .map(|record| record.address)
            .collect();
        let own = self.cluster.advertise;
        let others = self.cluster.bootstrap.iter().filter(|address| **address != own);
        let (present, absent): (Vec<_>, Vec<_>) = others.copied().partition(|address| live.contains(address));
        self.cluster.rested += 1;
        if !present.is_empty() && self.cluster.rested < REJOIN_REST {
            return;
        }
        self.cluster.rested = 0;
        // The tries of last time may still be on their way; each has its own deadline of ten seconds.
        let state = if absent.is_empty() { Vec::new() } else { self.state() };
        for address in absent {
            let stream = self.membership.push_pull(now, address, true, state.clone());
            self.cluster.purposes.insert(stream, Purpose::Rejoin);
        }
    }

    /// Somebody of another part of the cluster takes this node for an earlier life of it: who is restarted need not wait until those who
    /// knew it have noticed.
    pub(super) fn introduce(&mut self, now: Instant, to: SocketAddr) {
        let speaks = self.cluster.leave.is_none() && to != self.cluster.advertise;
        if !speaks || self.cluster.introduce_at > now {
            return;
        }
        self.cluster.introduce_at = now + RECONNECT_INTERVAL;
        let state = self.state();
        let stream = self.membership.push_pull(now, to, true, state);
        self.cluster.purposes.insert(stream, Purpose::Rejoin);
    }

    /// Leaves the cluster: the others are told and drop this node's entries. [`Effect::Left`] follows, within about 6 seconds.
    pub fn leave(&mut self, now: Instant) {
        self.record(now, || Happening::Leave);
        if self.cluster.leave.is_some() {
            return;
        }
        let key = self.announce(Presence::Leave);
        self.cluster.leave = Some(Leave::Announcing(key, now + LEAVE_TIMEOUT));
        self.settle(now);
    }

    /// From one step of leaving to the next.
    pub(super) fn advance_leave(&mut self, now: Instant) {
        let Some(Leave::Announcing(key, until)) = &self.cluster.leave else {
            return;
        };
        if *until <= now || !self.membership.broadcasting(key) || self.membership.alone() {
            self.cluster.leave = Some(Leave::Leaving);
            self.membership.leave(now);
            self.settle(now);
        }
    }

    pub(super) fn left(&mut self) {
        if !self.cluster.has_left() {
            self.cluster.leave = Some(Leave::Left);
            self.effects.push_back(Effect::Left);
        }
    }
}

/// The errors of a join in the words of Go's multi-error, as Docker prints them.
fn join_errors(join: &Join, default_port: u16) -> String {
    // As a user names a member: without the port that all have.
    let name = |member: &SocketAddr| match member.port() {
        port if port == default_port => member.ip().to_string(),
        _ => member.to_string(),
    };
    let errors = join
        .members
        .iter()
        .filter_map(|(stream, member)| Some((member, join.errors.get(stream)?)));
    let lines: Vec<_> = errors
        .map(|(member, error)| format!("\t* Failed to join {}: {error}\n", name(member)))
        .collect();
    let noun = if lines.len() == 1 { "error" } else { "errors" };
    format!("{} {noun} occurred:\n{}\n", lines.len(), lines.concat())
}
