//! What happens to the clusters, and what is measured.

use super::cluster::{Agreement, LOOK, TABLE, join, net, settled};
use std::collections::BTreeSet;
use std::time::Duration;
use weft_core::simulation::{Simulation, Traffic, Weather, secs};
use weft_core::time::Instant;

/// How long a row, or a view, is waited for.
const LIMIT: Duration = Duration::from_secs(180);

/// How often a join that failed is tried again.
const JOIN_AGAIN: Duration = Duration::from_millis(500);

/// For how long traffic is counted at least.
const COUNTED: Duration = Duration::from_secs(10);

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    /// A node writes a row.
    Clean,
    /// All nodes of a cluster join a network within 100 ms, and each writes a row right after.
    Join,
    /// A node starts, joins, and writes a row right after joining the network.
    Newcomer,
    /// A node leaves and another one comes every second, for a minute; a row is written every half second.
    Churn,
    /// Of datagrams a tenth is lost.
    Loss10,
    /// Three tenths.
    Loss30,
    /// One node gets to run only every 0 to 5 seconds, for a minute; the others write.
    Slow,
    /// Two halves do not reach each other for a minute; both write.
    Partition,
    /// The same, but datagrams pass from one half to the other.
    OneWay,
    /// All nodes are restarted under new names within two seconds, and each writes a row.
    RestartAll,
    /// Half of the nodes.
    RestartHalf,
}

/// All of them, with their names and what is timed.
pub(super) const SCENARIOS: [(Scenario, &str, &str); 11] = [
    (Scenario::Clean, "clean", "write to row at all"),
    (Scenario::Join, "join", "write right after join to row at all"),
    (Scenario::Newcomer, "newcomer", "a new node's write to row at all"),
    (Scenario::Churn, "churn", "write to row at all"),
    (Scenario::Loss10, "loss10", "write to row at all"),
    (Scenario::Loss30, "loss30", "write to row at all"),
    (Scenario::Slow, "slow", "write to row at all but the slow one"),
    (Scenario::Partition, "partition", "heal to all views equal"),
    (Scenario::OneWay, "one-way", "heal to all views equal"),
    (Scenario::RestartAll, "restart-all", "last start to all views equal"),
    (Scenario::RestartHalf, "restart-half", "last start to all views equal"),
];

impl Scenario {
    /// Whether the cluster to start from has joined the network.
    pub(super) fn starts_in_network(self) -> bool {
        self != Scenario::Join
    }
}

/// What one seed gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Seconds until the row, or the view, was everywhere.
    pub(super) times: Vec<f64>,
    /// How many rows or views were not within the limit.
    pub(super) never: usize,
    /// Declarations of failure of nodes that lived, kept up and could be reached.
    pub(super) false_failures: u64,
    /// What was sent while it was measured.
    pub(super) traffic: Traffic,
    /// Nodes times seconds in which that was sent.
    pub(super) node_seconds: f64,
}

/// Measures from the moment of its making.
struct Meter {
    start: Instant,
    traffic: Traffic,
    false_failures: u64,
    size: usize,
}

impl Meter {
    fn new(simulation: &Simulation, size: usize) -> Self {
        Meter {
            start: simulation.now,
            traffic: simulation.traffic,
            false_failures: simulation.false_failures,
            size,
        }
    }

    fn finish(self, simulation: &mut Simulation, sample: &mut Sample) {
        simulation.run_to(self.start + COUNTED);
        sample.traffic = simulation.traffic.since(&self.traffic);
        sample.node_seconds = simulation.now.saturating_since(self.start).as_secs_f64() * self.size as f64;
        sample.false_failures = simulation.false_failures - self.false_failures;
    }
}

/// Runs a scenario on a settled cluster.
pub(super) fn run(scenario: Scenario, mut simulation: Simulation, size: usize) -> (Sample, Simulation) {
    let mut sample = Sample::default();
    match scenario {
        Scenario::Clean => clean(&mut simulation, size, &mut sample),
        Scenario::Join => join_all(&mut simulation, size, &mut sample),
        Scenario::Newcomer => newcomer(&mut simulation, size, &mut sample),
        Scenario::Churn => churn(&mut simulation, size, &mut sample),
        Scenario::Loss10 => loss(&mut simulation, size, 10, &mut sample),
        Scenario::Loss30 => loss(&mut simulation, size, 30, &mut sample),
        Scenario::Slow => slow(&mut simulation, size, &mut sample),
        Scenario::Partition => partition(&mut simulation, size, false, &mut sample),
        Scenario::OneWay => partition(&mut simulation, size, true, &mut sample),
        Scenario::RestartAll => restart(&mut simulation, size, size, &mut sample),
        Scenario::RestartHalf => restart(&mut simulation, size, size / 2, &mut sample),
    }
    (sample, simulation)
}

