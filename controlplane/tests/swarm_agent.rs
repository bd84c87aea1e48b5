//! Living in a swarm, against a manager whose every answer the test gives.
#![allow(clippy::unwrap_used)]

mod fake_swarm;

use fake_swarm::{Call, FakeDaemon, FakeManager, answer_root, answer_status, joined};
use prost::Message;
use std::net::Ipv4Addr;
use tokio::sync::{mpsc, oneshot, watch};
use weft::daemon::{Refused, RefusedKind};
use weft::swarm::{Agent, AgentCommand, Attached, Event, Status};
use weft_core::id::EndpointId;
use weft_core::swarm::proto::*;

const ACTIVE: i32 = 0;
const DRAIN: i32 = 2;

/// An agent in a session.
struct Live {
    manager: FakeManager,
    daemon: FakeDaemon,
    commands: mpsc::UnboundedSender<AgentCommand>,
    status: watch::Receiver<Status>,
    session: mpsc::UnboundedSender<Vec<u8>>,
    assignments: mpsc::UnboundedSender<Vec<u8>>,
    availability: i32,
}

fn assigned(kind: i32, follows: &str, mark: &str, tasks: &[Task]) -> AssignmentsMessage {
    let change = |task: &Task| AssignmentChange {
        assignment: Some(Assignment {
            task: Some(task.clone()),
        }),
        action: 0,
    };
    AssignmentsMessage {
        kind,
        applies_to: follows.to_owned(),
        results_in: mark.to_owned(),
        changes: tasks.iter().map(change).collect(),
    }
}

fn told(availability: i32, attachments: Vec<NetworkAttachment>) -> SessionMessage {
    let key = |lamport_time: u64| EncryptionKey {
        subsystem: "networking:gossip".to_owned(),
        key: vec![u8::try_from(lamport_time).unwrap(); 16],
        lamport_time,
        ..EncryptionKey::default()
    };
    SessionMessage {
        session_id: "session1".to_owned(),
        node: Some(Node {
            id: "node1".to_owned(),
            spec: Some(NodeSpec {
                availability,
                ..NodeSpec::default()
            }),
            attachments,
            ..Node::default()
        }),
        network_bootstrap_keys: vec![key(3), key(1), key(2)],
        ..SessionMessage::default()
    }
}

fn network(encrypted: bool) -> Network {
    let mut options = std::collections::BTreeMap::new();
    options.insert(
        "com.docker.network.driver.overlay.vxlanid_list".to_owned(),
        "4097".to_owned(),
    );
    if encrypted {
        options.insert("encrypted".to_owned(), String::new());
    }
    Network {
        id: "zmq0dp2jpuvsgv0bp0h9r1syl".to_owned(),
        spec: Some(NetworkSpec {
            annotations: Some(Annotations {
                name: "n1".to_owned(),
                ..Annotations::default()
            }),
            attachable: true,
            ..NetworkSpec::default()
        }),
        driver_state: Some(Driver {
            name: "overlay".to_owned(),
            options,
        }),
        ipam: Some(IpamOptions {
            configs: vec![IpamConfig {
                subnet: "10.0.1.0/24".to_owned(),
                gateway: "10.0.1.1".to_owned(),
            }],
        }),
        ..Network::default()
    }
}

fn on_network(address: Option<&str>, encrypted: bool) -> NetworkAttachment {
    NetworkAttachment {
        network: Some(network(encrypted)),
        addresses: address.map(str::to_owned).into_iter().collect(),
    }
}

fn attachment_task(id: &str, endpoint: &EndpointId, state: i32, on: NetworkAttachment) -> Task {
    Task {
        id: id.to_owned(),
        spec: Some(TaskSpec {
            attachment: Some(AttachmentSpec {
                container_id: endpoint.to_string(),
            }),
        }),
        status: Some(TaskStatus {
            state,
            ..TaskStatus::default()
        }),
        desired_state: state::RUNNING,
        networks: vec![on],
        ..Task::default()
    }
}

fn endpoint(digit: char) -> EndpointId {
    EndpointId::new(digit.to_string().repeat(64)).unwrap()
}

