//! Policies of virtual IPs: whom a new connection goes to, and what that changes for those that are there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::service::{POLICY_LEAST_CONNECTIONS, POLICY_MAGLEV, POLICY_ROUND_ROBIN};
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Counter, Endpoint, Flow, FlowKey, MapType, MemberKey, OverlayAddress, Peer,
    Service, V6, affinity, flow, load, mapped,
};
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{Ports, hash, ipv4};
use weft_tests::expect::{CLIENT_PORT, SERVER_PORT, age_flows, tcp_to_vip, udp_to_vip};
use weft_tests::packet::{Datagram, Ip, Payload};
use weft_tests::policies::{affinities, age, loads, put_table, put_weights};
use weft_tests::programs::{ALICE, Action, BOB, CAROL, DAVE, GATEWAY, Lab, VIP, VNI, VTEP, at, flow_key, from_vtep};

const ADDRESS: (u32, Ip) = (VNI, VIP);

/// The virtual IP's entry, with Carol, Dave and Bob behind it.
fn policy(policy: u32, affinity_seconds: u32) -> Step {
    Step::Put(Entry::Service(
        at(VIP),
        Service {
            backend_count: 3,
            policy,
            affinity_seconds,
        },
    ))
}

fn slots(backends: &[Ip], kind: u32) -> Vec<Step> {
    let mut steps = weft_tests::programs::service(VIP, backends);
    steps.pop();
    steps.push(Step::Put(Entry::Service(
        at(VIP),
        Service {
            backend_count: backends.len() as u32,
            policy: kind,
            affinity_seconds: 0,
        },
    )));
    steps
}

/// The backend of Alice's datagram from a port.
fn backend(lab: &Lab, port: u16) -> Ip {
    let outcome = lab.from_alice(&udp_to_vip(VIP, port).bytes());
    assert_eq!(outcome.action, Action::Redirect, "{:?}", outcome.counted);
    lab.flows()[&flow_key(ipv4::UDP, (ALICE.1, port), (VIP, 53))].destination
}

fn segment(port: u16, flags: u8) -> Vec<u8> {
    let payload = Payload::Tcp(port, SERVER_PORT, flags, vec![]);
    Datagram::new(ALICE, (GATEWAY.0, VIP), payload).bytes()
}

/// The backend of Alice's TCP connection from a port, which these segments made.
fn tcp_backend(lab: &Lab, port: u16) -> Ip {
    lab.flows()[&flow_key(ipv4::TCP, (ALICE.1, port), (VIP, SERVER_PORT))].destination
}

fn load_of(lab: &Lab, ip: Ip) -> u32 {
    loads(&lab.dataplane).get(&(ADDRESS, ip)).copied().unwrap_or(0)
}

#[test]
fn maglev_sends_a_connection_where_the_table_says() {
    let mut lab = Lab::new();
    lab.apply(&[policy(POLICY_MAGLEV, 0)]);
    // More than two parts of 64 entries, and none is full at the end.
    let table: Vec<Ip> = (0..131)
        .map(|entry| [CAROL.1, DAVE.1, BOB.1][entry * entry % 3])
        .collect();
    put_table(&lab, at(VIP), 7, &table);
    for port in 1..=60_u16 {
        let ports = Ports {
            source: port.to_be_bytes(),
            destination: 53_u16.to_be_bytes(),
        };
        let entry = hash::flow(ALICE.1, VIP, ports, ipv4::UDP) as usize % table.len();
        assert_eq!(backend(&lab, port), table[entry], "port {port}, entry {entry}");
    }
}

#[test]
fn another_table_is_in_force_at_once_and_connections_stay() {
    let mut lab = Lab::new();
    lab.apply(&[policy(POLICY_MAGLEV, 0)]);
    put_table(&lab, at(VIP), 1, &[CAROL.1; 7]);
    assert_eq!(backend(&lab, 1), CAROL.1);
    put_table(&lab, at(VIP), 2, &[DAVE.1; 11]);
    assert_eq!((backend(&lab, 1), backend(&lab, 2)), (CAROL.1, DAVE.1));
}

#[test]
fn maglev_takes_turns_until_there_is_a_table() {
    let mut lab = Lab::new();
    lab.apply(&[policy(POLICY_MAGLEV, 0)]);
    let backends: Vec<Ip> = (1..=3).map(|port| backend(&lab, port)).collect();
    assert_eq!(backends, [CAROL.1, DAVE.1, BOB.1]);
}

