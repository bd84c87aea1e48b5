//! Joining a swarm, against a manager whose every answer the test gives.
#![allow(clippy::unwrap_used)]

mod fake_swarm;

use fake_swarm::{FakeDaemon, FakeManager, answer_join, answer_root, answer_status};
use weft::swarm::join;
use weft_core::swarm::proto::*;

const DRAIN: i32 = 2;

#[tokio::test]
async fn a_join_asks_for_a_drained_worker_and_keeps_its_key_first() {
    let (mut manager, daemon) = (FakeManager::start().await, FakeDaemon::start());
    let (token, address) = (manager.token(), manager.address.to_string());
    let asked = async {
        answer_root(&mut manager).await;
        let call = manager.expect("IssueNodeCertificate").await;
        let request: IssueNodeCertificateRequest = call.request();
        assert_eq!((&request.token, request.availability), (&token, DRAIN));
        let kept = daemon.kept().expect("kept before it is asked");
        assert_eq!((kept.csr_pem.as_bytes(), kept.node_id), (&request.csr[..], None));
        call.answer(&IssueNodeCertificateResponse {
            node_id: "node1".to_owned(),
        });
        answer_status(&mut manager, &request.csr, "swarm-worker").await;
        assert_eq!(daemon.kept().and_then(|kept| kept.node_id), Some("node1".to_owned()));
    };
    let (identity, ()) = tokio::join!(join(&token, &address, &daemon.handle), asked);
    let identity = identity.unwrap();
    assert_eq!(
        (identity.node_id.as_str(), identity.cluster_id.as_str()),
        ("node1", "swarm1")
    );
    assert_eq!(identity.managers[0].addr, address);
}

/// Each accepted request makes a node: a join that was cut short asks for the certificate of the node that is there.
#[tokio::test]
async fn a_join_that_was_cut_short_makes_no_second_node() {
    let (mut manager, daemon) = (FakeManager::start().await, FakeDaemon::start());
    let (token, address) = (manager.token(), manager.address.to_string());
    let cut = async {
        answer_root(&mut manager).await;
        let call = manager.expect("IssueNodeCertificate").await;
        let csr = call.request::<IssueNodeCertificateRequest>().csr;
        call.answer(&IssueNodeCertificateResponse {
            node_id: "node1".to_owned(),
        });
        // Here the daemon ends.
        drop(manager.expect("NodeCertificateStatus").await);
        csr
    };
    let csr = tokio::select! {
        csr = cut => csr,
        outcome = join(&token, &address, &daemon.handle) => panic!("{outcome:?}"),
    };
    let resumed = async {
        answer_root(&mut manager).await;
        answer_status(&mut manager, &csr, "swarm-worker").await;
    };
    let (identity, ()) = tokio::join!(join(&token, &address, &daemon.handle), resumed);
    assert_eq!(identity.unwrap().node_id, "node1");
}

#[tokio::test]
async fn wrong_joins_are_told_in_a_line_and_leave_nothing() {
    let (mut manager, other, daemon) = (
        FakeManager::start().await,
        FakeManager::start().await,
        FakeDaemon::start(),
    );
    let (token, address) = (manager.token(), manager.address.to_string());

    let foreign = other.token();
    let (refused, ()) = tokio::join!(join(&foreign, &address, &daemon.handle), answer_root(&mut manager));
    let line = refused.unwrap_err().message;
    assert!(line.contains("remote CA does not match fingerprint"), "{line}");

    let rotated = async {
        answer_root(&mut manager).await;
        let call = manager.expect("IssueNodeCertificate").await;
        call.refuse(3, "A valid join token is necessary to join this cluster");
    };
    let (refused, ()) = tokio::join!(join(&token, &address, &daemon.handle), rotated);
    let line = refused.unwrap_err().message;
    assert!(line.contains("the join token is not valid for this swarm"), "{line}");

    let (refused, _) = tokio::join!(
        join(&token, &address, &daemon.handle),
        answer_join(&mut manager, "swarm-manager")
    );
    let line = refused.unwrap_err().message;
    assert!(
        line.contains("the join token is for managers") && line.contains("docker node rm --force node1"),
        "{line}"
    );

    let failed = async {
        answer_root(&mut manager).await;
        let call = manager.expect("IssueNodeCertificate").await;
        call.answer(&IssueNodeCertificateResponse {
            node_id: "node1".to_owned(),
        });
        let status = Some(IssuanceStatus {
            state: issuance::FAILED,
            err: "CSR Decode failed".to_owned(),
        });
        let call = manager.expect("NodeCertificateStatus").await;
        call.answer(&NodeCertificateStatusResponse {
            status,
            certificate: None,
        });
    };
    let (refused, ()) = tokio::join!(join(&token, &address, &daemon.handle), failed);
    assert!(
        refused
            .unwrap_err()
            .message
            .contains("refused the certificate: CSR Decode failed")
    );
    assert_eq!(daemon.kept(), None);
    assert!(manager.is_quiet());
}

#[tokio::test]
async fn a_wrong_clock_is_told() {
    let (mut manager, daemon) = (FakeManager::start().await, FakeDaemon::start());
    manager.be_early();
    let (token, address) = (manager.token(), manager.address.to_string());
    let (refused, ()) = tokio::join!(join(&token, &address, &daemon.handle), answer_root(&mut manager));
    let line = refused.unwrap_err().message;
    assert!(
        line.contains("not valid at this host's time, so one of the two clocks is wrong"),
        "{line}"
    );
    assert_eq!(daemon.kept(), None);
}