impl Live {
    async fn start(availability: i32, tasks: &[Task]) -> Live {
        let (mut manager, mut daemon) = (FakeManager::start().await, FakeDaemon::start());
        let identity = joined(&mut manager, &daemon).await;
        let (agent, commands, status) = Agent::new(identity, "host1", daemon.handle.clone()).unwrap();
        tokio::spawn(agent.run());
        let call = manager.expect("Session").await;
        assert!(call.is_member);
        let description = call.request::<SessionRequest>().description.unwrap();
        assert_eq!(description.hostname, "host1");
        assert_eq!(description.resources, Some(Resources::default()));
        let tls = description.tls_info.unwrap();
        assert_eq!(tls.trust_root, manager.root_pem.as_bytes());
        assert!(tls.cert_issuer_subject.ends_with(b"swarm-ca") && !tls.cert_issuer_public_key.is_empty());
        let session = call.stream(&told(availability, Vec::new()));
        match daemon.event().await {
            Event::Told {
                identity,
                data_path_port,
                reserved,
            } => {
                assert_eq!(reserved, []);
                let times: Vec<u64> = identity.keys.iter().map(|key| key.lamport_time).collect();
                assert_eq!((times, data_path_port), (vec![1, 2, 3], 4789));
            }
            other => panic!("{other:?}"),
        }
        let call = manager.expect("Assignments").await;
        assert_eq!(call.request::<AssignmentsRequest>().session_id, "session1");
        let assignments = call.stream(&assigned(0, "", "1", tasks));
        Live {
            manager,
            daemon,
            commands,
            status,
            session,
            assignments,
            availability,
        }
    }

    fn attach(&self, endpoint: &EndpointId, ip: Option<Ipv4Addr>) -> oneshot::Receiver<Result<Attached, Refused>> {
        let (reply, answer) = oneshot::channel();
        let command = AgentCommand::Attach {
            endpoint: endpoint.clone(),
            network: "n1".to_owned(),
            ip,
            reply,
        };
        self.commands.send(command).expect("the agent runs");
        answer
    }

    /// The manager hears of an attachment, which gets this id.
    async fn attachment_made(&mut self, id: &str) -> AttachNetworkRequest {
        self.asking().await;
        let call = self.manager.expect("AttachNetwork").await;
        let request = call.request();
        call.answer(&AttachNetworkResponse {
            attachment_id: id.to_owned(),
        });
        match self.daemon.event().await {
            Event::Attachment {
                id: kept,
                delivered: false,
                ..
            } => assert_eq!(kept, id, "kept before anything else"),
            other => panic!("{other:?}"),
        }
        request
    }

    /// Kept before the manager hears of it.
    async fn asking(&mut self) {
        match self.daemon.event().await {
            Event::Asking(asked) => assert_eq!(asked.network, "n1"),
            other => panic!("{other:?}"),
        }
    }

    /// The daemon is told of an attachment that is new.
    async fn offered(&mut self, wanted: &EndpointId) {
        match self.daemon.event().await {
            Event::Offered(endpoint) => assert_eq!(endpoint, *wanted),
            other => panic!("{other:?}"),
        }
    }

    fn detach(&self, endpoint: &EndpointId, attachment: Option<&str>) -> oneshot::Receiver<Result<(), Refused>> {
        let (reply, answer) = oneshot::channel();
        let command = AgentCommand::Detach {
            endpoint: endpoint.clone(),
            attachment: attachment.map(str::to_owned),
            reply,
        };
        self.commands.send(command).expect("the agent runs");
        answer
    }

    /// A task's state is reported.
    async fn reported(&mut self) -> (String, i32, String) {
        let call = self.manager.expect("UpdateTaskStatus").await;
        let request: UpdateTaskStatusRequest = call.request();
        call.answer(&Empty {});
        assert_eq!((request.session_id.as_str(), request.updates.len()), ("session1", 1));
        let update = &request.updates[0];
        let status = update.status.clone().unwrap();
        (update.task_id.clone(), status.state, status.err)
    }

    fn deliver(&self, follows: &str, mark: &str, task: Task) {
        self.assignments
            .send(assigned(1, follows, mark, &[task]).encode_to_vec())
            .expect("it listens");
    }

    async fn detached(&mut self, id: &str) {
        let call: Call = self.manager.expect("DetachNetwork").await;
        assert_eq!(call.request::<DetachNetworkRequest>().attachment_id, id);
        call.answer(&Empty {});
    }

