//! This node's place in a cluster: outside, a worker that asks its manager, or the manager.

use super::connect::remove_links_and_files;
use super::keys::{ManagerKeys, WorkerKeys};
use super::settings::{Waiting, WorkerSettings};
use super::swarm::Member as SwarmMember;
use super::{Command, Daemon, JoinRequest, Leaving, NodeView, Refused, RefusedKind, ReplyTo};
use crate::cluster::client::{self, ManagerClient};
use crate::cluster::{Authority, JoinToken, der, server};
use crate::netlink::Netlink;
use crate::store::{ClusterStore, Identity, ManagerSecrets, NodeEndpoint, Store};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use weft_core::cluster::keys::KeySet;
use weft_core::cluster::{Member, Refusal, RefusalKind, Reply, Request, Role, State};
use weft_core::networkdb::Key;

/// Where this node stands.
pub(super) enum Membership {
    Outside,
    Worker(Box<Worker>),
    Manager(Box<Manager>),
    /// A worker of a Docker swarm.
    Swarm(Box<SwarmMember>),
}

pub(super) struct Worker {
    pub(super) identity: Identity,
    client: Arc<ManagerClient>,
    pub(super) keys: WorkerKeys,
    pub(super) settings: WorkerSettings,
}

pub(super) struct Manager {
    pub(super) identity: Identity,
    pub(super) secrets: ManagerSecrets,
    pub(super) authority: Authority,
    state: State,
    store: ClusterStore,
    server: JoinHandle<()>,
    pub(super) keys: ManagerKeys,
    pub(super) waiting_for_settings: Vec<Waiting>,
    /// Who was removed, or left, since the keys were looked at.
    pub(super) removed: Option<String>,
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a join brought, on its way to the daemon.
#[derive(Debug)]
pub struct Admitted {
    joined: client::Joined,
}

impl Membership {
    pub(super) fn role(&self) -> Option<Role> {
        match self {
            Membership::Outside | Membership::Swarm(_) => None,
            Membership::Worker(_) => Some(Role::Worker),
            Membership::Manager(_) => Some(Role::Manager),
        }
    }

    pub(super) fn manager(&self) -> Option<String> {
        match self {
            Membership::Outside | Membership::Swarm(_) => None,
            Membership::Worker(worker) => Some(worker.identity.manager.clone()),
            Membership::Manager(manager) => Some(manager.identity.manager.clone()),
        }
    }

    pub(super) fn swarm_node_id(&self) -> Option<String> {
        match self {
            Membership::Swarm(member) => Some(member.node_id().to_owned()),
            _ => None,
        }
    }

    fn identity_mut(&mut self) -> Option<&mut Identity> {
        match self {
            Membership::Outside | Membership::Swarm(_) => None,
            Membership::Worker(worker) => Some(&mut worker.identity),
            Membership::Manager(manager) => Some(&mut manager.identity),
        }
    }
}

impl Manager {
    pub(super) fn answer(&mut self, request: &Request) -> Result<Reply, Refused> {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy)
            .map_err(|error| Refused::failed(format!("no random bytes from the kernel: {error}")))?;
        let (reply, changes) = self.state.decide(unix_nanos(), entropy, request).map_err(refused)?;
        if !changes.is_empty() {
            // Memory follows the disk: what the disk refused did not happen.
            self.store.commit(&changes).map_err(Refused::failed)?;
            self.state.apply(&changes);
        }
        if let Request::MemberRemove { name } = request {
            self.removed = Some(name.clone());
        }
        Ok(reply)
    }
}

impl Daemon {
    /// Takes up the place that the store remembers; the gossip is [joined again](Self::join_again) later.
    pub(super) async fn restore_membership(&mut self) -> Result<(), String> {
        if self.restore_swarm()? {
            return Ok(());
        }
        let Some(identity) = self.store.identity().map_err(|error| error.to_string())? else {
            return Ok(());
        };
        match self.store.manager_secrets().map_err(|error| error.to_string())? {
            Some(secrets) => {
                let keys = ManagerKeys::restore(&self.store, self.now()).map_err(|error| error.message)?;
                self.become_manager(identity, secrets, keys)
                    .map_err(|error| error.message)?;
            }
            None => {
                let keys = self.store.key_set().map_err(|error| error.to_string())?;
                self.become_worker(identity, keys).map_err(|error| error.message)?;
            }
        }
        Ok(())
    }

