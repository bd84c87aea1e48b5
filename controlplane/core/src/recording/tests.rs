mod schedules;

use super::format::{head, write};
use super::*;
use crate::membership::{Key, Keyring};
use crate::networkdb::{Effect, NetworkDb, Standing};
use crate::simulation::{CALM, ROUGH, Simulation, network, place, secs};
use crate::time::Duration;
use proptest::prelude::*;

const TABLE: &str = "overlay_peer_table";

const PEERS: usize = 5;

/// The node that is recorded.
const RECORDED: usize = 1;

fn key(byte: u8) -> Key {
    Key::new(&[byte; 16]).expect("a key")
}

fn ring(bytes: &[u8]) -> Keyring {
    let mut keys = bytes.iter().map(|byte| key(*byte));
    Keyring::new(keys.next().expect("a primary key"), keys.collect())
}

/// A cluster whose nodes have some rows, and a node that failed.
fn cluster(seed: u64, rough: bool) -> Simulation {
    let mut simulation = Simulation::new(seed, if rough { ROUGH } else { CALM });
    for number in 0..PEERS {
        simulation.start_with(number, |config| config.keyring = ring(&[1]));
        simulation.act(number, |db, now| {
            if number > 0 {
                db.join(now, &[place(0)]);
            }
            db.join_network(now, &network("a")).expect("joined");
            db.join_network(now, &network("b")).expect("joined");
        });
    }
    simulation.run_for(secs(5));
    for number in 0..PEERS {
        for row in 0..4 {
            create(&mut simulation, number, "a", &format!("before-{number}-{row}"));
        }
    }
    simulation.run_for(secs(2));
    simulation.crash(4);
    simulation.run_for(secs(7));
    simulation
}

fn create(simulation: &mut Simulation, node: usize, id: &str, key: &str) {
    let value = format!("written by {node}").into_bytes();
    simulation
        .act(node, |db, now| db.create_entry(now, TABLE, &network(id), key, value))
        .expect("created");
}

fn begin(simulation: &mut Simulation) {
    simulation.kept_effects = Some((RECORDED, Vec::new()));
    simulation.act(RECORDED, |db, now| {
        db.start_recording(now, "0.1.0", "host-b", 1_795_000_000_000_000_000)
            .expect("recording");
    });
}

/// What an operator would like to understand.
fn incident(simulation: &mut Simulation) {
    create(simulation, RECORDED, "a", "own");
    create(simulation, 0, "b", "other");
    simulation.run_for(secs(1));
    for (number, bytes) in [
        (0, &[1, 2][..]),
        (1, &[1, 2]),
        (2, &[1, 2]),
        (3, &[1, 2]),
        (0, &[2, 1]),
        (1, &[2, 1]),
    ] {
        simulation.act(number, |db, now| db.set_keyring(now, ring(bytes)));
    }
    // Somebody without the keys.
    let stranger = simulation.start_with(7, |config| config.keyring = ring(&[9]));
    simulation.act(stranger, |db, now| db.join(now, &[place(RECORDED)]));
    simulation.act(RECORDED, |db, now| {
        db.update_entry(now, TABLE, &network("a"), "before-0-0", b"taken over".to_vec())
            .expect("updated");
        db.delete_entry(now, TABLE, &network("a"), "before-1-1")
            .expect("deleted");
        // What is refused is refused again.
        assert!(db.create_entry(now, TABLE, &network("a"), "own", Vec::new()).is_err());
        assert!(db.join_network(now, &network("a")).is_err());
    });
    simulation.run_for(secs(3));
    simulation.put_on_side(2, 1);
    simulation.put_on_side(3, 1);
    simulation.run_for(secs(15));
    create(simulation, 2, "a", "from the other side");
    create(simulation, RECORDED, "a", "from this side");
    simulation.run_for(secs(2));
    simulation.heal();
    let back = simulation.start_with(4, |config| config.keyring = ring(&[2, 1]));
    simulation.act(back, |db, now| {
        db.join(now, &[place(0)]);
        db.join_network(now, &network("a")).expect("joined");
    });
    simulation.run_for(secs(20));
    simulation.act(3, |db, now| db.leave(now));
    simulation
        .act(RECORDED, |db, now| db.leave_network(now, &network("b")))
        .expect("left");
    simulation.run_for(secs(10));
}

fn end(simulation: &mut Simulation) -> Vec<u8> {
    let recorded = simulation.act(RECORDED, |db, now| {
        let mut recorded = db.take_recorded();
        recorded.extend(db.finish_recording(now, Ending::Asked, true));
        recorded
    });
    assert!(!simulation.nodes[RECORDED].db.is_recording());
    recorded
}