    async fn on_record(&mut self) -> Vec<EndpointId> {
        match self.daemon.event().await {
            Event::OnRecord(endpoints) => endpoints,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_drained_node_moves_its_attachment_on_itself() {
    let mut live = Live::start(DRAIN, &[]).await;
    assert_eq!(live.on_record().await, []);
    let e = endpoint('a');
    let answer = live.attach(&e, Some(Ipv4Addr::new(10, 0, 1, 7)));
    let request = live.attachment_made("t1").await;
    assert_eq!(request.container_id, e.as_str());
    assert_eq!(request.config.unwrap().addresses, ["10.0.1.7"]);
    assert_eq!(live.reported().await, ("t1".to_owned(), state::ACCEPTED, String::new()));
    live.deliver(
        "1",
        "2",
        attachment_task("t1", &e, state::ACCEPTED, on_network(Some("10.0.1.7/24"), false)),
    );
    assert_eq!(live.reported().await, ("t1".to_owned(), state::RUNNING, String::new()));
    let attached = answer.await.unwrap().unwrap();
    assert_eq!(
        (attached.ip, attached.network.vni.get()),
        (Ipv4Addr::new(10, 0, 1, 7), 4097)
    );
    live.offered(&e).await;
    match live.daemon.event().await {
        Event::Attachment { delivered, .. } => assert!(delivered),
        other => panic!("{other:?}"),
    }
    assert_eq!(live.status.borrow().availability, "drain");
}

#[tokio::test]
async fn an_active_node_waits_for_the_scheduler() {
    let mut live = Live::start(ACTIVE, &[]).await;
    live.on_record().await;
    let e = endpoint('a');
    let answer = live.attach(&e, None);
    live.attachment_made("t1").await;
    live.deliver(
        "1",
        "2",
        attachment_task("t1", &e, 192, on_network(Some("10.0.1.2/24"), false)),
    );
    assert_eq!(live.reported().await.1, state::RUNNING);
    assert_eq!(answer.await.unwrap().unwrap().ip, Ipv4Addr::new(10, 0, 1, 2));
    assert_eq!(live.availability, ACTIVE);
}

/// The status overtook the managers' allocator.
#[tokio::test]
async fn an_attachment_without_an_address_is_made_anew() {
    let mut live = Live::start(DRAIN, &[]).await;
    live.on_record().await;
    let e = endpoint('a');
    let answer = live.attach(&e, None);
    live.attachment_made("t1").await;
    live.reported().await;
    live.deliver(
        "1",
        "2",
        attachment_task("t1", &e, state::ACCEPTED, on_network(None, false)),
    );
    live.offered(&e).await;
    live.detached("t1").await;
    live.attachment_made("t2").await;
    live.reported().await;
    live.deliver(
        "2",
        "3",
        attachment_task("t2", &e, state::ACCEPTED, on_network(Some("10.0.1.3/24"), false)),
    );
    assert_eq!(live.reported().await.1, state::RUNNING);
    assert_eq!(answer.await.unwrap().unwrap().ip, Ipv4Addr::new(10, 0, 1, 3));
}

#[tokio::test]
async fn where_nothing_is_delivered_the_reserved_address_will_do() {
    let mut live = Live::start(DRAIN, &[]).await;
    live.on_record().await;
    let e = endpoint('a');
    let answer = live.attach(&e, None);
    live.attachment_made("t1").await;
    live.reported().await;
    let reserved = told(DRAIN, vec![on_network(Some("10.0.1.9/24"), false)]);
    live.session.send(reserved.encode_to_vec()).expect("it listens");
    assert_eq!(answer.await.unwrap().unwrap().ip, Ipv4Addr::new(10, 0, 1, 9));
    // The attachment stays, for the address is reserved as long as it does.
    assert!(live.manager.is_quiet());
}

#[tokio::test]
async fn an_encrypted_network_is_refused_and_its_attachment_given_back() {
    let mut live = Live::start(DRAIN, &[]).await;
    live.on_record().await;
    let e = endpoint('a');
    let answer = live.attach(&e, None);
    live.attachment_made("t1").await;
    live.reported().await;
    live.deliver(
        "1",
        "2",
        attachment_task("t1", &e, state::ACCEPTED, on_network(Some("10.0.1.2/24"), true)),
    );
    assert!(
        answer
            .await
            .unwrap()
            .unwrap_err()
            .message
            .contains("network n1 is encrypted")
    );
    let given_back = live.detach(&e, Some("t1"));
    live.detached("t1").await;
    given_back.await.unwrap().unwrap();
}

/// The session ended between the manager's commit and its answer: when the manager tells of the attachment, it can be given back.
#[tokio::test]
async fn an_attachment_whose_answer_was_lost_is_offered_and_given_back() {
    let mut live = Live::start(ACTIVE, &[]).await;
    live.on_record().await;
    let e = endpoint('a');
    let answer = live.attach(&e, None);
    live.asking().await;
    let unanswered = live.manager.expect("AttachNetwork").await;
    live.session = mpsc::unbounded_channel().0;
    answer.await.expect_err("the session took the question with it");
    drop(unanswered);
    let call = live.manager.expect("Session").await;
    live.session = call.stream(&told(ACTIVE, vec![on_network(Some("10.0.1.9/24"), false)]));
    match live.daemon.event().await {
        Event::Told { reserved, .. } => {
            let found: Vec<&str> = reserved.iter().map(|network| network.name.as_str()).collect();
            assert_eq!(
                (found, reserved[0].id.as_str()),
                (vec!["n1"], "zmq0dp2jpuvsgv0bp0h9r1syl")
            );
        }
        other => panic!("{other:?}"),
    }
    let call = live.manager.expect("Assignments").await;
    live.assignments = call.stream(&assigned(0, "", "1", &[]));
    assert_eq!(live.on_record().await, []);
    live.deliver(
        "1",
        "2",
        attachment_task("t1", &e, 192, on_network(Some("10.0.1.2/24"), false)),
    );
    live.offered(&e).await;
    // The daemon does not know the id; the agent does by now.
    let given_back = live.detach(&e, None);
    live.detached("t1").await;
    given_back.await.unwrap().unwrap();
    let gone = assigned(1, "2", "3", &[]);
    let removal = AssignmentChange {
        assignment: Some(Assignment {
            task: Some(Task {
                id: "t1".to_owned(),
                ..Task::default()
            }),
        }),
        action: 1,
    };
    let gone = AssignmentsMessage {
        changes: vec![removal],
        ..gone
    };
    live.assignments.send(gone.encode_to_vec()).expect("it listens");
    match live.daemon.event().await {
        Event::GiveUp(endpoint) => assert_eq!(endpoint, e),
        other => panic!("{other:?}"),
    }
    live.session
        .send(told(ACTIVE, Vec::new()).encode_to_vec())
        .expect("it listens");
    match live.daemon.event().await {
        Event::Told { reserved, .. } => assert_eq!(reserved, []),
        other => panic!("{other:?}"),
    }
}

/// What nobody can have done is not remembered as asked for.
#[tokio::test]
async fn nothing_is_asked_while_no_manager_is_there() {
    let mut live = Live::start(DRAIN, &[]).await;
    live.on_record().await;
    live.manager.heartbeats(Some((14, "the manager is away")));
    live.status.wait_for(|status| status.manager.is_none()).await.unwrap();
    let refused = live.attach(&endpoint('a'), None).await.unwrap().unwrap_err();
    assert_eq!(refused.kind, RefusedKind::Unavailable);
    assert!(live.daemon.events.try_recv().is_err());
}

#[tokio::test]
async fn containers_are_rejected_and_what_is_held_is_on_record() {
    let e = endpoint('e');
    let held = attachment_task("t1", &e, state::RUNNING, on_network(Some("10.0.1.2/24"), false));
    let container = Task {
        id: "t2".to_owned(),
        spec: Some(TaskSpec::default()),
        status: Some(TaskStatus {
            state: 192,
            ..TaskStatus::default()
        }),
        desired_state: state::RUNNING,
        ..Task::default()
    };
    let mut live = Live::start(ACTIVE, &[held.clone(), container]).await;
    let (id, now, why) = live.reported().await;
    assert_eq!(
        (id.as_str(), now, why.as_str()),
        ("t2", state::REJECTED, "this node runs no containers")
    );
    assert_eq!(live.on_record().await, std::slice::from_ref(&e));
    // A message was missed: the whole is asked for anew.
    live.deliver("7", "8", held.clone());
    let call = live.manager.expect("Assignments").await;
    live.assignments = call.stream(&assigned(0, "", "1", &[]));
    match live.daemon.event().await {
        Event::GiveUp(endpoint) => assert_eq!(endpoint, e),
        other => panic!("{other:?}"),
    }
    assert_eq!(live.on_record().await, []);
}

#[tokio::test]
async fn a_session_that_is_not_known_any_more_is_begun_anew() {
    let mut live = Live::start(DRAIN, &[]).await;
    live.manager.heartbeats(Some((5, "node not registered")));
    let call = live.manager.expect("Session").await;
    live.manager.heartbeats(None);
    assert_eq!(call.request::<SessionRequest>().session_id, "");
    live.session = call.stream(&told(DRAIN, Vec::new()));
    // The manager ends it in order: the next one goes on with it.
    live.manager
        .expect("Assignments")
        .await
        .stream(&assigned(0, "", "1", &[]));
    live.session = mpsc::unbounded_channel().0;
    let call = live.manager.expect("Session").await;
    assert_eq!(call.request::<SessionRequest>().session_id, "session1");
}

#[tokio::test]
async fn a_removed_node_tells_so_and_ends() {
    let mut live = Live::start(DRAIN, &[]).await;
    live.on_record().await;
    live.manager
        .heartbeats(Some((7, "Permission denied: node node1 was removed from swarm")));
    match live.daemon.event().await {
        Event::Removed(words) => assert!(words.contains("was removed from swarm")),
        other => panic!("{other:?}"),
    }
    live.commands.closed().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_when_the_managers_rotate_the_root() {
    let mut live = Live::start(DRAIN, &[]).await;
    live.on_record().await;
    let mut rotate = told(DRAIN, Vec::new());
    let node = rotate.node.as_mut().unwrap();
    node.certificate = Some(Certificate {
        status: Some(IssuanceStatus {
            state: issuance::ROTATE,
            err: String::new(),
        }),
        ..Certificate::default()
    });
    live.session.send(rotate.encode_to_vec()).expect("it listens");
    let call = live.manager.expect("IssueNodeCertificate").await;
    assert!(call.is_member);
    let request: IssueNodeCertificateRequest = call.request();
    assert_eq!(request.token, "");
    call.answer(&IssueNodeCertificateResponse {
        node_id: "node1".to_owned(),
    });
    answer_status(&mut live.manager, &request.csr, "swarm-worker").await;
    let call = live.manager.expect("Session").await;
    assert_eq!(call.request::<SessionRequest>().session_id, "session1");
    let issued = call.stream(&told(DRAIN, Vec::new()));
    match live.daemon.event().await {
        Event::Told { identity, .. } => assert!(!identity.certificate_pem.is_empty()),
        other => panic!("{other:?}"),
    }
    drop(issued);
}

/// The rotation ended while this node was away: its own certificate, of the new root already, is what proves the new roots.
#[tokio::test]
async fn a_root_rotation_that_was_missed_is_made_up_for() {
    let (mut manager, daemon) = (FakeManager::start().await, FakeDaemon::start());
    let mut identity = joined(&mut manager, &daemon).await;
    let crossed = manager.rotate();
    let key = rcgen::KeyPair::from_pem(&identity.key_pem).unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    identity.certificate_pem = format!("{}{crossed}", manager.issue(csr.as_bytes(), "swarm-worker"));
    let (agent, commands, _) = Agent::new(identity, "host1", daemon.handle.clone()).unwrap();
    tokio::spawn(agent.run());
    answer_root(&mut manager).await;
    let call = manager.expect("Session").await;
    assert!(call.is_member);
    let tls = call.request::<SessionRequest>().description.unwrap().tls_info.unwrap();
    assert_eq!(tls.trust_root, manager.root_pem.as_bytes());
    drop(commands);
}

/// Roots that do not vouch for this node's certificate are anybody's.
#[tokio::test]
async fn strange_roots_are_not_trusted() {
    let (mut manager, daemon) = (FakeManager::start().await, FakeDaemon::start());
    let identity = joined(&mut manager, &daemon).await;
    manager.rotate();
    let (agent, commands, mut status) = Agent::new(identity, "host1", daemon.handle.clone()).unwrap();
    tokio::spawn(agent.run());
    answer_root(&mut manager).await;
    let told = status
        .wait_for(|status| status.problem.is_some())
        .await
        .unwrap()
        .clone();
    let problem = told.problem.unwrap();
    assert!(
        problem.contains("the roots that it tells do not vouch for this node"),
        "{problem}"
    );
    drop(commands);
}
