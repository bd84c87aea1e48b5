//! The steps lead there, and nothing is broken on the way.

use super::*;
use proptest::prelude::*;
use weft_dataplane::abi::mapped;

fn steps(wanted: &MapContents, present: &MapContents) -> Vec<Step> {
    super::steps(wanted, present, &Sizes::DEFAULT)
}

fn address(last: u8) -> OverlayAddress {
    OverlayAddress {
        vni: 4097,
        ip: [10, 0, 1, last],
    }
}

fn slot(vip: u8, slot: u32) -> BackendKey {
    BackendKey {
        vni: 4097,
        vip: [10, 0, 1, vip],
        slot,
    }
}

fn attachment(last: u8) -> Attachment {
    Attachment {
        vni: 4097,
        ip: [10, 0, 1, last],
        gateway: [10, 0, 1, 1],
        mac: [2, 66, 10, 0, 1, last],
        gateway_mac: [2; 6],
        ip6: V6::UNSPECIFIED,
        gateway6: V6::UNSPECIFIED,
    }
}

fn network(prefix_len: u8) -> Network {
    Network {
        gateway: [10, 0, 1, 1],
        gateway_mac: [2; 6],
        prefix_len,
        padding: 0,
    }
}

fn endpoint(ifindex: u32) -> Endpoint {
    Endpoint {
        ifindex,
        mac: [2; 6],
        flags: 0,
    }
}

fn peer(vtep: u8) -> Peer {
    Peer {
        vtep: mapped([192, 168, 0, vtep]),
        mac: [2; 6],
        flags: 0,
    }
}

fn node(mtu: u32) -> Node {
    Node {
        next_hop: mapped([192, 168, 0, 1]),
        source: mapped([192, 168, 0, 9]),
        ifindex: 2,
        mtu,
        family: abi::node::IPV4,
        padding: 0,
    }
}

fn service(backend_count: u32) -> Service {
    Service {
        backend_count,
        policy: 0,
        affinity_seconds: 0,
    }
}

/// A service `vip` with these backends.
fn serve(contents: &mut MapContents, vip: u8, backends: &[u8]) {
    contents.services.insert(address(vip), service(backends.len() as u32));
    for (number, last) in (0..).zip(backends) {
        contents
            .backends
            .insert(slot(vip, number), Backend { ip: [10, 0, 1, *last] });
    }
}

fn no_service_counts_a_missing_slot(contents: &MapContents) -> bool {
    contents.services.iter().all(|(at, service)| {
        (0..service.backend_count).all(|slot| {
            contents.backends.contains_key(&BackendKey {
                vni: at.vni,
                vip: at.ip,
                slot,
            })
        })
    })
}

fn pairs() -> impl Strategy<Value = (MapContents, MapContents)> {
    (contents(), contents())
}

fn contents() -> impl Strategy<Value = MapContents> {
    let few = || proptest::collection::btree_map(0..6u8, 0..4u8, 0..5);
    let services = proptest::collection::btree_map(0..4u8, proptest::collection::vec(0..9u8, 0..5), 0..4);
    (few(), few(), few(), few(), few(), services).prop_map(
        |(attachments, networks, endpoints, peers, nodes, services)| {
            let mut contents = MapContents {
                attachments: attachments
                    .into_iter()
                    .map(|(k, v)| (k.into(), attachment(v)))
                    .collect(),
                networks: networks.into_iter().map(|(k, v)| (k.into(), network(v))).collect(),
                endpoints: endpoints
                    .into_iter()
                    .map(|(k, v)| (address(k), endpoint(v.into())))
                    .collect(),
                peers: peers.into_iter().map(|(k, v)| (address(k), peer(v))).collect(),
                nodes: nodes
                    .into_iter()
                    .map(|(k, v)| (mapped([192, 168, 0, k]), node(v.into())))
                    .collect(),
                ..MapContents::default()
            };
            for (vip, backends) in services {
                serve(&mut contents, vip, &backends);
            }
            contents
        },
    )
}

/// A new endpoint with all that it needs, from nothing.
#[test]
fn what_is_new_is_complete_before_anything_points_at_it() {
    let mut wanted = MapContents::default();
    wanted.attachments.insert(7, attachment(3));
    wanted.networks.insert(4097, network(24));
    wanted.endpoints.insert(address(3), endpoint(7));
    wanted.peers.insert(address(5), peer(2));
    wanted.nodes.insert(mapped([192, 168, 0, 2]), node(1500));
    serve(&mut wanted, 4, &[5]);
    let put = steps(&wanted, &MapContents::default());
    assert_eq!(
        put,
        [
            Step::Put(Entry::Network(4097, network(24))),
            Step::Put(Entry::Node(mapped([192, 168, 0, 2]), node(1500))),
            Step::Put(Entry::Peer(address(5), peer(2))),
            Step::Put(Entry::Endpoint(address(3), endpoint(7))),
            Step::Put(Entry::Backend(slot(4, 0), Backend { ip: [10, 0, 1, 5] })),
            Step::Put(Entry::Service(address(4), service(1))),
            Step::Put(Entry::Attachment(7, attachment(3))),
        ]
    );
    let removed: Vec<_> = steps(&MapContents::default(), &wanted).into_iter().collect();
    assert_eq!(
        removed,
        [
            Step::Remove(EntryKey::Attachment(7)),
            Step::Remove(EntryKey::Service(address(4))),
            Step::Remove(EntryKey::Backend(slot(4, 0))),
            Step::Remove(EntryKey::Endpoint(address(3))),
            Step::Remove(EntryKey::Peer(address(5))),
            Step::Remove(EntryKey::Node(mapped([192, 168, 0, 2]))),
            Step::Remove(EntryKey::Network(4097)),
        ]
    );
}

