//! IPv6 beside IPv4: subnets, gateways, and the partner of each address.

use super::*;

fn wish(subnet: Option<&str>, gateway: Option<&str>) -> Option<Ipv6Wish> {
    Some(Ipv6Wish {
        subnet: subnet.map(Into::into),
        gateway: gateway.map(|text| text.parse().unwrap()),
    })
}

fn create6(name: &str, subnet: Option<&str>, ipv6: Option<Ipv6Wish>) -> Request {
    match create_with(name, subnet, None, &[]) {
        Request::NetworkCreate {
            name,
            subnet,
            gateway,
            options,
            labels,
            ..
        } => Request::NetworkCreate {
            name,
            subnet,
            gateway,
            ipv6,
            options,
            labels,
        },
        other => other,
    }
}

fn range(network: &Network) -> (String, String) {
    let range = network.ipv6.unwrap();
    (range.subnet.to_string(), range.gateway.to_string())
}

#[test]
fn each_address_has_one_beside_it_as_far_from_the_start() {
    let mut manager = Manager::new();
    let network = manager.network(create6("app", Some("10.1.0.0/16"), wish(Some("fd00:1::/64"), None)));
    assert_eq!(range(&network), ("fd00:1::/64".to_owned(), "fd00:1::1".to_owned()));
    let beside = |text: &str| network.ipv6_of(text.parse().unwrap()).map(|ip| ip.to_string());
    assert_eq!(beside("10.1.0.2").as_deref(), Some("fd00:1::2"));
    assert_eq!(beside("10.1.2.3").as_deref(), Some("fd00:1::203"));
    assert_eq!(beside("10.1.255.254").as_deref(), Some("fd00:1::fffe"));
    assert_eq!(beside("10.2.0.1"), None);
    let with_mask = network.ipv6_net_of(Ipv4Addr::new(10, 1, 0, 2)).unwrap();
    assert_eq!(with_mask.to_string(), "fd00:1::2/64");
    let plain = manager.network(create("plain"));
    assert_eq!((plain.ipv6, plain.ipv6_of(plain.gateway)), (None, None));
}

#[test]
fn a_network_without_a_subnet_gets_a_free_one_of_the_cluster_s_own() {
    let mut manager = Manager::new();
    manager.ok(Request::MemberAdd {
        name: "manager".into(),
        address: address(9),
        role: Role::Manager,
    });
    let subnet = |manager: &mut Manager, name: &str| range(&manager.network(create6(name, None, wish(None, None)))).0;
    let first: ipnet::Ipv6Net = subnet(&mut manager, "a").parse().unwrap();
    assert_eq!((first.addr().segments()[0] >> 8, first.prefix_len()), (0xfd, 64));
    assert_eq!(first.addr().segments()[3..], [0; 5]);
    let second: ipnet::Ipv6Net = subnet(&mut manager, "b").parse().unwrap();
    assert_eq!(
        second.addr().segments()[..3],
        first.addr().segments()[..3],
        "of one site"
    );
    assert_eq!(second.addr().segments()[3], 1);
    manager.ok(Request::NetworkRemove { network: "a".into() });
    assert_eq!(subnet(&mut manager, "c"), first.to_string());
    let mut other = Manager::new();
    other.dice = 100;
    other.ok(Request::MemberAdd {
        name: "manager".into(),
        address: address(9),
        role: Role::Manager,
    });
    assert_ne!(subnet(&mut other, "a"), first.to_string(), "each cluster has its own");
}

#[test]
fn wrong_ipv6_is_refused_in_one_clear_line() {
    let mut manager = Manager::new();
    manager.ok(create6("app", None, wish(Some("fd00:1::/64"), None)));
    for (subnet, gateway, line) in [
        (
            "10.1.0.0/24",
            None,
            "Invalid: invalid subnet 10.1.0.0/24: it should be an IPv6 subnet, as fd00:1::/64",
        ),
        (
            "fd00:2::1/64",
            None,
            "Invalid: invalid subnet fd00:2::1/64: it should be fd00:2::/64",
        ),
        (
            "fd00:2::/121",
            None,
            "Invalid: invalid subnet fd00:2::/121: it should be a /16 to /120, so that each address of 10.9.0.0/24 has one beside it",
        ),
        (
            "fd00::/15",
            None,
            "Invalid: invalid subnet fd00::/15: it should be a /16 to /120, so that each address of 10.9.0.0/24 has one beside it",
        ),
        (
            "::/64",
            None,
            "Invalid: invalid subnet ::/64: it should be outside of ::/8, which is reserved",
        ),
        (
            "fe80::/64",
            None,
            "Invalid: invalid subnet fe80::/64: it should be outside of fe80::/10, which is every link's own",
        ),
        (
            "ff05::/64",
            None,
            "Invalid: invalid subnet ff05::/64: it should be outside of ff00::/8, which is multicast",
        ),
        ("fd00::/32", None, ""),
        (
            "fd00:1::/48",
            None,
            "Conflict: invalid pool request: Pool overlaps with other one on this address space: fd00:1::/48 overlaps fd00:1::/64 of network app",
        ),
        (
            "fd00:2::/64",
            Some("fd00:3::1"),
            "Invalid: invalid gateway fd00:3::1: it should be a host address of fd00:2::/64, but is outside",
        ),
        (
            "fd00:2::/64",
            Some("fd00:2::"),
            "Invalid: invalid gateway fd00:2::: it should be a host address of fd00:2::/64, but is its anycast address of all routers",
        ),
    ] {
        let request = create6("x", Some("10.9.0.0/24"), wish(Some(subnet), gateway));
        if line.is_empty() {
            manager.ok(request);
            manager.ok(Request::NetworkRemove { network: "x".into() });
        } else {
            assert_eq!(manager.refused(request), line);
        }
    }
    assert_eq!(
        manager.refused(create6("x", None, wish(None, Some("fd00::1")))),
        "Invalid: invalid gateway fd00::1: it should come with the subnet that holds it"
    );
}

