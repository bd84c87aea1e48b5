//! Rows in, services and names out.

use super::*;
use std::net::IpAddr;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

fn record(name: &str, last: u8) -> EndpointRecord {
    EndpointRecord {
        name: name.to_owned(),
        service_name: String::new(),
        service_id: String::new(),
        virtual_ip: None,
        endpoint_ip: ip(last),
        ingress_ports: vec![],
        aliases: vec![],
        task_aliases: vec![format!("id{last}")],
        service_disabled: false,
        endpoint_ip6: None,
        virtual_ip6: None,
        policy: crate::service::Policy::RoundRobin,
        affinity_seconds: 0,
        weight: 1,
    }
}

fn task(name: &str, last: u8, service: &str, vip: Option<u8>) -> EndpointRecord {
    EndpointRecord {
        service_name: service.to_owned(),
        service_id: format!("{service}-id"),
        virtual_ip: vip.map(ip),
        aliases: vec![format!("{service}-alias")],
        ..record(name, last)
    }
}

fn disabled(record: EndpointRecord) -> EndpointRecord {
    EndpointRecord {
        service_disabled: true,
        ..record
    }
}

fn read(records: &[EndpointRecord]) -> NetworkServices {
    let rows = records.iter().enumerate().map(|(key, record)| EndpointRow {
        network: NetworkId::new("net").unwrap(),
        endpoint: format!("e{key}"),
        owner: NodeId::new("4a027258ed3e").unwrap(),
        record: record.clone(),
    });
    let mut networks = Services::new(rows.rev()).networks;
    networks.remove(&NetworkId::new("net").unwrap()).unwrap()
}

fn names(network: &NetworkServices) -> String {
    let last = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets()[3].to_string(),
        IpAddr::V6(ip) => ip.to_string(),
    };
    let line = |(name, ips): (&str, &BTreeSet<IpAddr>)| {
        format!("{name}={}", ips.iter().map(last).collect::<Vec<_>>().join(","))
    };
    network.names.iter().map(line).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_plain_container_has_its_name_and_aliases() {
    let network = read(&[record("C1", 2)]);
    assert_eq!(names(&network), "c1=2 id2=2");
    assert_eq!(network.names.name_of(ip(2).into()), Some("C1"));
    assert_eq!((network.services.len(), network.containers["e0"].ip), (0, ip(2)));
}

#[test]
fn a_vip_service_resolves_to_its_vip_and_tasks_to_all() {
    let network = read(&[task("web.1.a", 5, "web", Some(4)), task("web.2.b", 6, "web", Some(4))]);
    assert_eq!(
        names(&network),
        "id5=5 id6=6 tasks.web=5,6 tasks.web-alias=5,6 web=4 web-alias=4 web.1.a=5 web.2.b=6"
    );
    assert_eq!(network.services["web-id"].backends(), [ip(5), ip(6)].into());
    assert_eq!(network.names.name_of(ip(4).into()), None, "a VIP has no reverse name");
}

#[test]
fn a_dnsrr_service_resolves_to_all_its_tasks() {
    let network = read(&[task("web.1.a", 5, "web", None), task("web.2.b", 6, "web", None)]);
    assert_eq!(
        network.names.addresses("WEB"),
        Some(&BTreeSet::from([ip(5).into(), ip(6).into()]))
    );
    assert_eq!(
        network.names.addresses("web-alias"),
        Some(&BTreeSet::from([ip(5).into(), ip(6).into()]))
    );
    assert_eq!(network.services["web-id"].vip, None);
}

#[test]
fn a_draining_task_loses_its_names_and_backend_but_not_the_service() {
    let network = read(&[
        task("web.1.a", 5, "web", Some(4)),
        disabled(task("web.2.b", 6, "web", Some(4))),
    ]);
    assert_eq!(
        names(&network),
        "id5=5 tasks.web=5 tasks.web-alias=5 web=4 web-alias=4 web.1.a=5"
    );
    let service = &network.services["web-id"];
    assert_eq!((service.backends(), service.tasks.len()), ([ip(5)].into(), 2));
    let network = read(&[disabled(task("web.1.a", 5, "web", Some(4)))]);
    assert_eq!(names(&network), "web=4 web-alias=4");
    assert!(network.services["web-id"].backends().is_empty());
    let network = read(&[disabled(task("web.1.a", 5, "web", None))]);
    assert_eq!(names(&network), "");
}