/// Effects without their seals.
fn plain(effects: &[Effect], keys: &Keyring) -> Vec<Effect> {
    let stream = |bytes: &[u8]| keys.open_stream(bytes).expect("sealed with a key of the ring");
    let opened = effects.iter().cloned().map(|effect| match effect {
        Effect::Datagram { to, bytes } => Effect::Datagram {
            to,
            bytes: keys.open_datagram(&bytes).expect("sealed with a key of the ring"),
        },
        Effect::OpenStream {
            stream: number,
            to,
            bytes,
            expects_reply,
        } => Effect::OpenStream {
            stream: number,
            to,
            bytes: stream(&bytes),
            expects_reply,
        },
        Effect::Reply { stream: number, bytes } => Effect::Reply {
            stream: number,
            bytes: stream(&bytes),
        },
        other => other,
    });
    opened.collect()
}

fn frames(recorded: &[u8]) -> Vec<Frame> {
    let mut reader = Reader::new();
    let mut frames = Vec::new();
    for piece in recorded.chunks(1000) {
        reader.push(piece);
        while let Some(frame) = reader.next_frame().expect("a frame") {
            frames.push(frame);
        }
    }
    assert_eq!(reader.unread(), 0);
    frames
}

/// Runs a recording; what it told and did.
fn replay(recorded: &[u8]) -> (Replay, Vec<Told>, Vec<Effect>) {
    let mut replay = Replay::new();
    let (mut told, mut effects) = (Vec::new(), Vec::new());
    for frame in frames(recorded) {
        told.extend(replay.feed(frame).expect("a frame in order"));
        effects.extend_from_slice(replay.effects());
    }
    (replay, told, effects)
}

type Row = (String, String, String, Vec<u8>, String);

fn rows(db: &NetworkDb) -> Vec<Row> {
    let row = |row: crate::networkdb::HeldRow<'_>| {
        let (network, owner) = (row.network.to_string(), row.owner.to_string());
        (
            network,
            row.table.to_owned(),
            row.key.to_owned(),
            row.value.to_vec(),
            owner,
        )
    };
    db.all_rows().map(row).collect()
}

#[test]
fn a_replay_does_what_the_node_did_and_holds_what_it_held() {
    for seed in 0..12 {
        let mut simulation = cluster(seed, seed % 2 == 1);
        begin(&mut simulation);
        incident(&mut simulation);
        let recorded = end(&mut simulation);
        let (_, live) = simulation.kept_effects.take().expect("kept effects");
        let db = &simulation.nodes[RECORDED].db;
        let (replay, told, effects) = replay(&recorded);
        assert_eq!(replay.verdict(), Verdict::Same, "seed {seed}");
        assert_eq!(replay.ending(), Some(Ending::Asked));
        let again = replay.gossip().expect("a gossip that runs");
        assert_eq!(rows(again), rows(db), "seed {seed}");
        assert_eq!(
            again.standings().collect::<Vec<_>>(),
            db.standings().collect::<Vec<_>>()
        );
        // Everything it sent, byte for byte, told and logged.
        let live = plain(&live, &ring(&[1, 2]));
        assert!(live.len() > 300, "{}", live.len());
        for (number, (live, again)) in live.iter().zip(&effects).enumerate() {
            assert_eq!(live, again, "seed {seed}, effect {number}");
        }
        assert_eq!(live.len(), effects.len(), "seed {seed}");
        // The story is told.
        let has = |wanted: fn(&What) -> bool| told.iter().any(|told| wanted(&told.what));
        assert!(has(|what| matches!(what, What::NodeDown { left: false, .. })));
        assert!(has(|what| matches!(what, What::NodeDown { left: true, .. })));
        assert!(has(|what| matches!(what, What::NodeSuspect(_))));
        assert!(has(|what| matches!(what, What::NodeUp { .. })));
        assert!(has(|what| matches!(what, What::RowCreated(row) if row.key == "own")));
        assert!(has(
            |what| matches!(what, What::RowUpdated(row) if row.value == b"taken over")
        ));
        assert!(has(
            |what| matches!(what, What::RowGone(row) if row.key == "before-1-1")
        ));
        assert!(has(|what| matches!(what, What::Refused { from: Some(_), .. })));
        assert!(has(
            |what| matches!(what, What::Command(line) if line == "use a keyring of 2")
        ));
        assert!(told.is_sorted_by_key(|told| told.at));
    }
}

#[test]
fn no_key_is_in_a_recording() {
    let mut simulation = cluster(3, false);
    begin(&mut simulation);
    incident(&mut simulation);
    let recorded = end(&mut simulation);
    for byte in [1, 2, 9] {
        assert!(!recorded.windows(16).any(|window| window == [byte; 16]), "key {byte}");
    }
    assert!(recorded.windows(9).any(|window| window == b"written b"), "rows are");
}