#[test]
fn a_policy_changes_and_connections_stay() {
    let mut lab = Lab::new();
    put_table(&lab, at(VIP), 1, &[BOB.1; 7]);
    let mut known: BTreeMap<u16, Ip> = BTreeMap::new();
    let kinds = [POLICY_ROUND_ROBIN, POLICY_MAGLEV, POLICY_LEAST_CONNECTIONS];
    for (port, kind) in (1..=30).zip(kinds.into_iter().cycle()) {
        lab.apply(&[policy(kind, 0)]);
        known.insert(port, backend(&lab, port));
        for (port, ip) in &known {
            assert_eq!(backend(&lab, *port), *ip, "port {port} after a change to {kind}");
        }
    }
}

#[test]
fn open_connections_are_counted_until_they_are_over() {
    let mut lab = Lab::new();
    lab.apply(&slots(&[CAROL.1], POLICY_LEAST_CONNECTIONS));
    for port in 1..=5 {
        lab.from_alice(&segment(port, SYN));
    }
    assert_eq!(load_of(&lab, CAROL.1), 5);
    // A reset, from either side, ends one; a second changes nothing.
    for _ in 0..2 {
        lab.from_alice(&segment(1, RST));
        let from_carol = Payload::Tcp(SERVER_PORT, 2, RST | ACK, vec![]);
        lab.from_underlay(&from_vtep().around(&Datagram::new(CAROL, ALICE, from_carol).bytes()));
    }
    assert_eq!(load_of(&lab, CAROL.1), 3);
    // A FIN of one side is not the end, one of each is.
    let reply =
        |flags| from_vtep().around(&Datagram::new(CAROL, ALICE, Payload::Tcp(SERVER_PORT, 3, flags, vec![])).bytes());
    lab.from_underlay(&reply(SYN | ACK));
    lab.from_alice(&segment(3, FIN | ACK));
    assert_eq!(load_of(&lab, CAROL.1), 3);
    lab.from_underlay(&reply(FIN | ACK));
    assert_eq!(load_of(&lab, CAROL.1), 2);
    // A new one on the ports of the one that is over.
    lab.from_alice(&segment(3, SYN));
    assert_eq!(load_of(&lab, CAROL.1), 3);
    // Time-outs, of those that a packet finds and of those that the sweep finds.
    age_flows(&lab);
    lab.from_alice(&segment(3, SYN));
    assert_eq!(load_of(&lab, CAROL.1), 3);
    lab.dataplane.sweep_flows().unwrap();
    assert_eq!((load_of(&lab, CAROL.1), lab.flows().len()), (1, 2));
}

#[test]
fn connections_of_other_policies_are_not_counted() {
    let mut lab = Lab::new();
    backend(&lab, 1);
    assert_eq!(loads(&lab.dataplane), BTreeMap::new());
    lab.apply(&[policy(POLICY_LEAST_CONNECTIONS, 0)]);
    let counted = backend(&lab, 2);
    assert_eq!(loads(&lab.dataplane), BTreeMap::from([((ADDRESS, counted), 1)]));
    // Nor is one counted away that never was.
    age_flows(&lab);
    lab.dataplane.sweep_flows().unwrap();
    assert_eq!(loads(&lab.dataplane), BTreeMap::new());
}

#[test]
fn least_connections_spare_a_backend_that_has_many() {
    let mut lab = Lab::new();
    lab.apply(&slots(&[CAROL.1], POLICY_LEAST_CONNECTIONS));
    for port in 1..=30 {
        backend(&lab, port);
    }
    lab.apply(&slots(&[CAROL.1, DAVE.1], POLICY_LEAST_CONNECTIONS));
    for port in 31..=60 {
        assert_eq!(backend(&lab, port), DAVE.1, "port {port}");
    }
    // Level: from now on both.
    for port in 61..=100 {
        backend(&lab, port);
    }
    assert_eq!((load_of(&lab, CAROL.1), load_of(&lab, DAVE.1)), (50, 50));
}

#[test]
fn of_three_backends_none_is_far_from_the_others() {
    let mut lab = Lab::new();
    lab.apply(&[policy(POLICY_LEAST_CONNECTIONS, 0)]);
    for port in 1..=300 {
        backend(&lab, port);
    }
    for ip in [CAROL.1, DAVE.1, BOB.1] {
        let load = load_of(&lab, ip);
        assert!((95..=105).contains(&load), "{ip:?} has {load} of 300");
    }
}

