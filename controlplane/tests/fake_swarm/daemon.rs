//! A daemon that records what a swarm's agent tells it, and a join answered up to its end.

use super::FakeManager;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use weft::daemon::{Command, Handle, SwarmCommand};
use weft::swarm::{Event, Identity, Joining, join};
use weft_core::swarm::proto::*;

/// What a daemon would hear; it answers everything at once.
pub(crate) struct FakeDaemon {
    pub(crate) handle: Handle,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) joining: Arc<Mutex<Option<Joining>>>,
}

impl FakeDaemon {
    pub(crate) fn start() -> FakeDaemon {
        let (handle, mut queue) = Handle::new();
        let (heard, events) = mpsc::unbounded_channel();
        let joining: Arc<Mutex<Option<Joining>>> = Arc::default();
        let kept = Arc::clone(&joining);
        tokio::spawn(async move {
            while let Some(command) = queue.recv().await {
                match command {
                    Command::Swarm(SwarmCommand::Joining(reply)) => drop(reply.send(Ok(kept.lock().unwrap().clone()))),
                    Command::Swarm(SwarmCommand::KeepJoining(joining, reply)) => {
                        *kept.lock().unwrap() = joining;
                        drop(reply.send(Ok(())));
                    }
                    Command::Swarm(SwarmCommand::Event(event, reply)) => {
                        let _ = heard.send(event);
                        let _ = reply.send(());
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        FakeDaemon {
            handle,
            events,
            joining,
        }
    }

    pub(crate) async fn event(&mut self) -> Event {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), self.events.recv());
        next.await.expect("an event").expect("the daemon runs")
    }

    pub(crate) fn kept(&self) -> Option<Joining> {
        self.joining.lock().unwrap().clone()
    }
}

pub(crate) async fn answer_root(manager: &mut FakeManager) {
    let certificate = manager.root_pem.clone().into_bytes();
    let call = manager.expect("GetRootCACertificate").await;
    assert!(!call.is_member);
    call.answer(&GetRootCaCertificateResponse { certificate });
}

/// Answers a join up to the certificate, of this kind.
pub(crate) async fn answer_join(manager: &mut FakeManager, unit: &str) -> IssueNodeCertificateRequest {
    answer_root(manager).await;
    let call = manager.expect("IssueNodeCertificate").await;
    let request: IssueNodeCertificateRequest = call.request();
    call.answer(&IssueNodeCertificateResponse {
        node_id: "node1".to_owned(),
    });
    answer_status(manager, &request.csr, unit).await;
    request
}

pub(crate) async fn answer_status(manager: &mut FakeManager, csr: &[u8], unit: &str) {
    let certificate = manager.issue(csr, unit).into_bytes();
    let call = manager.expect("NodeCertificateStatus").await;
    assert_eq!(call.request::<NodeCertificateStatusRequest>().node_id, "node1");
    call.answer(&NodeCertificateStatusResponse {
        status: Some(IssuanceStatus {
            state: issuance::ISSUED,
            err: String::new(),
        }),
        certificate: Some(Certificate {
            csr: csr.to_vec(),
            certificate,
            ..Certificate::default()
        }),
    });
}

pub(crate) async fn joined(manager: &mut FakeManager, daemon: &FakeDaemon) -> Identity {
    let (token, address) = (manager.token(), manager.address.to_string());
    let (identity, _) = tokio::join!(
        join(&token, &address, &daemon.handle),
        answer_join(manager, "swarm-worker")
    );
    identity.expect("joined")
}
