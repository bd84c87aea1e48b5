//! Policies, client affinity and weights, and how the nodes of tasks hear of them.

use super::*;
use crate::cluster::settings::Settings;
use crate::record::EndpointRecord;

/// On network app: a service web in vip mode with tasks web.1 on n1 and web.2 on n2, and a service rr in dnsrr mode.
fn manager() -> Manager {
    let mut manager = Manager::new();
    manager.ok(create("app"));
    manager.ok(serve("web", &["app"], EndpointMode::Vip));
    manager.ok(serve("rr", &["app"], EndpointMode::Dnsrr));
    manager.ok(connect_with(1, "app", "web.1", Some("web"), None));
    let mut second = connect_with(2, "app", "web.2", Some("web"), None);
    if let Request::Allocate { node, .. } = &mut second {
        *node = "n2".into();
    }
    manager.ok(second);
    manager
}

fn update(service: &str, policy: Option<Policy>, affinity: Option<u32>, weights: &[(&str, u32)]) -> Request {
    Request::ServiceUpdate {
        service: service.into(),
        policy,
        affinity,
        weights: weights.iter().map(|(task, weight)| ((*task).into(), *weight)).collect(),
        version: None,
    }
}

fn weights(manager: &Manager) -> Vec<u32> {
    let all = manager.state.allocations_by_name();
    all.iter().map(|held| held.weight).collect()
}