#[test]
fn a_heavier_backend_takes_more() {
    let mut lab = Lab::new();
    // A slot for each unit of weight.
    lab.apply(&slots(&[CAROL.1, DAVE.1, CAROL.1, CAROL.1], POLICY_LEAST_CONNECTIONS));
    put_weights(&lab, ADDRESS, &BTreeMap::from([(CAROL.1, 3)]));
    for port in 1..=200 {
        backend(&lab, port);
    }
    let (carol, dave) = (load_of(&lab, CAROL.1), load_of(&lab, DAVE.1));
    assert!(
        (147..=153).contains(&carol) && carol + dave == 200,
        "{carol} and {dave}"
    );
}

#[test]
fn a_client_keeps_its_backend_for_a_time_after_its_last_connection() {
    let mut lab = Lab::new();
    lab.apply(&[policy(POLICY_ROUND_ROBIN, 60)]);
    let first = backend(&lab, 1);
    for port in 2..10 {
        assert_eq!(backend(&lab, port), first);
    }
    assert_eq!(
        affinities(&lab.dataplane),
        BTreeMap::from([((ADDRESS, ALICE.1), first)])
    );
    age(&lab, 59);
    assert_eq!(backend(&lab, 10), first);
    age(&lab, 59);
    assert_eq!(backend(&lab, 11), first, "the last connection counts");
    age(&lab, 62);
    let next = backend(&lab, 12);
    assert_ne!(next, first);
    assert_eq!(backend(&lab, 13), next);
    // Another client is its own affair.
    let bobs = Datagram::new(BOB, (GATEWAY.0, VIP), Payload::Udp(1, 53, vec![]));
    lab.from_bob(&bobs.bytes());
    assert_ne!(affinities(&lab.dataplane)[&(ADDRESS, BOB.1)], next);
    // Without affinity it is the next one's turn.
    lab.apply(&[policy(POLICY_ROUND_ROBIN, 0)]);
    assert_ne!(backend(&lab, 14), backend(&lab, 15));
}

#[test]
fn what_was_balanced_to_a_backend_that_is_gone_chooses_anew() {
    let mut lab = Lab::new();
    lab.apply(&[policy(POLICY_ROUND_ROBIN, 60)]);
    assert_eq!(backend(&lab, 1), CAROL.1);
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
    assert_eq!(tcp_backend(&lab, CLIENT_PORT), CAROL.1);
    let members = |carol: Option<bool>| {
        let mut members = BTreeMap::from([(DAVE.1, true), (BOB.1, true)]);
        members.extend(carol.map(|takes| (CAROL.1, takes)));
        BTreeMap::from([(at(VIP), members)])
    };
    // While it drains, connections stay, and the client is free to have another.
    lab.apply(&slots(&[DAVE.1, BOB.1], POLICY_ROUND_ROBIN));
    assert_eq!(
        lab.dataplane
            .keep_members(&members(Some(false)), &BTreeMap::new())
            .unwrap(),
        0
    );
    assert_eq!((backend(&lab, 1), tcp_backend(&lab, CLIENT_PORT)), (CAROL.1, CAROL.1));
    assert_eq!(affinities(&lab.dataplane), BTreeMap::new());
    assert_ne!(backend(&lab, 2), CAROL.1);
    // Once it is gone, the next packet of each goes to another; a TCP segment is reset by whom it comes to.
    assert_eq!(lab.dataplane.keep_members(&members(None), &BTreeMap::new()).unwrap(), 2);
    assert_ne!(backend(&lab, 1), CAROL.1);
    lab.from_alice(&tcp_to_vip(VIP, ACK).bytes());
    assert_ne!(tcp_backend(&lab, CLIENT_PORT), CAROL.1);
    assert!(lab.dataplane.keep_members(&BTreeMap::new(), &BTreeMap::new()).unwrap() > 0);
    assert!(lab.flows().is_empty());
}

const ALICE6: V6 = ip6(2);
const CAROL6: V6 = ip6(4);
const DAVE6: V6 = ip6(5);
const VIP6: V6 = ip6(100);

