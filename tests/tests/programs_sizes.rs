//! Sizes of maps that are set: what holds, what a restart with others does, and what becomes of a flow table that is full.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use weft::dataplane::{Config, Dataplane};
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::flow::{REPLY, RESERVED};
use weft_dataplane::abi::{Counter, Flow, FlowKey, Network, Peer, Sizes, flow, mapped};
use weft_dataplane::packet::transport::SYN;
use weft_tests::expect::age_flows;
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{ALICE, Action, CAROL, GATEWAY, Lab, Loaded, VIP, VNI, VTEP, at, config, service};

fn with(change: impl FnOnce(&mut Sizes)) -> Config {
    let mut config = config();
    change(&mut config.sizes);
    config
}

fn peer(last: u8) -> Step {
    let peer = Peer {
        vtep: mapped(VTEP.1),
        mac: CAROL.0,
        flags: 0,
    };
    Step::Put(Entry::Peer(at([10, 0, 2, last]), peer))
}

fn limit(dataplane: &Dataplane, map: &str) -> (u64, u32) {
    let summaries = dataplane.summaries().unwrap();
    let summary = summaries.into_iter().find(|summary| summary.name == map).unwrap();
    (summary.entries, summary.max_entries)
}

/// The entries of the only map of this name that is pinned below the directory.
fn raw_ring(lab: &Lab) -> aya::maps::Array<aya::maps::MapData, FlowKey> {
    let map = aya::maps::MapData::from_pin(lab.dataplane.pin_of(flow::RING_NAME)).unwrap();
    aya::maps::Map::from_map_data(map).unwrap().try_into().unwrap()
}

fn generations(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_restart_with_other_sizes_keeps_what_the_maps_hold() {
    let mut config = with(|sizes| (sizes.peers, sizes.flows) = (4, 4));
    let mut first = Loaded::new(&config);
    first.apply(&[peer(1), peer(2), peer(3)]).unwrap();
    assert_eq!(limit(&first, "peers"), (3, 4));
    assert_eq!(limit(&first, "flows"), (0, 8));
    let kept = first.dump("peers").unwrap().entries;
    first.leave();

    config.sizes.peers = 1000;
    config.sizes.flows = 100;
    let second = Loaded::new(&config);
    assert_eq!(second.dump("peers").unwrap().entries, kept);
    assert_eq!(
        (limit(&second, "peers"), limit(&second, "flows")),
        ((3, 1000), (0, 200))
    );
    second.leave();

    // As much as there is, still fits.
    config.sizes.peers = 3;
    config.sizes.preallocate_flows = true;
    let third = Loaded::new(&config);
    assert_eq!(third.dump("peers").unwrap().entries, kept);
    assert_eq!(limit(&third, "peers"), (3, 3));
    assert_eq!(
        generations(&config.pin_directory).len(),
        1,
        "one generation, and nothing beside it"
    );
}

#[test]
fn a_size_below_what_a_map_holds_is_refused_in_one_line_and_nothing_changes() {
    let mut config = with(|sizes| sizes.peers = 10);
    let mut first = Loaded::new(&config);
    first.apply(&[peer(1), peer(2), peer(3)]).unwrap();
    let kept = first.dump("peers").unwrap().entries;
    first.leave();
    let before = generations(&config.pin_directory);

    config.sizes.peers = 2;
    let refusal = Dataplane::load(&config).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "max-peers leaves map peers room for 2 entries, but it holds 3: set max-peers to 3 or more"
    );
    assert_eq!(generations(&config.pin_directory), before);

    config.sizes.peers = 10;
    let again = Loaded::new(&config);
    assert_eq!(again.dump("peers").unwrap().entries, kept);
}

const CLIENT_PORT: u16 = 40_000;

fn open(lab: &Lab, number: u16) -> weft_tests::programs::Outcome {
    let payload = Payload::Tcp(CLIENT_PORT + number, 80, SYN, vec![]);
    lab.from_alice(&Datagram::new(ALICE, (GATEWAY.0, VIP), payload).bytes())
}

