//! Encrypted gossip in small clusters: rotation under way, and what is refused.

use super::{TABLE, down, everybody_is_member, settled};
use crate::networkdb::{Effect, Input, Key, Keyring, LogLevel, StreamId};
use crate::simulation::{CALM, ROUGH, Simulation, Weather, network, place, secs};
use crate::time::{Duration, Instant};

fn key(byte: u8) -> Key {
    Key::new(&[byte; 16]).expect("key")
}

/// A cluster of members that hold this keyring.
fn encrypted(seed: u64, weather: Weather, count: usize, ring: &Keyring) -> Simulation {
    let net = network("net1");
    let mut simulation = Simulation::new(seed, weather);
    for number in 0..count {
        simulation.start_with(number, |config| config.keyring = ring.clone());
        simulation.act(number, |db, now| {
            if number > 0 {
                db.join(now, &[place(0)]);
            }
            db.join_network(now, &net).expect("joined");
        });
    }
    simulation.run_until(secs(60), "all are members", |s| everybody_is_member(s, count));
    simulation
}

fn refused(simulation: &Simulation) -> u64 {
    let of = |node: usize| {
        let stats = simulation.nodes[node].db.stats();
        stats.refused_keys + stats.refused_plaintext + stats.refused_messages + stats.refused_streams
    };
    (0..simulation.nodes.len()).map(of).sum()
}

/// Each step reaches the nodes one after the other, half a second apart, while rows are written: all arrive, nothing is refused,
/// nobody is taken for failed.
#[test]
fn keys_are_replaced_while_gossip_goes_on() {
    let net = network("net1");
    for (seed, count, weather) in [(1, 3, CALM), (2, 8, CALM), (3, 8, ROUGH)] {
        let mut rings = vec![Keyring::new(key(0), Vec::new()); count];
        let mut simulation = encrypted(seed, weather, count, &rings[0]);
        let before = simulation.false_failures;
        let mut rows = 0;
        for generation in 1..4_u8 {
            let (old, new) = (key(generation - 1), key(generation));
            for step in 0..3 {
                for place in 0..count {
                    let node = (place + usize::from(generation)) % count;
                    match step {
                        0 => rings[node].add(new.clone()),
                        1 => rings[node].use_key(&new).expect("used"),
                        _ => rings[node].remove(&old).expect("removed"),
                    }
                    let ring = rings[node].clone();
                    simulation.act(node, |db, now| db.set_keyring(now, ring));
                    rows += 1;
                    let name = format!("k{rows}");
                    simulation
                        .act(node, |db, now| {
                            db.create_entry(now, TABLE, &net, &name, vec![generation; 300])
                        })
                        .expect("created");
                    simulation.run_for(Duration::from_millis(500));
                }
                // A step ends with the last message that was sealed before it.
                simulation.run_for(secs(1));
            }
        }
        for node in 0..count {
            assert_eq!(simulation.nodes[node].db.keyring().keys(), [key(3)]);
        }
        simulation.run_until(secs(60), "all rows are everywhere", |s| {
            (0..count).all(|node| s.rows(node, &net, TABLE).len() == rows)
        });
        assert_eq!(refused(&simulation), 0, "seed {seed}");
        assert_eq!(simulation.false_failures, before, "seed {seed}");
    }
}

#[test]
fn who_has_another_key_or_none_is_kept_out_and_keeps_others_out() {
    let net = network("net1");
    let mut simulation = encrypted(5, CALM, 3, &Keyring::new(key(1), Vec::new()));
    let stranger = simulation.start_with(3, |config| config.keyring = Keyring::new(key(2), Vec::new()));
    let plain = simulation.start(4);
    for node in [stranger, plain] {
        let request = simulation.act(node, |db, now| {
            db.join_network(now, &net).expect("joined");
            db.join(now, &[place(0)])
        });
        simulation.run_until(secs(30), "the join is over", |s| {
            s.nodes[node].joined.contains_key(&request)
        });
        let error = simulation.nodes[node].joined[&request].clone().expect_err("refused");
        let why = if node == plain {
            "this node has no gossip key"
        } else {
            "none of this node's gossip keys opens it"
        };
        assert!(error.contains(why), "{error}");
    }
    // The other way round: the cluster's nodes try them.
    simulation.act(0, |db, now| db.join(now, &[place(3), place(4)]));
    simulation.run_for(secs(20));
    for node in 0..3 {
        assert_eq!(simulation.nodes[node].db.cluster_peers().len(), 3, "node {node}");
        assert_eq!(down(&simulation, node, &simulation.name((node + 1) % 3)), None);
    }
    let stats = simulation.nodes[0].db.stats();
    assert!(stats.refused_keys > 0 && stats.refused_plaintext > 0, "{stats:?}");
    assert!(simulation.nodes[plain].db.stats().refused_keys > 0);
}

#[test]
fn refusals_are_told_once_a_minute_with_the_senders_address() {
    let mut simulation = settled(9, 2);
    let db = &mut simulation.nodes[0].db;
    db.set_keyring(Instant::ZERO, Keyring::new(key(1), Vec::new()));
    while db.poll_effect().is_some() {}
    let sealed = Keyring::new(key(2), Vec::new()).seal_datagram([1; 12], vec![2; 40]);
    let at = |seconds: u64| Instant::from_origin(secs(1000 + seconds));
    let mut lines = Vec::new();
    for second in 0..130 {
        for (from, bytes) in [(place(8), vec![2, 0x80]), (place(9), sealed.clone())] {
            db.handle(at(second), Input::Datagram { from, bytes });
        }
        while let Some(effect) = db.poll_effect() {
            if let Effect::Log {
                level: LogLevel::Warn,
                message,
            } = effect
                && message.contains("refused")
            {
                lines.push((second, message));
            }
        }
    }
    let told = |at: u64, from: &str, words: &str| {
        let found = lines
            .iter()
            .filter(|(second, line)| *second == at && line.contains(from) && line.contains(words));
        assert_eq!(found.count(), 1, "{at} {from} {words}: {lines:#?}");
    };
    told(0, "10.0.0.9:7946", "not encrypted");
    told(0, "10.0.0.10:7946", "keys opens it");
    for second in [60, 120] {
        told(second, "10.0.0.9:7946", "(59 more since the last such line)");
        told(second, "10.0.0.10:7946", "(59 more since the last such line)");
    }
    assert_eq!(lines.len(), 6, "{lines:#?}");
    let stats = db.stats();
    assert_eq!((stats.refused_plaintext, stats.refused_keys), (130, 130));
    // A stream is refused in words, as memberlist does.
    let (stream, from) = (StreamId(1 << 63), place(8));
    db.handle(
        at(131),
        Input::StreamRequest {
            stream,
            from,
            bytes: vec![2, 0x80],
        },
    );
    let replies: Vec<_> = std::iter::from_fn(|| db.poll_effect())
        .filter(|e| matches!(e, Effect::Reply { .. }))
        .collect();
    assert_eq!(replies.len(), 1, "{replies:?}");
}