/// A cluster for a scenario, built for this seed.
pub(super) fn fresh(scenario: Scenario, size: usize, seed: u64) -> Result<Simulation, String> {
    settled(size, seed, scenario.starts_in_network())
}

fn write(simulation: &mut Simulation, node: usize, key: &str) -> Vec<u8> {
    let value =
        format!("what docker writes about an endpoint has some two hundred bytes: {key:>64}{node:>64}").into_bytes();
    let entry = value.clone();
    simulation
        .act(node, |db, now| db.create_entry(now, TABLE, &net(), key, entry))
        .expect("a new row");
    value
}

fn write_watched(simulation: &mut Simulation, node: usize, key: &str) -> Vec<u8> {
    simulation.watch.row(simulation.now, key);
    write(simulation, node, key)
}

fn take_times(simulation: &mut Simulation, sample: &mut Sample) {
    simulation.run_until_seen(simulation.now + LIMIT);
    for (_, took) in simulation.watch.times() {
        match took {
            Some(took) => sample.times.push(took.as_secs_f64()),
            None => sample.never += 1,
        }
    }
}

fn clean(simulation: &mut Simulation, size: usize, sample: &mut Sample) {
    let writer = simulation.below(size);
    let meter = Meter::new(simulation, size);
    write_watched(simulation, writer, "row");
    take_times(simulation, sample);
    meter.finish(simulation, sample);
}

fn join_all(simulation: &mut Simulation, size: usize, sample: &mut Sample) {
    let meter = Meter::new(simulation, size);
    let start = simulation.now;
    let mut moments: Vec<_> = (0..size).map(|node| (simulation.below(100), node)).collect();
    moments.sort_unstable();
    for node in 0..size {
        simulation.watch.member(node);
    }
    for (millis, node) in moments {
        simulation.run_to(start + Duration::from_millis(millis as u64));
        simulation
            .act(node, |db, now| db.join_network(now, &net()))
            .expect("a network that was not joined");
        write_watched(simulation, node, &format!("row{node}"));
    }
    take_times(simulation, sample);
    meter.finish(simulation, sample);
}

fn newcomer(simulation: &mut Simulation, size: usize, sample: &mut Sample) {
    let meter = Meter::new(simulation, size);
    let node = simulation.start(size);
    join(simulation, node, size, false);
    while simulation.nodes[node].joined.is_empty() {
        simulation.run_for(Duration::from_millis(1));
    }
    simulation
        .act(node, |db, now| db.join_network(now, &net()))
        .expect("a network that was not joined");
    simulation.watch.member(node);
    write_watched(simulation, node, "row");
    take_times(simulation, sample);
    meter.finish(simulation, sample);
}

fn churn(simulation: &mut Simulation, size: usize, sample: &mut Sample) {
    let meter = Meter::new(simulation, size);
    let bootstraps = super::cluster::bootstraps(size);
    let mut at: Vec<usize> = (0..size).collect();
    let mut leaving: Vec<usize> = Vec::new();
    let mut written: Vec<(String, usize)> = Vec::new();
    for half_second in 0..120 {
        if half_second % 2 == 0 {
            let place = bootstraps + simulation.below(size - bootstraps);
            let old = at[place];
            simulation.watch.gone(simulation.now, old);
            simulation.act(old, |db, now| db.leave(now));
            leaving.push(old);
            // Its rows go with it.
            for (key, _) in written.extract_if(.., |(_, writer)| *writer == old) {
                simulation.watch.forget(&key);
            }
            // Another machine, which may have this address from now on.
            at[place] = simulation.start(size + half_second);
            join(simulation, at[place], size, true);
        }
        let pause = Duration::from_millis(simulation.below(500) as u64);
        simulation.run_for(pause);
        let writer = at[simulation.below(size)];
        let key = format!("row{half_second}");
        write_watched(simulation, writer, &key);
        written.push((key, writer));
        simulation.run_for(Duration::from_millis(500) - pause);
        leaving.retain(|node| {
            let left = simulation.nodes[*node].left.is_some();
            if left {
                simulation.crash(*node);
            }
            !left
        });
    }
    take_times(simulation, sample);
    meter.finish(simulation, sample);
}

