//! A cluster in memory, under virtual time, with loss, delay, partitions and crashes out of a seed.

use super::stream::{Completeness, completeness};
use super::{Config, Effect, Event, Input, NetworkDb, PACKET_BUDGET_BYTES, StreamId};
use crate::id::{NetworkId, NodeId};
use crate::membership::Random;
use crate::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

/// How long a stream waits for an answer (`spec/networkdb.md` 3.2).
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows as a node shows them: key, value, owner.
pub(super) type Rows = Vec<(String, Vec<u8>, String)>;

/// What happens to packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// How many datagrams of a hundred are lost.
    pub(super) loss_percent: usize,
    pub(super) latency_min: Duration,
    pub(super) latency_max: Duration,
}

/// What a real underlay in trouble does.
pub(super) const ROUGH: Weather = Weather {
    loss_percent: 10,
    latency_min: Duration::from_millis(1),
    latency_max: Duration::from_millis(30),
};

/// A good one.
pub(super) const CALM: Weather = Weather {
    loss_percent: 0,
    latency_min: Duration::from_millis(1),
    latency_max: Duration::from_millis(2),
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Delivery {
    Datagram {
        to: SocketAddr,
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Request {
        to: SocketAddr,
        from: SocketAddr,
        opened: StreamId,
        bytes: Vec<u8>,
        expects_reply: bool,
    },
    Reply {
        to: SocketAddr,
        from: SocketAddr,
        stream: StreamId,
        bytes: Vec<u8>,
    },
    Failed {
        to: SocketAddr,
        stream: StreamId,
        error: String,
    },
}

/// A node and what it told.
#[derive(Debug)]
pub(super) struct SimNode {
    pub(super) db: NetworkDb,
    pub(super) running: bool,
    address: SocketAddr,
    side: usize,
    timer: Option<Instant>,
    pub(super) events: Vec<(Instant, Event)>,
    pub(super) joined: BTreeMap<u64, Result<usize, String>>,
    pub(super) left: Option<Instant>,
}

/// The cluster. Nodes are numbered in the order of their start.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) now: Instant,
    pub(super) nodes: Vec<SimNode>,
    pub(super) random: Random,
    pub(super) weather: Weather,
    /// Who answers at an address: the latest node started there.
    at: BTreeMap<SocketAddr, usize>,
    timers: BTreeSet<(Instant, usize)>,
    deliveries: BinaryHeap<Reverse<(Instant, u64, Delivery)>>,
    /// Streams accepted at each node: who opened them, under which number, and whether an answer is read.
    accepted: BTreeMap<StreamId, (SocketAddr, StreamId, bool)>,
    sent: u64,
    /// Datagrams sent, for bounds on chatter.
    pub(super) datagrams: u64,
    /// How many datagrams, and messages on streams, of a hundred arrive with a wrong byte.
    pub(super) damaged_datagrams_percent: usize,
    pub(super) damaged_streams_percent: usize,
}

pub(super) fn network(name: &str) -> NetworkId {
    NetworkId::new(name).expect("network id")
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The address of the place number `place`.
pub(super) fn place(place: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (place / 250) as u8, (place % 250 + 1) as u8], 7946))
}

impl Simulation {
    pub(super) fn new(seed: u64, weather: Weather) -> Self {
        Simulation {
            now: Instant::ZERO,
            nodes: Vec::new(),
            random: Random::new(seed),
            weather,
            at: BTreeMap::new(),
            timers: BTreeSet::new(),
            deliveries: BinaryHeap::new(),
            accepted: BTreeMap::new(),
            sent: 0,
            datagrams: 0,
            damaged_datagrams_percent: 0,
            damaged_streams_percent: 0,
        }
    }

    /// Starts a node at a place; returns its number.
    pub(super) fn start(&mut self, at: usize) -> usize {
        let number = self.nodes.len();
        let address = place(at);
        let name = NodeId::new(format!("{:012x}", self.random.below(1 << 31) << 8 | number & 0xff)).expect("node id");
        let seed = self.random.below(usize::MAX) as u64;
        let db = NetworkDb::new(self.now, Config::new(name, address, seed));
        let (events, joined) = (Vec::new(), BTreeMap::new());
        self.nodes.push(SimNode {
            db,
            running: true,
            address,
            side: 0,
            timer: None,
            events,
            joined,
            left: None,
        });
        self.at.insert(address, number);
        self.settle(number);
        number
    }

