//! Slow nodes, doubled names, and clocks that run backwards.

use super::*;
use crate::membership::{LogLevel, Random};
use crate::simulation::{CALM, Simulation, network, secs};

#[test]
fn the_table_of_suspicions() {
    // Members, confirmations, how long a suspicion lasts, in milliseconds: max - log(c+1)/log(k+1) * (max - min), rounded down.
    let table = [
        (1, 0, 4000),
        (2, 0, 4000),
        (3, 0, 4000),
        (4, 0, 24_000),
        (4, 1, 11_381),
        (4, 2, 4000),
        (10, 1, 11_381),
        (50, 0, 40_752),
        (50, 1, 19_325),
        (50, 2, 6792),
        (100, 0, 48_000),
        (100, 1, 22_762),
        (100, 2, 8000),
        (1000, 0, 72_000),
        (1000, 1, 34_144),
        (1000, 2, 12_000),
    ];
    for (members, confirmed, millis) in table {
        let (shortest, longest) = suspicion_bounds(members);
        let timeout = suspicion_timeout(confirmed, expected_confirmations(members), shortest, longest);
        assert_eq!(
            timeout.as_millis(),
            millis,
            "{members} members, {confirmed} confirmations"
        );
    }
}

/// The deadline of a running suspicion moves with each accuser that is new, and not with one who repeats himself.
#[test]
fn confirmations_shorten_a_suspicion_once_each() {
    let mut membership = membership();
    for last in 2..12 {
        receive(&mut membership, after(0), &alive(&format!("node{last}"), 1, last));
    }
    let accuse = |membership: &mut Membership, from: &str| {
        receive(membership, after(0), &Message::Suspect(accusation("node5", 1, from)));
        membership
            .suspicions
            .next_end()
            .expect("an end")
            .since_origin()
            .as_millis()
    };
    let (_, longest) = suspicion_bounds(11);
    let first = accuse(&mut membership, "node2");
    assert_eq!(first, longest.as_millis());
    assert_eq!(accuse(&mut membership, "node2"), first);
    let second = accuse(&mut membership, "node3");
    assert!(second < first);
    let third = accuse(&mut membership, "node4");
    assert_eq!(third, suspicion_bounds(11).0.as_millis());
    assert_eq!(accuse(&mut membership, "node6"), third, "two confirmations are enough");
}

#[test]
fn missing_nacks_make_a_node_distrust_itself_and_wait_longer() {
    let mut membership = membership();
    for (node, last) in [(OTHER, 2), ("nodecccccccc", 3)] {
        receive(&mut membership, after(0), &alive(node, 1, last));
    }
    // Nobody answers anything: each failed probe misses one nack.
    run(&mut membership, after(2500));
    let score = membership.health_score();
    assert!(score >= 1, "{score}");
    assert_eq!(membership.probe_interval(), Duration::from_secs(1) * (score + 1));
    let told = run(&mut membership, after(60_000));
    for node in [OTHER, "nodecccccccc"] {
        let down = Output::Down(id(node));
        assert!(
            told.contains(&down),
            "{node} is truly dead, and found dead all the same"
        );
    }
}

/// One node gets to run only every few seconds, so that all its inputs and timers are late: nobody takes a healthy node for failed,
/// neither the others nor the slow one itself.
#[test]
fn a_slow_node_fails_nobody_but_itself() {
    let net = network("net1");
    for (seed, count) in [(1, 3), (2, 3), (3, 3), (4, 4), (5, 5), (6, 10), (7, 10), (8, 25)] {
        let mut simulation = Simulation::cluster(seed, CALM, count, &net);
        simulation.run_for(secs(60));
        let before = simulation.false_failures;
        simulation.stall(count - 1, secs(5));
        simulation.run_for(secs(600));
        assert_eq!(simulation.false_failures, before, "seed {seed}, {count} nodes");
        assert!(
            simulation.nodes[count - 1].db.stats().failed_probes > 0,
            "seed {seed}: it was slow"
        );
    }
}

fn warnings(membership: &mut Membership) -> Vec<String> {
    std::iter::from_fn(|| membership.poll_output())
        .filter_map(|output| match output {
            Output::Log(LogLevel::Warn, line) => Some(line),
            _ => None,
        })
        .collect()
}

