//! Weft's nodes notice what gossip lost, and say nothing when nothing is missing.

use super::{TABLE, settled};
use crate::networkdb::META;
use crate::simulation::{CALM, Simulation, network, place, secs};

/// Gossip has told a row as often as it will after this time, in a small cluster; nobody is declared failed by then.
const EPIDEMIC: u64 = 3;

/// A node that missed everything of late hears of it within this time: one question a second, asked by it or asked of it.
const REPAIRED: u64 = 3;

#[test]
fn a_row_that_gossip_lost_is_back_within_seconds() {
    let net = network("net1");
    for seed in 0..20 {
        let mut simulation = settled(seed, 5);
        simulation.act(1, |db, now| {
            db.create_entry(now, TABLE, &net, "old", vec![1]).expect("new")
        });
        simulation.run_for(secs(3));
        simulation.put_on_side(4, 1);
        simulation.act(1, |db, now| {
            db.create_entry(now, TABLE, &net, "new", vec![2]).expect("new");
            db.delete_entry(now, TABLE, &net, "old").expect("there");
        });
        simulation.run_for(secs(EPIDEMIC));
        assert_eq!(
            simulation.rows(4, &net, TABLE).len(),
            1,
            "seed {seed}: it heard nothing"
        );
        simulation.put_on_side(4, 0);
        let expected = simulation.rows(1, &net, TABLE);
        simulation.run_until(secs(REPAIRED), &format!("seed {seed}: node 4 has heard"), |s| {
            s.rows(4, &net, TABLE) == expected
        });
    }
}

#[test]
fn a_lost_word_of_a_network_is_back_within_seconds() {
    let (net, other) = (network("net1"), network("net2"));
    for seed in 0..20 {
        let mut simulation = settled(seed, 5);
        for node in [3, 4] {
            simulation.act(node, |db, now| db.join_network(now, &other).expect("joined"));
        }
        simulation.run_for(secs(5));
        simulation.put_on_side(4, 1);
        simulation.act(1, |db, now| db.join_network(now, &other).expect("joined"));
        simulation.act(3, |db, now| db.leave_network(now, &net).expect("left"));
        simulation.run_for(secs(EPIDEMIC));
        simulation.put_on_side(4, 0);
        simulation.act(1, |db, now| {
            db.create_entry(now, TABLE, &other, "k", vec![1]).expect("new")
        });
        simulation.run_until(secs(REPAIRED), &format!("seed {seed}: node 4 has heard"), |s| {
            let members = |id| s.nodes[4].db.network_peers(id).len();
            (members(&net), members(&other)) == (4, 3) && s.rows(4, &other, TABLE).len() == 1
        });
    }
}

#[test]
fn at_rest_the_size_of_the_tables_costs_nothing() {
    let net = network("net1");
    let bytes_of_ten_minutes = |entries: usize| {
        let mut simulation = settled(3, 5);
        for number in 0..entries {
            let node = number % 5;
            simulation.act(node, |db, now| {
                db.create_entry(now, TABLE, &net, &format!("k{number}"), vec![7; 100])
                    .expect("new");
            });
        }
        simulation.run_until(secs(600), "all have all", |s| {
            (0..5).all(|node| s.rows(node, &net, TABLE).len() == entries && !s.busy(node))
        });
        let before = simulation.traffic;
        simulation.run_for(secs(600));
        let spent = simulation.traffic.since(&before);
        spent.datagram_bytes + spent.stream_bytes
    };
    let (few, many) = (bytes_of_ten_minutes(5), bytes_of_ten_minutes(1000));
    assert!(many < few + few / 10, "{few} bytes with 5 entries, {many} with 1000");
}

#[test]
fn engines_see_nothing_of_it_and_are_synced_as_they_expect() {
    let net = network("net1");
    let mut simulation = Simulation::new(11, CALM);
    for at in 0..4 {
        // The first two tell nothing of themselves, as Docker's engines.
        simulation.start_with(at, |config| {
            if at < 2 {
                config.meta.clear();
            }
        });
        simulation.act(at, |db, now| {
            if at > 0 {
                db.join(now, &[place(0)]);
            }
            db.join_network(now, &net).expect("joined");
        });
    }
    simulation.run_until(secs(40), "all are members", |s| {
        (0..4).all(|node| s.nodes[node].db.network_peers(&net).len() == 4)
    });
    simulation.put_on_side(1, 1);
    simulation.act(3, |db, now| {
        db.create_entry(now, TABLE, &net, "k", META.to_vec()).expect("new")
    });
    simulation.run_for(secs(EPIDEMIC));
    simulation.put_on_side(1, 0);
    simulation.run_until(secs(120), "the engine is synced", |s| s.rows(1, &net, TABLE).len() == 1);
    for node in 0..4 {
        let weft = node >= 2;
        let stats = simulation.nodes[node].db.stats();
        assert_eq!(
            stats.comparisons > 0,
            weft,
            "node {node} asked {} times",
            stats.comparisons
        );
        assert_eq!(stats.refused_gossip, 0, "node {node} got what it cannot read");
    }
}

#[test]
fn tombstones_are_forgotten_together_and_stay_so() {
    let net = network("net1");
    let mut simulation = settled(5, 6);
    for node in 0..6 {
        let key = format!("k{node}");
        simulation.act(node, |db, now| {
            db.create_entry(now, TABLE, &net, &key, vec![1]).expect("new")
        });
    }
    simulation.run_for(secs(5));
    for node in 0..6 {
        let key = format!("k{node}");
        simulation.act(node, |db, now| db.delete_entry(now, TABLE, &net, &key).expect("there"));
        // At different times, so that they end one after the other.
        simulation.run_for(secs(2));
    }
    simulation.run_for(secs(29 * 60));
    let held = |s: &Simulation| -> Vec<usize> {
        let size = |node: usize| s.nodes[node].db.network_stats(&net).map_or(0, |(entries, _)| entries);
        (0..6).map(size).collect()
    };
    assert_eq!(held(&simulation), [6; 6]);
    simulation.run_until(secs(120), "all tombstones are gone", |s| held(s) == [0; 6]);
    simulation.run_for(secs(120));
    assert_eq!(held(&simulation), [0; 6]);
}