    /// Joins the gossip that the store remembers, with the networks of the endpoints that are here again: who hears of this life of the
    /// node hears of them, too.
    pub(super) fn join_again(&mut self) {
        if let Some(identity) = self.membership.identity_mut() {
            let peers = identity.gossip_peers.clone();
            self.join_remembered(&peers);
        }
    }

    pub(super) fn join_remembered(&mut self, peers: &[SocketAddr]) {
        let own = SocketAddr::new(self.advertise, self.config.gossip_port);
        let others: Vec<SocketAddr> = peers.iter().copied().filter(|peer| *peer != own).collect();
        if !others.is_empty() {
            self.gossip_join(&others, None);
        }
    }

    fn become_manager(
        &mut self,
        identity: Identity,
        secrets: ManagerSecrets,
        keys: ManagerKeys,
    ) -> Result<(), Refused> {
        let authority = Authority::load(&identity.ca_pem, &secrets.ca_key_pem).map_err(Refused::failed)?;
        let store = ClusterStore::open(&self.config.data_dir).map_err(Refused::failed)?;
        let pools = self.config.default_addr_pools.clone();
        let mut state = State::new(pools.subnets, pools.mask_length).map_err(Refused::failed)?;
        state.apply(&store.load().map_err(Refused::failed)?);
        let listen = SocketAddr::new(self.listen, self.config.cluster_port);
        let listener = server::bind(listen).map_err(Refused::failed)?;
        let server = tokio::spawn(server::serve(
            listener,
            server::acceptor(&identity).map_err(Refused::failed)?,
            self.handle.clone(),
        ));
        self.membership = Membership::Manager(Box::new(Manager {
            identity,
            secrets,
            authority,
            state,
            store,
            server,
            keys,
            waiting_for_settings: Vec::new(),
            removed: None,
        }));
        self.set_keyring();
        Ok(())
    }

    fn become_worker(&mut self, identity: Identity, keys: Option<KeySet>) -> Result<(), Refused> {
        let client = Arc::new(ManagerClient::new(&identity).map_err(Refused::failed)?);
        let keys = WorkerKeys::follow(keys, Arc::clone(&client), self.handle.clone());
        let settings = WorkerSettings::follow(Arc::clone(&client), self.handle.clone());
        self.membership = Membership::Worker(Box::new(Worker {
            identity,
            client,
            keys,
            settings,
        }));
        self.set_keyring();
        Ok(())
    }

    /// A user's request to the manager, from this node.
    pub(super) fn ask_manager(&mut self, request: Request, reply: ReplyTo<Result<Reply, Refused>>) {
        match &mut self.membership {
            Membership::Outside => {
                let _ = reply.send(Err(outside()));
            }
            Membership::Swarm(_) => self.ask_swarm(request, reply),
            Membership::Manager(manager) => {
                let answer = manager.answer(&request);
                self.answered(&request);
                let _ = reply.send(answer);
            }
            Membership::Worker(worker) => {
                let client = Arc::clone(&worker.client);
                tokio::spawn(async move {
                    let _ = reply.send(client.request(&request).await);
                });
            }
        }
    }

    /// Another node's request. A node speaks only for itself.
    pub(super) fn answer_node(&mut self, node: &str, request: Request) -> Result<Reply, Refused> {
        let Membership::Manager(manager) = &mut self.membership else {
            return Err(outside());
        };
        let foreign = match &request {
            Request::Allocate { node: claimed, .. } => claimed != node,
            Request::MemberRemove { name } => name != node,
            Request::MemberAdd { .. } => true,
            Request::Release { endpoint } => manager
                .state
                .allocations()
                .get(endpoint)
                .is_some_and(|held| held.node != node),
            _ => false,
        };
        if foreign {
            return Err(Refused::invalid(format!("node {node} may speak for itself only")));
        }
        if !manager.is_member(node) {
            return Err(Refused {
                kind: RefusedKind::Invalid,
                message: format!("node {node} was removed from the cluster"),
            });
        }
        let answer = manager.answer(&request);
        self.answered(&request);
        answer
    }