fn loss(simulation: &mut Simulation, size: usize, percent: usize, sample: &mut Sample) {
    simulation.weather = Weather {
        loss_percent: percent,
        ..simulation.weather
    };
    let meter = Meter::new(simulation, size);
    simulation.run_for(secs(10));
    let writer = simulation.below(size);
    write_watched(simulation, writer, "row");
    take_times(simulation, sample);
    simulation.run_for(secs(10));
    meter.finish(simulation, sample);
}

fn slow(simulation: &mut Simulation, size: usize, sample: &mut Sample) {
    let meter = Meter::new(simulation, size);
    let node = simulation.below(size);
    simulation.watch.gone(simulation.now, node);
    simulation.stall(node, secs(5));
    for row in 0..6 {
        simulation.run_for(secs(10));
        let writer = (node + 1 + simulation.below(size - 1)) % size;
        write_watched(simulation, writer, &format!("row{row}"));
    }
    take_times(simulation, sample);
    meter.finish(simulation, sample);
}

/// The rows that a node has written.
fn row(simulation: &mut Simulation, node: usize, key: String) -> (String, Vec<u8>, String) {
    let value = write(simulation, node, &key);
    (key, value, simulation.name(node).to_string())
}

fn partition(simulation: &mut Simulation, size: usize, one_way: bool, sample: &mut Sample) {
    let meter = Meter::new(simulation, size);
    let other: BTreeSet<usize> = some(simulation, size, size / 2);
    for node in &other {
        simulation.put_on_side(*node, 1);
    }
    if one_way {
        simulation.open_one_way(0, 1);
    }
    let mut rows = Vec::new();
    for number in 0..10 {
        simulation.run_for(secs(6));
        let node = simulation.below(size);
        rows.push(row(simulation, node, format!("row{number}")));
    }
    simulation.heal();
    settle_views(simulation, rows, sample);
    meter.finish(simulation, sample);
}

fn settle_views(simulation: &mut Simulation, rows: Vec<(String, Vec<u8>, String)>, sample: &mut Sample) {
    let mut agreement = Agreement::new(simulation, true).rows(rows);
    match agreement.within(simulation, LIMIT, LOOK) {
        Ok(took) => sample.times.push(took.as_secs_f64()),
        Err(_) => sample.never += 1,
    }
}

/// So many different nodes.
fn some(simulation: &mut Simulation, size: usize, count: usize) -> BTreeSet<usize> {
    let mut chosen = BTreeSet::new();
    while chosen.len() < count {
        chosen.insert(simulation.below(size));
    }
    chosen
}

fn restart(simulation: &mut Simulation, size: usize, count: usize, sample: &mut Sample) {
    let meter = Meter::new(simulation, size);
    let mut rows = Vec::new();
    let mut moments = Vec::new();
    for node in some(simulation, size, count) {
        simulation.crash(node);
        moments.push((simulation.below(2000), node));
    }
    for node in simulation.running() {
        rows.push(row(simulation, node, format!("row{node}")));
    }
    moments.sort_unstable();
    let start = simulation.now;
    let mut joining = Vec::new();
    for (millis, place) in moments {
        pass(
            simulation,
            start + Duration::from_millis(millis as u64),
            size,
            &mut joining,
        );
        let node = simulation.start(place);
        join(simulation, node, size, true);
        joining.push((node, simulation.now + JOIN_AGAIN));
        rows.push(row(simulation, node, format!("row{node}")));
    }
    let last_start = simulation.now;
    let mut agreement = Agreement::new(simulation, true).rows(rows);
    let mut reached = agreement.reached(simulation);
    while !reached && simulation.now.saturating_since(last_start) < LIMIT {
        pass(simulation, simulation.now + LOOK, size, &mut joining);
        reached = agreement.reached(simulation);
    }
    if reached {
        sample
            .times
            .push(simulation.now.saturating_since(last_start).as_secs_f64());
    } else {
        sample.never += 1;
    }
    meter.finish(simulation, sample);
}

/// A node that has not joined yet, and when its next try may be.
type Joining = (usize, Instant);

/// Time passes; joins that failed, as the node they went to was not back yet, are tried again, as users and orchestrators do.
fn pass(simulation: &mut Simulation, end: Instant, size: usize, joining: &mut Vec<Joining>) {
    while simulation.now < end {
        simulation.run_to(end.min(simulation.now + JOIN_AGAIN));
        joining.retain_mut(|(node, next)| {
            let result = simulation.nodes[*node].joined.last_key_value();
            let failed = result.map(|(_, result)| result.is_err());
            if failed == Some(true) && *next <= simulation.now {
                simulation.nodes[*node].joined.clear();
                join(simulation, *node, size, false);
                *next = simulation.now + JOIN_AGAIN;
            }
            failed != Some(false)
        });
    }
}
