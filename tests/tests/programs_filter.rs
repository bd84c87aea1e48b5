//! The filter before the table of connections: rebuilt while connections live, and what a bit is worth.
#![allow(clippy::unwrap_used)]

use aya::Pod;
use aya::maps::{Array, Map, MapData};
use weft::dataplane::Feature;
use weft_dataplane::abi::filter::{self, FIRST, HALF, OFF, SECOND};
use weft_dataplane::packet::transport::{ACK, SYN};
use weft_tests::expect::{SERVER_PORT, age_flows};
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{ALICE, CAROL, GATEWAY, Lab, VIP, config, flow_key, from_vtep, service};

/// So many sweeps are more than two walks and the pauses between them.
const MANY: u32 = 1000;

fn array<V: Pod>(lab: &Lab, name: &str) -> Array<MapData, V> {
    let data = MapData::from_pin(lab.dataplane.pin_of(name)).unwrap();
    Map::Array(data).try_into().unwrap()
}

fn state(lab: &Lab) -> u32 {
    array(lab, filter::STATE_NAME).get(&0, 0).unwrap()
}

/// Sweeps until another half is in force, and does something in between.
fn rebuilt(lab: &mut Lab, mut meanwhile: impl FnMut(&Lab)) -> u32 {
    let before = state(lab);
    for _ in 0..MANY {
        lab.dataplane.sweep_flows().unwrap();
        if state(lab) != before {
            return state(lab);
        }
        meanwhile(lab);
    }
    panic!("{MANY} sweeps brought no other half than {before}");
}

fn lab() -> Lab {
    let mut config = config();
    // A walk takes a few sweeps.
    config.sizes.flows = 16_384;
    let mut lab = Lab::with(&config);
    assert!(
        lab.dataplane.features().has(Feature::MapReads),
        "without, the filter stays off"
    );
    assert_eq!(state(&lab), OFF);
    lab.apply(&service(VIP, &[CAROL.1]));
    lab
}

fn open(lab: &Lab, port: u16) {
    let packet = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Tcp(port, SERVER_PORT, SYN, vec![]));
    lab.from_alice(&packet.bytes());
    assert!(lab.flows().contains_key(&key(port)));
}

/// The key of what the backend answers.
fn key(port: u16) -> weft_dataplane::abi::FlowKey {
    flow_key(6, (CAROL.1, SERVER_PORT), (ALICE.1, port))
}

/// From whom Alice gets what the backend answers.
fn answered_by(lab: &Lab, port: u16) -> [u8; 4] {
    let answer = Datagram::new(CAROL, ALICE, Payload::Tcp(SERVER_PORT, port, ACK, vec![7]));
    let packet = lab.from_underlay(&from_vtep().around(&answer.bytes())).packet;
    packet[26..30].try_into().unwrap()
}

#[test]
fn connections_are_known_through_every_rebuild() {
    let mut lab = lab();
    let mut ports = vec![40_000];
    open(&lab, ports[0]);
    for expected in [FIRST, SECOND, FIRST, SECOND] {
        let mut next = 40_001 + 1000 * expected as u16 + ports.len() as u16;
        let mut opened = Vec::new();
        let half = rebuilt(&mut lab, |lab| {
            // Those that come in the middle of a walk, too.
            if opened.len() < 200 {
                open(lab, next);
                opened.push(next);
                next += 1;
            }
            assert_eq!(answered_by(lab, 40_000), VIP);
        });
        assert_eq!(half, expected);
        ports.extend(opened);
        for port in &ports {
            assert_eq!(answered_by(&lab, *port), VIP, "port {port}, half {half}");
        }
    }
}

#[test]
fn what_is_gone_has_no_bit_after_two_rebuilds() {
    let mut lab = lab();
    open(&lab, 40_000);
    let (word, mask) = filter::bits(&key(40_000));
    let in_force = |lab: &Lab| {
        let first = if state(lab) == FIRST { 0 } else { HALF };
        array::<u64>(lab, filter::NAME).get(&(first + word), 0).unwrap() & mask == mask
    };
    rebuilt(&mut lab, |_| ());
    assert!(in_force(&lab));
    age_flows(&lab);
    rebuilt(&mut lab, |_| ());
    rebuilt(&mut lab, |_| ());
    assert!(lab.flows().is_empty() && !in_force(&lab));
}

/// That the bits matter: else the other tests would find nothing.
#[test]
fn a_lost_bit_is_a_lost_connection() {
    let mut lab = lab();
    open(&lab, 40_000);
    rebuilt(&mut lab, |_| ());
    assert_eq!(answered_by(&lab, 40_000), VIP);
    let (word, _) = filter::bits(&key(40_000));
    let mut words = array::<u64>(&lab, filter::NAME);
    for first in [0, HALF] {
        words.set(first + word, 0, 0).unwrap();
    }
    // The short way does not know it, and hands the packet over as the backend's own.
    assert_eq!(answered_by(&lab, 40_000), CAROL.1);
    rebuilt(&mut lab, |_| ());
    assert_eq!(answered_by(&lab, 40_000), VIP);
}
