//! Failed nodes: what is kept of them, and how they are found again.

use super::super::OwnerState;
use super::{TABLE, everybody_is_member, settled};
use crate::simulation::{Simulation, network, secs};

fn states(simulation: &Simulation, node: usize) -> Vec<(String, OwnerState)> {
    let rows = simulation.nodes[node].db.rows_of_all(&network("net1"), TABLE);
    rows.map(|row| (row.key.to_owned(), row.owner_state)).collect()
}

#[test]
fn rows_of_a_suspect_show_and_those_of_a_failed_node_show_to_who_asks_for_all() {
    let net = network("net1");
    let mut simulation = settled(31, 4);
    for (node, key) in [(0, "a"), (3, "d"), (3, "e")] {
        simulation
            .act(node, |db, now| db.create_entry(now, TABLE, &net, key, vec![1]))
            .expect("created");
    }
    simulation
        .act(3, |db, now| db.delete_entry(now, TABLE, &net, "e"))
        .expect("deleted");
    let with = |d: OwnerState| vec![("a".to_owned(), OwnerState::Alive), ("d".to_owned(), d)];
    simulation.run_until(secs(3), "the rows arrive", |s| states(s, 1) == with(OwnerState::Alive));
    simulation.put_on_side(3, 1);
    simulation.run_until(secs(20), "the owner is suspected", |s| {
        states(s, 1) == with(OwnerState::Suspect)
    });
    assert_eq!(simulation.rows(1, &net, TABLE).len(), 2, "a suspect's row shows");
    simulation.run_until(secs(40), "the owner failed", |s| {
        states(s, 1) == with(OwnerState::Failed)
    });
    assert_eq!(simulation.rows(1, &net, TABLE).len(), 1, "a failed node's row does not");
    simulation.heal();
    simulation.run_until(secs(15), "all is as before", |s| {
        (0..4).all(|node| states(s, node) == with(OwnerState::Alive))
    });
}

#[test]
fn halves_that_were_apart_for_a_minute_agree_within_ten_seconds() {
    let net = network("net1");
    for seed in 40..50 {
        let mut simulation = settled(seed, 12);
        for node in 6..12 {
            simulation.put_on_side(node, 1);
        }
        simulation.run_for(secs(60));
        for node in [0, 11] {
            simulation
                .act(node, |db, now| {
                    db.create_entry(now, TABLE, &net, &format!("k{node}"), vec![1])
                })
                .expect("created");
        }
        simulation.run_for(secs(5));
        assert!(
            !everybody_is_member(&simulation, 12),
            "seed {seed}: the halves were never apart"
        );
        simulation.heal();
        simulation.run_until(secs(10), &format!("seed {seed}: all agree"), |s| {
            everybody_is_member(s, 12) && (0..12).all(|node| s.rows(node, &net, TABLE).len() == 2)
        });
    }
}

#[test]
fn trying_a_dead_node_again_is_no_news_to_others() {
    let net = network("net1");
    let mut simulation = settled(51, 3);
    simulation.crash(2);
    simulation.run_until(secs(40), "it is given up", |s| s.nodes[0].db.cluster_peers().len() == 2);
    simulation.run_for(secs(30));
    let time = |s: &Simulation| s.nodes[0].db.own.get(&net).map(|own| own.at.time);
    let (before, sent) = (time(&simulation), simulation.traffic.stream_messages);
    simulation.run_for(secs(60));
    assert!(simulation.traffic.stream_messages - sent > 60, "it is tried");
    assert_eq!(time(&simulation), before);
}
