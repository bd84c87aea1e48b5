//! Taking addresses, and what is refused.

use super::*;

#[test]
fn services_and_endpoints_share_a_subnet_serially() {
    let mut manager = Manager::new();
    let app = manager.network(create("app"));
    let web = manager.service(serve("web", &["app", app.id.as_str()], EndpointMode::Vip));
    assert_eq!(
        web.networks,
        [(app.id.clone(), Some(Ipv4Addr::new(10, 0, 0, 2)))].into()
    );
    let dns = manager.service(serve("dns", &["app"], EndpointMode::Dnsrr));
    assert_eq!(dns.networks, [(app.id.clone(), None)].into());
    assert!(dns.version > web.version);
    let task = manager.allocation(connect_with(1, "app", "web.1", Some("web"), None));
    assert_eq!(
        (task.ip, task.mac.to_string().as_str()),
        (Ipv4Addr::new(10, 0, 0, 3), "02:42:0a:00:00:03")
    );
    assert_eq!(task.service, Some(web.id.clone()));
    assert_eq!(manager.state.usage(&app.id), Some(Usage { used: 3, capacity: 254 }));
    manager.ok(Request::Release { endpoint: endpoint(1) });
    assert_eq!(
        manager.ok(Request::Release { endpoint: endpoint(1) }),
        Reply::Done,
        "again is no error"
    );
    assert_eq!(
        manager.allocation(connect(2, "app", "c2")).ip,
        Ipv4Addr::new(10, 0, 0, 4),
        "released ones are reused late"
    );
}

#[test]
fn allocate_is_idempotent_per_endpoint() {
    let mut manager = Manager::new();
    manager.ok(create("app"));
    manager.ok(create("other"));
    let first = manager.ask(connect(1, "app", "c1")).unwrap();
    let again = manager.ask(connect(1, "app", "c1")).unwrap();
    assert_eq!((first.0, vec![]), again);
    for request in [
        connect(1, "other", "c1"),
        connect(1, "app", "c2"),
        connect_with(1, "app", "c1", None, Some("10.0.0.9")),
    ] {
        assert_eq!(
            manager.refused(request),
            format!(
                "Conflict: endpoint {} is already connected: as c1 with 10.0.0.2 to network app on node n1; release it first",
                endpoint(1)
            )
        );
    }
}

#[test]
fn wrong_endpoints_are_refused_in_one_clear_line() {
    let mut manager = Manager::new();
    manager.ok(create("app"));
    manager.ok(create("other"));
    manager.ok(serve("web", &["app"], EndpointMode::Vip));
    manager.ok(connect_with(1, "app", "c1", None, Some("10.0.0.9")));
    let at = |ip| connect_with(2, "app", "c2", None, Some(ip));
    let foreign = match connect(2, "app", "c2") {
        Request::Allocate {
            endpoint,
            network,
            name,
            service,
            aliases,
            ip,
            weight,
            ..
        } => Request::Allocate {
            endpoint,
            network,
            node: "n9".into(),
            name,
            service,
            aliases,
            ip,
            weight,
        },
        other => other,
    };
    for (request, line) in [
        (connect(2, "nope", "c2"), "NotFound: network nope not found"),
        (
            connect(2, "app", "C1"),
            "Conflict: endpoint with name C1 already exists in network app",
        ),
        (
            connect(2, "app", "a..b"),
            "Invalid: invalid endpoint name \"a..b\": it should be [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 189 characters, with 1 to 63 between dots",
        ),
        (
            connect_with(2, "app", "c2", Some("nope"), None),
            "NotFound: service nope not found",
        ),
        (
            connect_with(2, "other", "c2", Some("web"), None),
            "Invalid: service web is not on network other: it should be one of its networks (app)",
        ),
        (
            at("10.0.1.9"),
            "Invalid: requested address is out of range: 10.0.1.9 should be in subnet 10.0.0.0/24 of network app",
        ),
        (
            at("10.0.0.0"),
            "Conflict: Address already in use: 10.0.0.0 is the network address of network app",
        ),
        (
            at("10.0.0.255"),
            "Conflict: Address already in use: 10.0.0.255 is the broadcast address of network app",
        ),
        (
            at("10.0.0.1"),
            "Conflict: Address already in use: 10.0.0.1 is the gateway of network app",
        ),
        (
            at("10.0.0.2"),
            "Conflict: Address already in use: 10.0.0.2 is the VIP of service web on network app",
        ),
        (
            at("10.0.0.9"),
            "Conflict: Address already in use: 10.0.0.9 is the address of endpoint c1 on network app",
        ),
        (
            foreign,
            "NotFound: node n9 not found: it should be a member of the cluster",
        ),
    ] {
        assert_eq!(manager.refused(request), line);
    }
}

#[test]
fn a_full_subnet_says_so() {
    let mut manager = Manager::new();
    manager.ok(create_with("tiny", Some("10.5.0.0/29"), None, &[]));
    for number in 0..5 {
        manager.ok(connect(number, "tiny", &format!("c{number}")));
    }
    let full =
        "6 of 6 addresses of subnet 10.5.0.0/29 of network tiny are in use; release some or create a larger network";
    assert_eq!(
        manager.refused(connect(9, "tiny", "c9")),
        format!("Conflict: could not find an available IP: {full}")
    );
    assert_eq!(
        manager.refused(serve("web", &["tiny"], EndpointMode::Vip)),
        format!("Conflict: could not find an available IP while allocating VIP: {full}")
    );
    manager.ok(Request::Release { endpoint: endpoint(3) });
    assert_eq!(
        manager.allocation(connect(9, "tiny", "c9")).ip,
        Ipv4Addr::new(10, 5, 0, 5)
    );
}

#[test]
fn ten_thousand_endpoints_of_one_network_differ() {
    let mut manager = Manager::new();
    manager.ok(create_with("big", Some("10.64.0.0/16"), None, &[]));
    let mut seen = BTreeSet::new();
    for number in 0..10_000 {
        let request = connect(number, "big", &format!("c{number}"));
        let (reply, changes) = manager.state.decide(number.into(), [0; 32], &request).unwrap();
        manager.state.apply(&changes);
        let Reply::Allocated { allocation, .. } = reply else {
            panic!()
        };
        assert!(seen.insert(allocation.ip));
    }
}

#[test]
fn what_is_declared_becomes_the_records_of_its_node() {
    use crate::record::{EndpointRecord, PeerRecord};
    let mut manager = Manager::new();
    manager.ok(create("app"));
    let web = manager.service(serve("web", &["app"], EndpointMode::Vip));
    let Reply::Allocated {
        network,
        service,
        allocation,
    } = manager.ok(connect_with(1, "app", "web.1", Some("web"), None))
    else {
        panic!()
    };
    let peer = PeerRecord::declared(&network, &allocation, address(1));
    assert_eq!(
        (peer.endpoint_ip.to_string().as_str(), peer.endpoint_mac),
        ("10.0.0.3/24", allocation.mac)
    );
    assert_eq!(peer.tunnel_endpoint_ip, address(1));
    let record = EndpointRecord::declared(&network, service.as_ref(), &allocation);
    assert_eq!(
        (record.service_id.as_str(), record.virtual_ip),
        (web.id.as_str(), Some(Ipv4Addr::new(10, 0, 0, 2)))
    );
    assert!(!EndpointRecord::declared(&network, None, &allocation).is_task());
}