#[test]
fn a_recording_may_begin_at_any_time() {
    // Probes, streams, suspicions and syncs are under way at one time or another.
    let mut simulation = cluster(11, true);
    for round in 0..40 {
        begin(&mut simulation);
        if round % 8 == 0 {
            simulation.put_on_side(2, round % 16 / 8);
        }
        simulation.run_for(Duration::from_millis(1537));
        let recorded = end(&mut simulation);
        assert_eq!(replay(&recorded).0.verdict(), Verdict::Same, "round {round}");
    }
}

#[test]
fn one_recording_at_a_time_and_a_node_that_is_not_recorded_has_nothing_to_take() {
    let mut simulation = cluster(1, false);
    simulation.act(RECORDED, |db, now| {
        assert!(db.take_recorded().is_empty());
        assert!(db.finish_recording(now, Ending::Asked, true).is_empty());
        db.start_recording(now, "", "", 0).expect("recording");
        assert_eq!(db.start_recording(now, "", "", 0), Err(StartError::Running));
    });
}

#[test]
fn what_was_changed_or_left_out_shows() {
    let mut simulation = cluster(5, false);
    begin(&mut simulation);
    incident(&mut simulation);
    let frames = frames(&end(&mut simulation));
    let wrong = frames
        .iter()
        .position(|frame| matches!(frame, Frame::Happened(_, Happening::Create(_))));
    let wrong = wrong.expect("a row that the node wrote");
    let mut replay = Replay::new();
    for (_, frame) in frames.iter().enumerate().filter(|(place, _)| *place != wrong) {
        replay.feed(frame.clone()).expect("a frame in order");
    }
    let Verdict::Differs(differences) = replay.verdict() else {
        panic!("{:?}", replay.verdict());
    };
    assert!(
        matches!(differences[0], Difference::Course(at) if at < secs(60)),
        "{differences:?}"
    );
    let table = format!("table {TABLE} of network a");
    assert!(differences.contains(&Difference::Part(table)), "{differences:?}");
}

#[test]
fn what_was_cut_off_is_run_up_to_its_last_whole_frame() {
    let mut simulation = cluster(6, false);
    begin(&mut simulation);
    incident(&mut simulation);
    let recorded = end(&mut simulation);
    let mut reader = Reader::new();
    reader.push(&recorded[..recorded.len() - recorded.len() / 3]);
    let mut replay = Replay::new();
    while let Some(frame) = reader.next_frame().expect("a frame") {
        replay.feed(frame).expect("a frame in order");
    }
    assert!(reader.unread() > 0);
    assert!(replay.happenings() > 100);
    assert_eq!((replay.ending(), replay.verdict()), (None, Verdict::Unknown));
    let standings = replay.gossip().expect("a gossip").standings();
    assert!(standings.filter(|(.., standing)| *standing == Standing::Alive).count() > 1);
}

/// A few seconds of a small cluster.
fn short() -> Vec<u8> {
    let mut simulation = cluster(9, false);
    begin(&mut simulation);
    create(&mut simulation, RECORDED, "a", "own");
    simulation.run_for(secs(4));
    end(&mut simulation)
}

fn read_all(bytes: &[u8]) -> Result<u64, String> {
    let mut reader = Reader::new();
    reader.push(bytes);
    let mut replay = Replay::new();
    while let Some(frame) = reader.next_frame().map_err(|error| error.to_string())? {
        replay.feed(frame).map_err(|error| error.to_string())?;
    }
    Ok(reader.frames())
}

#[test]
fn each_fault_has_its_line() {
    let mut later = head();
    later[11] = 2;
    let mut long = head();
    long.extend_from_slice(&[0xff; 8]);
    let mut damaged = short();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut nonsense = head();
    nonsense.extend_from_slice(&[0, 0, 0, 1]);
    nonsense.extend_from_slice(&crc32fast::hash(&[0xc1]).to_be_bytes());
    nonsense.push(0xc1);
    let mut unordered = head();
    assert!(write(
        &mut unordered,
        &Frame::Happened(Instant::ZERO, Happening::Timeout)
    ));
    let mut boasting = head();
    let start = Start {
        weft: String::new(),
        node: String::new(),
        unix_nanos: 0,
        at: Instant::ZERO,
        state_bytes: u64::MAX,
    };
    assert!(write(&mut boasting, &Frame::Start(start.clone())));
    let mut empty = head();
    let start = Start {
        state_bytes: 1,
        ..start
    };
    assert!(write(&mut empty, &Frame::Start(start)) && write(&mut empty, &Frame::State(vec![0xc0])));
    for (bytes, wanted) in [
        (&b"#!/bin/sh\nexit"[..], "this is not a recording of weft"),
        (&later, "has format 2, and this weft reads formats up to 1"),
        (&long, "frame 1 of this recording says that it has 4294967295 bytes"),
        (&damaged, "is damaged: its checksum is wrong"),
        (&nonsense, "frame 1 of this recording cannot be read"),
        (&unordered, "has something that happened where its beginning should be"),
        (&boasting, "says that it has 18446744073709551615 bytes"),
        (&empty, "the state that this recording begins with cannot be read"),
    ] {
        let error = read_all(bytes).expect_err(wanted);
        assert!(error.contains(wanted) && !error.contains('\n'), "{error}");
    }
    assert_eq!(read_all(&[]), Ok(0));
    assert_eq!(read_all(&head()), Ok(0));
}

