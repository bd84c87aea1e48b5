//! A cluster in memory, under virtual time, with loss, delay, partitions, crashes and slow nodes out of a seed.
//!
//! As pure as the rest of the core: the tests of this crate, the bench and `cargo xtask simulate` drive it. The same seed and the
//! same calls give the same run. A node here is the core's own [`NetworkDb`]; only sockets and clocks are imitated.

mod agenda;
mod links;
pub mod schedule;
mod stall;
mod watch;

pub use links::{Traffic, Weather};
pub use watch::Watch;

use crate::id::{NetworkId, NodeId};
use crate::membership::Random;
use crate::networkdb::{Config, Effect, Event, Input, NetworkDb, Row, StreamId};
use crate::time::{Duration, Instant};
use agenda::Agenda;
use links::{Accepted, Delivery, Opened, STRAGGLER_DELAY};
use stall::Stall;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Rows as a node shows them: key, value, owner.
pub type Rows = Vec<(String, Vec<u8>, String)>;

/// What a real underlay in trouble does.
pub const ROUGH: Weather = Weather {
    loss_percent: 10,
    latency_min: Duration::from_millis(1),
    latency_max: Duration::from_millis(30),
    ..CALM
};

/// A good one.
pub const CALM: Weather = Weather {
    loss_percent: 0,
    latency_min: Duration::from_millis(1),
    latency_max: Duration::from_millis(2),
    duplicated_percent: 0,
    straggling_percent: 0,
    damaged_percent: 0,
};

/// Something that will happen.
#[derive(Clone, Debug)]
enum Happening {
    Delivery(Delivery),
    /// A node's deadline.
    Timer(usize),
    /// A stalled node gets to run.
    Wake(usize),
}

/// A node and what it told.
#[derive(Clone, Debug)]
pub struct SimNode {
    /// The node itself.
    pub db: NetworkDb,
    /// Its process lives.
    pub running: bool,
    /// What it told, and when.
    pub events: Vec<(Instant, Event)>,
    /// The joins that ended, by their number.
    pub joined: BTreeMap<u64, Result<usize, String>>,
    /// When it had left the cluster.
    pub left: Option<Instant>,
    address: SocketAddr,
    side: usize,
    /// How far its clock is ahead.
    ahead: Duration,
    /// When it is called next.
    timer: Option<Instant>,
    stall: Option<Stall>,
}

/// The cluster. Nodes are numbered in the order of their start.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Virtual time.
    pub now: Instant,
    /// All nodes, the ended ones included.
    pub nodes: Vec<SimNode>,
    /// What happens to packets.
    pub weather: Weather,
    /// What was sent so far.
    pub traffic: Traffic,
    /// How many messages of a hundred on streams arrive with a wrong byte. Real ones have TCP's checksum.
    pub damaged_streams_percent: usize,
    /// Whether no datagram arrives, while streams do.
    pub streams_only: bool,
    /// Whether nodes keep their events in [`SimNode::events`]. A thousand nodes that meet tell a million of them.
    pub keeps_events: bool,
    /// What all nodes logged and told, in order, if it is kept.
    pub diary: Option<Vec<String>>,
    /// Whether what nodes send is checked: the budget of datagrams and the framing of streams.
    pub checks_framing: bool,
    /// The number of a node whose gossip is to be recorded, and from when on.
    pub records: Option<(usize, Instant)>,
    /// What one node did, by its number, if that is kept.
    pub kept_effects: Option<(usize, Vec<Effect>)>,
    /// How often a node was declared failed that lived, kept up, and could be reached; each node that declares it counts.
    pub false_failures: u64,
    /// Which rows are waited for.
    pub watch: Watch,
    pub(crate) random: Random,
    /// Who answers at a place: the latest node started there.
    at: Vec<Option<usize>>,
    agenda: Agenda<Happening>,
    /// Which sides reach which others, by datagrams.
    one_way: BTreeSet<(usize, usize)>,
    accepted: BTreeMap<StreamId, Accepted>,
    streams: u64,
}

/// A network's id.
pub fn network(name: &str) -> NetworkId {
    NetworkId::new(name).expect("network id")
}

/// Seconds.
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How many places a third byte of the address has.
const PLACES_PER_BLOCK: usize = 250;

/// The address of the place number `place`.
pub fn place(place: usize) -> SocketAddr {
    let (block, host) = (place / PLACES_PER_BLOCK, place % PLACES_PER_BLOCK + 1);
    SocketAddr::from(([10, 0, block as u8, host as u8], 7946))
}

