//! Bytes that nobody should send.

use super::super::{Input, StreamId};
use super::{TABLE, alone};
use crate::membership::Random;
use crate::simulation::{ROUGH, Simulation, network, place, secs};
use crate::time::Instant;

#[test]
fn random_datagrams_and_streams_crash_nothing_and_change_nothing() {
    let (mut db, mut random, net) = (alone(), Random::new(99), network("net1"));
    db.join_network(Instant::ZERO, &net).expect("joined");
    db.create_entry(Instant::ZERO, TABLE, &net, "k", vec![1])
        .expect("created");
    for round in 0..100_000_u64 {
        let mut bytes: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
        // Half of them start like a message of a random type.
        if round % 2 == 0 {
            bytes.insert(0, random.below(14) as u8);
        }
        if round % 8 == 0 {
            bytes.insert(1, 0x80 | random.below(8) as u8);
        }
        db.handle(
            Instant::ZERO,
            Input::Datagram {
                from: place(1),
                bytes: bytes.clone(),
            },
        );
        if round % 10 == 0 {
            db.handle(
                Instant::ZERO,
                Input::StreamRequest {
                    stream: StreamId(round),
                    from: place(1),
                    bytes,
                },
            );
        }
        while db.poll_effect().is_some() {}
    }
    assert_eq!(db.get_entry(TABLE, &net, "k"), Ok(&[1_u8][..]));
    assert_eq!(db.cluster_peers().len(), 1);
    assert_eq!(db.stats().datagrams, 100_000);
    assert!(db.stats().refused_messages > 50_000);
}

#[test]
fn damaged_traffic_of_a_real_cluster_crashes_nothing() {
    let net = network("net1");
    let mut simulation = Simulation::cluster(13, ROUGH, 5, &net);
    simulation.weather.damaged_percent = 20;
    for node in 0..5 {
        for key in 0..20 {
            let key = format!("k{node}-{key}");
            simulation
                .act(node, |db, now| db.create_entry(now, TABLE, &net, &key, vec![1; 40]))
                .expect("created");
        }
    }
    simulation.run_for(secs(120));
    simulation.weather.damaged_percent = 0;
    let refused: u64 = (0..5).map(|n| simulation.nodes[n].db.stats().refused_messages).sum();
    assert!(refused > 100, "{refused}");
    // What matters in datagrams has a checksum.
    simulation.run_until(secs(60), "all have the cluster's rows", |s| {
        (0..5).all(|n| s.rows(n, &net, TABLE).len() == 100)
    });
    // Streams rely on TCP's, so here anything may be believed afterwards; but every node goes on.
    simulation.damaged_streams_percent = 50;
    simulation.run_for(secs(600));
    for node in 0..5 {
        assert!(simulation.nodes[node].db.stats().refused_streams > 0, "node {node}");
        simulation
            .act(node, |db, now| db.create_entry(now, TABLE, &net, "last", Vec::new()))
            .expect("created");
    }
}
