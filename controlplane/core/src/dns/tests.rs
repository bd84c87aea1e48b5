//! The table of `spec/service-discovery-lb.md` 5.8, row by row.

use super::*;
use crate::id::NodeId;
use crate::record::EndpointRecord;
use crate::service::{EndpointRow, Services};
use std::net::Ipv4Addr;

fn ip(net: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, net, last)
}

fn id(network: &str) -> NetworkId {
    NetworkId::new(format!("{network}-id")).unwrap()
}

fn row(network: &str, name: &str, ip: Ipv4Addr, service: &str, vip: Option<Ipv4Addr>) -> EndpointRow {
    EndpointRow {
        network: id(network),
        endpoint: name.to_owned(),
        owner: NodeId::new("4a027258ed3e").unwrap(),
        record: EndpointRecord {
            name: name.to_owned(),
            service_name: service.to_owned(),
            service_id: service.to_owned(),
            virtual_ip: vip,
            endpoint_ip: ip,
            ingress_ports: vec![],
            aliases: vec![],
            task_aliases: vec![],
            service_disabled: false,
            endpoint_ip6: None,
            virtual_ip6: None,
            policy: crate::service::Policy::RoundRobin,
            affinity_seconds: 0,
            weight: 1,
        },
    }
}

/// Networks `front` and `back.end`; `web` by VIP and `rr` by dnsrr on the first, `db` on both.
fn zones() -> Zones {
    let services = Services::new([
        row("front", "web.1.x", ip(0, 3), "web", Some(ip(0, 2))),
        row("front", "rr.1", ip(0, 11), "rr", None),
        row("front", "rr.2", ip(0, 12), "rr", None),
        row("front", "rr.3", ip(0, 13), "rr", None),
        row("front", "db", ip(0, 20), "", None),
        row("back.end", "db", ip(1, 20), "", None),
        row("back.end", "only.back", ip(1, 21), "", None),
    ]);
    let mut zones = Zones::new();
    for (network, content) in services.networks {
        let name = network.as_str().trim_end_matches("-id").to_owned();
        zones.set(network, name, content.names);
    }
    zones
}

fn ask(question: Question, networks: &[&str]) -> Decision {
    zones().answer(&question, &networks.iter().map(|n| id(n)).collect::<Vec<_>>(), 7)
}

fn a(name: &str) -> Question {
    Question::A(name.to_owned())
}

#[test]
fn known_names_are_answered_and_unknown_ones_forwarded() {
    let networks = ["front", "back.end"];
    let address = |ip: Ipv4Addr| Decision::Addresses(vec![ip.into()]);
    for (question, decision) in [
        (a("web"), address(ip(0, 2))),
        (a("WEB.1.X"), address(ip(0, 3))),
        (a("tasks.web"), address(ip(0, 3))),
        (a("nope"), Decision::Forward),
        (a(""), Decision::Forward),
        (a("example.com"), Decision::Forward),
        (a("..."), Decision::Forward),
        (Question::Aaaa("Web".into()), Decision::NoData),
        (Question::Aaaa("nope".into()), Decision::Forward),
        (Question::Mx("web".into()), Decision::NoData),
        (Question::Mx("nope".into()), Decision::Forward),
        (Question::Ptr(ip(0, 3).into()), Decision::Name("web.1.x.front".into())),
        (Question::Ptr(ip(1, 20).into()), Decision::Name("db.back.end".into())),
        (Question::Ptr(ip(0, 2).into()), Decision::Forward),
        (Question::Other("web".into()), Decision::Forward),
    ] {
        assert_eq!(ask(question.clone(), &networks), decision, "{question:?}");
    }
}

#[test]
fn names_are_searched_in_the_order_of_the_askers_networks() {
    assert_eq!(
        ask(a("db"), &["front", "back.end"]),
        Decision::Addresses(vec![ip(0, 20).into()])
    );
    assert_eq!(
        ask(a("db"), &["back.end", "front"]),
        Decision::Addresses(vec![ip(1, 20).into()])
    );
    assert_eq!(ask(a("web"), &["back.end"]), Decision::Forward);
    assert_eq!(ask(a("web"), &[]), Decision::Forward);
    assert_eq!(ask(a("web"), &["unknown"]), Decision::Forward);
}