    fn answered(&mut self, request: &Request) {
        if matches!(request, Request::ServiceUpdate { .. }) {
            self.service_changed();
        }
    }

    pub(super) fn cluster_init(&mut self, gossip_key: Option<Key>) -> Result<String, Refused> {
        self.must_be_outside()?;
        let authority = Authority::create().map_err(Refused::failed)?;
        let name = self.config.node_name.clone();
        let address = self.advertise;
        let (certificate, key) = authority.issue_manager(&name).map_err(Refused::failed)?;
        let own = SocketAddr::new(address, self.config.gossip_port);
        let identity = Identity {
            node_name: name.clone(),
            member_id: String::new(),
            manager: SocketAddr::new(address, self.config.cluster_port).to_string(),
            ca_pem: authority.certificate_pem(),
            certificate_pem: certificate,
            key_pem: key,
            gossip_peers: vec![own],
        };
        let secrets = ManagerSecrets {
            ca_key_pem: authority.key_pem(),
            join_secret: JoinToken::new_secret().map_err(Refused::failed)?,
            replaced_secret: None,
        };
        let keys = ManagerKeys::create(&self.store, self.now(), gossip_key)?;
        self.become_manager(identity, secrets, keys)?;
        let outcome = self.finish_init(name, address);
        if outcome.is_err() {
            self.forget_cluster();
            self.set_keyring();
        }
        outcome
    }

    fn finish_init(&mut self, name: String, address: IpAddr) -> Result<String, Refused> {
        let Membership::Manager(manager) = &mut self.membership else {
            return Err(outside());
        };
        if let Reply::Member(member) = manager.answer(&Request::MemberAdd {
            name,
            address,
            role: Role::Manager,
        })? {
            manager.identity.member_id = member.id;
        }
        self.store
            .put_identity(&manager.identity, Some(&manager.secrets))
            .map_err(Refused::failed)?;
        tracing::info!("cluster initialised, this node is its manager");
        self.cluster_token()
    }

    pub(super) fn cluster_token(&self) -> Result<String, Refused> {
        match &self.membership {
            Membership::Outside => Err(outside()),
            Membership::Swarm(_) => Err(in_swarm()),
            Membership::Worker(worker) => Err(Refused::invalid(format!(
                "this node is not the manager; ask {} for the join token",
                worker.identity.manager
            ))),
            Membership::Manager(manager) => {
                let authority = der(&manager.identity.ca_pem).map_err(Refused::failed)?;
                Ok(JoinToken::new(&authority, &manager.secrets.join_secret).to_string())
            }
        }
    }

