//! Given these rows and this request: exactly this reply, these changes, or this line.

mod allocations;
mod ipv6;
mod networks;
mod services;

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
        ipv6: None,
        options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        labels: BTreeMap::new(),
    }
}

fn serve(name: &str, networks: &[&str], mode: EndpointMode) -> Request {
    Request::ServiceCreate {
        name: name.into(),
        networks: networks.iter().map(|n| n.to_string()).collect(),
        mode,
        policy: Policy::RoundRobin,
        affinity: 0,
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
        weight: None,
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
    manager.ok(serve("late", &["app"], EndpointMode::Vip));
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
