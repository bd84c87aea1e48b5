//! Running a schedule, and judging what came out.

use super::keys::Rotation;
use super::model::{Expected, Model, Stay, Written, brief};
use super::{Action, BOOTSTRAP_PLACES, HOLD, KEYS, NETWORKS, QUIET, Schedule};
use crate::id::NetworkId;
use crate::networkdb::Event;
use crate::simulation::{CALM, STRAGGLER_DELAY, Simulation, network, place, secs};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The table that is written.
const TABLE: &str = "overlay_peer_table";

/// How often a join that failed is tried again, as users and orchestrators do.
const JOIN_AGAIN: Duration = Duration::from_secs(2);

/// How often it is looked whether all agree.
const LOOK: Duration = Duration::from_millis(500);

/// A schedule that ended well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How long after the last step all agreed.
    pub agreed_after: Duration,
    /// How long before the last step the last process ended without a word, if one did: until others notice that takes its time.
    pub crashed_before: Option<Duration>,
    /// How many written keys had an outcome that is decided by who wrote last.
    pub decided: usize,
    /// How many keys only had to be the same everywhere.
    pub undecided: usize,
}

/// What kind of failure: shrinking keeps to one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The members did not agree with each other and the model in time.
    Disagreement,
    /// They agreed, and later they did not.
    Return,
    /// A node held more than it may.
    Excess,
    /// Something panicked.
    Panic,
}

/// A schedule that ended badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// What was expected and what came.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn failure(kind: Kind, text: impl Into<String>) -> Failure {
    let text = text.into();
    Failure { kind, text }
}

struct Runner {
    simulation: Simulation,
    networks: [NetworkId; NETWORKS],
    model: Model,
    /// How often each node has joined each network, if it takes part now.
    stays: BTreeMap<(usize, usize), u32>,
    entered: u32,
    /// Nodes that say goodbye.
    leaving: BTreeSet<usize>,
    /// Joins under way.
    joins: BTreeMap<usize, (u64, Instant)>,
    writes: u64,
    crashed: Option<Instant>,
    /// How far each node is with the rotation of keys, and how far the first is; `None` if there are no keys.
    rotation: Option<Rotation>,
}

/// Runs a schedule.
pub fn run(schedule: &Schedule) -> Result<Outcome, Failure> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run_unguarded(schedule)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(failure(Kind::Panic, format!("panicked: {}", text.unwrap_or_default())))
    })
}

/// Runs a schedule that panics nowhere, and tells all that its nodes logged and told.
pub fn run_with_diary(schedule: &Schedule) -> (Result<Outcome, Failure>, Vec<String>) {
    let mut simulation = Simulation::new(schedule.seed, CALM);
    simulation.diary = Some(Vec::new());
    let (result, simulation) = run_in(simulation, schedule);
    (result, simulation.diary.unwrap_or_default())
}

/// Runs a schedule that panics nowhere in a simulation that was prepared, and gives it back.
pub(crate) fn run_in(simulation: Simulation, schedule: &Schedule) -> (Result<Outcome, Failure>, Simulation) {
    let mut runner = Runner::new(simulation, schedule.encrypted);
    let result = runner.run(schedule);
    (result, runner.simulation)
}

fn run_unguarded(schedule: &Schedule) -> Result<Outcome, Failure> {
    Runner::new(Simulation::new(schedule.seed, CALM), schedule.encrypted).run(schedule)
}

impl Runner {
    fn new(simulation: Simulation, encrypted: bool) -> Self {
        Runner {
            simulation,
            networks: std::array::from_fn(|number| network(&format!("net{number}"))),
            model: Model::default(),
            stays: BTreeMap::new(),
            entered: 0,
            leaving: BTreeSet::new(),
            joins: BTreeMap::new(),
            writes: 0,
            crashed: None,
            rotation: encrypted.then(Rotation::default),
        }
    }