#[test]
fn a_name_may_be_qualified_by_its_network() {
    let networks = ["front", "back.end"];
    for (name, address) in [
        ("db.front", ip(0, 20)),
        ("db.back.end", ip(1, 20)),
        ("DB.Back.End", ip(1, 20)),
        ("only.back.back.end", ip(1, 21)),
        ("only.back", ip(1, 21)),
        ("tasks.web.front", ip(0, 3)),
    ] {
        assert_eq!(
            ask(a(name), &networks),
            Decision::Addresses(vec![address.into()]),
            "{name}"
        );
    }
    assert_eq!(ask(a("db.back.end"), &["front"]), Decision::Forward, "not attached");
    assert_eq!(ask(a("db.end"), &networks), Decision::Forward);
}

#[test]
fn several_addresses_come_in_an_order_that_depends_on_the_seed() {
    let zones = zones();
    let mut orders = BTreeSet::new();
    let mut first = BTreeMap::new();
    for seed in 0..600 {
        let Decision::Addresses(addresses) = zones.answer(&a("rr"), &[id("front")], seed) else {
            panic!()
        };
        assert_eq!(
            addresses.iter().copied().collect::<BTreeSet<_>>(),
            [11, 12, 13].map(|last| ip(0, last).into()).into()
        );
        *first.entry(addresses[0]).or_insert(0) += 1;
        orders.insert(addresses);
    }
    assert_eq!(orders.len(), 6, "all orders occur");
    assert!(
        first.values().all(|times| (150..250).contains(times)),
        "each is first about as often: {first:?}"
    );
    assert_eq!(
        ask(a("tasks.rr"), &["front"]),
        ask(a("rr"), &["front"]),
        "the same seed gives the same order"
    );
}

#[test]
fn a_forgotten_network_has_no_names() {
    let mut zones = zones();
    zones.remove(&id("front"));
    assert_eq!(zones.answer(&a("web"), &[id("front")], 0), Decision::Forward);
}

#[test]
fn the_shortest_network_name_is_tried_first() {
    let services = Services::new([row("c", "a.b", ip(0, 2), "", None), row("b.c", "a", ip(1, 2), "", None)]);
    let mut zones = Zones::new();
    for (network, content) in services.networks {
        let name = network.as_str().trim_end_matches("-id").to_owned();
        zones.set(network, name, content.names);
    }
    let networks = [id("b.c"), id("c")];
    assert_eq!(
        zones.answer(&a("a.b.c"), &networks, 0),
        Decision::Addresses(vec![ip(0, 2).into()])
    );
    assert_eq!(
        zones.answer(&a("a.b.c"), &networks[..1], 0),
        Decision::Addresses(vec![ip(1, 2).into()])
    );
}

#[test]
fn ipv6_is_answered_where_there_is_some() {
    let mut web = row("front", "web.1.x", ip(0, 3), "web", Some(ip(0, 2)));
    web.record.endpoint_ip6 = Some("fd00::3".parse().unwrap());
    web.record.virtual_ip6 = Some("fd00::2".parse().unwrap());
    let services = Services::new([web, row("front", "db", ip(0, 20), "", None)]);
    let mut zones = Zones::new();
    for (network, content) in services.networks {
        zones.set(network, "front".to_owned(), content.names);
    }
    let ask = |question: Question| zones.answer(&question, &[id("front")], 0);
    let one = |text: &str| Decision::Addresses(vec![text.parse().unwrap()]);
    for (question, answer) in [
        (Question::A("web".into()), one("10.0.0.2")),
        (Question::Aaaa("web".into()), one("fd00::2")),
        (Question::Aaaa("tasks.web.front".into()), one("fd00::3")),
        (Question::Aaaa("db".into()), Decision::NoData),
        (Question::Aaaa("nope".into()), Decision::Forward),
        (
            Question::Ptr("fd00::3".parse().unwrap()),
            Decision::Name("web.1.x.front".into()),
        ),
        (Question::Ptr("fd00::2".parse().unwrap()), Decision::Forward),
    ] {
        assert_eq!(ask(question.clone()), answer, "{question:?}");
    }
}
