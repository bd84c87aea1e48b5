//! Who wins: writes at the same time, nodes at the same address, rows against tombstones of those who are gone.

use super::{TABLE, down, settled};
use crate::id::NodeId;
use crate::networkdb::{Input, NetworkDb};
use crate::simulation::{Simulation, network, place, secs};
use crate::wire::gossip::{Change, MessageType, TableEvent, envelope};
use crate::wire::message::{Alive, Message, VERSIONS};

fn event(owner: &NodeId, change: Change, value: &[u8]) -> TableEvent {
    TableEvent {
        r#type: change.into(),
        l_time: 50,
        node_name: owner.to_string(),
        network_id: "net1".into(),
        table_name: TABLE.into(),
        key: "k".into(),
        value: value.to_vec(),
        residual_reap_time: if change == Change::Delete { 1000 } else { 0 },
    }
}

fn hear(db: &mut NetworkDb, simulation: &Simulation, event: &TableEvent) {
    let bytes = Message::User(envelope(MessageType::TableEvent, event)).encode();
    db.handle(simulation.now, Input::Datagram { from: place(1), bytes });
}

#[test]
fn whatever_is_heard_first_of_writes_at_one_time_the_same_stays() {
    let simulation = settled(31, 4);
    let (mut lesser, mut greater) = (simulation.name(1), simulation.name(2));
    if greater < lesser {
        std::mem::swap(&mut lesser, &mut greater);
    }
    let events = [
        event(&lesser, Change::Create, b"a"),
        event(&lesser, Change::Create, b"b"),
        event(&greater, Change::Create, b"a"),
        event(&greater, Change::Update, b"b"),
        event(&lesser, Change::Delete, b"a"),
        event(&greater, Change::Delete, b""),
    ];
    let net = network("net1");
    let mut decided = 0;
    for first in &events {
        for second in &events {
            let after = |order: [&TableEvent; 2]| {
                let mut db = simulation.nodes[0].db.clone();
                order.into_iter().for_each(|event| hear(&mut db, &simulation, event));
                let value = db.get_entry(TABLE, &net, "k").map(<[u8]>::to_vec).ok();
                (db.held_entry(&net, TABLE, "k"), value)
            };
            assert_eq!(
                after([first, second]),
                after([second, first]),
                "{first:?} and {second:?}"
            );
            decided += usize::from(first != second);
        }
    }
    assert_eq!(decided, 30);
    let mut db = simulation.nodes[0].db.clone();
    let (last, before) = events.split_last().expect("events");
    before.iter().for_each(|event| hear(&mut db, &simulation, event));
    assert_eq!(db.get_entry(TABLE, &net, "k").expect("a row"), b"b");
    assert_eq!(db.last_write(&net, TABLE, "k"), Some((50, &greater)));
    hear(&mut db, &simulation, last);
    assert!(db.get_entry(TABLE, &net, "k").is_err(), "it took back its own row");
}

#[test]
fn hearsay_of_another_node_at_an_address_does_not_displace_who_answers_there() {
    let net = network("net1");
    let mut simulation = settled(32, 3);
    simulation
        .act(2, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
        .expect("created");
    simulation.run_until(secs(3), "the row is everywhere", |s| {
        (0..3).all(|node| s.rows(node, &net, TABLE).len() == 1)
    });
    let ghost = NodeId::new("00000ghost00").expect("name");
    let alive = Alive {
        incarnation: 7,
        node: ghost.clone(),
        address: place(2),
        meta: Vec::new(),
        versions: VERSIONS,
    };
    let bytes = Message::Alive(alive).encode();
    simulation.act(0, |db, now| db.handle(now, Input::Datagram { from: place(1), bytes }));
    let knows_ghost = |s: &Simulation, node: usize| {
        let peers = s.nodes[node].db.cluster_peers();
        peers.iter().any(|(name, _)| *name == ghost)
    };
    simulation.run_until(secs(10), "the ghost is gone", |s| {
        !knows_ghost(s, 0) && !knows_ghost(s, 1)
    });
    simulation.run_for(secs(60));
    let true_one = simulation.name(2);
    for node in 0..2 {
        assert_eq!(down(&simulation, node, &true_one), None, "node {node}");
        assert_eq!(simulation.rows(node, &net, TABLE).len(), 1, "node {node}");
        assert!(
            down(&simulation, node, &ghost).is_some(),
            "node {node} had seen the ghost"
        );
    }
}

#[test]
fn a_row_deleted_by_a_node_that_is_gone_does_not_stay_with_who_missed_it() {
    let net = network("net1");
    let mut simulation = settled(33, 4);
    simulation
        .act(0, |db, now| db.create_entry(now, TABLE, &net, "k", vec![1]))
        .expect("created");
    let rows =
        |s: &Simulation, nodes: &[usize]| -> usize { nodes.iter().map(|node| s.rows(*node, &net, TABLE).len()).sum() };
    simulation.run_until(secs(3), "the row is everywhere", |s| rows(s, &[0, 1, 2, 3]) == 4);
    simulation.put_on_side(0, 1);
    // Of this node the first has never heard.
    let late = simulation.start(4);
    simulation.act(late, |db, now| db.join(now, &[place(1)]));
    simulation
        .act(late, |db, now| db.join_network(now, &net))
        .expect("joined");
    simulation.run_until(secs(5), "the late one has the row", |s| rows(s, &[late]) == 1);
    simulation
        .act(late, |db, now| db.delete_entry(now, TABLE, &net, "k"))
        .expect("deleted");
    simulation.run_until(secs(5), "it is gone on this side", |s| rows(s, &[1, 2, 3, late]) == 0);
    simulation.crash(late);
    assert_eq!(rows(&simulation, &[0]), 1);
    simulation.heal();
    simulation.run_until(secs(30), "it is gone at its owner too", |s| rows(s, &[0, 1, 2, 3]) == 0);
    simulation.run_for(secs(60));
    assert_eq!(rows(&simulation, &[0, 1, 2, 3]), 0);
}

#[test]
fn two_halves_agree_within_ten_seconds_of_their_meeting() {
    for seed in 40..46 {
        let mut simulation = settled(seed, 12);
        for node in 6..12 {
            simulation.put_on_side(node, 1);
        }
        simulation.run_for(secs(60));
        let peers = |s: &Simulation, node: usize| s.nodes[node].db.cluster_peers().len();
        assert!(
            (0..12).all(|node| peers(&simulation, node) == 6),
            "seed {seed}: they have parted"
        );
        simulation.heal();
        let what = format!("seed {seed}: all know all");
        simulation.run_until(secs(10), &what, |s| (0..12).all(|node| peers(s, node) == 12));
    }
}