/// The place at an address.
fn place_of(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => match ip.octets() {
            [10, 0, block, host] if address.port() == 7946 && host > 0 => {
                Some(usize::from(block) * PLACES_PER_BLOCK + usize::from(host) - 1)
            }
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

impl Simulation {
    /// No node yet.
    pub fn new(seed: u64, weather: Weather) -> Self {
        Simulation {
            now: Instant::ZERO,
            nodes: Vec::new(),
            weather,
            traffic: Traffic::default(),
            damaged_streams_percent: 0,
            streams_only: false,
            keeps_events: true,
            diary: None,
            checks_framing: true,
            records: None,
            kept_effects: None,
            false_failures: 0,
            watch: Watch::default(),
            random: Random::new(seed),
            at: Vec::new(),
            agenda: Agenda::new(),
            one_way: BTreeSet::new(),
            accepted: BTreeMap::new(),
            streams: 0,
        }
    }

    /// Starts a node at a place; returns its number.
    pub fn start(&mut self, at: usize) -> usize {
        self.start_with(at, |_| {})
    }

    /// Starts a node at a place with another configuration than the default.
    pub fn start_with(&mut self, at: usize, configure: impl FnOnce(&mut Config)) -> usize {
        let number = self.nodes.len();
        let address = place(at);
        // The number keeps names apart, the rest gives them a random order.
        let name = format!("{:07x}{:05x}", self.random.below(1 << 28), number & 0xf_ffff);
        let name = NodeId::new(name).expect("node id");
        let mut config = Config::new(name, address, self.random.below(usize::MAX) as u64);
        configure(&mut config);
        self.nodes.push(SimNode {
            db: NetworkDb::new(self.now, config),
            running: true,
            events: Vec::new(),
            joined: BTreeMap::new(),
            left: None,
            address,
            side: 0,
            ahead: Duration::ZERO,
            timer: None,
            stall: None,
        });
        if self.at.len() <= at {
            self.at.resize(at + 1, None);
        }
        self.at[at] = Some(number);
        self.settle(number);
        number
    }

    /// Starts `count` nodes, all joined to the first one and to the network.
    pub fn cluster(seed: u64, weather: Weather, count: usize, id: &NetworkId) -> Self {
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

    /// From here on chance takes another course, in all nodes too: a settled cluster is cloned and goes on from each of many seeds.
    pub fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
        for node in &mut self.nodes {
            node.db.reseed(self.random.below(usize::MAX) as u64);
        }
    }

    /// A number below `bound`, by chance.
    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound)
    }

    /// A node does something.
    pub fn act<T>(&mut self, node: usize, action: impl FnOnce(&mut NetworkDb, Instant) -> T) -> T {
        let now = self.clock_of(node);
        let result = action(&mut self.nodes[node].db, now);
        self.settle(node);
        result
    }

    /// The process ends without a word.
    pub fn crash(&mut self, node: usize) {
        self.nodes[node].running = false;
        self.nodes[node].timer = None;
        self.nodes[node].stall = None;
        self.reset_streams(node);
        self.watch.gone(self.now, node);
    }

    /// Puts a node on a side; nothing passes between sides, unless [`open_one_way`](Self::open_one_way).
    pub fn put_on_side(&mut self, node: usize, side: usize) {
        self.nodes[node].side = side;
    }

    /// Lets datagrams pass from one side to another, and not back. Streams need both ways.
    pub fn open_one_way(&mut self, from: usize, to: usize) {
        self.one_way.insert((from, to));
    }

    /// All reach all again.
    pub fn heal(&mut self) {
        self.one_way.clear();
        for node in &mut self.nodes {
            node.side = 0;
        }
    }

    /// A node's clock jumps forward, as when its machine was suspended.
    pub fn jump_clock(&mut self, node: usize, by: Duration) {
        self.nodes[node].ahead += by;
        self.settle(node);
    }

    /// What a node's clock shows.
    pub fn clock_of(&self, node: usize) -> Instant {
        self.now + self.nodes[node].ahead
    }

    /// The numbers of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].running).collect()
    }

    /// The latest node started at a place, if it runs.
    pub fn runs_at(&self, at: usize) -> Option<usize> {
        self.at
            .get(at)
            .copied()
            .flatten()
            .filter(|node| self.nodes[*node].running)
    }

    /// The rows of a table as a node shows them.
    pub fn rows(&self, node: usize, id: &NetworkId, table: &str) -> Rows {
        let row = |row: Row<'_>| (row.key.to_owned(), row.value.to_vec(), row.owner.to_string());
        self.nodes[node].db.rows(id, table).map(row).collect()
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> NodeId {
        self.nodes[node].db.name().clone()
    }

    /// Whether a node has anything to tell.
    pub fn busy(&self, node: usize) -> bool {
        self.nodes[node].db.busy()
    }

    /// A node has nothing to tell any more. For building large clusters: who is told all by one exchange of views need not hear it from
    /// everybody.
    pub fn hush(&mut self, node: usize) {
        self.nodes[node].db.hush();
    }

    /// Where a node is.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address
    }

    /// How many accepted streams have not been answered or closed.
    pub fn open_streams(&self) -> usize {
        self.accepted.len()
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_to(self.now + time);
    }

    /// Lets time pass up to `end`.
    pub fn run_to(&mut self, end: Instant) {
        while self.step(end) {}
        self.now = self.now.max(end);
    }

    /// Lets time pass until the watched rows are where they shall be, at most up to `end`. Time stands still at that very event.
    pub fn run_until_seen(&mut self, end: Instant) {
        while self.watch.waiting() > 0 && self.step(end) {}
        if self.watch.waiting() > 0 {
            self.now = self.now.max(end);
        }
    }

    /// Runs until the condition holds; fails after `limit`. Returns how long it took.
    pub fn run_until(&mut self, limit: Duration, what: &str, holds: impl Fn(&Simulation) -> bool) -> Duration {
        let start = self.now;
        while !holds(self) {
            let waited = self.now.saturating_since(start);
            assert!(waited < limit, "not within {limit:?}: {what}");
            self.run_for(Duration::from_millis(100));
        }
        self.now.saturating_since(start)
    }

    /// Lets the next thing happen, if it happens by `end`.
    fn step(&mut self, end: Instant) -> bool {
        let Some((at, happening)) = self.agenda.pop(end) else {
            return false;
        };
        self.now = self.now.max(at);
        match happening {
            Happening::Delivery(delivery) => self.deliver(delivery),
            Happening::Timer(node) if self.nodes[node].timer == Some(at) => {
                self.nodes[node].timer = None;
                self.call(node);
                self.settle(node);
            }
            // An earlier deadline took its place.
            Happening::Timer(_) => {}
            Happening::Wake(node) => self.wake(node),
        }
        true
    }

    /// Calls a node if its deadline has come.
    fn call(&mut self, node: usize) {
        let now = self.clock_of(node);
        let db = &mut self.nodes[node].db;
        if db.poll_timeout().is_some_and(|due| due <= now) {
            db.handle_timeout(now);
            let again = db.poll_timeout();
            assert!(
                again.is_none_or(|due| due > now),
                "node {node} would spin at {now}: {again:?}"
            );
        }
    }

    /// Hands a node what arrived.
    fn hand(&mut self, node: usize, input: Input) {
        if !self.nodes[node].running {
            return;
        }
        if let Some(stall) = &mut self.nodes[node].stall {
            stall.waiting.push_back(input);
            return;
        }
        let now = self.clock_of(node);
        self.nodes[node].db.handle(now, input);
        self.settle(node);
    }

    /// Performs what a node wants done, and sets its timer.
    fn settle(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].db.poll_effect() {
            self.perform(node, effect);
        }
        if self
            .records
            .is_some_and(|(recorded, from)| recorded == node && from <= self.now)
        {
            self.records = None;
            let now = self.clock_of(node);
            let started = self.nodes[node].db.start_recording(now, "", "", 0);
            started.expect("recorded");
        }
        let SimNode {
            db,
            running,
            ahead,
            timer,
            stall,
            ..
        } = &mut self.nodes[node];
        if !*running || stall.is_some() {
            return;
        }
        let Some(due) = db.poll_timeout() else { return };
        let due = Instant::from_origin(due.since_origin().saturating_sub(*ahead)).max(self.now);
        // A later deadline waits until the earlier one has come, and is looked at then.
        if timer.is_none_or(|timer| due < timer) {
            *timer = Some(due);
            self.agenda.push(due, Happening::Timer(node));
        }
    }

    /// Writes a line into the diary, if there is one.
    pub fn note(&mut self, line: String) {
        if let Some(diary) = &mut self.diary {
            diary.push(format!("{:>9} {line}", self.now.to_string()));
        }
    }

    /// Counts a failure that is told of a node that lives, keeps up and can be reached.
    fn judge(&mut self, by: usize, event: &Event) {
        let Event::NodeDown { name, left: false, .. } = event else {
            return;
        };
        // Its number is in its name.
        let number = name
            .as_str()
            .get(7..)
            .and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(accused) = number.filter(|number| *number < self.nodes.len()) else {
            return;
        };
        let reachable = self.passes(by, accused) && self.passes(accused, by);
        let node = &self.nodes[accused];
        if node.running && node.left.is_none() && node.stall.is_none() && reachable {
            self.false_failures += 1;
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        if let Some((kept, effects)) = &mut self.kept_effects
            && *kept == node
        {
            effects.push(effect.clone());
        }
        match effect {
            Effect::Datagram { to, bytes } => self.send_datagram(self.nodes[node].address, to, bytes),
            Effect::OpenStream {
                stream,
                to,
                bytes,
                expects_reply,
            } => self.open_stream(Opened { node, stream }, to, bytes, expects_reply),
            Effect::Reply { stream, bytes } => self.answer_stream(stream, bytes),
            Effect::Close { stream } => self.close_stream(stream),
            Effect::Event(event) => {
                if self.diary.is_some() {
                    self.note(format!("node {node} tells {event:?}"));
                }
                self.watch.event(self.now, node, &event);
                self.judge(node, &event);
                if self.keeps_events {
                    self.nodes[node].events.push((self.now, event));
                }
            }
            Effect::Joined { request, result } => {
                if self.diary.is_some() {
                    self.note(format!("node {node} joined: {result:?}"));
                }
                self.nodes[node].joined.insert(request, result);
            }
            Effect::Left => self.nodes[node].left = Some(self.now),
            Effect::Log { level, message } => {
                if self.diary.is_some() {
                    self.note(format!("node {node} {level:?}: {message}"));
                }
            }
        }
    }
}
