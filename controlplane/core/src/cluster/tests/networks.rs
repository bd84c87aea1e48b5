//! Declaring and finding networks.

use super::*;

#[test]
fn networks_get_the_lowest_subnet_the_next_vni_and_dockers_defaults() {
    let mut manager = Manager::new();
    let first = manager.network(create("ingress"));
    let second = manager.network(create("app"));
    assert_eq!(
        (first.subnet.to_string().as_str(), first.vni.get()),
        ("10.0.0.0/24", 4096)
    );
    assert_eq!(
        (second.subnet.to_string().as_str(), second.vni.get()),
        ("10.0.1.0/24", 4097)
    );
    assert_eq!((second.gateway, second.mtu), (Ipv4Addr::new(10, 0, 1, 1), 1450));
    assert_eq!(second.options, [(VNI_OPTION.to_string(), "4097".to_string())].into());
    assert_eq!(second.id.as_str().len(), 25);
    manager.ok(remove_network("ingress"));
    let third = manager.network(create("again"));
    assert_eq!(
        (third.subnet, third.vni.get()),
        (first.subnet, 4098),
        "subnets are reused at once, VNIs late"
    );
}

#[test]
fn explicit_choices_are_kept() {
    let mut manager = Manager::new();
    let options = [(MTU_OPTION, "9000"), (VNI_OPTION, "77")];
    let network = manager.network(create_with(
        "app",
        Some("172.30.0.0/16"),
        Some("172.30.255.254"),
        &options,
    ));
    assert_eq!(
        (network.mtu, network.vni.get(), network.gateway),
        (8950, 77, Ipv4Addr::new(172, 30, 255, 254))
    );
    let sized = manager.network(create_with("sized", Some("0.0.0.0/20"), None, &[]));
    assert_eq!(sized.subnet.to_string(), "10.0.0.0/20");
    assert_eq!(manager.network(create("next")).subnet.to_string(), "10.0.16.0/24");
}

#[test]
fn wrong_networks_are_refused_in_one_clear_line() {
    let mut manager = Manager::new();
    manager.ok(create("app"));
    let overlay = |options: &[(&str, &str)]| create_with("x", None, None, options);
    let subnet = |subnet, gateway| create_with("x", Some(subnet), gateway, &[]);
    for (request, line) in [
        (create("APP"), "Conflict: network with name APP already exists"),
        (
            create("a b"),
            "Invalid: invalid network name \"a b\": it should be [a-zA-Z0-9][a-zA-Z0-9_.-]*, at most 63 characters, with 1 to 63 between dots",
        ),
        (
            subnet("10.0.0.5/24", None),
            "Invalid: invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24",
        ),
        (
            subnet("ten", None),
            "Invalid: invalid subnet ten: it should be an IPv4 subnet, as 10.1.0.0/24",
        ),
        (
            subnet("fd00::/64", None),
            "Invalid: invalid subnet fd00::/64: it should be an IPv4 subnet, as 10.1.0.0/24",
        ),
        (
            subnet("10.9.0.0/30", None),
            "Invalid: invalid subnet 10.9.0.0/30: it should be a /8 to /29",
        ),
        (
            subnet("127.1.0.0/16", None),
            "Invalid: invalid subnet 127.1.0.0/16: it should be outside of 127.0.0.0/8, which is loopback",
        ),
        (
            subnet("239.0.0.0/16", None),
            "Invalid: invalid subnet 239.0.0.0/16: it should be below 224.0.0.0, where multicast and reserved addresses begin",
        ),
        (
            subnet("10.0.0.0/16", None),
            "Conflict: invalid pool request: Pool overlaps with other one on this address space: 10.0.0.0/16 overlaps 10.0.0.0/24 of network app",
        ),
        (
            subnet("10.0.0.128/25", None),
            "Conflict: invalid pool request: Pool overlaps with other one on this address space: 10.0.0.128/25 overlaps 10.0.0.0/24 of network app",
        ),
        (
            subnet("10.2.0.0/24", Some("10.3.0.1")),
            "Invalid: invalid gateway 10.3.0.1: it should be a host address of 10.2.0.0/24, but is outside",
        ),
        (
            subnet("10.2.0.0/24", Some("10.2.0.255")),
            "Invalid: invalid gateway 10.2.0.255: it should be a host address of 10.2.0.0/24, but is its broadcast address",
        ),
        (
            create_with("x", None, Some("10.3.0.1"), &[]),
            "Invalid: invalid gateway 10.3.0.1: it should come with the subnet that holds it",
        ),
        (
            overlay(&[(MTU_OPTION, "117")]),
            "Invalid: invalid MTU value: \"117\": com.docker.network.driver.mtu should be the underlay's MTU, 118 to 65535 bytes, of which VXLAN takes 50",
        ),
        (
            overlay(&[(VNI_OPTION, "4096")]),
            "Conflict: could not assign vxlan id 4096 to pool 10.0.1.0/24: it is the VNI of network app",
        ),
        (
            overlay(&[(VNI_OPTION, "1,2")]),
            "Invalid: invalid vxlan id value \"1,2\" passed: com.docker.network.driver.overlay.vxlanid_list should be one number from 1 to 16777215",
        ),
        (
            overlay(&[("encrypted", "")]),
            "Invalid: driver option \"encrypted\" is not supported yet, and the network would be plain text: create it without",
        ),
        (
            overlay(&[("dsr", "")]),
            "Invalid: unknown driver option \"dsr\": it should be com.docker.network.driver.mtu, com.docker.network.driver.clamp_mss or com.docker.network.driver.overlay.vxlanid_list",
        ),
    ] {
        assert_eq!(manager.refused(request), line);
    }
    assert_eq!(manager.state.networks().len(), 1);
}

