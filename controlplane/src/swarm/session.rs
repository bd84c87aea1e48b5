//! What happens while a session lives (`spec/swarm-agent.md` 8.6 to 8.9, 8.12).

use super::agent::{Agent, AgentCommand, End, Event};
use super::attach::{Attach, status_update};
use super::certificate::{self, CertificateError, Facts};
use super::join::issued;
use super::rpc::{CallError, Connection};
use super::{random, unix_seconds};
use crate::daemon::Refused;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use weft_core::id::EndpointId;
use weft_core::swarm::asked::Reserved;
use weft_core::swarm::keys::gossip_keys;
use weft_core::swarm::proto::{
    EngineDescription, IssueNodeCertificateRequest, NodeDescription, NodeTlsInfo, Peer, Platform, PluginDescription,
    Resources, SessionMessage, SessionRequest, issuance, state,
};
use weft_core::swarm::reaction::{Reaction, reaction};
use weft_core::swarm::renewal::{Renewal, Standing, renewal};
use weft_core::swarm::tasks::{Changes, Order, attachment, order};
use weft_dataplane::abi::VXLAN_PORT;

/// How often it is looked whether the certificate is to be renewed: hours pass between a half and four fifths of the shortest life
/// that a swarm allows, and a clock that was set is noticed.
const LOOK_AT_CERTIFICATE: Duration = Duration::from_secs(60);

/// A platform that no image is for, so that nothing is placed here even if an operator makes this node active.
const NO_PLATFORM: &str = "none";

