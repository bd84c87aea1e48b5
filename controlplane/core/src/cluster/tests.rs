//! Given these rows and this request: exactly this reply, these changes, or this line.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A manager in small: decides, applies, and moves its clock and dice on.
struct Manager {
    state: State,
    now: UnixNanos,
    dice: u8,
}

impl Manager {
    fn new() -> Self {
        let state = State::new(vec!["10.0.0.0/8".parse().unwrap()], 24).unwrap();
        let mut manager = Manager {
            state,
            now: 1_000,
            dice: 0,
        };
        for (name, last) in [("n1", 1), ("n2", 2)] {
            manager.ok(Request::MemberAdd {
                name: name.into(),
                address: address(last),
                role: Role::Worker,
            });
        }
        manager
    }

    fn ask(&mut self, request: Request) -> Result<(Reply, Vec<Change>), Refusal> {
        self.now += 1;
        self.dice += 1;
        let before = self.state.clone();
        let decided = self.state.decide(self.now, [self.dice; 32], &request);
        assert_eq!(self.state, before, "deciding changes nothing");
        if let Ok((_, changes)) = &decided {
            self.state.apply(changes);
        }
        decided
    }

    fn ok(&mut self, request: Request) -> Reply {
        self.ask(request.clone())
            .unwrap_or_else(|refusal| panic!("{request:?} was refused: {refusal}"))
            .0
    }

    fn refused(&mut self, request: Request) -> String {
        let refusal = self
            .ask(request.clone())
            .expect_err(&format!("{request:?} was granted"));
        assert!(
            !refusal.message.contains('\n') && !refusal.message.contains("  "),
            "one line: {refusal}"
        );
        format!("{:?}: {refusal}", refusal.kind)
    }

    fn network(&mut self, request: Request) -> Network {
        match self.ok(request) {
            Reply::Network(network) => network,
            other => panic!("{other:?}"),
        }
    }

    fn service(&mut self, request: Request) -> Service {
        match self.ok(request) {
            Reply::Service(service) => service,
            other => panic!("{other:?}"),
        }
    }

    fn allocation(&mut self, request: Request) -> Allocation {
        match self.ok(request) {
            Reply::Allocated { allocation, .. } => allocation,
            other => panic!("{other:?}"),
        }
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, last))
}

fn create(name: &str) -> Request {
    create_with(name, None, None, &[])
}

fn create_with(name: &str, subnet: Option<&str>, gateway: Option<&str>, options: &[(&str, &str)]) -> Request {
    Request::NetworkCreate {
        name: name.into(),
        subnet: subnet.map(Into::into),
        gateway: gateway.map(|g| g.parse().unwrap()),
        options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        labels: BTreeMap::new(),
    }
}

fn serve(name: &str, networks: &[&str], mode: EndpointMode) -> Request {
    Request::ServiceCreate {
        name: name.into(),
        networks: networks.iter().map(|n| n.to_string()).collect(),
        mode,
    }
}

fn endpoint(number: u32) -> EndpointId {
    EndpointId::new(format!("{number:064x}")).unwrap()
}

fn connect(number: u32, network: &str, name: &str) -> Request {
    connect_with(number, network, name, None, None)
}

fn connect_with(number: u32, network: &str, name: &str, service: Option<&str>, ip: Option<&str>) -> Request {
    Request::Allocate {
        endpoint: endpoint(number),
        network: network.into(),
        node: "n1".into(),
        name: name.into(),
        service: service.map(Into::into),
        aliases: vec![],
        ip: ip.map(|ip| ip.parse().unwrap()),
    }
}

fn remove_network(network: &str) -> Request {
    Request::NetworkRemove {
        network: network.into(),
    }
}

