//! From a join token to an identity (`spec/swarm-agent.md` 8.4).

use super::certificate::{self, CertificateError};
use super::rpc::{CallError, ConnectError, Connection};
use super::{Identity, JoinToken, Joining, tls};
use crate::cluster::client::with_port;
use crate::daemon::{Handle, Refused, SwarmCommand};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tonic::Code;
use weft_core::swarm::proto::{IssueNodeCertificateRequest, Peer, availability, issuance};

/// The managers' port (`spec/swarm-agent.md` 8.3).
const PORT: u16 = 2377;

/// How long a certificate may take; managers issue them within milliseconds unless they are changing their leader.
const ISSUE_DEADLINE: Duration = Duration::from_secs(20);

/// Between two questions for the certificate.
const ISSUE_RETRY: Duration = Duration::from_secs(1);

/// Joins the swarm that the token is for, through this manager: HOST or HOST:PORT. The key is kept before it is asked for a
/// certificate, because each accepted request makes a node.
pub async fn join(token: &str, manager: &str, keeper: &Handle) -> Result<Identity, Refused> {
    let token: JoinToken = token.parse().map_err(Refused::invalid)?;
    let manager = with_port(manager, PORT)?;
    let root_pem = root_certificate(&token, &manager).await?;
    let joining = match kept(keeper).await?.filter(|kept| kept.digest == token.digest()) {
        Some(joining) => joining,
        None => {
            let request = certificate::request().map_err(Refused::failed)?;
            Joining {
                digest: token.digest(),
                csr_pem: request.csr_pem,
                key_pem: request.key_pem,
                node_id: None,
            }
        }
    };
    keep(keeper, Some(&joining)).await?;
    let outcome = obtain(&token, &manager, &root_pem, joining, keeper).await;
    if outcome.is_err() {
        keep(keeper, None).await?;
    }
    outcome
}

/// The swarm's root certificates, which must be those of the token.
async fn root_certificate(token: &JoinToken, manager: &str) -> Result<String, Refused> {
    let tls = tls::unverified().map_err(Refused::failed)?;
    let connection = open(manager, tls, tls::AUTHORITY).await?;
    let pem = connection
        .root_certificate()
        .await
        .map_err(|error| away(manager, &error))?;
    if !token.matches(&pem) {
        return Err(Refused::invalid(format!(
            "manager {manager} is not of the swarm that the join token is for: remote CA does not match fingerprint {}; take the token from `docker swarm join-token worker` on that manager",
            token.digest()
        )));
    }
    let pem = String::from_utf8(pem).map_err(Refused::failed)?;
    certificate::check_roots(&pem).map_err(Refused::failed)?;
    Ok(pem)
}

async fn obtain(
    token: &JoinToken,
    manager: &str,
    root_pem: &str,
    mut joining: Joining,
    keeper: &Handle,
) -> Result<Identity, Refused> {
    let tls = tls::joining(root_pem).map_err(Refused::failed)?;
    let connection = open(manager, tls, tls::AUTHORITY).await?;
    let node_id = match joining.node_id.clone() {
        Some(node_id) => node_id,
        None => {
            let request = IssueNodeCertificateRequest {
                csr: joining.csr_pem.clone().into_bytes(),
                token: token.as_str().to_owned(),
                availability: availability::DRAIN,
            };
            let node_id = connection
                .issue(request)
                .await
                .map_err(|error| not_admitted(manager, &error))?;
            joining.node_id = Some(node_id.clone());
            keep(keeper, Some(&joining)).await?;
            node_id
        }
    };
    let chain = issued(&connection, manager, &node_id, &joining.csr_pem).await?;
    let facts = certificate::check(&chain, &joining.key_pem, root_pem).map_err(|error| match error {
        CertificateError::Manager { node_id } => Refused::invalid(format!(
            "the join token is for managers, and this node can only be a worker: take the one of `docker swarm join-token worker`; `docker node rm --force {node_id}` removes the node that it made"
        )),
        other => Refused::failed(format!(
            "{other}; `docker node rm --force {node_id}` removes the node that was made"
        )),
    })?;
    Ok(Identity {
        node_id: facts.node_id,
        cluster_id: facts.cluster_id,
        key_pem: joining.key_pem,
        certificate_pem: chain,
        root_pem: root_pem.to_owned(),
        managers: vec![Peer {
            node_id: String::new(),
            addr: manager.to_owned(),
        }],
        keys: Vec::new(),
    })
}

/// Waits for the certificate that answers this request.
pub(super) async fn issued(
    connection: &Connection,
    manager: &str,
    node_id: &str,
    csr_pem: &str,
) -> Result<String, Refused> {
    let deadline = Instant::now() + ISSUE_DEADLINE;
    loop {
        let problem = match connection.certificate_status(node_id).await {
            Ok(answer) => {
                let status = answer.status.unwrap_or_default();
                match answer.certificate {
                    Some(found) if status.state == issuance::ISSUED && found.csr == csr_pem.as_bytes() => {
                        return String::from_utf8(found.certificate).map_err(Refused::failed);
                    }
                    _ if status.state == issuance::FAILED => {
                        return Err(Refused::failed(format!(
                            "the swarm refused the certificate: {}; `docker node rm {node_id}` removes the node that was made",
                            status.err
                        )));
                    }
                    _ => format!("it is in state {}", status.state),
                }
            }
            Err(error) if error.code == i32::from(Code::NotFound) => {
                return Err(Refused::failed(format!(
                    "node {node_id} was removed before it had a certificate; join again"
                )));
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(Refused::unavailable(format!(
                "manager {manager} issued no certificate within {} s: {problem}; `docker node rm {node_id}` removes the node that was made",
                ISSUE_DEADLINE.as_secs()
            )));
        }
        sleep(ISSUE_RETRY).await;
    }
}

async fn open(manager: &str, tls: ClientConfig, name: &'static str) -> Result<Connection, Refused> {
    Connection::open(manager, Arc::new(tls), name)
        .await
        .map_err(|error| match error {
            ConnectError::Untrusted(_) | ConnectError::Clock(_) => {
                Refused::invalid(format!("manager {manager}: {error}"))
            }
            _ => away(manager, &error),
        })
}

fn not_admitted(manager: &str, error: &CallError) -> Refused {
    if error.code == i32::from(Code::InvalidArgument) && error.message.contains("join token") {
        return Refused::invalid(format!(
            "manager {manager} does not admit this node: the join token is not valid for this swarm, it is wrong or was rotated; `docker swarm join-token worker` on a manager prints the right one"
        ));
    }
    Refused::unavailable(format!("manager {manager} does not admit this node: {error}"))
}

fn away(manager: &str, error: &dyn std::fmt::Display) -> Refused {
    Refused::unavailable(format!("manager {manager} is away: {error}"))
}

async fn kept(keeper: &Handle) -> Result<Option<Joining>, Refused> {
    let kept = keeper.ask(|reply| SwarmCommand::Joining(reply).into()).await;
    kept.ok_or_else(Refused::stopping)?
}

async fn keep(keeper: &Handle, joining: Option<&Joining>) -> Result<(), Refused> {
    let joining = joining.cloned();
    let kept = keeper
        .ask(|reply| SwarmCommand::KeepJoining(joining, reply).into())
        .await;
    kept.unwrap_or_else(|| Err(Refused::stopping()))
}
