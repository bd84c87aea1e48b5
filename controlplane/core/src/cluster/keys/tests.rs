//! A rotation among nodes that are slow, away or cut off: whoever follows the rules understands everybody.

use super::*;
use crate::cluster::RefusalKind;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn key(number: u8) -> Key {
    Key::new(&[number; KEY_BYTES]).unwrap()
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn nanos(time: Duration) -> UnixNanos {
    u64::try_from(time.as_nanos()).unwrap()
}

fn members(live: bool) -> Vec<(String, bool)> {
    vec![("a".to_owned(), live), ("b".to_owned(), true)]
}

fn prints(keys: &GossipKeys) -> Vec<String> {
    keys.view(Instant::ZERO, &[]).fingerprints
}

fn print_of(numbers: &[u8]) -> Vec<String> {
    numbers.iter().map(|number| key(*number).fingerprint()).collect()
}

fn started() -> GossipKeys {
    let mut keys = GossipKeys::create(Instant::ZERO, 0, key(1), key(2));
    keys.acknowledge(Instant::ZERO, "a", 1);
    keys.acknowledge(Instant::ZERO, "b", 1);
    keys
}

#[test]
fn a_rotation_goes_through_its_phases() {
    let mut keys = started();
    assert_eq!(prints(&keys), print_of(&[1, 2]));
    let row = keys.rotate(7, None, [key(3), key(4)]).unwrap();
    keys.apply(at(1), row);
    assert_eq!(
        (keys.row().phase(), prints(&keys)),
        (Phase::Adding, print_of(&[1, 2, 3, 4]))
    );
    assert_eq!(keys.advance(at(1), &members(true)), None, "nobody has acknowledged");
    keys.acknowledge(at(2), "a", 2);
    assert_eq!(keys.advance(at(2), &members(true)), None, "b has not");
    assert_eq!(keys.view(at(2), &members(true)).waiting_for, ["b"]);
    keys.acknowledge(at(2), "b", 1);
    assert_eq!(keys.advance(at(2), &members(true)), None, "b holds the set before");
    keys.acknowledge(at(3), "b", 2);
    let step = keys.advance(at(3), &members(true)).unwrap();
    assert_eq!(step.warning(), None);
    keys.apply(at(3), step.row);
    assert_eq!(
        (keys.row().phase(), prints(&keys)),
        (Phase::Switching, print_of(&[3, 4, 1, 2]))
    );
    for member in ["a", "b"] {
        assert_eq!(keys.advance(at(4), &members(true)), None);
        keys.acknowledge(at(4), member, 3);
    }
    let step = keys.advance(at(4), &members(true)).unwrap();
    keys.apply(at(4), step.row);
    assert_eq!(
        (keys.row().phase(), prints(&keys)),
        (Phase::Settled, print_of(&[3, 4, 1]))
    );
    assert_eq!(keys.advance(at(5), &members(true)), None);
    assert_eq!(keys.set().version, 4);
}

#[test]
fn who_is_away_is_waited_for_a_little_and_who_is_live_longer() {
    let mut keys = started();
    let row = keys.rotate(0, None, [key(3), key(4)]).unwrap();
    keys.apply(at(100), row);
    keys.acknowledge(at(100), "b", 2);
    let grace = at(100) + AWAY_GRACE;
    assert_eq!(keys.advance(at(109), &members(false)), None);
    assert!(keys.clone().advance(grace, &members(false)).is_some());
    assert_eq!(keys.advance(grace, &members(true)), None);
    let step = keys.advance(at(100) + LIVE_DEADLINE, &members(true)).unwrap();
    assert_eq!(step.left_behind, ["a"]);
    assert!(
        step.warning()
            .unwrap()
            .contains("a gossip, and did not acknowledge version 2")
    );
}

#[test]
fn a_second_rotation_waits_for_the_first() {
    let mut keys = started();
    let row = keys.rotate(0, None, [key(3), key(4)]).unwrap();
    keys.apply(at(1), row);
    let refusal = keys.rotate(0, None, [key(5), key(6)]).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    assert!(
        refusal.message.contains("under way (phase adding, version 2)"),
        "{refusal}"
    );
    assert!(!refusal.message.contains('\n'));
}

#[test]
fn a_key_in_use_is_refused_and_the_reserve_is_not() {
    let keys = started();
    let refusal = keys.rotate(0, Some(key(1)), [key(3), key(4)]).unwrap_err();
    assert!(refusal.message.contains(&key(1).fingerprint()), "{refusal}");
    assert!(keys.rotate(0, Some(key(2)), [key(3), key(4)]).is_ok());
}

#[test]
fn an_interrupted_rotation_goes_on_after_a_restart() {
    let mut keys = started();
    let row = keys.rotate(0, None, [key(3), key(4)]).unwrap();
    keys.apply(at(1), row);
    let mut again = GossipKeys::load(at(50), nanos(HOUR), keys.row().clone());
    assert_eq!(again.set(), keys.set());
    // Nobody is live yet in the eyes of a manager that has just started: that does not mean that nobody is there.
    let nobody = [("a".to_owned(), false), ("b".to_owned(), false)];
    assert_eq!(again.advance(at(51), &nobody), None);
    again.acknowledge(at(52), "a", 2);
    again.acknowledge(at(52), "b", 2);
    let step = again.advance(at(52), &nobody).unwrap();
    assert_eq!(step.row.phase(), Phase::Switching);
}

#[test]
fn every_twelve_hours_the_reserve_takes_over() {
    let mut keys = started();
    let due = Instant::ZERO + ROTATION_INTERVAL;
    assert_eq!(keys.poll_timeout(), due);
    assert_eq!(keys.rotate_if_due(at(60), 0, [key(99), key(3)]), None);
    let row = keys
        .rotate_if_due(due, nanos(ROTATION_INTERVAL), [key(99), key(3)])
        .unwrap();
    keys.apply(due, row);
    assert_eq!(prints(&keys), print_of(&[1, 2, 3]));
    for phase in [Phase::Switching, Phase::Settled] {
        let step = keys.advance(due, &[]).unwrap();
        assert_eq!(step.row.phase(), phase);
        keys.apply(due, step.row);
    }
    assert_eq!(prints(&keys), print_of(&[2, 3, 1]));
    assert_eq!(keys.poll_timeout(), due + ROTATION_INTERVAL);
    // A node that missed the rotation still understands, and is understood.
    let late = Keyring::new(key(1), vec![key(2)]);
    let current = keys.set().keyring();
    for (from, to) in [(&late, &current), (&current, &late)] {
        let sealed = from.seal_datagram([7; 12], vec![1, 2, 3]);
        assert_eq!(to.open_datagram(&sealed).unwrap(), [1, 2, 3]);
    }
}

#[test]
fn a_restart_neither_skips_a_rotation_nor_doubles_it() {
    let row = started().row().clone();
    // Down for five of the twelve hours.
    let keys = GossipKeys::load(at(3), nanos(5 * HOUR), row.clone());
    assert_eq!(keys.poll_timeout(), at(3) + 7 * HOUR);
    // Down for days: one is due, and after it none until twelve hours later.
    let mut keys = GossipKeys::load(at(3), nanos(100 * HOUR), row.clone());
    let row_of_rotation = keys.rotate_if_due(at(3), nanos(100 * HOUR), [key(99), key(3)]).unwrap();
    keys.apply(at(3), row_of_rotation);
    let again = GossipKeys::load(at(0), nanos(101 * HOUR), keys.row().clone());
    assert!(!again.is_due(at(0)));
    assert_eq!(again.due, at(0) + 11 * HOUR);
}

#[test]
fn a_clock_that_was_set_back_postpones_by_one_interval_at_most() {
    let mut keys = started();
    let row = keys.rotate(nanos(1000 * HOUR), None, [key(3), key(4)]).unwrap();
    keys.apply(at(1), row);
    let keys = GossipKeys::load(at(0), nanos(20 * HOUR), keys.row().clone());
    assert_eq!(keys.due, at(0) + ROTATION_INTERVAL);
    // The new clock counts from now on.
    let keys = GossipKeys::load(at(0), nanos(25 * HOUR), keys.row().clone());
    assert_eq!(keys.due, at(0) + 7 * HOUR);
}

#[test]
fn keys_are_read_as_operators_write_them() {
    let hex = "ab".repeat(32);
    assert_eq!(parse_key(&format!(" {hex}\n")).unwrap().bytes(), [0xab; 32]);
    let base64 = key_text(&key(9));
    assert_eq!(parse_key(&base64).unwrap(), key(9));
    assert_eq!(parse_key(&STANDARD.encode([7; 24])).unwrap().bytes(), [7; 24]);
    for (text, wanted) in [
        ("", KeyTextError::Length(0)),
        ("no key at all", KeyTextError::NotText),
        (&STANDARD.encode([1; 31]), KeyTextError::Length(31)),
        (&"ab".repeat(33), KeyTextError::NotText),
        (&STANDARD.encode([1; 64]), KeyTextError::Length(64)),
    ] {
        assert_eq!(parse_key(text).unwrap_err(), wanted, "{text:?}");
    }
}

#[test]
fn a_set_without_keys_is_no_set() {
    let none: Result<Vec<Key>, de::value::Error> =
        read_keys(de::value::SeqDeserializer::new(std::iter::empty::<String>()));
    assert!(none.is_err());
}

/// What happens to a cluster in a property test.
#[derive(Clone, Debug)]
enum Happening {
    /// This node hears of the current set, and acknowledges it.
    Fetch(usize),
    /// Time passes, seconds.
    Wait(u64),
    /// The manager starts again from its store.
    Restart,
    /// A user asks for a rotation.
    Rotate,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        5 => (0usize..3).prop_map(Happening::Fetch),
        2 => (0u64..5).prop_map(Happening::Wait),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Rotate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// While all are live and the deadline is not reached, no two nodes ever hold rings that do not understand each other.
    #[test]
    fn no_two_live_nodes_ever_misunderstand(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut keys = GossipKeys::create(Instant::ZERO, 0, key(1), key(2));
        let mut now = Instant::ZERO;
        let mut fresh = 3u8;
        let mut nodes = vec![keys.set(); 3];
        let others: Vec<(String, bool)> = (0..3).map(|node| (node.to_string(), true)).collect();
        for happening in happenings {
            match happening {
                Happening::Fetch(node) => {
                    nodes[node] = keys.set();
                    keys.acknowledge(now, &node.to_string(), keys.set().version);
                }
                Happening::Wait(seconds) => now = now + Duration::from_secs(seconds),
                Happening::Restart => keys = GossipKeys::load(now, 0, keys.row().clone()),
                Happening::Rotate => {
                    if let Ok(row) = keys.rotate(0, None, [key(fresh), key(fresh + 1)]) {
                        keys.apply(now, row);
                        fresh += 2;
                    }
                }
            }
            if let Some(step) = keys.advance(now, &others) {
                prop_assert!(step.left_behind.is_empty());
                keys.apply(now, step.row);
            }
            let rings: Vec<Keyring> = nodes.iter().chain([&keys.set()]).map(KeySet::keyring).collect();
            for (from, to) in rings.iter().flat_map(|from| rings.iter().map(move |to| (from, to))) {
                let sealed = from.seal_datagram([1; 12], vec![9]);
                prop_assert!(to.open_datagram(&sealed).is_ok(), "{from:?} to {to:?} in {:?}", keys.row());
            }
        }
    }
}

/// Goes on until no rotation is under way; the members acknowledge at once.
fn settle(keys: &mut GossipKeys, mut seconds: u64) -> u64 {
    while keys.row().phase() != Phase::Settled {
        seconds += 1;
        for member in ["a", "b"] {
            let version = keys.set().version;
            keys.acknowledge(at(seconds), member, version);
        }
        if let Some(step) = keys.advance(at(seconds), &members(true)) {
            keys.apply(at(seconds), step.row);
        }
    }
    seconds
}

#[test]
fn whoever_is_removed_knows_no_key_that_is_accepted_afterwards() {
    let mut keys = started();
    // Two rotations, so that there are three keys.
    for (number, seconds) in [(3, 0), (5, 100)] {
        let row = keys.rotate(0, None, [key(number), key(number + 1)]).unwrap();
        keys.apply(at(seconds), row);
        settle(&mut keys, seconds);
    }
    let known = prints(&keys);
    assert_eq!(known, print_of(&[5, 6, 3]));
    assert!(!keys.is_due(at(200)) && keys.poll_timeout() > at(200));
    // Several removals are one rotation, and it is stored that it is wanted.
    assert!(keys.shut_out().shut_out);
    keys.shut_out();
    let mut keys = GossipKeys::load(at(200), 0, keys.row().clone());
    assert!(keys.is_due(at(200)) && keys.poll_timeout() <= at(200));
    let row = keys.rotate_if_due(at(200), 0, [key(7), key(8)]).unwrap();
    keys.apply(at(200), row);
    assert!(!keys.is_due(at(200)), "not more than one at a time");
    settle(&mut keys, 200);
    assert_eq!(prints(&keys), print_of(&[7, 8]));
    assert!(!keys.is_due(at(300)));
    let row = keys
        .rotate_if_due(at(300) + ROTATION_INTERVAL, 0, [key(20), key(9)])
        .unwrap();
    keys.apply(at(300), row);
    settle(&mut keys, 300);
    assert_eq!(prints(&keys), print_of(&[8, 9, 7]), "the next ones are as ever");
}

#[test]
fn a_removal_during_a_rotation_is_followed_by_another_one() {
    let mut keys = started();
    let row = keys.rotate(0, None, [key(3), key(4)]).unwrap();
    keys.apply(at(0), row);
    // It may have been handed the new keys already.
    keys.shut_out();
    assert!(!keys.is_due(at(0)));
    let end = settle(&mut keys, 0);
    assert!(keys.is_due(at(end)));
    let row = keys.rotate_if_due(at(end), 0, [key(5), key(6)]).unwrap();
    keys.apply(at(end), row);
    settle(&mut keys, end);
    assert_eq!(prints(&keys), print_of(&[5, 6]));
    // What cannot be stored now is tried again later, not at once and for ever.
    keys.shut_out();
    keys.postpone(at(500));
    assert!(!keys.is_due(at(500)) && keys.poll_timeout() == at(500) + RETRY);
    assert!(keys.is_due(at(500) + RETRY));
}
