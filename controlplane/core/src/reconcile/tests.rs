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

/// Gives the service a table of this name: what it holds follows from the name.
fn look_up(contents: &mut MapContents, vip: u8, name: u64) {
    let key = |index: u32| MaglevKey {
        name,
        index,
        padding: 0,
    };
    let padding = 0;
    let size = abi::maglev::PART + 3;
    contents
        .maglev_tables
        .insert(address(vip), MaglevTable { name, size, padding });
    let members = 1 + name as u16 % 3;
    for member in 0..members {
        let ip = [10, 0, 1, 100 + name as u8 * 10 + member as u8];
        contents.maglev_members.insert(key(member.into()), Backend { ip });
    }
    for part in 0..2 {
        let members = std::array::from_fn(|entry| (part + entry as u16) % members);
        contents.maglev.insert(key(part.into()), MaglevPart { members });
    }
}

fn no_table_names_what_is_not_there(contents: &MapContents) -> bool {
    contents.maglev_tables.values().all(|table| {
        let key = |index: u32| MaglevKey {
            name: table.name,
            index,
            padding: 0,
        };
        let is_whole = |part: u32| {
            let part = contents.maglev.get(&key(part));
            part.is_some_and(|part| {
                let mut members = part.members.iter();
                members.all(|member| contents.maglev_members.contains_key(&key((*member).into())))
            })
        };
        (0..table.size.div_ceil(abi::maglev::PART)).all(is_whole)
    })
}

fn pairs() -> impl Strategy<Value = (MapContents, MapContents)> {
    (contents(), contents())
}

fn contents() -> impl Strategy<Value = MapContents> {
    let few = || proptest::collection::btree_map(0..6u8, 0..4u8, 0..5);
    let services = proptest::collection::btree_map(0..4u8, proptest::collection::vec(0..9u8, 0..5), 0..4);
    let tables = proptest::collection::btree_map(0..4u8, 0..5u64, 0..4);
    (few(), few(), few(), few(), few(), services, tables).prop_map(
        |(attachments, networks, endpoints, peers, nodes, services, tables)| {
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
            for (vip, name) in tables {
                look_up(&mut contents, vip, name);
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
fn a_policy_comes_after_what_it_needs_and_that_goes_after_it() {
    let key = abi::MemberKey {
        vip: [10, 0, 1, 4],
        ip: [10, 0, 1, 5],
        vni: 4097,
    };
    let member = |index: u32| MaglevKey {
        name: 0,
        index,
        padding: 0,
    };
    let (mut turns, mut table, mut loads) = <(MapContents, MapContents, MapContents)>::default();
    for (contents, policy) in [(&mut turns, 0), (&mut table, 1), (&mut loads, 2)] {
        serve(contents, 4, &[5, 6]);
        contents.services.get_mut(&address(4)).unwrap().policy = policy;
    }
    look_up(&mut table, 4, 0);
    loads.weights.insert(key, 3);
    let service = |contents: &MapContents| Step::Put(Entry::Service(address(4), contents.services[&address(4)]));
    let part = |index: u32| Step::Put(Entry::MaglevPart(member(index), table.maglev[&member(index)]));
    assert_eq!(
        steps(&table, &turns),
        [
            Step::Put(Entry::MaglevMember(member(0), Backend { ip: [10, 0, 1, 100] })),
            part(0),
            part(1),
            Step::Put(Entry::MaglevTable(address(4), table.maglev_tables[&address(4)])),
            service(&table),
        ]
    );
    assert_eq!(
        steps(&loads, &table),
        [
            Step::Put(Entry::Weight(key, 3)),
            service(&loads),
            Step::Remove(EntryKey::MaglevTable(address(4))),
            Step::Remove(EntryKey::MaglevPart(member(0))),
            Step::Remove(EntryKey::MaglevPart(member(1))),
            Step::Remove(EntryKey::MaglevMember(member(0))),
        ]
    );
    assert_eq!(
        steps(&turns, &loads),
        [service(&turns), Step::Remove(EntryKey::Weight(key))]
    );
}

#[test]
fn a_policy_that_comes_with_fewer_slots_still_waits_for_its_table() {
    let (mut old, mut new) = (MapContents::default(), MapContents::default());
    serve(&mut old, 4, &[5, 6, 7]);
    serve(&mut new, 4, &[5, 6]);
    new.services.get_mut(&address(4)).unwrap().policy = 1;
    look_up(&mut new, 4, 0);
    let mut now = old.clone();
    for step in steps(&new, &old) {
        apply(&step, &mut now);
        assert!(now.services[&address(4)].policy == 0 || now.maglev_tables.contains_key(&address(4)));
    }
    assert_eq!(now, new);
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
            prop_assert!(no_table_names_what_is_not_there(&now), "after {:?}", step);
            for (at, table) in &now.maglev_tables {
                let kept = present.maglev_tables.get(at) == Some(table);
                let wished = wanted.maglev_tables.get(at) == Some(table);
                prop_assert!(kept || wished);
            }
            for at in wanted.maglev_tables.keys().filter(|at| present.maglev_tables.contains_key(at)) {
                prop_assert!(now.maglev_tables.contains_key(at), "there was no table after {:?}", step);
            }
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

    /// Where old and new tables do not fit together, the old ones go first, and are out of force before.
    #[test]
    fn tables_that_do_not_fit_together_make_room((wanted, present) in pairs()) {
        let parts = wanted.maglev.len().max(present.maglev.len()) as u32;
        let sizes = Sizes { maglev_parts: parts, ..Sizes::DEFAULT };
        let mut now = present.clone();
        for step in super::steps(&wanted, &present, &sizes) {
            apply(&step, &mut now);
            prop_assert!(now.maglev.len() <= parts as usize, "after {:?}", step);
            prop_assert!(no_table_names_what_is_not_there(&now), "after {:?}", step);
        }
        prop_assert_eq!(&now, &wanted);
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