impl State {
    fn allocations_by_name(&self) -> Vec<Allocation> {
        let mut all: Vec<_> = self.allocations.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

#[test]
fn an_update_changes_what_is_given_and_raises_the_version() {
    let mut manager = manager();
    let before = manager.state.find_service("web").unwrap().clone();
    assert_eq!(
        (before.policy, before.affinity_seconds, before.updated),
        (Policy::RoundRobin, 0, None)
    );
    let maglev = manager.service(update("web", Some(Policy::Maglev), None, &[]));
    assert_eq!((maglev.policy, maglev.affinity_seconds), (Policy::Maglev, 0));
    assert!(maglev.version > before.version);
    assert_eq!((maglev.created, maglev.updated), (before.created, Some(manager.now)));
    let sticky = manager.service(update("web", None, Some(300), &[]));
    assert_eq!((sticky.policy, sticky.affinity_seconds), (Policy::Maglev, 300));
    let weighted = manager.service(update("web", None, None, &[("web.1", 3), (endpoint(2).as_str(), 0)]));
    assert_eq!(weights(&manager), [3, 0]);
    assert!(weighted.version > sticky.version && sticky.version > maglev.version);
    assert_eq!(
        weighted.version, manager.state.version,
        "of all changes, the service's is the last"
    );
    assert_eq!(*manager.state.find_service("web").unwrap(), weighted);
    let (reply, changes) = manager
        .ask(update("web", Some(Policy::Maglev), Some(300), &[("WEB.1", 3)]))
        .unwrap();
    assert_eq!((reply, changes), (Reply::Service(weighted), vec![]), "it is so already");
}

#[test]
fn a_service_and_a_task_may_begin_so() {
    let mut manager = manager();
    let db = manager.service(Request::ServiceCreate {
        name: "db".into(),
        networks: vec!["app".into()],
        mode: EndpointMode::Vip,
        policy: Policy::LeastConnections,
        affinity: 86_400,
    });
    assert_eq!((db.policy, db.affinity_seconds), (Policy::LeastConnections, 86_400));
    let mut with_weight = connect_with(3, "app", "db.1", Some("db"), None);
    if let Request::Allocate { weight, .. } = &mut with_weight {
        *weight = Some(100);
    }
    assert_eq!(manager.allocation(with_weight).weight, 100);
}

#[test]
fn wrong_settings_are_refused_in_one_clear_line() {
    let mut manager = manager();
    manager.ok(serve("empty", &["app"], EndpointMode::Vip));
    let with = |service: Option<&str>, given: u32| {
        let mut request = connect_with(9, "app", "c9", service, None);
        if let Request::Allocate { weight, .. } = &mut request {
            *weight = Some(given);
        }
        request
    };
    let created = |mode, policy, affinity| Request::ServiceCreate {
        name: "new".into(),
        networks: vec!["app".into()],
        mode,
        policy,
        affinity,
    };
    for (request, line) in [
        (
            update("web", None, Some(86_401), &[]),
            "Invalid: affinity 86401 of service web is out of range: it should be 1 to 86400 seconds, or 0 for none",
        ),
        (
            update("web", None, None, &[("web.1", 101)]),
            "Invalid: weight 101 of task web.1 is out of range: it should be 1 to 100, or 0 to let the task drain",
        ),
        (
            update("web", None, None, &[("web.1", 2), ("web.9", 1)]),
            "NotFound: service web has no task web.9: it should be one of its tasks (web.1, web.2)",
        ),
        (
            update("empty", None, None, &[("web.1", 1)]),
            "NotFound: service empty has no task web.1: it has none",
        ),
        (update("nope", None, Some(1), &[]), "NotFound: service nope not found"),
        (
            update("rr", Some(Policy::Maglev), None, &[]),
            "Invalid: service rr cannot have policy maglev: its mode is dnsrr, and only services of mode vip are balanced",
        ),
        (
            update("rr", None, Some(5), &[]),
            "Invalid: service rr cannot have affinity 5: its mode is dnsrr, and only services of mode vip are balanced",
        ),
        (
            created(EndpointMode::Dnsrr, Policy::LeastConnections, 0),
            "Invalid: service new cannot have policy least-connections: its mode is dnsrr, and only services of mode vip are balanced",
        ),
        (
            created(EndpointMode::Dnsrr, Policy::RoundRobin, 7),
            "Invalid: service new cannot have affinity 7: its mode is dnsrr, and only services of mode vip are balanced",
        ),
        (
            created(EndpointMode::Vip, Policy::RoundRobin, 100_000),
            "Invalid: affinity 100000 of service new is out of range: it should be 1 to 86400 seconds, or 0 for none",
        ),
        (
            with(None, 2),
            "Invalid: endpoint c9 has weight 2 and no service: a weight is that of a task of a service",
        ),
        (
            with(Some("rr"), 2),
            "Invalid: service rr cannot have weight 2: its mode is dnsrr, and only services of mode vip are balanced",
        ),
        (
            with(Some("web"), 200),
            "Invalid: weight 200 of task c9 is out of range: it should be 1 to 100, or 0 to let the task drain",
        ),
    ] {
        assert_eq!(manager.refused(request), line);
    }
    assert_eq!(weights(&manager), [1, 1], "nothing of a refused request is done");
}

/// What the node of a task remembers of it.
fn remembered(manager: &Manager, number: u32) -> (Option<Service>, Allocation) {
    let held = manager.state.allocations()[&endpoint(number)].clone();
    let service = held.service.as_ref().map(|id| manager.state.services()[id].clone());
    (service, held)
}

#[test]
fn the_nodes_of_tasks_are_told_what_changed() {
    let mut manager = manager();
    let (mut service, mut held) = remembered(&manager, 2);
    let before = manager.state.settings_of("n2");
    assert!(!before.update(&mut service, &mut held), "it knows that already");
    manager.ok(update(
        "web",
        Some(Policy::LeastConnections),
        Some(60),
        &[("web.1", 5), ("web.2", 0)],
    ));
    assert_ne!(manager.state.settings_version("n2"), before.version);
    let settings = manager.state.settings_of("N2");
    assert_eq!(settings.version, manager.state.settings_version("n2"));
    assert_eq!(
        settings.services[0].weights,
        [(endpoint(2), 0)].into(),
        "only of its own tasks"
    );
    assert!(settings.update(&mut service, &mut held));
    assert_eq!((service.clone(), held.clone()), remembered(&manager, 2));
    assert!(!settings.update(&mut service, &mut held));
    assert!(!before.update(&mut service, &mut held), "what is older changes nothing");
    let network = manager.state.find_network("app").unwrap();
    let record = EndpointRecord::declared(network, service.as_ref(), &held);
    assert_eq!(
        (
            record.policy,
            record.affinity_seconds,
            record.weight,
            record.service_disabled
        ),
        (Policy::LeastConnections, 60, 1, true)
    );
    manager.ok(update("web", None, None, &[("web.2", 1)]));
    assert!(manager.state.settings_of("n2").update(&mut service, &mut held));
    assert_eq!(held.weight, 1, "what is not told is 1");
    assert_eq!(manager.state.settings_of("n9"), Settings::default());
}

#[test]
fn a_weight_that_a_task_began_with_is_not_taken_back_by_older_settings() {
    let mut manager = manager();
    let before = manager.state.settings_of("n1");
    let mut request = connect_with(3, "app", "web.3", Some("web"), None);
    if let Request::Allocate { weight, .. } = &mut request {
        *weight = Some(7);
    }
    manager.ok(request);
    let (mut service, mut held) = remembered(&manager, 3);
    assert!(!before.update(&mut service, &mut held));
    assert_eq!(held.weight, 7);
}

#[test]
fn rows_of_a_store_from_before_are_read_and_defaults_take_no_room() {
    let manager = manager();
    let service =
        r#"{"id":"25n5rz9j1vkkaj4ta0rxiq1dp","name":"web","created":1,"version":2,"mode":"vip","networks":{}}"#;
    let read: Service = serde_json::from_str(service).unwrap();
    assert_eq!(
        (read.policy, read.affinity_seconds, read.updated),
        (Policy::RoundRobin, 0, None)
    );
    assert_eq!(serde_json::to_string(&read).unwrap(), service);
    let (_, held) = remembered(&manager, 1);
    let text = serde_json::to_string(&held).unwrap();
    assert!(!text.contains("weight"), "{text}");
    assert_eq!(serde_json::from_str::<Allocation>(&text).unwrap(), held);
    let request = r#"{"request":"service-create","name":"web","networks":["app"],"mode":"vip"}"#;
    let read: Request = serde_json::from_str(request).unwrap();
    assert_eq!(read, serve("web", &["app"], EndpointMode::Vip));
    assert_eq!(serde_json::to_string(&read).unwrap(), request);
}
