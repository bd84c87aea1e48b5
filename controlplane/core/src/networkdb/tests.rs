//! Small clusters: each test is one story.

mod any_message;
mod chaos;
mod decisions;
mod failed;
mod handover;
mod hostile;
mod keys;
mod limits;
mod repair;
mod rules;

use super::nodes::HANDOVER;
use super::{Config, Effect, EntryError, Event, Input, NetworkDb, StreamId};
use crate::id::NodeId;
use crate::simulation::{CALM, Simulation, network, place, secs};
use crate::time::Instant;
use std::net::IpAddr;

const TABLE: &str = "t1";

fn alone() -> NetworkDb {
    NetworkDb::new(
        Instant::ZERO,
        Config::new(NodeId::new("nodeaaaaaaaa").expect("name"), place(0), 1),
    )
}

fn effects(db: &mut NetworkDb) -> Vec<Effect> {
    std::iter::from_fn(|| db.poll_effect()).collect()
}

fn everybody_is_member(simulation: &Simulation, count: usize) -> bool {
    let net = network("net1");
    simulation
        .running()
        .into_iter()
        .all(|node| simulation.nodes[node].db.network_peers(&net).len() == count)
}

/// A calm cluster in which everybody knows everybody.
fn settled(seed: u64, count: usize) -> Simulation {
    let mut simulation = Simulation::cluster(seed, CALM, count, &network("net1"));
    simulation.run_until(secs(40), "all are members", |s| everybody_is_member(s, count));
    simulation
}

fn down(simulation: &Simulation, node: usize, name: &NodeId) -> Option<(Instant, bool)> {
    simulation.nodes[node]
        .events
        .iter()
        .find_map(|(at, event)| match event {
            Event::NodeDown { name: down, left, .. } if down == name => Some((*at, *left)),
            _ => None,
        })
}

#[test]
fn an_entry_written_here_is_told_and_read() {
    let (mut db, net) = (alone(), network("net1"));
    db.create_entry(Instant::ZERO, TABLE, &net, "k1", b"hello".to_vec())
        .expect("created");
    let event = Event::EntrySet {
        network: net.clone(),
        table: TABLE.into(),
        key: "k1".into(),
        value: b"hello".to_vec(),
        owner: db.name().clone(),
    };
    assert_eq!(effects(&mut db), [Effect::Event(event)]);
    assert_eq!(db.get_entry(TABLE, &net, "k1"), Ok(&b"hello"[..]));
    db.delete_entry(Instant::ZERO, TABLE, &net, "k1").expect("deleted");
    db.create_entry(Instant::ZERO, TABLE, &net, "k1", b"again".to_vec())
        .expect("created over the tombstone");
    assert_eq!(
        db.rows(&net, TABLE).map(|row| row.value).collect::<Vec<_>>(),
        [b"again"]
    );
    assert_eq!(db.network_stats(&net), None);
}

#[test]
fn errors_say_what_dockers_say() {
    let (mut db, net, now) = (alone(), network("n"), Instant::ZERO);
    let text = |result: Result<(), EntryError>| result.expect_err("an error").to_string();
    assert_eq!(
        text(db.update_entry(now, "t", &net, "k", Vec::new())),
        "cannot update entry as the entry in table t with network id n and key k does not exist"
    );
    assert_eq!(
        text(db.delete_entry(now, "t", &net, "k")),
        "cannot delete entry t with network id n and key k does not exist or is already being deleted"
    );
    let get = |db: &NetworkDb| db.get_entry("t", &network("n"), "k").expect_err("an error").to_string();
    assert_eq!(get(&db), "could not get entry in table t with network id n and key k");
    db.create_entry(now, "t", &net, "k", Vec::new()).expect("created");
    assert_eq!(
        text(db.create_entry(now, "t", &net, "k", Vec::new())),
        "cannot create entry in table t with network id n and key k, already exists"
    );
    db.delete_entry(now, "t", &net, "k").expect("deleted");
    assert_eq!(
        get(&db),
        "entry in table t network id n and key k deleted and pending garbage collection"
    );
    db.join_network(now, &net).expect("joined");
    assert_eq!(
        db.join_network(now, &net).expect_err("joined").to_string(),
        "networkdb: network n is already joined"
    );
    db.leave_network(now, &net).expect("left");
    assert_eq!(
        db.leave_network(now, &net).expect_err("left").to_string(),
        "could not find network n while trying to leave"
    );
}