    pub(super) fn cluster_join(&mut self, request: JoinRequest, reply: ReplyTo<Result<(), Refused>>) {
        let possible = self
            .must_be_outside()
            .and_then(|()| match request.token.starts_with("SWMTKN-") {
                true => Err(Refused::invalid(
                    "the join token is a Docker swarm's: `weft swarm join` joins it",
                )),
                false => Ok(()),
            });
        if let Err(refused) = possible {
            let _ = reply.send(Err(refused));
            return;
        }
        let name = self.config.node_name.clone();
        let address = self.advertise;
        let port = self.config.cluster_port;
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let outcome = match client::join(&request.token, &request.manager, port, &name, address).await {
                Ok(joined) => {
                    let admitted = Box::new(Admitted { joined });
                    handle
                        .ask(|reply| Command::ClusterJoined(admitted, reply))
                        .await
                        .unwrap_or_else(|| Err(Refused::stopping()))
                }
                Err(refused) => Err(refused),
            };
            let _ = reply.send(outcome);
        });
    }

    pub(super) fn cluster_joined(&mut self, admitted: Admitted) -> Result<(), Refused> {
        self.must_be_outside()?;
        let client::Joined { identity, keys } = admitted.joined;
        // The keys first: an identity without them would gossip in the clear after a crash between the two.
        self.store.put_key_set(&keys).map_err(Refused::failed)?;
        self.store.put_identity(&identity, None).map_err(Refused::failed)?;
        let peers = identity.gossip_peers.clone();
        tracing::info!(manager = identity.manager, "joined the cluster");
        self.become_worker(identity, Some(keys))?;
        self.join_remembered(&peers);
        Ok(())
    }

    pub(super) fn cluster_leave(&mut self, force: bool, reply: ReplyTo<Result<(), Refused>>) {
        if let Err(refused) = self.may_leave(force) {
            let _ = reply.send(Err(refused));
            return;
        }
        let gone = self.let_all_go();
        let membership = std::mem::replace(&mut self.membership, Membership::Outside);
        let name = self.config.node_name.clone();
        let (handle, netlink) = (self.handle.clone(), self.netlink.clone());
        tokio::spawn(async move {
            take_leave(membership, &netlink, &name, &gone).await;
            handle.tell(Command::ClusterLeft(reply)).await;
        });
    }

    /// The manager knows; now the gossip is left, and what was remembered is forgotten.
    pub(super) fn cluster_left(&mut self, reply: ReplyTo<Result<(), Refused>>) {
        self.forget_cluster();
        let now = self.now();
        self.leaving.push(Leaving::Cluster(reply));
        self.node.leave(now);
    }

    fn may_leave(&self, force: bool) -> Result<(), Refused> {
        let conflict = |message: String| {
            Err(Refused {
                kind: RefusedKind::Conflict,
                message,
            })
        };
        match &self.membership {
            Membership::Outside => Err(outside()),
            Membership::Swarm(_) => Err(in_swarm()),
            _ if force => Ok(()),
            Membership::Manager(_) => conflict(
                "this node is the manager: the declared networks and services go with it; `weft cluster leave --force` does it all the same".to_owned(),
            ),
            Membership::Worker(_) if self.endpoints.len() > 0 => {
                let count = self.endpoints.len();
                conflict(format!("{count} endpoints of this node are still connected; disconnect them, or `weft cluster leave --force`"))
            }
            Membership::Worker(_) => Ok(()),
        }
    }

    /// The gossip's keyring stays: the goodbye is for the others.
    fn forget_cluster(&mut self) {
        self.membership = Membership::Outside;
        if let Err(error) = self.store.forget_cluster() {
            tracing::error!(%error, "cluster not forgotten on disk");
        }
        if let Err(error) = ClusterStore::remove(&self.config.data_dir) {
            tracing::error!(%error, "declared state not removed from disk");
        }
    }

    pub(super) fn nodes(&mut self, reply: ReplyTo<Result<Vec<NodeView>, Refused>>) {
        let live = self.live_addresses();
        let own = self.config.node_name.clone();
        let (members, answer) = tokio::sync::oneshot::channel();
        self.ask_manager(Request::MemberList, members);
        tokio::spawn(async move {
            let view = |member: Member| NodeView {
                ready: live.contains(&member.address),
                this: member.name == own,
                member,
            };
            let outcome = match answer.await {
                Ok(Ok(Reply::Members(members))) => Ok(members.into_iter().map(view).collect()),
                Ok(Ok(other)) => Err(Refused::failed(format!(
                    "the manager answered {other:?} where its members were asked for"
                ))),
                Ok(Err(refused)) => Err(refused),
                Err(_) => Err(Refused::stopping()),
            };
            let _ = reply.send(outcome);
        });
    }

    /// Where the gossip sees live nodes, this one included.
    pub(super) fn live_addresses(&self) -> BTreeSet<IpAddr> {
        self.node.peers().into_iter().map(|(_, ip)| ip).collect()
    }

    /// Remembers the first peers soon: until then a start would have nobody to join.
    pub(super) fn remember_first_peers(&mut self) {
        let known = self
            .membership
            .identity_mut()
            .map_or(0, |identity| identity.gossip_peers.len());
        if known < 2 {
            self.remember_gossip_peers();
        }
    }

    /// Who is alive now is whom to ask after a restart.
    pub(super) fn remember_gossip_peers(&mut self) {
        let port = self.config.gossip_port;
        let mut peers: Vec<SocketAddr> = self
            .node
            .peers()
            .into_iter()
            .map(|(_, ip)| SocketAddr::new(ip, port))
            .collect();
        peers.sort_unstable();
        let secrets = match &self.membership {
            Membership::Manager(manager) => Some(manager.secrets.clone()),
            _ => None,
        };
        let Some(identity) = self.membership.identity_mut() else {
            return;
        };
        // A node alone knows nobody better than whom it knew before.
        if peers.len() < 2 || identity.gossip_peers == peers {
            return;
        }
        identity.gossip_peers = peers;
        let identity = identity.clone();
        if let Err(error) = self.store.put_identity(&identity, secrets.as_ref()) {
            tracing::warn!(%error, "gossip peers not remembered");
        }
    }

    /// Gives back addresses that the manager has on record for this node but that no endpoint here holds.
    pub(super) fn release_unheld(&mut self) {
        match self.membership {
            Membership::Outside => return,
            Membership::Swarm(_) => return self.release_unheld_in_swarm(),
            Membership::Worker(_) | Membership::Manager(_) => {}
        }
        let handle = self.handle.clone();
        let node = self.config.node_name.clone();
        tokio::spawn(async move {
            let Some(Ok(Reply::Allocations(all))) = handle
                .ask(|reply| Command::Manager(Request::AllocationList, reply))
                .await
            else {
                return;
            };
            let own = all.into_iter().filter(|a| a.node == node).map(|a| a.endpoint).collect();
            handle.tell(Command::Allocated(own)).await;
        });
    }

    /// The endpoints that the manager has on record for this node.
    pub(super) fn allocated(&mut self, on_record: Vec<weft_core::id::EndpointId>) {
        for endpoint in on_record {
            if self.endpoints.is_held(&endpoint) {
                continue;
            }
            tracing::info!(%endpoint, "address held by no endpoint, released");
            let handle = self.handle.clone();
            tokio::spawn(async move {
                // If the manager is away again, the next comparison tries again.
                let _ = handle
                    .ask(|reply| Command::Manager(Request::Release { endpoint }, reply))
                    .await;
            });
        }
    }

    pub(super) fn must_be_outside(&self) -> Result<(), Refused> {
        if matches!(self.membership, Membership::Swarm(_)) {
            return Err(in_swarm());
        }
        match self.membership.manager() {
            None => Ok(()),
            Some(manager) => Err(Refused {
                kind: RefusedKind::Conflict,
                message: format!(
                    "this node is already part of the cluster of {manager}; `weft cluster leave` leaves it"
                ),
            }),
        }
    }
}