#[test]
fn while_records_disagree_the_first_enabled_task_names_the_vip() {
    let records = [
        disabled(task("web.1", 5, "web", Some(4))),
        task("web.2", 6, "web", Some(9)),
        task("web.3", 7, "web", Some(8)),
    ];
    assert_eq!(read(&records).services["web-id"].vip, Some(ip(9)));
}

#[test]
fn an_ingress_network_has_services_but_no_names() {
    let mut published = task("web.1.a", 5, "web", Some(4));
    published.ingress_ports = vec![crate::record::PortConfig {
        name: String::new(),
        protocol: crate::record::Protocol::Tcp,
        target_port: 80,
        published_port: 8080,
    }];
    let network = read(&[published]);
    assert_eq!(names(&network), "");
    assert_eq!(network.services["web-id"].vip, Some(ip(4)));
}

#[test]
fn names_that_meet_are_joined_and_empty_ones_are_none() {
    let mut nameless = task("x", 7, "", Some(9));
    nameless.service_id = "id".to_owned();
    nameless.aliases.clear();
    let network = read(&[record("web", 2), task("web.1.a", 5, "web", Some(4)), nameless]);
    assert_eq!(
        network.names.addresses("web"),
        Some(&BTreeSet::from([ip(2).into(), ip(4).into()]))
    );
    assert_eq!(network.names.addresses(""), None);
    assert_eq!(network.names.addresses("tasks."), None);
}

#[test]
fn networks_do_not_mix_and_doubled_keys_count_once() {
    let row = |network: &str, owner: &str, record: EndpointRecord| EndpointRow {
        network: NetworkId::new(network).unwrap(),
        endpoint: "e".to_owned(),
        owner: NodeId::new(owner).unwrap(),
        record,
    };
    let services = Services::new([
        row("b", "n1", record("c1", 2)),
        row("a", "n2", record("c2", 3)),
        row("a", "n1", record("c3", 4)),
    ]);
    let of = |network: &str| names(&services.networks[&NetworkId::new(network).unwrap()]);
    assert_eq!((of("a").as_str(), of("b").as_str()), ("c3=4 id4=4", "c1=2 id2=2"));
}

fn beside(record: EndpointRecord, last: u8, vip: Option<u8>) -> EndpointRecord {
    let ip6 = |last: u8| format!("fd00::{last}").parse().unwrap();
    EndpointRecord {
        endpoint_ip6: Some(ip6(last)),
        virtual_ip6: vip.map(ip6),
        ..record
    }
}

#[test]
fn names_and_backends_are_of_both_families() {
    let network = read(&[
        beside(task("web.1", 3, "web", Some(2)), 3, Some(2)),
        task("web.2", 4, "web", Some(2)),
        disabled(beside(task("web.3", 5, "web", Some(2)), 5, Some(2))),
        beside(record("db", 9), 9, None),
    ]);
    let web = &network.services["web-id"];
    assert_eq!(web.vip6, Some("fd00::2".parse().unwrap()));
    assert_eq!(web.backends6(), BTreeSet::from(["fd00::3".parse().unwrap()]));
    assert_eq!(
        names(&network),
        "db=9,fd00::9 id3=3,fd00::3 id4=4 id9=9,fd00::9 tasks.web=3,4,fd00::3 tasks.web-alias=3,4,fd00::3 web=2,fd00::2 web-alias=2,fd00::2 web.1=3,fd00::3 web.2=4"
    );
    assert_eq!(network.names.name_of("fd00::9".parse().unwrap()), Some("db"));
    assert_eq!(network.names.name_of("fd00::2".parse().unwrap()), None, "a VIP");
}