#[test]
fn pools_run_out_by_name() {
    let mut manager = Manager::new();
    manager.state = State::new(vec!["10.0.0.0/28".parse().unwrap()], 29).unwrap();
    manager.ok(create("a"));
    manager.ok(create("b"));
    assert_eq!(
        manager.refused(create("c")),
        "Conflict: all predefined address pools have been fully subnetted: no /29 is left of 10.0.0.0/28; remove a network or \
         name a subnet outside of them"
    );
}

#[test]
fn a_network_is_found_by_id_name_and_unique_prefix() {
    let mut manager = Manager::new();
    let app = manager.network(create("app"));
    let inspect = |text: &str| Request::NetworkInspect { network: text.into() };
    for text in [
        app.id.as_str(),
        "app",
        "App",
        &app.id.as_str()[..3],
        &app.id.as_str()[..24],
    ] {
        assert_eq!(manager.network(inspect(text)), app, "{text}");
    }
    assert_eq!(manager.refused(inspect("nope")), "NotFound: network nope not found");
    assert!(manager.refused(inspect("")).starts_with("Invalid: "));
    let other = manager.network(create("other"));
    let both: String = app
        .id
        .as_str()
        .chars()
        .zip(other.id.as_str().chars())
        .take_while(|(a, b)| a == b)
        .map(|p| p.0)
        .collect();
    assert!(
        !both.is_empty(),
        "the dice give ids that begin alike: {} {}",
        app.id,
        other.id
    );
    assert_eq!(
        manager.refused(inspect(&both)),
        format!(
            "Invalid: network {both} is ambiguous (2 matches found based on ID prefix): {}, {}",
            app.id, other.id
        )
    );
}

#[test]
fn ids_depend_on_entropy_only_and_never_repeat() {
    let manager = Manager::new();
    let id = |state: &State, dice| match state.decide(1, [dice; 32], &create("x")).unwrap().0 {
        Reply::Network(network) => network.id,
        other => panic!("{other:?}"),
    };
    assert_eq!(id(&manager.state, 9), id(&manager.state, 9));
    assert_eq!(id(&manager.state, 0).as_str(), "0".repeat(25));
    assert_eq!(
        id(&manager.state, 255).as_str(),
        "f5lxx1zz5pnorynqglhzmsp33",
        "2^128 - 1"
    );
    let mut state = manager.state.clone();
    let (_, changes) = state.decide(1, [0; 32], &create("y")).unwrap();
    state.apply(&changes);
    assert_eq!(id(&state, 0).as_str(), format!("{}1", "0".repeat(24)));
}