#[test]
fn a_recording_never_grows_beyond_its_limit() {
    let mut simulation = cluster(2, false);
    begin(&mut simulation);
    let mut recorded = 0;
    simulation.act(RECORDED, |db, now| {
        let bytes = vec![0x5a; 16 << 20];
        let error = String::from_utf8(bytes).expect("text");
        for _ in 0..20 {
            let input = crate::networkdb::Input::StreamFailed {
                stream: StreamId(u64::MAX),
                error: error.clone(),
            };
            db.handle(now, input);
            recorded += db.take_recorded().len();
        }
        assert!(db.recording_is_full());
        let rest = db.finish_recording(now, Ending::Size, true);
        recorded += rest.len();
        assert!(
            recorded <= MAX_RECORDING_BYTES && recorded > MAX_RECORDING_BYTES - (20 << 20),
            "{recorded}"
        );
        // It says that something is missing.
        let mut reader = Reader::new();
        reader.push(&[head(), rest].concat());
        let end = reader.next_frame().expect("a frame");
        assert!(
            matches!(
                end,
                Some(Frame::End(End {
                    why: Ending::Size,
                    last: None,
                    ..
                }))
            ),
            "{end:?}"
        );
    });
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_all(&bytes);
        let mut headed = head();
        headed.extend_from_slice(&bytes);
        let _ = read_all(&headed);
        // With a length and a checksum that fit.
        let mut framed = head();
        framed.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        framed.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        framed.extend_from_slice(&bytes);
        let _ = read_all(&framed);
    }
}

#[test]
fn what_was_tampered_with_is_read_or_refused() {
    let good = frames(&short());
    let bodies: Vec<_> = good.iter().map(|frame| encode(frame).expect("bytes")).collect();
    let mut random = crate::membership::Random::new(7);
    let mut refused = 0;
    for _ in 0..400 {
        let mut reader_bytes = head();
        for body in &bodies {
            let mut body = body.clone();
            // One frame of a few is changed in a byte or two; the state most of all, which is one of them.
            let odds = if body.len() > 2000 { 2 } else { 40 };
            if random.below(odds) == 0 {
                for _ in 0..=random.below(2) {
                    let place = random.below(body.len());
                    body[place] = random.below(256) as u8;
                }
            }
            reader_bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
            reader_bytes.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
            reader_bytes.extend_from_slice(&body);
        }
        refused += usize::from(read_all(&reader_bytes).is_err());
    }
    assert!((50..400).contains(&refused), "{refused}");
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(
        at in 0..u64::MAX / 2,
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        text in ".{0,40}",
        stream in any::<u64>(),
    ) {
        let at = Instant::from_origin(Duration::from_nanos(at));
        let from = "10.0.0.7:7946".parse().expect("an address");
        let refused = crate::membership::OpenError::WrongKey { keys: 2, primary: text.clone() };
        let row = Written::new(&text, &network("a"), &text, &bytes);
        let all = [
            Frame::State(bytes.clone()),
            Frame::Happened(at, Happening::Datagram { from, opened: Ok(bytes.clone()) }),
            Frame::Happened(at, Happening::StreamRequest { stream: StreamId(stream), from, opened: Err(refused) }),
            Frame::Happened(at, Happening::StreamReply { stream: StreamId(stream), opened: Ok(bytes) }),
            Frame::Happened(at, Happening::StreamFailed { stream: StreamId(stream), error: text.clone() }),
            Frame::Happened(at, Happening::Timeout),
            Frame::Happened(at, Happening::Join(vec![from, from])),
            Frame::Happened(at, Happening::Leave),
            Frame::Happened(at, Happening::JoinNetwork(network("a"))),
            Frame::Happened(at, Happening::Create(row.clone())),
            Frame::Happened(at, Happening::Update(row.clone())),
            Frame::Happened(at, Happening::Delete(row)),
            Frame::Happened(at, Happening::Keys(3)),
            Frame::Check(at, Course { effects: stream, digest: stream }),
            Frame::End(End { at, why: Ending::Slow, last: Some((Course::default(), State { parts: vec![(text, 7)], whole: 9 })) }),
        ];
        let mut written = head();
        for frame in &all {
            prop_assert!(write(&mut written, frame));
        }
        prop_assert_eq!(frames(&written), all);
    }
}