#[test]
fn a_service_shrinks_count_first_and_grows_count_last() {
    let (mut small, mut large) = (MapContents::default(), MapContents::default());
    serve(&mut small, 4, &[5]);
    serve(&mut large, 4, &[5, 6]);
    let backend = Backend { ip: [10, 0, 1, 6] };
    assert_eq!(
        steps(&small, &large),
        [
            Step::Put(Entry::Service(address(4), service(1))),
            Step::Remove(EntryKey::Backend(slot(4, 1)))
        ]
    );
    assert_eq!(
        steps(&large, &small),
        [
            Step::Put(Entry::Backend(slot(4, 1), backend)),
            Step::Put(Entry::Service(address(4), service(2)))
        ]
    );
}

#[test]
fn an_interface_that_changes_hands_sends_nothing_in_between() {
    let (mut old, mut new) = (MapContents::default(), MapContents::default());
    old.attachments.insert(7, attachment(3));
    new.attachments.insert(7, attachment(4));
    assert_eq!(
        steps(&new, &old),
        [
            Step::Remove(EntryKey::Attachment(7)),
            Step::Put(Entry::Attachment(7, attachment(4)))
        ]
    );
    let moved_gateway = Attachment {
        gateway: [10, 0, 1, 254],
        ..attachment(3)
    };
    new.attachments.insert(7, moved_gateway);
    assert_eq!(steps(&new, &old), [Step::Put(Entry::Attachment(7, moved_gateway))]);
}

#[test]
fn a_full_map_makes_room_first() {
    let sizes = Sizes {
        nodes: 300,
        ..Sizes::DEFAULT
    };
    let full = |offset: u32| MapContents {
        nodes: (0..sizes.nodes)
            .map(|n| (mapped((n + offset).to_be_bytes()), node(1500)))
            .collect(),
        ..MapContents::default()
    };
    let (wanted, mut now) = (full(100), full(0));
    for step in super::steps(&wanted, &now.clone(), &sizes) {
        apply(&step, &mut now);
        assert!(now.nodes.len() <= sizes.nodes as usize);
    }
    assert_eq!(now, wanted);
}

proptest! {
    #[test]
    fn the_steps_lead_to_what_is_wanted_and_break_nothing((wanted, present) in pairs()) {
        let mut now = present.clone();
        for step in steps(&wanted, &present) {
            apply(&step, &mut now);
            prop_assert!(no_service_counts_a_missing_slot(&now), "after {:?}", step);
            for (ifindex, attachment) in &now.attachments {
                let kept = present.attachments.get(ifindex) == Some(attachment);
                let wished = wanted.attachments.get(ifindex) == Some(attachment);
                prop_assert!(kept || wished);
            }
            for (at, _) in wanted.peers.iter().filter(|(at, _)| present.peers.contains_key(at)) {
                prop_assert!(now.peers.contains_key(at), "a peer that stays was gone after {:?}", step);
            }
            for (at, service) in wanted.services.iter().filter(|(_, service)| service.backend_count > 0) {
                if present.services.get(at).is_some_and(|old| old.backend_count > 0) {
                    prop_assert!(now.services[at].backend_count > 0, "{:?} had no backend after {:?}", service, step);
                }
            }
        }
        prop_assert_eq!(&now, &wanted);
        prop_assert_eq!(steps(&wanted, &now), vec![]);
    }

    /// Whoever wrote the maps before, the first steps on services mend them.
    #[test]
    fn damaged_maps_are_mended((wanted, mut present) in pairs(), lost in proptest::collection::vec((0..4u8, 0..5u32), 0..6)) {
        for (vip, number) in lost {
            present.backends.remove(&slot(vip, number));
        }
        let mut now = present.clone();
        let mut whole = no_service_counts_a_missing_slot(&now);
        for step in steps(&wanted, &present) {
            apply(&step, &mut now);
            prop_assert!(!whole || no_service_counts_a_missing_slot(&now), "after {:?}", step);
            whole |= no_service_counts_a_missing_slot(&now);
        }
        prop_assert!(whole || present == wanted);
        prop_assert_eq!(&now, &wanted);
    }

    #[test]
    fn every_step_may_be_done_twice((wanted, present) in pairs()) {
        let mut now = present.clone();
        for step in steps(&wanted, &present) {
            apply(&step, &mut now);
            let once = now.clone();
            apply(&step, &mut now);
            prop_assert_eq!(&now, &once);
        }
        prop_assert_eq!(now, wanted);
    }
}