const fn ip6(last: u8) -> V6 {
    V6::new([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

/// Alice, and Carol and Dave behind a virtual IP, over IPv6.
fn lab6(kind: u32, affinity_seconds: u32) -> Lab {
    let mut lab = Lab::new();
    let peer = |mac| Peer {
        vtep: mapped(VTEP.1),
        mac,
        flags: 0,
    };
    let mut entries = vec![
        Entry::Attachment(
            lab.alice,
            Attachment {
                vni: VNI,
                ip: ALICE.1,
                gateway: GATEWAY.1,
                mac: ALICE.0,
                gateway_mac: GATEWAY.0,
                ip6: ALICE6,
                gateway6: ip6(1),
            },
        ),
        Entry::Endpoint6(
            OverlayAddress::new(VNI, ALICE6),
            Endpoint {
                ifindex: lab.alice,
                mac: ALICE.0,
                flags: 0,
            },
        ),
        Entry::Peer6(OverlayAddress::new(VNI, CAROL6), peer(CAROL.0)),
        Entry::Peer6(OverlayAddress::new(VNI, DAVE6), peer(DAVE.0)),
    ];
    for (slot, ip) in [(0, CAROL6), (1, DAVE6)] {
        let key = BackendKey {
            vip: VIP6,
            vni: VNI,
            slot,
        };
        entries.push(Entry::Backend6(key, Backend { ip }));
    }
    let service = Service {
        backend_count: 2,
        policy: kind,
        affinity_seconds,
    };
    entries.push(Entry::Service6(OverlayAddress::new(VNI, VIP6), service));
    let steps: Vec<Step> = entries.into_iter().map(Step::Put).collect();
    lab.apply(&steps);
    lab
}

/// A datagram of Alice's to the virtual IP without data.
fn udp6(port: u16) -> Vec<u8> {
    let mut frame = [
        &GATEWAY.0[..],
        &ALICE.0,
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, ipv4::UDP, 64],
    ]
    .concat();
    frame.extend(ALICE6.octets());
    frame.extend(VIP6.octets());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 8, 0x12, 0x34]);
    frame
}

fn backend6(lab: &Lab, port: u16) -> V6 {
    let outcome = lab.from_alice(&udp6(port));
    assert_eq!(outcome.action, Action::Redirect, "{:?}", outcome.counted);
    assert!(outcome.counted.contains_key(&Counter::Encapsulated));
    let dump = lab.dataplane.dump(flow::NAME6).unwrap();
    let flows = dump.entries.iter().map(|(key, value)| {
        let key = FlowKey::<V6>::from_bytes(key).unwrap();
        (key, Flow::<V6>::from_bytes(value).unwrap())
    });
    let mut of_port =
        flows.filter(|(key, flow)| flow.flags & flow::REPLY == 0 && key.source_port == port.to_be_bytes());
    of_port.next().unwrap().1.destination
}

fn dumped(lab: &Lab, name: &str) -> Vec<(MemberKey<V6>, Vec<u8>)> {
    let dump = lab.dataplane.dump(name).unwrap();
    let entry = |(key, value): &(Vec<u8>, Vec<u8>)| (MemberKey::from_bytes(key).unwrap(), value.clone());
    dump.entries.iter().map(entry).collect()
}

#[test]
fn maglev_balances_ipv6() {
    let lab = lab6(POLICY_MAGLEV, 0);
    let table: Vec<V6> = (0..131).map(|entry| [CAROL6, DAVE6][entry / 3 % 2]).collect();
    put_table(&lab, OverlayAddress::new(VNI, VIP6), 9, &table);
    for port in 1..=40_u16 {
        let ports = Ports {
            source: port.to_be_bytes(),
            destination: 53_u16.to_be_bytes(),
        };
        let entry = hash::flow6(ALICE6, VIP6, ports, ipv4::UDP) as usize % table.len();
        assert_eq!(backend6(&lab, port), table[entry], "port {port}");
    }
}

#[test]
fn least_connections_balance_ipv6() {
    let mut lab = lab6(POLICY_LEAST_CONNECTIONS, 0);
    for port in 1..=40 {
        backend6(&lab, port);
    }
    let loads = dumped(&lab, load::NAME6);
    assert_eq!(loads.len(), 2);
    for (key, load) in loads {
        assert_eq!((key.vip, key.vni), (VIP6, u64::from(VNI)));
        assert_eq!(load, 20_u32.to_ne_bytes(), "{:?}", key.ip);
    }
    // Those of Dave's are forgotten with him.
    let stay = BTreeMap::from([(OverlayAddress::new(VNI, VIP6), BTreeMap::from([(CAROL6, true)]))]);
    assert_eq!(lab.dataplane.keep_members(&BTreeMap::new(), &stay).unwrap(), 20);
    let loads = dumped(&lab, load::NAME6);
    assert_eq!(loads.len(), 1);
    assert_eq!(
        (loads[0].0.ip, loads[0].1.clone()),
        (CAROL6, 20_u32.to_ne_bytes().to_vec())
    );
}

#[test]
fn a_client_keeps_its_backend_over_ipv6() {
    let lab = lab6(POLICY_ROUND_ROBIN, 60);
    let first = backend6(&lab, 1);
    for port in 2..10 {
        assert_eq!(backend6(&lab, port), first);
    }
    let clients = dumped(&lab, affinity::NAME6);
    assert_eq!(clients.len(), 1);
    assert_eq!(clients[0].0.ip, ALICE6);
}