impl Manager {
    pub(super) fn is_member(&self, node: &str) -> bool {
        self.members().any(|member| member.name == node)
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.state.members().values()
    }
}

async fn take_leave(mut membership: Membership, netlink: &Netlink, name: &str, gone: &[NodeEndpoint]) {
    for endpoint in gone {
        remove_links_and_files(netlink, endpoint).await;
    }
    if let Membership::Worker(worker) = &mut membership
        && let Err(error) = worker
            .client
            .request(&Request::MemberRemove { name: name.to_owned() })
            .await
    {
        tracing::warn!(%error, "the manager was not told: it still lists this node, and holds its addresses until it joins again");
    }
}

pub(super) fn refused(refusal: Refusal) -> Refused {
    let kind = match refusal.kind {
        RefusalKind::Invalid => RefusedKind::Invalid,
        RefusalKind::NotFound => RefusedKind::NotFound,
        RefusalKind::Conflict => RefusedKind::Conflict,
    };
    Refused {
        kind,
        message: refusal.message,
    }
}

pub(super) fn outside() -> Refused {
    Refused {
        kind: RefusedKind::Unavailable,
        message: "this node is not part of a cluster; `weft cluster init` starts one, `weft cluster join` joins one"
            .to_owned(),
    }
}

pub(super) fn in_swarm() -> Refused {
    Refused::conflict("this node is part of a Docker swarm; `weft swarm leave` leaves it")
}

pub(super) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