/// A third node hears of both, and both hear of each other by a push/pull: all stay with whom they knew, and say so once.
#[test]
fn two_nodes_with_one_name_are_told_of_and_the_known_one_stays() {
    let twin = |place: u8| {
        let mut config = membership().config;
        config.advertise = at(place);
        Membership::new(Instant::ZERO, config)
    };
    let (mut first, mut second) = (twin(1), twin(2));
    let stream = second.push_pull(after(1), at(1), true, Vec::new());
    let Some(Output::OpenStream { bytes, .. }) = second.poll_output() else {
        panic!("no stream")
    };
    let Ok(StreamMessage::PushPull(theirs)) = stream::decode(&bytes) else {
        panic!("{bytes:?}")
    };
    first.answer_push_pull(after(2), StreamId(9), at(2), theirs, Vec::new());
    let Some(Output::Reply { bytes, .. }) = first.poll_output() else {
        panic!("no reply")
    };
    second.handle_reply(after(3), stream, &bytes);
    for (twin, mine, theirs) in [(&mut first, at(1), at(2)), (&mut second, at(2), at(1))] {
        let lines = warnings(twin);
        let told = lines.iter().filter(|line| {
            line.contains(SELF) && line.contains(&mine.to_string()) && line.contains(&theirs.to_string())
        });
        assert_eq!(told.count(), 1, "{lines:?}");
        assert_eq!(state(twin, SELF), Some((NodeState::Alive, 1)));
    }
    let mut third = membership();
    receive(&mut third, after(1), &alive(OTHER, 1, 2));
    for round in 0..50 {
        third.handle_datagram(after(2 + round), at(9), &alive(OTHER, 9, 3).encode());
    }
    let lines = warnings(&mut third);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("10.0.0.2:7946") && lines[0].contains("10.0.0.3:7946"),
        "{lines:?}"
    );
    third.handle_datagram(after(70_000), at(9), &alive(OTHER, 9, 3).encode());
    assert!(warnings(&mut third)[0].ends_with("(49 more since the last such line)"));
    let known = third.member(&id(OTHER)).expect("known");
    assert_eq!(
        (known.address, known.incarnation, known.state),
        (at(2), 1, NodeState::Alive)
    );
}

#[test]
fn a_clock_that_runs_backwards_neither_panics_nor_spins() {
    for seed in 0..20 {
        let (mut membership, mut random) = (membership(), Random::new(seed));
        let mut now = 100_000_u64;
        for step in 0..5000 {
            now = match random.below(10) {
                0 => now.saturating_sub(random.below(90_000) as u64),
                _ => now + random.below(700) as u64,
            };
            let (time, node) = (after(now), format!("node{}", random.below(6)));
            let last = node.as_bytes()[4] - b'0' + 2;
            let message = match random.below(5) {
                0 => alive(&node, random.below(9) as u32, last),
                1 => Message::Suspect(accusation(&node, random.below(9) as u32, "nodex")),
                2 => Message::Dead(accusation(&node, random.below(9) as u32, "nodex")),
                3 => Message::Ack(random.below(50) as u32),
                _ => Message::Suspect(accusation(SELF, random.below(99) as u32, &node)),
            };
            receive(&mut membership, time, &message);
            membership.handle_timeout(time);
            outputs(&mut membership);
            let next = membership.poll_timeout().expect("a deadline");
            assert!(next > time, "seed {seed}, step {step}: would spin at {time}, {next}");
        }
    }
}

#[test]
fn every_datagram_fits_the_budget_with_and_without_keys() {
    let key = crate::membership::Key::new(&[1; 32]).expect("key");
    for keyring in [Keyring::default(), Keyring::new(key, Vec::new())] {
        let mut membership = membership();
        membership.set_keyring(keyring.clone());
        // Names and meta data that do not compress.
        let noise = |number: usize, bytes: usize| {
            let mut random = Random::new(number as u64);
            (0..bytes).map(|_| random.below(256) as u8).collect::<Vec<_>>()
        };
        let long = |number: usize| {
            noise(number, 64)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let mut largest = 0;
        for number in 0..60 {
            let alive = Alive {
                incarnation: 1,
                node: id(&long(number)),
                address: at(number as u8 + 2),
                meta: noise(number, 512),
                versions: VERSIONS,
            };
            let bytes = keyring.seal_datagram([number as u8; 12], Message::Alive(alive).encode());
            membership.handle_datagram(after(1), at(9), &bytes);
            // A suspect's own message is no longer told on.
            if number % 2 == 0 {
                continue;
            }
            let accused = Message::Suspect(accusation(&long(number), 1, &long(number + 1))).encode();
            let bytes = keyring.seal_datagram([number as u8 + 100; 12], accused);
            membership.handle_datagram(after(2), at(9), &bytes);
        }
        assert_eq!(membership.members(), 61);
        for output in run(&mut membership, after(5000)) {
            if let Output::Datagram { bytes, .. } = output {
                largest = largest.max(bytes.len());
                assert!(bytes.len() <= 1400, "{}", bytes.len());
            }
        }
        assert!(largest > 1200, "{largest} of 1400 bytes used");
    }
}