#[test]
fn a_link_that_is_too_narrow_for_ipv6_is_refused() {
    let mut manager = Manager::new();
    let narrow = |name: &str, mtu: &str| match create6(name, None, wish(None, None)) {
        Request::NetworkCreate {
            name,
            subnet,
            gateway,
            ipv6,
            labels,
            ..
        } => Request::NetworkCreate {
            name,
            subnet,
            gateway,
            ipv6,
            options: [("com.docker.network.driver.mtu".to_owned(), mtu.to_owned())].into(),
            labels,
        },
        other => other,
    };
    assert_eq!(
        manager.refused(narrow("x", "1329")),
        "Invalid: invalid MTU value: \"1329\": com.docker.network.driver.mtu of a network with IPv6 should be 1330 or more bytes, of \
         which VXLAN takes 50"
    );
    assert_eq!(manager.network(narrow("x", "1330")).mtu, 1280);
}

#[test]
fn an_ipv6_underlay_takes_more_of_each_packet() {
    let mut manager = Manager::new();
    assert_eq!(manager.network(create("before")).mtu, 1450);
    manager.ok(Request::MemberAdd {
        name: "manager".into(),
        address: "fd00::1".parse().unwrap(),
        role: Role::Manager,
    });
    assert_eq!(manager.network(create("after")).mtu, 1430);
    let refused = manager.refused(create_with(
        "x",
        None,
        None,
        &[("com.docker.network.driver.mtu", "137")],
    ));
    assert!(
        refused.ends_with("138 to 65535 bytes, of which VXLAN takes 70"),
        "{refused}"
    );
}

#[test]
fn nobody_gets_the_ipv6_gateway_s_partner() {
    let mut manager = Manager::new();
    let network = manager.network(create6(
        "app",
        Some("10.1.0.0/29"),
        wish(Some("fd00:1::/64"), Some("fd00:1::3")),
    ));
    let mut given: BTreeSet<std::net::Ipv6Addr> = BTreeSet::new();
    for number in 0..4 {
        let held = manager.allocation(connect(number, "app", &format!("c{number}")));
        given.insert(network.ipv6_of(held.ip).unwrap());
    }
    assert!(!given.contains(&"fd00:1::3".parse().unwrap()), "{given:?}");
    let first: std::net::Ipv6Addr = "fd00:1::2".parse().unwrap();
    assert_eq!(
        (given.len(), given.first()),
        (4, Some(&first)),
        "choice goes on after the gateway"
    );
    let line = manager.refused(connect_with(9, "app", "c9", None, Some("10.1.0.3")));
    assert_eq!(
        line,
        "Conflict: Address already in use: 10.1.0.3 is the gateway of network app"
    );
    // Far from all partners, a gateway takes nothing.
    manager.ok(create6(
        "far",
        Some("10.2.0.0/29"),
        wish(Some("fd00:2::/64"), Some("fd00:2::ffff:0:1")),
    ));
    for number in 10..15 {
        manager.ok(connect(number, "far", &format!("c{number}")));
    }
}

#[test]
fn both_records_say_the_ipv6_addresses() {
    let mut manager = Manager::new();
    let network = manager.network(create6("app", Some("10.1.0.0/24"), wish(Some("fd00:1::/64"), None)));
    let service = manager.service(serve("web", &["app"], EndpointMode::Vip));
    let held = manager.allocation(connect_with(1, "app", "web.1", Some("web"), None));
    let peer = crate::record::PeerRecord::declared(&network, &held, address(1));
    assert_eq!(peer.endpoint_ip6, network.ipv6_net_of(held.ip));
    assert!(peer.endpoint_ip6.is_some());
    let record = crate::record::EndpointRecord::declared(&network, Some(&service), &held);
    let vip = service.networks[&network.id].unwrap();
    assert_eq!(record.endpoint_ip6, network.ipv6_of(held.ip));
    assert_eq!(record.virtual_ip6, network.ipv6_of(vip));
    assert_ne!(record.virtual_ip6, record.endpoint_ip6);
}