fn small_lab(preallocate: bool) -> Lab {
    let mut lab = Lab::with(&with(|sizes| {
        sizes.flows = 8;
        sizes.preallocate_flows = preallocate;
    }));
    lab.apply(&service(VIP, &[CAROL.1]));
    lab
}

#[test]
fn a_full_flow_table_refuses_new_connections_and_keeps_those_there_are() {
    for preallocate in [false, true] {
        let lab = small_lab(preallocate);
        for number in 0..8 {
            open(&lab, number).is(Action::Redirect, &[Counter::Encapsulated, Counter::FlowCreated]);
        }
        let full = lab.flows();
        assert_eq!(full.len(), 16);
        let refused = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Tcp(CLIENT_PORT + 8, 80, SYN, vec![]));
        for _ in 0..3 {
            lab.from_alice(&refused.bytes())
                .dropped(&refused.bytes(), Counter::DropFlowTableFull);
        }
        assert_eq!(lab.flows().keys().collect::<Vec<_>>(), full.keys().collect::<Vec<_>>());
        // Who is in goes on, in either direction.
        open(&lab, 3).is(Action::Redirect, &[Counter::Encapsulated]);
        // Once some are over, there is room again.
        age_flows(&lab);
        open(&lab, 8).is(
            Action::Redirect,
            &[Counter::Encapsulated, Counter::FlowCreated, Counter::FlowExpired],
        );
    }
}

/// A connection whose slot in the ring another one took is over at its time-out as well, and its entries go.
#[test]
fn connections_that_the_ring_lost_sight_of_are_swept_too() {
    let mut lab = small_lab(false);
    for number in 0..4 {
        open(&lab, number);
    }
    let nobody = FlowKey {
        source: [0; 4],
        destination: [0; 4],
        source_port: [0; 2],
        destination_port: [0; 2],
        network: 0,
        reserved: RESERVED,
    };
    let mut ring = raw_ring(&lab);
    let lost: Vec<u32> = lab
        .flows()
        .values()
        .filter(|flow: &&Flow| flow.flags & REPLY == 0)
        .map(|flow| flow.slot)
        .collect();
    assert_eq!(lost.len(), 4);
    for slot in lost {
        ring.set(slot, nobody, 0).unwrap();
    }
    lab.dataplane.sweep_flows().unwrap();
    assert_eq!(lab.flows().len(), 8, "what lives stays");
    age_flows(&lab);
    // A walk may have ended just before; the next begins in a while.
    for _ in 0..100 {
        lab.dataplane.sweep_flows().unwrap();
    }
    assert_eq!(lab.flows().len(), 0);
    assert_eq!(lab.counters()[&Counter::FlowExpired], 4);
}

/// A smaller ring has no place for some connections: they are kept, and end when their time has come.
#[test]
fn a_smaller_ring_loses_no_connection() {
    let mut config = with(|sizes| sizes.flows = 64);
    let lab = Lab::with(&config);
    for number in 0..6 {
        open(&lab, number);
    }
    let kept = lab.flows();
    assert_eq!(kept.len(), 12);
    let highest = kept.values().map(|flow| flow.slot).max().unwrap();
    assert!(highest >= 5, "the slots are taken in turn: {kept:?}");
    let namespace = lab.leave();
    config.sizes.flows = 6;
    let mut second = Loaded::new(&config);
    assert_eq!(limit(&second, "flows"), (12, 12));
    second.sweep_flows().unwrap();
    assert_eq!(limit(&second, "flows"), (12, 12));
    drop(namespace);
}

#[test]
fn networks_beyond_the_limit_are_named_with_it() {
    let mut dataplane = Loaded::new(&with(|sizes| sizes.networks = 2));
    let network = |vni| {
        Step::Put(Entry::Network(
            vni,
            Network {
                gateway: GATEWAY.1,
                gateway_mac: GATEWAY.0,
                prefix_len: 24,
                padding: 0,
            },
        ))
    };
    let error = dataplane
        .apply(&[network(VNI), network(VNI + 1), network(VNI + 2)])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "1 of 3 map steps failed, the first: map networks is full: it holds 2 entries at most; max-networks sets more"
    );
}
