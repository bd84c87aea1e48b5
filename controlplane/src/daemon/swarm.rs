//! This node as a member of a Docker swarm: what its agent tells becomes state.

mod addresses;
mod requests;

use addresses::still_held;

use super::connect::remove_links_and_files;
use super::membership::Membership;
use super::{Daemon, JoinRequest, Leaving, Refused, ReplyTo, SwarmCommand, SwarmView};
use crate::store::{NodeEndpoint, StoredAttachment};
use crate::swarm::{self, Agent, AgentCommand, Event, Identity, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use weft_core::id::EndpointId;
use weft_core::networkdb::Keyring;
use weft_core::swarm::asked::{Askings, Reserved};
use weft_core::swarm::keys::{keyring, usable};

/// Docker's engines gossip on this port, always.
const GOSSIP_PORT: u16 = 7946;

/// How long a user waits for the first session; Docker's own command waits as long.
const FIRST_SESSION: Duration = Duration::from_secs(20);

/// This node in a swarm.
pub(super) struct Member {
    identity: Identity,
    attachments: BTreeMap<EndpointId, StoredAttachment>,
    askings: Askings,
    /// Where the managers reserve an address for this node, and since when they tell so.
    reserved: (Vec<Reserved>, Instant),
    /// Names of the networks on which an address is held that cannot be given back.
    held: BTreeSet<String>,
    data_path_port: Option<u16>,
    /// Whom the gossip knew last.
    gossip_peers: Vec<SocketAddr>,
    /// The gossip has the swarm's keys.
    gossips: bool,
    commands: mpsc::UnboundedSender<AgentCommand>,
    status: watch::Receiver<Status>,
    agent: JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

impl Member {
    /// Keys that cannot be used are told when they arrive, and not taken; without keys there is no gossip.
    pub(super) fn keyring(&self) -> Keyring {
        keyring(&self.identity.keys).unwrap_or_default()
    }

    pub(super) fn node_id(&self) -> &str {
        &self.identity.node_id
    }

    /// Asks the agent; an answer that never comes is one.
    async fn ask<T>(
        commands: mpsc::UnboundedSender<AgentCommand>,
        command: impl FnOnce(ReplyTo<Result<T, Refused>>) -> AgentCommand,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        // When sending fails, so does waiting.
        let _ = commands.send(command(reply));
        let ended = || Refused::unavailable("the session with the swarm's manager ended; try again");
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl Daemon {
    pub(super) fn swarm(&mut self, command: SwarmCommand) {
        // Nobody waits for the answer any more when sending it fails.
        let _ = match command {
            SwarmCommand::Join(request, reply) => {
                self.swarm_join(request, reply);
                true
            }
            SwarmCommand::Leave { force, reply } => {
                self.swarm_leave(force, reply);
                true
            }
            SwarmCommand::Status(reply) => reply.send(self.swarm_view()).is_ok(),
            SwarmCommand::Joining(reply) => reply.send(self.store.swarm_joining().map_err(Refused::failed)).is_ok(),
            SwarmCommand::KeepJoining(joining, reply) => {
                let kept = self.store.put_swarm_joining(joining.as_ref());
                reply.send(kept.map_err(Refused::failed)).is_ok()
            }
            SwarmCommand::Joined(outcome, reply) => {
                self.swarm_joined(outcome, reply);
                true
            }
            SwarmCommand::Event(event, reply) => {
                self.swarm_event(event);
                reply.send(()).is_ok()
            }
            SwarmCommand::Asked {
                endpoint,
                answered,
                reply,
            } => {
                self.swarm_asked(&endpoint, answered);
                reply.send(()).is_ok()
            }
            SwarmCommand::Detached(endpoint) => {
                self.swarm_detached(&endpoint);
                true
            }
            SwarmCommand::Left(reply) => {
                self.swarm_left(reply);
                true
            }
        };
    }

    fn swarm_join(&mut self, request: JoinRequest, reply: ReplyTo<Result<String, Refused>>) {
        let free = match self.swarm_joining {
            true => Err(Refused::conflict("a join is on its way: wait until it ends")),
            false => self.must_be_outside(),
        };
        if let Err(refused) = free {
            let _ = reply.send(Err(refused));
            return;
        }
        self.swarm_joining = true;
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let outcome = swarm::join(&request.token, &request.manager, &handle).await;
            handle
                .tell(SwarmCommand::Joined(outcome.map(Box::new), reply).into())
                .await;
        });
    }

    fn swarm_joined(&mut self, outcome: Result<Box<Identity>, Refused>, reply: ReplyTo<Result<String, Refused>>) {
        self.swarm_joining = false;
        let became = outcome.and_then(|identity| {
            self.must_be_outside()?;
            self.store.put_swarm_identity(&identity).map_err(Refused::failed)?;
            tracing::info!(node = identity.node_id, swarm = identity.cluster_id, "joined a swarm");
            self.become_swarm_node(*identity)
        });
        let (node_id, mut status) = match became {
            Ok(begun) => begun,
            Err(refused) => {
                let _ = reply.send(Err(refused));
                return;
            }
        };
        self.swarm_ended = None;
        tokio::spawn(async move {
            let in_session = status.wait_for(|status| status.manager.is_some());
            let begun = timeout(FIRST_SESSION, in_session)
                .await
                .is_ok_and(|status| status.is_ok());
            let _ = reply.send(if begun {
                Ok(node_id)
            } else {
                let problem = status.borrow().problem.clone().unwrap_or_default();
                Err(Refused::unavailable(format!(
                    "this node is {node_id} of the swarm, but has no session with a manager within {} s ({problem}); it goes on trying",
                    FIRST_SESSION.as_secs()
                )))
            });
        });
    }

    /// Takes up the place in a swarm that the store remembers; false when it remembers none.
    pub(super) fn restore_swarm(&mut self) -> Result<bool, String> {
        let Some(identity) = self.store.swarm_identity().map_err(|error| error.to_string())? else {
            return Ok(false);
        };
        self.become_swarm_node(identity).map_err(|refused| refused.message)?;
        if let Membership::Swarm(member) = &mut self.membership
            && !member.keyring().is_empty()
        {
            // With the keys as they were told last, the gossip goes on also while no manager is there.
            member.gossips = true;
            self.fresh_node()?;
            self.read_maps();
            self.join_swarm_gossip();
        }
        Ok(true)
    }

    fn become_swarm_node(&mut self, identity: Identity) -> Result<(String, watch::Receiver<Status>), Refused> {
        let attachments = self.store.swarm_attachments().map_err(Refused::failed)?;
        let askings = Askings::restore(self.store.swarm_asked().map_err(Refused::failed)?);
        let gossip_peers = self.store.swarm_peers().map_err(Refused::failed)?;
        let (agent, commands, status) =
            Agent::new(identity.clone(), &self.config.node_name, self.handle.clone()).map_err(Refused::failed)?;
        let begun = (identity.node_id.clone(), status.clone());
        self.membership = Membership::Swarm(Box::new(Member {
            identity,
            attachments: attachments
                .into_iter()
                .map(|held| (held.endpoint.clone(), held))
                .collect(),
            askings,
            reserved: (Vec::new(), Instant::now()),
            held: BTreeSet::new(),
            data_path_port: None,
            gossip_peers,
            gossips: false,
            commands,
            status,
            agent: tokio::spawn(agent.run()),
        }));
        Ok(begun)
    }

    fn swarm_event(&mut self, event: Event) {
        match event {
            Event::Told {
                identity,
                data_path_port,
                reserved,
            } => {
                self.swarm_told(*identity, data_path_port);
                self.swarm_reserves(reserved);
            }
            Event::Asking(asked) => self.swarm_asking(asked),
            Event::Attachment {
                endpoint,
                id,
                delivered,
            } => self.swarm_attachment(StoredAttachment {
                endpoint,
                id,
                delivered,
            }),
            Event::OnRecord(endpoints) => self.swarm_on_record(endpoints),
            Event::Offered(endpoint) => self.swarm_offered(endpoint),
            Event::GiveUp(endpoint) => {
                self.swarm_gone(&endpoint);
                let why =
                    "the swarm took the address back, endpoint disconnected: its network or its attachment was removed";
                self.let_gone(vec![endpoint], why);
            }
            Event::Removed(message) => self.swarm_removed(&message),
        }
    }

    /// Managers, keys or certificate as they are now.
    fn swarm_told(&mut self, mut identity: Identity, data_path_port: u16) {
        let Membership::Swarm(member) = &mut self.membership else {
            return;
        };
        let told = std::mem::take(&mut identity.keys);
        let (keys, useless) = usable(told, &member.identity.keys);
        identity.keys = keys;
        if let Some(error) = useless {
            tracing::error!(%error, "the gossip keys that the swarm's managers told are of no use, those before stay in use");
        }
        if member.identity != identity
            && let Err(error) = self.store.put_swarm_identity(&identity)
        {
            tracing::error!(%error, "what the swarm told is not kept for a restart");
        }
        let keys_changed = member.identity.keys != identity.keys;
        member.identity = identity;
        if member.data_path_port != Some(data_path_port) && data_path_port != self.config.data_path_port {
            tracing::error!("{}", wrong_port(data_path_port, self.config.data_path_port));
        }
        member.data_path_port = Some(data_path_port);
        let ring = member.keyring();
        if ring.is_empty() {
            return;
        }
        let begins = !std::mem::replace(&mut member.gossips, true);
        let now = self.now();
        if begins {
            // What was heard in the clear before is not of this swarm.
            if let Err(error) = self.fresh_node() {
                tracing::error!(%error, "gossip not started");
            }
            self.read_maps();
        } else if keys_changed {
            self.node.set_keyring(now, ring);
            tracing::info!("the swarm's gossip keys were rotated");
        }
        self.join_swarm_gossip();
    }

    /// Joins the gossip through the managers and whom it knew last, if nobody of it is known.
    pub(super) fn join_swarm_gossip(&mut self) {
        let Membership::Swarm(member) = &self.membership else {
            return;
        };
        if !member.gossips || self.node.peers().len() > 1 {
            return;
        }
        let own = self.advertise;
        let managers = member.identity.managers.iter();
        let addresses = managers.filter_map(|manager| manager.addr.parse::<SocketAddr>().ok());
        let mut peers: Vec<SocketAddr> = addresses
            .map(|address| SocketAddr::new(address.ip(), GOSSIP_PORT))
            .chain(member.gossip_peers.iter().copied())
            .filter(|address| address.ip() != own)
            .collect();
        peers.sort_unstable();
        peers.dedup();
        if !peers.is_empty() {
            self.gossip_join(&peers, None);
        }
    }

    /// Who is alive now is whom to ask after a restart, for the managers may be away then.
    pub(super) fn remember_swarm_peers(&mut self) {
        let peers = self.node.peers();
        let Membership::Swarm(member) = &mut self.membership else {
            return;
        };
        let mut peers: Vec<SocketAddr> = peers
            .into_iter()
            .map(|(_, ip)| SocketAddr::new(ip, GOSSIP_PORT))
            .collect();
        peers.sort_unstable();
        // A node alone knows nobody better than whom it knew before.
        if peers.len() < 2 || member.gossip_peers == peers {
            return;
        }
        member.gossip_peers = peers;
        if let Err(error) = self.store.put_swarm_peers(&member.gossip_peers) {
            tracing::warn!(%error, "gossip peers not remembered");
        }
    }

    /// The managers do not know this node any more: nothing of it is of use.
    fn swarm_removed(&mut self, message: &str) {
        let Membership::Swarm(member) = &self.membership else {
            return;
        };
        let ended = format!(
            "this node ({}) was removed from the swarm: its identity is forgotten and its endpoints are disconnected; `weft swarm join` with a token joins anew",
            member.node_id()
        );
        tracing::debug!(message, "the manager's words");
        tracing::error!("{ended}");
        let gone = self.let_all_go();
        self.forget_swarm();
        self.swarm_ended = Some(ended);
        let netlink = self.netlink.clone();
        tokio::spawn(async move {
            for endpoint in &gone {
                remove_links_and_files(&netlink, endpoint).await;
            }
        });
        let now = self.now();
        self.node.leave(now);
    }

    fn forget_swarm(&mut self) {
        self.membership = Membership::Outside;
        if let Err(error) = self.store.forget_swarm() {
            tracing::error!(%error, "swarm not forgotten on disk");
        }
    }

    fn swarm_leave(&mut self, force: bool, reply: ReplyTo<Result<String, Refused>>) {
        let may = match &self.membership {
            Membership::Swarm(_) if force || self.endpoints.len() == 0 => Ok(()),
            Membership::Swarm(_) => Err(Refused::conflict(format!(
                "{} endpoints of this node are still connected; disconnect them, or `weft swarm leave --force`",
                self.endpoints.len()
            ))),
            _ => Err(not_in_swarm()),
        };
        if let Err(refused) = may {
            let _ = reply.send(Err(refused));
            return;
        }
        let gone = self.let_all_go();
        let Membership::Swarm(member) = &self.membership else {
            return;
        };
        let held = member.attachments.values().cloned().collect();
        let (commands, netlink, handle) = (member.commands.clone(), self.netlink.clone(), self.handle.clone());
        tokio::spawn(async move {
            for endpoint in &gone {
                remove_links_and_files(&netlink, endpoint).await;
            }
            give_back(commands, &gone, held).await;
            handle.tell(SwarmCommand::Left(reply).into()).await;
        });
    }

    /// The managers have their addresses back; now the gossip is left, and what was remembered is forgotten.
    fn swarm_left(&mut self, reply: ReplyTo<Result<String, Refused>>) {
        let Membership::Swarm(member) = &self.membership else {
            let _ = reply.send(Err(not_in_swarm()));
            return;
        };
        let node_id = member.node_id().to_owned();
        self.forget_swarm();
        tracing::info!(node = node_id, "left the swarm");
        let now = self.now();
        self.leaving.push(Leaving::Swarm(reply, node_id));
        self.node.leave(now);
    }

    fn swarm_view(&self) -> SwarmView {
        let ended = self.swarm_ended.clone();
        let Membership::Swarm(member) = &self.membership else {
            return SwarmView {
                ended,
                ..SwarmView::default()
            };
        };
        let mut status = member.status.borrow().clone();
        if let Some(port) = member.data_path_port.filter(|port| *port != self.config.data_path_port) {
            status
                .problem
                .get_or_insert(wrong_port(port, self.config.data_path_port));
        }
        if !member.held.is_empty() {
            status.problem.get_or_insert(still_held(member));
        }
        SwarmView {
            node_id: Some(member.node_id().to_owned()),
            cluster_id: member.identity.cluster_id.clone(),
            managers: member.identity.managers.iter().map(|peer| peer.addr.clone()).collect(),
            status,
            ended,
        }
    }
}

async fn detach(
    commands: mpsc::UnboundedSender<AgentCommand>,
    endpoint: &EndpointId,
    attachment: Option<String>,
) -> Result<(), Refused> {
    let endpoint = endpoint.clone();
    Member::ask(commands, |reply| AgentCommand::Detach {
        endpoint,
        attachment,
        reply,
    })
    .await
}

/// Gives all addresses back before a leave. What the managers do not hear of stays theirs until the node is removed there.
async fn give_back(commands: mpsc::UnboundedSender<AgentCommand>, gone: &[NodeEndpoint], held: Vec<StoredAttachment>) {
    let remembered: BTreeMap<EndpointId, String> = held.into_iter().map(|held| (held.endpoint, held.id)).collect();
    let endpoints = gone.iter().map(|endpoint| &endpoint.allocation.endpoint);
    let mut all: Vec<&EndpointId> = remembered.keys().chain(endpoints).collect();
    all.sort_unstable();
    all.dedup();
    for endpoint in all {
        if let Err(error) = detach(commands.clone(), endpoint, remembered.get(endpoint).cloned()).await {
            tracing::warn!(%endpoint, %error, "address not given back: the swarm holds it until this node is removed with `docker node rm`");
        }
    }
}

fn wrong_port(swarm: u16, own: u16) -> String {
    format!(
        "data-path-port {own}: the swarm's is {swarm}; set it so and start weftd again, before an endpoint can be connected"
    )
}

fn not_in_swarm() -> Refused {
    Refused::unavailable("this node is not part of a Docker swarm; `weft swarm join` joins one")
}