fn remove_service(service: &str) -> Request {
    Request::ServiceRemove {
        service: service.into(),
    }
}

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
            "Invalid: unknown driver option \"dsr\": it should be com.docker.network.driver.mtu or com.docker.network.driver.overlay.vxlanid_list",
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
            ..
        } => Request::Allocate {
            endpoint,
            network,
            node: "n9".into(),
            name,
            service,
            aliases,
            ip,
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
fn what_is_in_use_is_not_removed() {
    let mut manager = Manager::new();
    manager.ok(create("app"));
    manager.ok(serve("web", &["app"], EndpointMode::Vip));
    manager.ok(connect_with(1, "app", "web.1", Some("web"), None));
    manager.ok(connect(2, "app", "c2"));
    assert_eq!(
        manager.refused(remove_network("app")),
        "Conflict: network app is in use by service web"
    );
    assert_eq!(
        manager.refused(remove_service("web")),
        "Conflict: service web has tasks (web.1)"
    );
    manager.ok(Request::Release { endpoint: endpoint(1) });
    manager.ok(remove_service("web"));
    assert_eq!(
        manager.refused(remove_network("app")),
        "Conflict: network app has active endpoints (c2)"
    );
    manager.ok(Request::Release { endpoint: endpoint(2) });
    manager.ok(remove_network("app"));
    assert_eq!(
        manager.refused(remove_network("app")),
        "NotFound: network app not found"
    );
    assert_eq!(
        manager.refused(remove_service("web")),
        "NotFound: service web not found"
    );
}

#[test]
fn members_come_and_go_with_their_allocations() {
    let mut manager = Manager::new();
    manager.ok(create("app"));
    manager.ok(connect(1, "app", "c1"));
    let add = |name: &str, last| Request::MemberAdd {
        name: name.into(),
        address: address(last),
        role: Role::Manager,
    };
    let remove = |name: &str| Request::MemberRemove { name: name.into() };
    let Reply::Member(again) = manager.ok(add("n1", 1)) else {
        panic!()
    };
    assert_eq!(again.role, Role::Manager);
    assert_eq!(manager.state.members().len(), 2, "replaced, not doubled");
    assert_eq!(
        manager.refused(add("n1", 7)),
        "Conflict: node n1 is already a member at 192.168.0.1: remove it before it joins at 192.168.0.7, or choose another name"
    );
    assert_eq!(manager.refused(remove("n9")), "NotFound: node n9 not found");
    let (_, changes) = manager.ask(remove("n1")).unwrap();
    assert_eq!(
        changes,
        [Change::RemoveAllocation(endpoint(1)), Change::RemoveMember(again.id)]
    );
    assert_eq!(manager.ok(Request::AllocationList), Reply::Allocations(vec![]));
    let Reply::Members(left) = manager.ok(Request::MemberList) else {
        panic!()
    };
    assert_eq!(left.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["n2"]);
}

#[test]
fn a_restarted_manager_goes_on_where_it_was() {
    let mut manager = Manager::new();
    manager.ok(create("app"));
    manager.ok(serve("web", &["app"], EndpointMode::Vip));
    for number in 1..=3 {
        manager.ok(connect(number, "app", &format!("c{number}")));
    }
    manager.ok(Request::Release { endpoint: endpoint(1) });
    let mut restarted = Manager::new();
    let mut rows = manager.state.rows();
    rows.reverse();
    restarted.state = State::new(vec!["10.0.0.0/8".parse().unwrap()], 24).unwrap();
    restarted.state.load(rows);
    (restarted.now, restarted.dice) = (manager.now, manager.dice);
    assert_eq!(restarted.state.rows(), manager.state.rows());
    assert_eq!(restarted.state.index, manager.state.index);
    assert_eq!(
        restarted.ask(connect(9, "app", "c9")),
        manager.ask(connect(9, "app", "c9"))
    );
}

#[test]
fn ten_thousand_endpoints_stay_quick() {
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

proptest! {
    /// Whatever is asked, in whatever order: no address is held twice, and the indices are those of the rows.
    #[test]
    fn no_address_is_ever_held_twice(steps in proptest::collection::vec((0..8u8, 0..6u32, 0..3u8), 0..120)) {
        let mut manager = Manager::new();
        for (step, number, which) in steps {
            let network = ["a", "b", "c"][usize::from(which)];
            let service = ["s", "t", "u"][usize::from(which)];
            let request = match step {
                0 => create_with(network, Some(["10.0.0.0/29", "10.0.0.8/29", "10.0.0.0/28"][usize::from(which)]), None, &[]),
                1 => remove_network(network),
                2 => serve(service, &["a", "b"][..1 + number as usize % 2], EndpointMode::Vip),
                3 => remove_service(service),
                4 => connect_with(number, network, &format!("c{number}"), Some(service), None),
                5 => Request::Release { endpoint: endpoint(number) },
                6 => connect_with(number, network, &format!("c{number}"), None, Some(&format!("10.0.0.{}", number + 2))),
                _ => connect(number, network, &format!("d{number}")),
            };
            let _ = manager.ask(request);
            let state = &manager.state;
            for network in state.networks.values() {
                let vips = state.services.values().filter_map(|s| s.networks.get(&network.id).copied().flatten());
                let endpoints = state.allocations.values().filter(|a| a.network == network.id).map(|a| a.ip);
                let held: Vec<_> = vips.chain(endpoints).chain([network.gateway]).collect();
                prop_assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), held.len());
                prop_assert_eq!(state.usage(&network.id).unwrap().used as usize, held.len());
            }
            let mut again = State::new(vec!["10.0.0.0/8".parse().unwrap()], 24).unwrap();
            again.load(state.rows());
            prop_assert_eq!(again.index.endpoints.clone(), state.index.endpoints.clone());
            prop_assert_eq!(again.index.tasks.clone(), state.index.tasks.clone());
            prop_assert_eq!(again.index.subnets.clone(), state.index.subnets.clone());
        }
    }

    #[test]
    fn no_text_does_harm(text in "\\PC{0,80}", other in "\\PC{0,20}") {
        let mut manager = Manager::new();
        manager.ok(create("app"));
        let _ = manager.ask(create_with(&text, Some(&other), None, &[(MTU_OPTION, &other)]));
        let _ = manager.ask(create_with("y", Some(&text), None, &[]));
        let _ = manager.ask(serve(&text, &[&other], EndpointMode::Vip));
        let _ = manager.ask(connect(1, &other, &text));
        let _ = manager.ask(Request::MemberRemove { name: text });
    }
}
