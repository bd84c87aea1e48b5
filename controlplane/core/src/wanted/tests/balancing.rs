//! Policies, weights and members.

use super::*;
use crate::service::Policy;
use crate::service::maglev::Outline;
use abi::maglev::PART;

/// A service `web` with the VIP 10.0.1.4 and tasks 5, 6 and so on of these weights, all reachable; 0 drains.
fn web(policy: Policy, weights: &[u32]) -> World {
    serve(World::default().network6("app", 1), "web", 4, policy, weights)
}

/// A service with the VIP 10.0.1.`vip` and tasks on the addresses behind it.
fn serve(mut world: World, service: &str, vip: u8, policy: Policy, weights: &[u32]) -> World {
    world.joined.insert(id("app"));
    for (last, weight) in (vip + 1..).zip(weights) {
        world = world.peer("app", ip(1, last), 2);
        world = world.task("app", service, ip(1, last), Some(ip(1, vip)), *weight == 0);
        let record = &mut world.tasks.last_mut().unwrap().record;
        (record.policy, record.weight) = (policy, (*weight).max(1));
    }
    world
}

fn weight(last: u8) -> MemberKey {
    MemberKey {
        vip: ip(1, 4).octets(),
        ip: ip(1, last).octets(),
        vni: 4097,
    }
}

fn outline(lasts: &[(u8, u32)]) -> Outline {
    Outline::of(
        &lasts
            .iter()
            .map(|(last, weight)| (ip(1, *last).octets(), *weight))
            .collect(),
    )
}

#[test]
fn a_weight_is_so_many_slots_in_turns() {
    for policy in [Policy::RoundRobin, Policy::LeastConnections] {
        let contents = web(policy, &[3, 1]).wanted();
        assert_eq!(backends(&contents, at(1, 4)), [5, 5, 6, 5]);
        assert_eq!(contents.services[&at(1, 4)].policy, policy.number());
        assert_eq!(
            contents.services.values().collect::<Vec<_>>(),
            contents.services6.values().collect::<Vec<_>>()
        );
        assert_eq!((contents.maglev.len(), contents.maglev_tables.len()), (0, 0));
    }
    assert_eq!(backends(&web(Policy::RoundRobin, &[20, 20]).wanted(), at(1, 4)), [5, 6]);
    assert_eq!(backends(&web(Policy::RoundRobin, &[0, 1]).wanted(), at(1, 4)), [6]);
}

#[test]
fn weights_are_written_for_least_connections_where_they_are_not_one() {
    let contents = web(Policy::LeastConnections, &[3, 1, 0]).wanted();
    assert_eq!(contents.weights, [(weight(5), 3)].into());
    assert_eq!(contents.weights6.len(), 1);
    for policy in [Policy::RoundRobin, Policy::Maglev] {
        let contents = web(policy, &[3, 1]).wanted();
        assert_eq!((contents.weights.len(), contents.weights6.len()), (0, 0));
    }
}

#[test]
fn a_table_has_its_parts_and_members_and_its_service_has_slots_beside() {
    let contents = web(Policy::Maglev, &[3, 1]).wanted();
    let Outline { name, size } = outline(&[(5, 3), (6, 1)]);
    let table = MaglevTable { name, size, padding: 0 };
    assert_eq!(contents.maglev_tables, [(at(1, 4), table)].into());
    assert_eq!(contents.maglev_tables6.len(), 1);
    let key = |index: u32| MaglevKey {
        name,
        index,
        padding: 0,
    };
    let members = [
        (key(0), Backend { ip: [10, 0, 1, 5] }),
        (key(1), Backend { ip: [10, 0, 1, 6] }),
    ];
    assert_eq!(contents.maglev_members, members.into());
    assert_eq!(contents.maglev_members6.len(), 2);
    assert_eq!(
        contents.maglev.len(),
        2 * size.div_ceil(PART) as usize,
        "of both families"
    );
    let parts = (0..size.div_ceil(PART)).map(|index| contents.maglev[&key(index)]);
    let entries: Vec<u16> = parts.flat_map(|part| part.members).collect();
    let (table, padding) = entries.split_at(size as usize);
    let of_second = table.iter().filter(|entry| **entry == 1).count();
    assert!(
        (of_second as i64 * 4 - i64::from(size)).abs() < 8,
        "{of_second} of {size}"
    );
    assert!(padding.iter().all(|entry| *entry == 0));
    assert_eq!(backends(&contents, at(1, 4)), [5, 5, 6, 5]);
    assert_eq!(
        web(Policy::Maglev, &[1]).wanted().maglev_tables,
        BTreeMap::new(),
        "one backend"
    );
    assert_eq!(
        web(Policy::Maglev, &[0, 0]).wanted().maglev_tables,
        BTreeMap::new(),
        "none"
    );
}