/// Stops a task when dropped.
struct Stop(AbortHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Registers, then listens until the session ends.
    pub(super) async fn session(&mut self, manager: &str, connection: Connection) -> End {
        match self.live(manager, &connection).await {
            Ok(end) => end,
            Err(error) => End::Failed(error),
        }
    }

    async fn live(&mut self, manager: &str, connection: &Connection) -> Result<End, CallError> {
        let request = SessionRequest {
            description: Some(self.description()),
            session_id: self.session_id.clone(),
        };
        let (first, mut session) = connection.session(request).await?;
        self.session_id.clone_from(&first.session_id);
        self.reported = Some(Instant::now());
        tracing::info!(
            manager,
            node = self.identity.node_id,
            "session with a manager of the swarm"
        );
        self.managers.succeeded(manager);
        self.problem_over();
        if let Some(end) = self.told(manager, connection, first, true).await {
            return Ok(end);
        }
        self.status
            .send_modify(|status| status.manager = Some(manager.to_owned()));
        let mut assignments = connection.assignments(&self.session_id).await?;
        let (beats, mut heard) = mpsc::channel(1);
        let beating = tokio::spawn(heartbeats(connection.clone(), self.session_id.clone(), beats));
        let _stop = Stop(beating.abort_handle());
        let mut look = interval(LOOK_AT_CERTIFICATE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // They end with the session.
        let mut jobs = JoinSet::new();
        loop {
            tokio::select! {
                message = session.message() => match message? {
                    Some(message) => {
                        if let Some(end) = self.told(manager, connection, message, false).await {
                            return Ok(end);
                        }
                    }
                    None => return Ok(End::Not(format!("manager {manager} ended the session"))),
                },
                message = assignments.message() => match message? {
                    Some(message) => {
                        let mut changes = None;
                        self.seen.send_modify(|seen| changes = Some(seen.tasks.apply(message)));
                        match changes {
                            Some(Ok(changes)) => self.changed(connection, &changes).await?,
                            // Something was missed: the whole comes anew.
                            Some(Err(_)) | None => assignments = connection.assignments(&self.session_id).await?,
                        }
                    }
                    None => return Ok(End::Not(format!("manager {manager} ended the assignments"))),
                },
                Some(beat) = heard.recv() => match beat {
                    Ok(()) => self.back_off.reset(),
                    Err(error) => return Err(error),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.command(connection, command, &mut jobs),
                    None => return Ok(End::Stopped),
                },
                Some(_) = jobs.join_next() => {}
                _ = look.tick() => {
                    if let Some(end) = self.renew_if_due(manager, connection).await {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// What this node is: something that runs nothing, but may be attached to overlay networks.
    fn description(&self) -> NodeDescription {
        NodeDescription {
            hostname: self.hostname.clone(),
            platform: Some(Platform {
                architecture: NO_PLATFORM.to_owned(),
                os: NO_PLATFORM.to_owned(),
            }),
            resources: Some(Resources::default()),
            engine: Some(EngineDescription {
                engine_version: format!("weft-{}", env!("CARGO_PKG_VERSION")),
                plugins: vec![PluginDescription {
                    kind: "Network".to_owned(),
                    name: "overlay".to_owned(),
                }],
            }),
            tls_info: Some(NodeTlsInfo {
                trust_root: self.identity.root_pem.clone().into_bytes(),
                cert_issuer_subject: self.facts.issuer_subject.clone(),
                cert_issuer_public_key: self.facts.issuer_public_key.clone(),
            }),
        }
    }

    /// Each message is complete: what is different is acted on.
    async fn told(
        &mut self,
        manager: &str,
        connection: &Connection,
        message: SessionMessage,
        first: bool,
    ) -> Option<End> {
        let before = self.identity.clone();
        let managers: Vec<Peer> = message
            .managers
            .into_iter()
            .filter_map(|weighted| weighted.peer)
            .collect();
        if !managers.is_empty() {
            self.managers.replace(managers.iter().map(|peer| peer.addr.clone()));
            self.identity.managers = managers;
        }
        let keys = gossip_keys(&message.network_bootstrap_keys);
        if !keys.is_empty() {
            self.identity.keys = keys;
        }
        let trust_changed = self.trust(message.root_ca);
        let node = message.node.unwrap_or_default();
        let port = node.vxlan_udp_port;
        let rotate = node
            .certificate
            .as_ref()
            .and_then(|certificate| certificate.status.as_ref())
            .is_some_and(|status| status.state == issuance::ROTATE);
        self.status.send_modify(|status| {
            let availability = node.spec.as_ref().map_or(0, |spec| spec.availability);
            status.availability = match availability {
                0 => "active",
                1 => "pause",
                _ => "drain",
            }
            .to_owned();
            status.address = node
                .status
                .as_ref()
                .map(|status| status.addr.clone())
                .unwrap_or_default();
        });
        let reserved = Reserved::all(&node.attachments);
        let reserved_before = Reserved::all(&self.seen.borrow().node.attachments);
        self.seen.send_modify(|seen| seen.node = node);
        self.tell_promotion();
        if first || before != self.identity || reserved_before != reserved {
            let event = Event::Told {
                identity: Box::new(self.identity.clone()),
                data_path_port: u16::try_from(port).ok().filter(|port| *port != 0).unwrap_or(VXLAN_PORT),
                reserved,
            };
            if !event.tell(&self.daemon).await {
                return Some(End::Stopped);
            }
        }
        if trust_changed {
            // The managers are told by a new registration.
            return Some(End::Again);
        }
        self.renew(manager, connection, rotate).await
    }

    /// Takes new roots if they vouch for this node.
    fn trust(&mut self, root_ca: Vec<u8>) -> bool {
        if root_ca.is_empty() || root_ca == self.identity.root_pem.as_bytes() {
            return false;
        }
        let Ok(root_pem) = String::from_utf8(root_ca) else {
            return false;
        };
        match certificate::check(&self.identity.certificate_pem, &self.identity.key_pem, &root_pem) {
            Ok(facts) => {
                tracing::info!("the swarm's root certificate was rotated");
                self.identity.root_pem = root_pem;
                self.facts = facts;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "new root certificate of the swarm not taken yet");
                self.offered_root = Some(root_pem);
                self.renewal_time = 0;
                false
            }
        }
    }

    /// An operator wants this node to be a manager: the next renewal would make it one, so there will be none.
    fn tell_promotion(&mut self) {
        let promoted = self.is_promoted();
        if promoted && !self.promoted {
            let problem = format!(
                "this node was promoted to manager, which it cannot be: its certificate will not be renewed; `docker node rm --force {}` removes it, so that it can join anew as a worker",
                self.identity.node_id
            );
            tracing::error!("swarm: {problem}");
            self.status.send_modify(|status| status.problem = Some(problem));
        }
        self.promoted = promoted;
    }

    async fn renew_if_due(&mut self, manager: &str, connection: &Connection) -> Option<End> {
        self.renew(manager, connection, false).await
    }

    async fn renew(&mut self, manager: &str, connection: &Connection, rotate: bool) -> Option<End> {
        let standing = Standing {
            now: unix_seconds(),
            renewal_time: self.renewal_time,
            rotate,
            issuer_is_trusted: self.facts.issuer_is_trusted,
            since_report: self.reported.map(|at| at.elapsed()),
            promoted: self.is_promoted(),
        };
        match renewal(&standing) {
            Renewal::Keep => None,
            // It was told when the operator did it.
            Renewal::Withhold => None,
            Renewal::Renew => match self.new_certificate(manager, connection).await {
                Ok(()) => Some(End::Again),
                Err(problem) => {
                    // The old one is valid until it ends; in a minute it is tried again.
                    self.tell_problem(&format!("the certificate is not renewed: {problem}"));
                    None
                }
            },
        }
    }

    async fn new_certificate(&mut self, manager: &str, connection: &Connection) -> Result<(), String> {
        let request = certificate::request().map_err(|error| error.to_string())?;
        let issue = IssueNodeCertificateRequest {
            csr: request.csr_pem.clone().into_bytes(),
            ..IssueNodeCertificateRequest::default()
        };
        let node_id = connection.issue(issue).await.map_err(|error| error.to_string())?;
        let chain = issued(connection, manager, &node_id, &request.csr_pem)
            .await
            .map_err(|error| error.to_string())?;
        let (facts, root_pem) = self
            .vouched(&chain, &request.key_pem)
            .map_err(|error| error.to_string())?;
        if (&facts.node_id, &facts.cluster_id) != (&self.identity.node_id, &self.identity.cluster_id) {
            return Err(format!("it is of node {} in swarm {}", facts.node_id, facts.cluster_id));
        }
        tracing::info!(node = node_id, "certificate renewed");
        self.identity.key_pem = request.key_pem;
        self.identity.certificate_pem = chain;
        self.identity.root_pem = root_pem;
        self.offered_root = None;
        self.renewal_time = facts.validity.renewal_time(random());
        self.status
            .send_modify(|status| status.certificate_ends = facts.validity.not_after);
        self.facts = facts;
        self.reported = None;
        Ok(())
    }

    /// What a new certificate says, and the roots that vouch for it: the trusted ones, or those that were offered and did not vouch
    /// for the old certificate.
    fn vouched(&self, chain: &str, key_pem: &str) -> Result<(Facts, String), CertificateError> {
        let trusted = &self.identity.root_pem;
        let facts = certificate::check(chain, key_pem, trusted);
        match (facts, &self.offered_root) {
            (Err(CertificateError::Untrusted(_)), Some(offered)) => {
                Ok((certificate::check(chain, key_pem, offered)?, offered.clone()))
            }
            (facts, _) => Ok((facts?, trusted.clone())),
        }
    }

    /// Tasks came, changed or went.
    async fn changed(&mut self, connection: &Connection, changes: &Changes) -> Result<(), CallError> {
        let mut updates = Vec::new();
        let mut events = Vec::new();
        {
            let seen = self.seen.borrow();
            for task in changes.updated.iter().filter_map(|id| seen.tasks.get(id)) {
                match order(task) {
                    Order::Nothing => {}
                    Order::Report(state, why) => updates.push((task.id.clone(), state, "", why)),
                    // One of an earlier run: who holds it is sorted out below. A new one is reported by who waits for it.
                    Order::Hold { reported: false, .. } if changes.complete => {
                        updates.push((task.id.clone(), state::RUNNING, "attached", ""));
                    }
                    Order::Hold {
                        endpoint,
                        reported: false,
                    } => events.extend(EndpointId::new(endpoint).map(Event::Offered)),
                    Order::Hold { .. } => {}
                    Order::GiveUp { endpoint } => events.extend(EndpointId::new(endpoint).map(Event::GiveUp)),
                }
            }
            for endpoint in changes.removed.iter().filter_map(attachment) {
                // The removal of one attachment of an endpoint says nothing while there is another.
                if seen.tasks.attachment_of(endpoint).is_none() {
                    events.extend(EndpointId::new(endpoint).map(Event::GiveUp));
                }
            }
            if changes.complete {
                let endpoints = seen.tasks.iter().filter_map(attachment);
                events.push(Event::OnRecord(
                    endpoints.filter_map(|text| EndpointId::new(text).ok()).collect(),
                ));
            }
        }
        if !updates.is_empty() {
            connection
                .update_tasks(status_update(&self.session_id, updates))
                .await?;
        }
        for event in events {
            event.tell(&self.daemon).await;
        }
        Ok(())
    }

    /// What takes more than a moment is done beside the session.
    fn command(&self, connection: &Connection, command: AgentCommand, jobs: &mut JoinSet<()>) {
        match command {
            AgentCommand::Attach {
                endpoint,
                network,
                ip,
                reply,
            } => {
                let attach = Attach {
                    connection: connection.clone(),
                    session_id: self.session_id.clone(),
                    seen: self.seen.subscribe(),
                    daemon: self.daemon.clone(),
                    endpoint,
                    network,
                    ip,
                };
                jobs.spawn(async move {
                    let _ = reply.send(attach.run().await);
                });
            }
            AgentCommand::Detach {
                endpoint,
                attachment,
                reply,
            } => {
                let seen = self.seen.borrow();
                let listed = seen.tasks.attachment_of(endpoint.as_str()).map(|task| task.id.clone());
                let connection = connection.clone();
                jobs.spawn(async move {
                    let mut outcome = Ok(());
                    for id in listed
                        .iter()
                        .chain(attachment.iter().filter(|id| Some(*id) != listed.as_ref()))
                    {
                        outcome = outcome.and(connection.detach(id).await);
                    }
                    let _ = reply.send(match outcome {
                        // A removed node holds nothing.
                        Err(error) if reaction(error.code, &error.message) != Reaction::Removed => {
                            Err(Refused::unavailable(format!("the swarm's manager: {error}")))
                        }
                        _ => Ok(()),
                    });
                });
            }
        }
    }
}

/// The first at once, then as often as the manager wants; ends with the first failure, which is the session's.
async fn heartbeats(connection: Connection, session_id: String, beats: mpsc::Sender<Result<(), CallError>>) {
    loop {
        let beat = connection.heartbeat(&session_id).await;
        match beat {
            Ok(period) => {
                // Whether the session reads it now does not matter: the next beat must not wait for that.
                let _ = beats.try_send(Ok(()));
                sleep(period).await;
            }
            Err(error) => {
                let _ = beats.send(Err(error)).await;
                return;
            }
        }
    }
}