    /// Starts `count` nodes, all joined to the first one and to the network.
    pub(super) fn cluster(seed: u64, weather: Weather, count: usize, id: &NetworkId) -> Self {
        let mut simulation = Simulation::new(seed, weather);
        for number in 0..count {
            simulation.start(number);
            simulation.act(number, |db, now| {
                if number > 0 {
                    db.join(now, &[place(0)]);
                }
                db.join_network(now, id).expect("joined");
            });
        }
        simulation
    }

    /// A node does something.
    pub(super) fn act<T>(&mut self, node: usize, action: impl FnOnce(&mut NetworkDb, Instant) -> T) -> T {
        let result = action(&mut self.nodes[node].db, self.now);
        self.settle(node);
        result
    }

    /// The process ends without a word.
    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].running = false;
        if let Some(timer) = self.nodes[node].timer.take() {
            self.timers.remove(&(timer, node));
        }
    }

    /// Puts a node on a side; nothing passes between sides.
    pub(super) fn put_on_side(&mut self, node: usize, side: usize) {
        self.nodes[node].side = side;
    }

    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].running).collect()
    }

    pub(super) fn rows(&self, node: usize, id: &NetworkId, table: &str) -> Rows {
        let row = |row: super::Row<'_>| (row.key.to_owned(), row.value.to_vec(), row.owner.to_string());
        self.nodes[node].db.rows(id, table).map(row).collect()
    }

    pub(super) fn name(&self, node: usize) -> NodeId {
        self.nodes[node].db.name().clone()
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the condition holds; fails after `limit`. Returns how long it took.
    pub(super) fn run_until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Simulation) -> bool) -> Duration {
        let start = self.now;
        while !holds(self) {
            let waited = self.now.saturating_since(start);
            assert!(waited < limit, "not within {limit:?}: {what}");
            self.run_for(Duration::from_millis(100));
        }
        self.now.saturating_since(start)
    }

    fn step(&mut self, end: Instant) -> bool {
        let timer = self.timers.first().map(|(at, _)| *at);
        let delivery = self.deliveries.peek().map(|Reverse((at, ..))| *at);
        let Some(next) = timer.into_iter().chain(delivery).min().filter(|next| *next <= end) else {
            return false;
        };
        assert!(next >= self.now || timer.is_some(), "time runs backwards");
        self.now = next.max(self.now);
        if delivery == Some(next) {
            if let Some(Reverse((_, _, delivery))) = self.deliveries.pop() {
                self.deliver(delivery);
            }
        } else if let Some((_, node)) = self.timers.pop_first() {
            self.nodes[node].timer = None;
            let now = self.now;
            self.nodes[node].db.handle_timeout(now);
            let again = self.nodes[node].db.poll_timeout();
            assert!(again.is_none_or(|at| at > now), "node {node} would spin at {now}");
            self.settle(node);
        }
        true
    }

    /// Who answers at `to`, if `from` reaches it.
    fn reach(&self, from: SocketAddr, to: SocketAddr) -> Reach {
        match (self.at.get(&from), self.at.get(&to)) {
            (_, None) => Reach::Refused,
            (Some(from), Some(to)) if self.nodes[*from].side != self.nodes[*to].side => Reach::Silence,
            (_, Some(to)) if !self.nodes[*to].running => Reach::Refused,
            (_, Some(to)) => Reach::Node(*to),
        }
    }

    fn damage(&mut self, delivery: &mut Delivery) {
        let (bytes, percent) = match delivery {
            Delivery::Datagram { bytes, .. } => (bytes, self.damaged_datagrams_percent),
            Delivery::Request { bytes, .. } | Delivery::Reply { bytes, .. } => (bytes, self.damaged_streams_percent),
            Delivery::Failed { .. } => return,
        };
        let place = if percent > 0 { self.random.below(bytes.len()) } else { 0 };
        if percent > 0
            && self.random.below(100) < percent
            && let Some(byte) = bytes.get_mut(place)
        {
            *byte = self.random.below(256) as u8;
        }
    }

    fn deliver(&mut self, mut delivery: Delivery) {
        self.damage(&mut delivery);
        let (node, input) = match delivery {
            Delivery::Datagram { to, from, bytes } => match self.reach(from, to) {
                Reach::Node(node) => (node, Input::Datagram { from, bytes }),
                Reach::Refused | Reach::Silence => return,
            },
            Delivery::Request {
                to,
                from,
                opened,
                bytes,
                expects_reply,
            } => match self.reach(from, to) {
                Reach::Node(node) => {
                    let stream = StreamId(1 << 63 | self.sent);
                    self.sent += 1;
                    self.accepted.insert(stream, (from, opened, expects_reply));
                    (node, Input::StreamRequest { stream, from, bytes })
                }
                Reach::Refused => {
                    let error = format!("dial tcp {to}: connect: connection refused");
                    self.later(
                        Duration::ZERO,
                        Delivery::Failed {
                            to: from,
                            stream: opened,
                            error,
                        },
                    );
                    return;
                }
                Reach::Silence => {
                    let error = format!("dial tcp {to}: i/o timeout");
                    self.later(
                        STREAM_TIMEOUT,
                        Delivery::Failed {
                            to: from,
                            stream: opened,
                            error,
                        },
                    );
                    return;
                }
            },
            Delivery::Reply {
                to,
                from,
                stream,
                bytes,
            } => match self.reach(from, to) {
                Reach::Node(node) => (node, Input::StreamReply { stream, bytes }),
                Reach::Refused | Reach::Silence => {
                    let error = format!("read tcp {from}: i/o timeout");
                    self.later(STREAM_TIMEOUT, Delivery::Failed { to, stream, error });
                    return;
                }
            },
            Delivery::Failed { to, stream, error } => match self.at.get(&to).copied() {
                Some(node) if self.nodes[node].running => (node, Input::StreamFailed { stream, error }),
                _ => return,
            },
        };
        let now = self.now;
        self.nodes[node].db.handle(now, input);
        self.settle(node);
    }

    fn later(&mut self, delay: Duration, delivery: Delivery) {
        self.sent += 1;
        self.deliveries.push(Reverse((self.now + delay, self.sent, delivery)));
    }

    fn latency(&mut self) -> Duration {
        let Weather {
            latency_min,
            latency_max,
            ..
        } = self.weather;
        latency_min + self.random.stagger(latency_max - latency_min)
    }

    /// Performs what a node wants done.
    fn settle(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].db.poll_effect() {
            self.perform(node, effect);
        }
        if let Some(timer) = self.nodes[node].timer.take() {
            self.timers.remove(&(timer, node));
        }
        let timer = self.nodes[node].db.poll_timeout().filter(|_| self.nodes[node].running);
        self.nodes[node].timer = timer;
        self.timers.extend(timer.map(|timer| (timer, node)));
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let from = self.nodes[node].address;
        let delay = self.latency();
        match effect {
            Effect::Datagram { to, bytes } => {
                assert!(
                    bytes.len() <= PACKET_BUDGET_BYTES,
                    "a datagram of {} bytes",
                    bytes.len()
                );
                self.datagrams += 1;
                if self.random.below(100) >= self.weather.loss_percent {
                    self.later(delay, Delivery::Datagram { to, from, bytes });
                }
            }
            Effect::OpenStream {
                stream,
                to,
                bytes,
                expects_reply,
            } => {
                assert_eq!(
                    completeness(&bytes),
                    Completeness::Whole(bytes.len()),
                    "a stream's message is whole"
                );
                self.later(
                    delay * 3,
                    Delivery::Request {
                        to,
                        from,
                        opened: stream,
                        bytes,
                        expects_reply,
                    },
                );
            }
            Effect::Reply { stream, bytes } => {
                assert_eq!(
                    completeness(&bytes),
                    Completeness::Whole(bytes.len()),
                    "a stream's reply is whole"
                );
                let (to, opened, expects_reply) = self.accepted.remove(&stream).expect("an accepted stream");
                if expects_reply {
                    self.later(
                        delay,
                        Delivery::Reply {
                            to,
                            from,
                            stream: opened,
                            bytes,
                        },
                    );
                }
            }
            Effect::Close { stream } => {
                let (to, opened, expects_reply) = self.accepted.remove(&stream).expect("an accepted stream");
                if expects_reply {
                    let error = "the connection was closed after 0 bytes of a message".to_owned();
                    self.later(
                        delay,
                        Delivery::Failed {
                            to,
                            stream: opened,
                            error,
                        },
                    );
                }
            }
            Effect::Event(event) => self.nodes[node].events.push((self.now, event)),
            Effect::Joined { request, result } => {
                self.nodes[node].joined.insert(request, result);
            }
            Effect::Left => self.nodes[node].left = Some(self.now),
            Effect::Log { .. } => {}
        }
    }
}

enum Reach {
    Node(usize),
    Refused,
    Silence,
}
