//! The fronts of the hash maps say what these say, or nothing.

use aya::Pod;
use aya::maps::{Array, Map, MapData};
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_dataplane::abi::front::{self, LinkSlot, NodeSlot, PlaceSlot};
use weft_dataplane::abi::{Endpoint, OverlayAddress, Peer, Service, mapped};
use weft_tests::programs::{Lab, Loaded, VNI, config};

fn slot<S: Pod>(dataplane: &Loaded, name: &str, index: u32) -> S {
    let data = MapData::from_pin(dataplane.pin_of(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let array: Array<MapData, S> = Map::Array(data)
        .try_into()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    array.get(&index, 0).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn place(dataplane: &Loaded, key: &OverlayAddress) -> Option<PlaceSlot> {
    let slot: PlaceSlot = slot(dataplane, front::PLACES_NAME, front::place_of(key));
    (slot.kind != front::NOTHING && slot.key == *key).then_some(slot)
}

const PEER: Peer = Peer {
    vtep: mapped([192, 168, 50, 2]),
    mac: [2, 0, 0, 0, 0, 1],
    flags: 0,
};
const ENDPOINT: Endpoint = Endpoint {
    ifindex: 7,
    mac: [2, 0, 0, 0, 0, 2],
    flags: 0,
};

#[test]
fn an_address_that_is_one_thing_is_there_and_one_that_is_several_is_not() {
    let mut dataplane = Loaded::new(&config());
    let key = OverlayAddress::new(VNI, [10, 9, 8, 7]);
    let service = Service {
        backend_count: 3,
        policy: 0,
        affinity_seconds: 0,
    };
    let steps: [(Step, Option<PlaceSlot>); 7] = [
        (Step::Put(Entry::Peer(key, PEER)), Some(PlaceSlot::of_peer(key, &PEER))),
        (Step::Put(Entry::Endpoint(key, ENDPOINT)), None),
        (
            Step::Remove(EntryKey::Peer(key)),
            Some(PlaceSlot::of_endpoint(key, &ENDPOINT)),
        ),
        (Step::Remove(EntryKey::Endpoint(key)), None),
        (
            Step::Put(Entry::Service(key, service)),
            Some(PlaceSlot::of_service(key, &service)),
        ),
        (
            Step::Put(Entry::Service(
                key,
                Service {
                    backend_count: 0,
                    ..service
                },
            )),
            Some(PlaceSlot::of_service(
                key,
                &Service {
                    backend_count: 0,
                    ..service
                },
            )),
        ),
        (Step::Remove(EntryKey::Service(key)), None),
    ];
    for (step, expected) in steps {
        dataplane
            .apply(std::slice::from_ref(&step))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(place(&dataplane, &key), expected, "{step:?}");
    }
}

#[test]
fn of_two_addresses_of_one_slot_the_first_stays() {
    let mut dataplane = Loaded::new(&config());
    let first = OverlayAddress::new(VNI, [10, 0, 0, 1]);
    let ip = (u32::from_be_bytes(first.ip) + front::PLACES).to_be_bytes();
    let second = OverlayAddress::new(VNI, ip);
    assert_eq!(front::place_of(&first), front::place_of(&second));
    for key in [first, second] {
        dataplane
            .apply(&[Step::Put(Entry::Peer(key, PEER))])
            .unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(place(&dataplane, &first).is_some() && place(&dataplane, &second).is_none());
    dataplane
        .apply(&[Step::Remove(EntryKey::Peer(second))])
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(place(&dataplane, &first).is_some());
    dataplane
        .apply(&[Step::Remove(EntryKey::Peer(first))])
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(place(&dataplane, &first).is_none());
}

#[test]
fn interfaces_and_nodes_come_and_go_with_their_entries() {
    let mut lab = Lab::new();
    let present = lab.dataplane.present().unwrap_or_else(|error| panic!("{error}"));
    assert!(!present.attachments.is_empty() && !present.nodes.is_empty());
    for (ifindex, attachment) in &present.attachments {
        let slot: LinkSlot = slot(&lab.dataplane, front::LINKS_NAME, front::link_of(*ifindex));
        assert_eq!((slot.ifindex, slot.attachment), (*ifindex, *attachment));
    }
    for (vtep, node) in &present.nodes {
        let slot: NodeSlot = slot(&lab.dataplane, front::NODES_NAME, front::node_of(vtep));
        assert_eq!((slot.vtep, slot.node), (*vtep, *node));
    }
    for key in present.peers.keys().chain(present.endpoints.keys()) {
        assert!(place(&lab.dataplane, key).is_some(), "{key:?}");
    }
    let steps: Vec<Step> = (present
        .attachments
        .keys()
        .map(|key| Step::Remove(EntryKey::Attachment(*key))))
    .chain(present.nodes.keys().map(|key| Step::Remove(EntryKey::Node(*key))))
    .collect();
    lab.dataplane.apply(&steps).unwrap_or_else(|error| panic!("{error}"));
    for ifindex in present.attachments.keys() {
        let slot: LinkSlot = slot(&lab.dataplane, front::LINKS_NAME, front::link_of(*ifindex));
        assert_eq!(slot.ifindex, 0);
    }
    for vtep in present.nodes.keys() {
        let slot: NodeSlot = slot(&lab.dataplane, front::NODES_NAME, front::node_of(vtep));
        assert_ne!(slot.vtep, *vtep);
    }
}
