//! A node that comes back under a new name at once, as a restart, a crash or an upgrade of its daemon has it.

use super::super::{Event, OwnerState};
use super::{HANDOVER, TABLE, settled};
use crate::id::NodeId;
use crate::simulation::{ROUGH, Simulation, Weather, network, place, secs};
use crate::time::{Duration, Instant};

/// Rows that the next life writes anew, and one that it does not.
const KEPT: [&str; 3] = ["k1", "k2", "k3"];
const GONE: &str = "gone";

/// How long a bulk sync and a repair may take beside the handover.
const SLACK: Duration = Duration::from_secs(3);

/// A cluster whose node 2 wrote its rows often, so that their times are later than any that its next life begins with.
fn written(seed: u64) -> Simulation {
    let net = network("net1");
    let mut simulation = settled(seed, 3);
    for key in KEPT.iter().chain([&GONE]) {
        simulation
            .act(2, |db, now| db.create_entry(now, TABLE, &net, key, vec![1]))
            .expect("created");
        for _ in 0..20 {
            simulation
                .act(2, |db, now| db.update_entry(now, TABLE, &net, key, vec![1]))
                .expect("updated");
        }
    }
    simulation.run_until(secs(5), "the rows arrive", |s| {
        [0, 1].iter().all(|node| s.rows(*node, &net, TABLE).len() == 4)
    });
    simulation
}

/// The next life begins as a daemon does: it joins the cluster, and then its networks with its endpoints.
fn come_back(simulation: &mut Simulation) -> usize {
    let net = network("net1");
    let new = simulation.start(2);
    simulation.act(new, |db, now| db.join(now, &[place(0)]));
    simulation
        .act(new, |db, now| db.join_network(now, &net))
        .expect("joined");
    for key in KEPT {
        simulation
            .act(new, |db, now| db.create_entry(now, TABLE, &net, key, vec![2]))
            .expect("created");
    }
    new
}

/// Whether a node shows exactly the rows that the owner wrote.
fn shows_only(simulation: &Simulation, node: usize, owner: &NodeId) -> bool {
    let rows = simulation.rows(node, &network("net1"), TABLE);
    let shown: Vec<_> = rows.iter().map(|(key, _, by)| (key.as_str(), by.as_str())).collect();
    shown == KEPT.map(|key| (key, owner.as_str()))
}

/// When a row of this key was told to be gone.
fn told_gone(simulation: &Simulation, node: usize, wanted: &str) -> Vec<Instant> {
    let events = simulation.nodes[node].events.iter();
    events
        .filter_map(|(at, event)| match event {
            Event::EntryGone { key, .. } if key == wanted => Some(*at),
            _ => None,
        })
        .collect()
}

#[test]
fn no_row_is_missed_between_two_lives_of_a_node() {
    for seed in 0..20 {
        let mut simulation = written(seed);
        simulation.crash(2);
        let new = come_back(&mut simulation);
        let name = simulation.name(new);
        simulation.run_until(HANDOVER + SLACK, "the next life's rows stand alone", |s| {
            [0, 1].iter().all(|node| shows_only(s, *node, &name))
        });
        for node in [0, 1] {
            for key in KEPT {
                assert_eq!(told_gone(&simulation, node, key), [], "seed {seed}, node {node}, {key}");
            }
            assert_eq!(told_gone(&simulation, node, GONE).len(), 1, "seed {seed}, node {node}");
        }
    }
}

#[test]
fn no_row_is_missed_between_two_lives_of_a_node_in_bad_weather() {
    for seed in 0..20 {
        let mut simulation = written(seed);
        simulation.weather = Weather {
            loss_percent: 5,
            ..ROUGH
        };
        simulation.crash(2);
        let new = come_back(&mut simulation);
        let name = simulation.name(new);
        simulation.run_until(HANDOVER + secs(10), "the next life's rows stand alone", |s| {
            [0, 1].iter().all(|node| shows_only(s, *node, &name))
        });
    }
}

#[test]
fn what_the_last_life_wrote_is_marked_and_ends() {
    let net = network("net1");
    let mut simulation = written(1);
    let old = simulation.name(2);
    simulation.crash(2);
    come_back(&mut simulation);
    let state = |s: &Simulation| {
        let rows = s.nodes[0].db.rows_of_all(&net, TABLE);
        rows.filter(|row| row.key == GONE).map(|row| row.owner_state).next()
    };
    simulation.run_until(secs(2), "the last life is replaced", |s| {
        super::down(s, 0, &old).is_some() && state(s) == Some(OwnerState::Replaced)
    });
    let (at, left) = super::down(&simulation, 0, &old).expect("down");
    assert!(left);
    simulation.run_until(HANDOVER + SLACK, "its row is gone", |s| state(s).is_none());
    let gone = told_gone(&simulation, 0, GONE);
    assert_eq!(gone.len(), 1);
    assert!(gone[0] >= at + HANDOVER, "{gone:?} after {at:?}");
}

#[test]
fn what_a_node_that_leaves_wrote_ends_at_once() {
    let net = network("net1");
    let mut simulation = written(2);
    simulation.act(2, super::super::NetworkDb::leave);
    simulation.run_until(secs(2), "its rows are gone", |s| {
        [0, 1].iter().all(|node| s.rows(*node, &net, TABLE).is_empty())
    });
}