    fn run(&mut self, schedule: &Schedule) -> Result<Outcome, Failure> {
        for step in &schedule.steps {
            self.pass(step.after);
            self.simulation.note(step.action.to_string());
            self.act(&step.action);
            self.bounded(false)?;
        }
        let crashed_before = self.crashed.map(|at| self.simulation.now.saturating_since(at));
        self.quiet_down();
        let agreed_after = self.agree()?;
        self.hold()?;
        let expected = self.all_expected().into_iter();
        let written: Vec<_> = expected.filter(|(key, _)| self.model.written(*key)).collect();
        let undecided = written
            .iter()
            .filter(|(_, expected)| *expected == Expected::Same)
            .count();
        Ok(Outcome {
            agreed_after,
            crashed_before,
            decided: written.len() - undecided,
            undecided,
        })
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Start { place, networks } => self.start(*place, networks),
            Action::Leave(place) => {
                if let Some(node) = self.node(*place) {
                    self.simulation.act(node, |db, now| db.leave(now));
                    self.leaving.insert(node);
                    self.end_stays(node);
                }
            }
            Action::Crash(place) => {
                if let Some(node) = self.simulation.runs_at(*place) {
                    self.crashed = Some(self.simulation.now);
                    self.crash(node);
                }
            }
            Action::Restart(place) => {
                if let Some(node) = self.simulation.runs_at(*place) {
                    let networks = std::array::from_fn(|network| self.stays.contains_key(&(node, network)));
                    self.crashed = Some(self.simulation.now);
                    self.crash(node);
                    self.start(*place, &networks);
                }
            }
            Action::Enter(place, network) => {
                if let Some(node) = self.node(*place) {
                    self.enter(node, *network);
                }
            }
            Action::Exit(place, network) => {
                if let Some(node) = self.node(*place)
                    && self.stays.remove(&(node, *network)).is_some()
                {
                    let id = self.networks[*network].clone();
                    self.simulation
                        .act(node, |db, now| db.leave_network(now, &id))
                        .expect("a joined network");
                }
            }
            Action::Write {
                place,
                network,
                key,
                bytes,
            } => self.write(*place, *network, *key, Some(*bytes)),
            Action::Delete { place, network, key } => self.write(*place, *network, *key, None),
            Action::Split { sides, one_way } => {
                self.simulation.heal();
                for (place, side) in sides.iter().enumerate() {
                    if let Some(node) = self.simulation.runs_at(place) {
                        self.simulation.put_on_side(node, *side);
                    }
                }
                if *one_way {
                    self.simulation.open_one_way(0, 1);
                }
            }
            Action::Heal => self.simulation.heal(),
            Action::Weather(weather) => self.simulation.weather = *weather,
            Action::Jump(place, by) => {
                if let Some(node) = self.simulation.runs_at(*place) {
                    self.simulation.jump_clock(node, *by);
                }
            }
            Action::Stall(place, longest) => {
                if let Some(node) = self.simulation.runs_at(*place) {
                    self.simulation.stall(node, *longest);
                }
            }
            Action::Rotate => {
                let running = self.simulation.running();
                if let Some((node, keyring)) = self.rotation.as_mut().and_then(|rotation| rotation.step(&running)) {
                    self.simulation.act(node, |db, now| db.set_keyring(now, keyring));
                }
            }
            Action::Resume(place) => {
                if let Some(node) = self.simulation.runs_at(*place) {
                    self.simulation.end_stall(node);
                }
            }
        }
    }

    /// The node at a place, if users can do something with it.
    fn node(&self, at: usize) -> Option<usize> {
        self.simulation.runs_at(at).filter(|node| !self.leaving.contains(node))
    }

    fn start(&mut self, at: usize, networks: &[bool; NETWORKS]) {
        if self.simulation.runs_at(at).is_some() {
            return;
        }
        let keyring = self.rotation.as_ref().map(Rotation::newest).unwrap_or_default();
        let node = self.simulation.start_with(at, |config| config.keyring = keyring);
        if let Some(rotation) = &mut self.rotation {
            rotation.started(node);
        }
        self.join(node);
        for (network, _) in networks.iter().enumerate().filter(|(_, joined)| **joined) {
            self.enter(node, network);
        }
    }

    fn join(&mut self, node: usize) {
        let own = self.simulation.address(node);
        let members: Vec<SocketAddr> = (0..BOOTSTRAP_PLACES).map(place).filter(|at| *at != own).collect();
        let request = self.simulation.act(node, |db, now| db.join(now, &members));
        self.joins.insert(node, (request, self.simulation.now + JOIN_AGAIN));
    }

    fn enter(&mut self, node: usize, network: usize) {
        if self.stays.contains_key(&(node, network)) {
            return;
        }
        self.entered += 1;
        self.stays.insert((node, network), self.entered);
        let id = self.networks[network].clone();
        self.simulation
            .act(node, |db, now| db.join_network(now, &id))
            .expect("a network that was not joined");
    }

    fn crash(&mut self, node: usize) {
        self.simulation.crash(node);
        self.leaving.remove(&node);
        self.joins.remove(&node);
        self.end_stays(node);
    }

    fn end_stays(&mut self, node: usize) {
        self.stays.retain(|(other, _), _| *other != node);
    }

    /// Creates or updates a row, or deletes it.
    fn write(&mut self, place: usize, network: usize, key: usize, bytes: Option<usize>) {
        let Some(node) = self.node(place) else { return };
        let Some(joined) = self.stays.get(&(node, network)).copied() else {
            return;
        };
        self.writes += 1;
        let value = bytes.map(|bytes| {
            let mut value = self.writes.to_be_bytes().to_vec();
            value.resize(bytes.max(8), 0);
            value
        });
        let (id, name) = (self.networks[network].clone(), key_name(key));
        let wrote = self.simulation.act(node, |db, now| {
            let seen = db.get_entry(TABLE, &id, &name).is_ok();
            match value.clone() {
                Some(value) if seen => db.update_entry(now, TABLE, &id, &name, value),
                Some(value) => db.create_entry(now, TABLE, &id, &name, value),
                None if seen => db.delete_entry(now, TABLE, &id, &name),
                None => return false,
            }
            .expect("an entry that can be written");
            true
        });
        if wrote {
            let db = &self.simulation.nodes[node].db;
            let (time, owner) = db.last_write(&id, TABLE, &name).expect("the entry just written");
            let by = Stay { node, joined };
            let written = Written {
                time,
                owner: owner.clone(),
                by,
                value,
            };
            self.model.wrote(network, key, written);
        }
    }

    /// Time passes; those who have left end, and joins that failed are tried again.
    fn pass(&mut self, time: Duration) {
        let end = self.simulation.now + time;
        while self.simulation.now < end {
            let next = end.min(self.simulation.now + LOOK);
            self.simulation.run_to(next);
            let nodes = &self.simulation.nodes;
            let left: Vec<_> = self
                .leaving
                .iter()
                .copied()
                .filter(|node| nodes[*node].left.is_some())
                .collect();
            left.into_iter().for_each(|node| self.crash(node));
            let now = self.simulation.now;
            let failed = |(node, (request, again)): (&usize, &(u64, Instant))| {
                let failed = matches!(self.simulation.nodes[*node].joined.get(request), Some(Err(_)));
                (failed && *again <= now && !self.leaving.contains(node)).then_some(*node)
            };
            let again: Vec<_> = self.joins.iter().filter_map(failed).collect();
            again.into_iter().for_each(|node| self.join(node));
        }
    }

    /// The weather clears, the underlay heals, the slow keep up, the first manager is there, and those who leave get to.
    fn quiet_down(&mut self) {
        self.simulation.heal();
        self.simulation.weather = CALM;
        for node in self.simulation.running() {
            self.simulation.end_stall(node);
        }
        while !self.leaving.is_empty() {
            self.pass(secs(1));
        }
        // What is still on its way from the bad times arrives, perhaps from those who have crashed since.
        self.pass(STRAGGLER_DELAY);
        // The first manager is there again, and knows where others are. Without, parts of the cluster may know nobody of each other.
        if self.simulation.runs_at(0).is_none() {
            let others: Vec<_> = self.simulation.running();
            let others: Vec<_> = others.into_iter().map(|node| self.simulation.address(node)).collect();
            self.start(0, &[true; NETWORKS]);
            let node = self.simulation.runs_at(0).expect("the node just started");
            self.simulation.act(node, |db, now| db.join(now, &others));
        }
    }

    fn lives(&self, stay: Stay, network: usize) -> bool {
        self.stays.get(&(stay.node, network)) == Some(&stay.joined)
    }

    fn all_expected(&self) -> BTreeMap<(usize, usize), Expected> {
        let expected = |(network, key)| {
            let expected = self.model.expected(network, key, |stay| self.lives(stay, network));
            ((network, key), expected)
        };
        Model::keys().map(expected).collect()
    }

    /// Waits until all agree; how long it took.
    fn agree(&mut self) -> Result<Duration, Failure> {
        let start = self.simulation.now;
        loop {
            let took = self.simulation.now.saturating_since(start);
            let disagreement = self.disagreement();
            match disagreement {
                None => return Ok(took),
                Some(disagreement) if took >= QUIET => {
                    let text = format!("{QUIET:?} after all had healed:\n{disagreement}");
                    return Err(failure(Kind::Disagreement, text));
                }
                Some(_) => self.pass(LOOK),
            }
        }
    }

    /// Nothing changes any more.
    fn hold(&mut self) -> Result<(), Failure> {
        let told: Vec<_> = self.simulation.nodes.iter().map(|node| node.events.len()).collect();
        self.pass(HOLD);
        if let Some(disagreement) = self.disagreement() {
            let text = format!("agreed, but not {HOLD:?} later:\n{disagreement}");
            return Err(failure(Kind::Return, text));
        }
        let expected = self.all_expected();
        let gone: BTreeSet<_> = expected
            .iter()
            .filter(|(_, expected)| **expected == Expected::Nothing)
            .map(|((network, key), _)| (self.networks[*network].clone(), key_name(*key)))
            .collect();
        for node in self.simulation.running() {
            for (at, event) in &self.simulation.nodes[node].events[told[node]..] {
                if let Event::EntrySet {
                    network, key, owner, ..
                } = event
                    && gone.contains(&(network.clone(), key.clone()))
                {
                    let text =
                        format!("node {node} showed {key} of {network} by {owner} again at {at}, which was gone");
                    return Err(failure(Kind::Return, text));
                }
            }
        }
        self.bounded(true)
    }

    /// The first thing on which the members do not agree with each other or with the model.
    fn disagreement(&self) -> Option<String> {
        let running = self.simulation.running();
        let mut alive: Vec<_> = running.iter().map(|node| self.simulation.name(*node)).collect();
        alive.sort();
        for node in &running {
            let peers = self.simulation.nodes[*node].db.cluster_peers();
            let peers: Vec<_> = peers.into_iter().map(|(name, _)| name).collect();
            if peers != alive {
                return Some(format!(
                    "    node {node} has the peers {peers:?}\n    expected   {alive:?}\n"
                ));
            }
        }
        (0..NETWORKS).find_map(|network| self.disagreement_in(network, &running))
    }

    fn disagreement_in(&self, network: usize, running: &[usize]) -> Option<String> {
        let id = &self.networks[network];
        let (members, strangers): (Vec<usize>, Vec<usize>) = running
            .iter()
            .partition(|node| self.stays.contains_key(&(**node, network)));
        let names: BTreeSet<_> = members
            .iter()
            .map(|node| self.simulation.name(*node).to_string())
            .collect();
        for node in &members {
            let peers = self.simulation.nodes[*node].db.network_peers(id).into_iter();
            let peers: BTreeSet<_> = peers.map(|(name, _)| name).collect();
            if peers != names {
                return Some(format!(
                    "    node {node} has in {id} the peers {peers:?}\n    expected {names:?}\n"
                ));
            }
        }
        for node in strangers {
            let rows = self.simulation.rows(node, id, TABLE);
            if !rows.is_empty() {
                return Some(format!("    node {node} is not in {id} and shows {rows:?}\n"));
            }
        }
        let views: Vec<BTreeMap<_, _>> = members
            .iter()
            .map(|node| {
                let rows = self.simulation.rows(*node, id, TABLE).into_iter();
                rows.map(|(key, value, owner)| (key, (value, owner))).collect()
            })
            .collect();
        for key in 0..KEYS {
            let expected = self.model.expected(network, key, |stay| self.lives(stay, network));
            let expected = match expected {
                Expected::Row(value, owner) => Some((value, owner.to_string())),
                Expected::Nothing => None,
                Expected::Same => views.first().and_then(|view| view.get(&key_name(key)).cloned()),
            };
            let wrong = views.iter().any(|view| view.get(&key_name(key)) != expected.as_ref());
            if wrong {
                return Some(self.explain(network, key, &members, &views));
            }
        }
        None
    }

    fn explain(
        &self,
        network: usize,
        key: usize,
        members: &[usize],
        views: &[BTreeMap<String, (Vec<u8>, String)>],
    ) -> String {
        let lives = |stay| self.lives(stay, network);
        let expected = match self.model.expected(network, key, lives) {
            Expected::Row(value, owner) => format!("{} by {owner}", brief(&value)),
            Expected::Nothing => "no row".to_owned(),
            Expected::Same => "the same everywhere".to_owned(),
        };
        let mut text = format!("    key {key} of network {network}: expected {expected}, got\n");
        for (node, view) in members.iter().zip(views) {
            let shown = view.get(&key_name(key));
            let shown = shown.map_or("no row".to_owned(), |(value, owner)| {
                format!("{} by {owner}", brief(value))
            });
            let name = self.simulation.name(*node);
            let (id, db) = (&self.networks[network], &self.simulation.nodes[*node].db);
            let held = db.held_entry(id, TABLE, &key_name(key));
            text.push_str(&format!("      node {node} ({name}): {shown}; holds {held}\n"));
        }
        text.push_str("    what was written:\n");
        text.push_str(&self.model.history(network, key, lives));
        text
    }

    /// Nobody holds more than it may.
    fn bounded(&self, at_rest: bool) -> Result<(), Failure> {
        for node in self.simulation.running() {
            for held in self.simulation.nodes[node].db.held() {
                let limit = if at_rest { held.at_rest } else { held.limit };
                if held.count > limit {
                    let (what, count) = (held.what, held.count);
                    let when = if at_rest { " at rest" } else { "" };
                    let text = format!("node {node} holds {count} {what}, the limit{when} is {limit}");
                    return Err(failure(Kind::Excess, text));
                }
            }
        }
        match self.simulation.open_streams() {
            streams if at_rest && streams > self.simulation.running().len() => {
                let text = format!("{streams} accepted streams were neither answered nor closed");
                Err(failure(Kind::Excess, text))
            }
            _ => Ok(()),
        }
    }
}

fn key_name(key: usize) -> String {
    format!("k{key}")
}
