//! The fronts of the hash maps say what these say, or nothing.

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use weft::dataplane::{LinkAddresses, Neighborhood};
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_dataplane::abi::front::{self, LinkSlot, NodeSlot, PlaceSlot};
use weft_dataplane::abi::{Endpoint, Neighbor, OverlayAddress, Peer, Service, mapped, neighbor};
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{ALICE, Action, CAROL, Lab, Loaded, UPLINK, VNI, VTEP, config};

fn slots<S: Pod>(dataplane: &Loaded, name: &str) -> Array<MapData, S> {
    let data = MapData::from_pin(dataplane.pin_of(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    Map::Array(data)
        .try_into()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn slot<S: Pod>(dataplane: &Loaded, name: &str, index: u32) -> S {
    slots(dataplane, name)
        .get(&index, 0)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn place(dataplane: &Loaded, key: &OverlayAddress) -> Option<PlaceSlot> {
    let slot: PlaceSlot = slot(dataplane, front::PLACES_NAME, front::place_of(key));
    slot.is_of(key).then_some(slot)
}

const PEER: Peer = Peer {
    vtep: mapped([192, 168, 50, 2]),
    mac: [2, 0x42, 10, 9, 8, 7],
    flags: 0,
};
const ENDPOINT: Endpoint = Endpoint {
    ifindex: 7,
    mac: [2, 0x42, 10, 9, 8, 7],
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
        (Step::Put(Entry::Peer(key, PEER)), PlaceSlot::of_peer(key, &PEER)),
        (Step::Put(Entry::Endpoint(key, ENDPOINT)), None),
        (
            Step::Remove(EntryKey::Peer(key)),
            PlaceSlot::of_endpoint(key, &ENDPOINT),
        ),
        (Step::Remove(EntryKey::Endpoint(key)), None),
        (
            Step::Put(Entry::Service(key, service)),
            Some(PlaceSlot::of_service(key)),
        ),
        (
            Step::Put(Entry::Service(
                key,
                Service {
                    backend_count: 0,
                    ..service
                },
            )),
            Some(PlaceSlot::of_service(key)),
        ),
        (Step::Remove(EntryKey::Service(key)), None),
    ];
    assert!(steps[0].1.is_some() && steps[2].1.is_some());
    for (step, expected) in steps {
        dataplane
            .apply(std::slice::from_ref(&step))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(place(&dataplane, &key), expected, "{step:?}");
    }
}

/// Destination of the inner Ethernet header of a packet to Carol.
fn inner(lab: &Lab) -> [u8; 6] {
    const OVERHEAD: usize = 50;
    let outcome = lab.from_alice(&Datagram::new(ALICE, CAROL, Payload::Udp(1, 2, vec![7])).bytes());
    assert_eq!(outcome.action, Action::Redirect);
    outcome.packet[OVERHEAD..OVERHEAD + 6].try_into().unwrap_or_default()
}

#[test]
fn a_peer_whose_mac_was_chosen_is_not_there_and_is_reached_all_the_same() {
    const CHOSEN: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    let mut lab = Lab::new();
    let key = OverlayAddress::new(VNI, CAROL.1);
    assert!(place(&lab.dataplane, &key).is_some());
    assert_eq!(inner(&lab), CAROL.0);
    let present = lab.dataplane.present().unwrap_or_else(|error| panic!("{error}"));
    let peer = Peer {
        mac: CHOSEN,
        ..present.peers[&key]
    };
    lab.apply(&[Step::Put(Entry::Peer(key, peer))]);
    assert_eq!(place(&lab.dataplane, &key), None);
    assert_eq!(inner(&lab), CHOSEN);
}

/// What another version may have had there.
#[test]
fn a_front_of_another_shape_is_made_anew_and_filled() {
    let config = config();
    let mut dataplane = Loaded::new(&config);
    let key = OverlayAddress::new(VNI, [10, 9, 8, 7]);
    dataplane
        .apply(&[Step::Put(Entry::Peer(key, PEER))])
        .unwrap_or_else(|error| panic!("{error}"));
    let pin = dataplane.pin_of(front::PLACES_NAME);
    std::fs::remove_file(&pin).unwrap_or_else(|error| panic!("{error}"));
    let other = HashMap::<MapData, u32, u64>::create(1, 0).unwrap_or_else(|error| panic!("{error}"));
    other.pin(&pin).unwrap_or_else(|error| panic!("{error}"));
    dataplane.restart(&config);
    assert_eq!(place(&dataplane, &key), PlaceSlot::of_peer(key, &PEER));
    let present = dataplane.present().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(present.peers.get(&key), Some(&PEER));
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
            .apply(&[Step::Put(Entry::Peer(
                key,
                Peer {
                    mac: front::mac_of(key.ip),
                    ..PEER
                },
            ))])
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

/// Destination and source of the outer Ethernet header, as the program leaves it. The kernel writes it anew where it looks the neighbour up.
fn outer(lab: &Lab, payload: Payload) -> ([u8; 6], [u8; 6]) {
    let outcome = lab.from_alice(&Datagram::new(ALICE, CAROL, payload).bytes());
    assert_eq!(outcome.action, Action::Redirect);
    let part = |first: usize| outcome.packet[first..first + 6].try_into().unwrap_or_default();
    (part(0), part(6))
}

#[test]
fn a_neighbour_is_written_while_it_is_known_and_for_its_device_only() {
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
    let mut lab = Lab::new();
    let vtep = mapped(VTEP.1);
    let present = lab.dataplane.present().unwrap_or_else(|error| panic!("{error}"));
    let node = present.nodes[&vtep];
    let known = |ifindex, destination| {
        let addresses = LinkAddresses {
            destination,
            source: UPLINK.0,
        };
        Neighborhood::from([((ifindex, node.next_hop.last_four().into()), addresses)])
    };
    let refresh = |lab: &mut Lab, known: &Neighborhood| {
        lab.dataplane
            .refresh_neighbors(known)
            .unwrap_or_else(|error| panic!("{error}"));
    };
    let udp = || Payload::Udp(1, 2, vec![7]);
    let unknown = outer(&lab, udp());
    assert_ne!(unknown, (VTEP.0, UPLINK.0));
    refresh(&mut lab, &known(node.ifindex + 1, VTEP.0));
    assert_eq!(outer(&lab, udp()), unknown, "of another device");
    for destination in [VTEP.0, OTHER] {
        refresh(&mut lab, &known(node.ifindex, destination));
        assert_eq!(outer(&lab, udp()), (destination, UPLINK.0));
    }
    assert_eq!(
        outer(&lab, Payload::Echo(1)),
        unknown,
        "what is not plain is left to the kernel"
    );

    let mut map = slots::<Neighbor>(&lab.dataplane, neighbor::NAME);
    let index = neighbor::slot_of(&vtep);
    let fresh = slot::<Neighbor>(&lab.dataplane, neighbor::NAME, index);
    let age = weft_dataplane::abi::flow::ticks_of_seconds(neighbor::SECONDS + 1);
    let old = Neighbor {
        until: fresh.until.wrapping_sub(age),
        ..fresh
    };
    map.set(index, old, 0).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outer(&lab, udp()), unknown, "its time is over");
    map.set(index, fresh, 0).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outer(&lab, udp()), (OTHER, UPLINK.0));

    lab.apply(&[Step::Put(Entry::Node(vtep, node))]);
    assert_eq!(outer(&lab, udp()), unknown, "the way may be another one");
    refresh(&mut lab, &known(node.ifindex, VTEP.0));
    assert_eq!(outer(&lab, udp()), (VTEP.0, UPLINK.0));
    refresh(&mut lab, &Neighborhood::new());
    assert_eq!(outer(&lab, udp()), unknown, "the kernel would ask first");
}