#[test]
fn a_value_of_the_stated_limit_fits_and_one_byte_more_does_not() {
    let (mut db, net, now) = (alone(), network("net1"), Instant::ZERO);
    let error = db
        .create_entry(now, TABLE, &net, "k", vec![0; 5000])
        .expect_err("too large");
    let EntryError::TooLarge { limit, bytes: 5000, .. } = error else {
        panic!("{error}")
    };
    assert!(limit > 1200, "{limit}");
    assert!(db.create_entry(now, TABLE, &net, "k", vec![0; limit + 1]).is_err());
    assert_eq!(effects(&mut db), []);
    db.create_entry(now, TABLE, &net, "k", vec![0; limit]).expect("fits");
    assert!(db.create_entry(now, "a/b", &net, "k", Vec::new()).is_err());
    // It really travels: the simulation refuses larger packets.
    let mut simulation = settled(3, 2);
    simulation
        .act(0, |db, now| db.create_entry(now, TABLE, &net, "k", vec![7; limit]))
        .expect("fits");
    simulation.run_until(secs(2), "the largest entry arrives by gossip", |s| {
        s.rows(1, &net, TABLE).len() == 1
    });
}

#[test]
fn two_nodes_join_and_exchange_what_they_had() {
    let net = network("net1");
    let mut simulation = Simulation::new(1, CALM);
    let (a, b) = (simulation.start(0), simulation.start(1));
    for node in [a, b] {
        simulation
            .act(node, |db, now| db.join_network(now, &net))
            .expect("joined");
        let key = format!("k{node}");
        simulation
            .act(node, |db, now| {
                db.create_entry(now, TABLE, &net, &key, vec![node as u8])
            })
            .expect("created");
    }
    let request = simulation.act(b, |db, now| db.join(now, &[place(0)]));
    // At once, though neither knew the other when it joined the network.
    simulation.run_until(secs(3), "both have both rows", |s| {
        s.rows(a, &net, TABLE).len() == 2 && s.rows(a, &net, TABLE) == s.rows(b, &net, TABLE)
    });
    assert_eq!(simulation.nodes[b].joined.get(&request), Some(&Ok(1)));
    let names = |node: usize| simulation.nodes[node].db.cluster_peers().len();
    assert_eq!((names(a), names(b)), (2, 2));
    // With both in the network a third that joins has everything at once, not only at the next periodic sync.
    let c = simulation.start(2);
    simulation.act(c, |db, now| db.join(now, &[place(0)]));
    simulation.run_until(secs(2), "c knows the others", |s| {
        s.nodes[c].db.cluster_peers().len() == 3
    });
    simulation.act(c, |db, now| db.join_network(now, &net)).expect("joined");
    assert!(!simulation.nodes[c].db.is_synced(&net));
    simulation.run_until(secs(2), "c is synced", |s| s.nodes[c].db.is_synced(&net));
    assert_eq!(simulation.rows(c, &net, TABLE), simulation.rows(a, &net, TABLE));
}

#[test]
fn a_join_that_reaches_nobody_lists_its_errors() {
    let mut simulation = Simulation::new(1, CALM);
    let a = simulation.start(0);
    let request = simulation.act(a, |db, now| db.join(now, &["127.0.0.9:7946".parse().expect("address")]));
    simulation.run_until(secs(1), "the join ends", |s| s.nodes[a].joined.contains_key(&request));
    let text =
        "1 error occurred:\n\t* Failed to join 127.0.0.9: dial tcp 127.0.0.9:7946: connect: connection refused\n\n";
    assert_eq!(simulation.nodes[a].joined[&request], Err(text.to_owned()));
}