#[test]
fn virtual_ips_with_the_same_backends_share_a_table() {
    let mut world = web(Policy::Maglev, &[1, 1]);
    for task in world.tasks.clone() {
        let mut record = task.record;
        record.service_id = "other".to_owned();
        record.virtual_ip = Some(ip(1, 9));
        record.virtual_ip6 = None;
        let endpoint = format!("other-{}", task.endpoint);
        world.tasks.push(EndpointRow {
            endpoint,
            record,
            ..task
        });
    }
    let contents = world.wanted();
    assert_eq!(contents.maglev_tables[&at(1, 4)], contents.maglev_tables[&at(1, 9)]);
    assert_eq!(contents.maglev_members.len(), 2);
}

#[test]
fn a_table_that_does_not_fit_is_left_out_whole_and_told() {
    let world = serve(web(Policy::Maglev, &[1, 1]), "db", 10, Policy::Maglev, &[1, 1]);
    for parts in [64 * 3, 63] {
        let limits = Limits {
            maglev_parts: parts,
            ..Limits::of(&Sizes::DEFAULT)
        };
        let Wanted {
            contents, overflows, ..
        } = world.within(limits);
        let overflows: Vec<_> = overflows.iter().map(|o| (o.map, o.wanted, o.limit)).collect();
        assert_eq!(overflows, [("maglev", 256, parts)]);
        assert_eq!(contents.maglev.len(), parts as usize / 64 * 64);
        let tables = contents.maglev_tables.len() + contents.maglev_tables6.len();
        assert_eq!(tables, parts as usize / 64);
        assert_eq!(contents.maglev_members.len(), 2 * contents.maglev_tables.len());
        assert_eq!(contents.maglev_members6.len(), 2 * contents.maglev_tables6.len());
        for vip in [at(1, 4), at(1, 10)] {
            assert_eq!(contents.services[&vip].backend_count, 2, "in turns");
        }
    }
}

#[test]
fn weights_that_do_not_fit_are_left_out_by_services_and_told() {
    let world = serve(
        web(Policy::LeastConnections, &[2, 3]),
        "db",
        10,
        Policy::LeastConnections,
        &[2, 3],
    );
    let limits = Limits {
        loads: 3,
        ..Limits::of(&Sizes::DEFAULT)
    };
    let Wanted {
        contents, overflows, ..
    } = world.within(limits);
    let told: Vec<_> = overflows.iter().map(|o| (o.map, o.wanted, o.limit)).collect();
    assert_eq!(told, [("weights", 4, 3), ("weights6", 4, 3)]);
    assert_eq!(contents.weights, [(weight(5), 2), (weight(6), 3)].into());
    assert_eq!(contents.weights6.len(), 2);
}

#[test]
fn affinity_is_the_service_s() {
    let mut world = web(Policy::Maglev, &[1, 1]);
    world.tasks[0].record.affinity_seconds = 300;
    world.tasks[1].record.policy = Policy::LeastConnections;
    let service = world.wanted().services[&at(1, 4)];
    assert_eq!(
        (service.affinity_seconds, service.policy),
        (300, Policy::Maglev.number()),
        "what the first enabled task says"
    );
    world.tasks[0].record.service_disabled = true;
    let service = world.wanted().services[&at(1, 4)];
    assert_eq!(
        (service.affinity_seconds, service.policy),
        (0, Policy::LeastConnections.number())
    );
}

#[test]
fn members_are_all_tasks_and_draining_ones_are_closed() {
    let mut world = web(Policy::RoundRobin, &[1, 0, 1]);
    // Where it lives is not known yet: it is no backend, but a member.
    world.peers.pop();
    let members = world
        .with(|inputs| wanted(inputs, &Sizes::DEFAULT, &mut Tables::default()))
        .members;
    let of = |last: u8, open: bool| (ip(1, last).octets(), open);
    let of6 = |last: u8, open: bool| (v6(ip6(1, last)), open);
    assert_eq!(
        members.ipv4,
        [(at(1, 4), [of(5, true), of(6, false), of(7, true)].into())].into()
    );
    assert_eq!(
        members.ipv6,
        [(at6(1, 4), [of6(5, true), of6(6, false), of6(7, true)].into())].into()
    );
}