#[test]
fn a_killed_node_is_reported_and_its_rows_vanish() {
    for seed in 0..10 {
        let net = network("net1");
        let mut simulation = settled(seed, 3);
        simulation
            .act(2, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
            .expect("created");
        simulation.run_until(secs(2), "the row arrives", |s| s.rows(0, &net, TABLE).len() == 1);
        let (killed, name) = (simulation.now, simulation.name(2));
        simulation.crash(2);
        simulation.run_until(secs(20), "both say that it is down", |s| {
            [0, 1].iter().all(|n| down(s, *n, &name).is_some())
        });
        for node in [0, 1] {
            let (at, left) = down(&simulation, node, &name).expect("down");
            let after = at.saturating_since(killed);
            assert!(
                (secs(4)..secs(15)).contains(&after),
                "seed {seed}: node {node} says so after {after:?}"
            );
            assert!(!left);
            assert_eq!(simulation.rows(node, &net, TABLE), []);
            let error = simulation.nodes[node]
                .db
                .get_entry(TABLE, &net, "k")
                .expect_err("hidden");
            assert!(matches!(error, EntryError::Hidden(_)), "{error}");
            assert_eq!(simulation.nodes[node].db.network_peers(&net).len(), 2);
        }
    }
}

#[test]
fn a_node_cut_off_for_a_while_comes_back_with_its_rows() {
    let net = network("net1");
    let mut simulation = settled(4, 5);
    simulation
        .act(4, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
        .expect("created");
    simulation.run_until(secs(2), "the row arrives", |s| s.rows(0, &net, TABLE).len() == 1);
    simulation.put_on_side(4, 1);
    simulation.run_until(secs(40), "the row is hidden", |s| {
        (0..4).all(|n| s.rows(n, &net, TABLE).is_empty())
    });
    simulation.run_for(secs(60));
    simulation.put_on_side(4, 0);
    simulation.run_until(secs(30), "the row is back", |s| {
        (0..5).all(|n| s.rows(n, &net, TABLE).len() == 1)
    });
    simulation.run_until(secs(30), "all are members again", |s| everybody_is_member(s, 5));
}

#[test]
fn a_falsely_accused_node_refutes() {
    let mut simulation = settled(5, 3);
    let (accused, accuser) = (simulation.name(2), simulation.name(1));
    let accusation = crate::wire::message::Accusation {
        incarnation: 1,
        node: accused.clone(),
        from: accuser,
    };
    let bytes = crate::wire::message::Message::Suspect(accusation).encode();
    simulation.act(0, |db, now| db.handle(now, Input::Datagram { from: place(1), bytes }));
    simulation.run_for(secs(30));
    assert_eq!(simulation.nodes[2].db.stats().refutations, 1);
    for node in [0, 1] {
        assert_eq!(down(&simulation, node, &accused), None);
        assert_eq!(simulation.nodes[node].db.cluster_peers().len(), 3);
    }
}

#[test]
fn a_node_that_leaves_is_reported_as_left_and_its_rows_are_gone() {
    let net = network("net1");
    let mut simulation = settled(6, 4);
    simulation
        .act(3, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
        .expect("created");
    simulation.run_until(secs(2), "the row arrives", |s| {
        (0..4).all(|n| s.rows(n, &net, TABLE).len() == 1)
    });
    let (start, name) = (simulation.now, simulation.name(3));
    simulation.act(3, |db, now| db.leave(now));
    simulation.run_until(secs(7), "it has left", |s| s.nodes[3].left.is_some());
    simulation.crash(3);
    simulation.run_until(secs(2), "all know", |s| (0..3).all(|n| down(s, n, &name).is_some()));
    for node in 0..3 {
        let (at, left) = down(&simulation, node, &name).expect("down");
        assert!(left && at.saturating_since(start) < secs(4), "node {node}");
        let error = simulation.nodes[node].db.get_entry(TABLE, &net, "k").expect_err("gone");
        assert!(matches!(error, EntryError::Missing(_)), "{error}");
    }
    // Nobody looks for it any more.
    let before: Vec<_> = (0..3).map(|n| simulation.nodes[n].db.stats().failed_probes).collect();
    simulation.run_for(secs(60));
    let after: Vec<_> = (0..3).map(|n| simulation.nodes[n].db.stats().failed_probes).collect();
    assert_eq!(before, after);
}

#[test]
fn the_last_node_leaves_at_once() {
    let mut db = alone();
    db.leave(Instant::ZERO);
    assert_eq!(effects(&mut db), [Effect::Left]);
    assert_eq!(db.poll_timeout(), None);
    db.handle(
        Instant::ZERO,
        Input::StreamRequest {
            stream: StreamId(9),
            from: place(1),
            bytes: vec![0],
        },
    );
    assert_eq!(effects(&mut db), [Effect::Close { stream: StreamId(9) }]);
}

#[test]
fn a_restart_under_a_new_name_purges_the_old_one() {
    let net = network("net1");
    let mut simulation = settled(7, 3);
    simulation
        .act(2, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
        .expect("created");
    simulation.run_until(secs(2), "the row arrives", |s| s.rows(0, &net, TABLE).len() == 1);
    let old = simulation.name(2);
    simulation.crash(2);
    let new = simulation.start(2);
    simulation.act(new, |db, now| db.join(now, &[place(0)]));
    simulation
        .act(new, |db, now| db.join_network(now, &net))
        .expect("joined");
    simulation.run_until(HANDOVER + secs(3), "the old name's row is gone", |s| {
        [0, 1]
            .iter()
            .all(|n| s.rows(*n, &net, TABLE).is_empty() && down(s, *n, &old).is_some())
    });
    let peer = (simulation.name(new), IpAddr::from([10, 0, 0, 3]));
    simulation.run_until(secs(3), "the new name is known", |s| {
        [0, 1].iter().all(|n| {
            let peers = s.nodes[*n].db.cluster_peers();
            peers.len() == 3 && peers.contains(&peer)
        })
    });
}

#[test]
fn leaving_a_network_removes_its_rows_on_both_sides_and_no_others() {
    let (net, longer) = (network("net1"), network("net12"));
    let mut simulation = settled(8, 3);
    for node in 0..3 {
        simulation
            .act(node, |db, now| db.join_network(now, &longer))
            .expect("joined");
    }
    for (node, id) in [(0, &net), (1, &net), (1, &longer)] {
        let key = format!("k{node}");
        simulation
            .act(node, |db, now| db.create_entry(now, TABLE, id, &key, vec![1]))
            .expect("created");
    }
    simulation.run_until(secs(40), "all rows everywhere", |s| {
        (0..3).all(|n| s.rows(n, &net, TABLE).len() == 2 && s.rows(n, &longer, TABLE).len() == 1)
    });
    simulation.act(1, |db, now| db.leave_network(now, &net)).expect("left");
    assert_eq!(simulation.rows(1, &net, TABLE), []);
    simulation.run_until(secs(3), "its rows are gone elsewhere", |s| {
        [0, 2]
            .iter()
            .all(|n| s.rows(*n, &net, TABLE).len() == 1 && s.nodes[*n].db.network_peers(&net).len() == 2)
    });
    simulation.run_for(secs(90));
    for node in 0..3 {
        assert_eq!(simulation.rows(node, &longer, TABLE).len(), 1, "node {node}");
        assert_eq!(
            simulation.rows(node, &net, TABLE).len(),
            if node == 1 { 0 } else { 1 },
            "node {node}"
        );
    }
    // Back again: what it had does not come back, what it writes does.
    simulation.act(1, |db, now| db.join_network(now, &net)).expect("joined");
    simulation
        .act(1, |db, now| db.create_entry(now, TABLE, &net, "new", vec![2]))
        .expect("created");
    simulation.run_until(secs(40), "the new row is everywhere", |s| {
        (0..3).all(|n| {
            s.rows(n, &net, TABLE)
                .iter()
                .map(|(key, ..)| key.as_str())
                .eq(["k0", "new"])
        })
    });
}

#[test]
fn an_update_moves_the_entry_to_who_made_it() {
    let net = network("net1");
    let mut simulation = settled(9, 3);
    simulation
        .act(0, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
        .expect("created");
    simulation.run_until(secs(2), "the row arrives", |s| s.rows(1, &net, TABLE).len() == 1);
    simulation
        .act(1, |db, now| db.update_entry(now, TABLE, &net, "k", vec![2]))
        .expect("updated");
    let owner = simulation.name(1).to_string();
    simulation.run_until(secs(3), "all see the new owner", |s| {
        (0..3).all(|n| s.rows(n, &net, TABLE) == [("k".to_owned(), vec![2], owner.clone())])
    });
    // It outlives who wrote it first.
    simulation.crash(0);
    simulation.run_for(secs(30));
    assert_eq!(simulation.rows(2, &net, TABLE).len(), 1);
    // And anybody may delete it.
    simulation
        .act(2, |db, now| db.delete_entry(now, TABLE, &net, "k"))
        .expect("deleted");
    simulation.run_until(secs(3), "it is gone", |s| s.rows(1, &net, TABLE).is_empty());
}

#[test]
fn tombstones_are_forgotten_after_half_an_hour_and_nothing_returns() {
    let net = network("net1");
    let mut simulation = settled(10, 3);
    simulation
        .act(0, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
        .expect("created");
    simulation.run_until(secs(2), "the row arrives", |s| s.rows(2, &net, TABLE).len() == 1);
    simulation
        .act(0, |db, now| db.delete_entry(now, TABLE, &net, "k"))
        .expect("deleted");
    simulation.run_for(secs(29 * 60));
    let held = |s: &Simulation| (0..3).map(|n| s.nodes[n].db.network_stats(&net)).collect::<Vec<_>>();
    assert_eq!(held(&simulation), [Some((1, 0)); 3]);
    simulation.run_for(secs(2 * 60));
    assert_eq!(held(&simulation), [Some((0, 0)); 3]);
    assert!((0..3).all(|n| simulation.rows(n, &net, TABLE).is_empty()));
}

#[test]
fn two_halves_that_never_met_again_by_themselves_find_each_other_by_the_bootstrap_node() {
    let mut simulation = settled(11, 4);
    // The bootstrap node is away for longer than failed nodes are tried: a day and more.
    simulation.put_on_side(0, 1);
    simulation.run_until(secs(60), "it is given up", |s| s.nodes[1].db.cluster_peers().len() == 3);
    simulation.run_for(secs(25 * 3600));
    simulation.put_on_side(0, 0);
    simulation.run_until(secs(120), "it is found again", |s| everybody_is_member(s, 4));
}

#[test]
fn an_idle_cluster_is_quiet() {
    let mut simulation = settled(12, 10);
    simulation.run_for(secs(60));
    let before = simulation.traffic.datagrams;
    simulation.run_for(secs(60));
    // Ten nodes probe one other each second, a ping and its ack, and ask one whether both know the same.
    let sent = simulation.traffic.datagrams - before;
    assert!(sent <= 3 * 10 * 61, "{sent} datagrams in a minute");
}

#[test]
fn an_entry_that_its_owner_does_not_hold_is_deleted_by_it() {
    use crate::wire::gossip::{Change, MessageType, TableEvent, envelope};
    let net = network("net1");
    let mut simulation = settled(14, 3);
    let owner = simulation.name(0).to_string();
    let event = TableEvent {
        r#type: Change::Create.into(),
        l_time: 50,
        node_name: owner.clone(),
        network_id: "net1".into(),
        table_name: TABLE.into(),
        key: "k".into(),
        value: b"old".to_vec(),
        residual_reap_time: 0,
    };
    let bytes = crate::wire::message::Message::User(envelope(MessageType::TableEvent, &event)).encode();
    simulation.act(1, |db, now| db.handle(now, Input::Datagram { from: place(2), bytes }));
    assert_eq!(
        simulation.rows(1, &net, TABLE),
        [("k".to_owned(), b"old".to_vec(), owner)]
    );
    simulation.run_until(secs(3), "it is gone", |s| {
        (0..3).all(|n| s.rows(n, &net, TABLE).is_empty())
    });
    simulation.run_for(secs(60));
    assert!((0..3).all(|n| simulation.rows(n, &net, TABLE).is_empty()));
    let gone = |event: &Event| matches!(event, Event::EntrySet { .. } | Event::EntryGone { .. });
    assert!(
        !simulation.nodes[0].events.iter().any(|(_, event)| gone(event)),
        "its owner never saw it"
    );
}
