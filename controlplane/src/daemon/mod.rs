//! The daemon: one task that owns all state. Others send it a [`Command`] and wait for the answer.

mod admission;
mod capacity;
mod command;
mod connect;
mod diagnose;
mod effects;
mod endpoints;
mod follow;
mod keys;
mod membership;
mod namespaces;
mod neighbors;
mod recording;
mod settings;
mod sockets;
mod swarm;
mod uplink;

pub use command::*;
pub use namespaces::Watched;
pub use recording::{MAX_RECORDING_SECONDS, RecordCommand, Recorded};
pub use uplink::{Uplink, UplinkSeen};

use crate::config::Config;
use crate::dataplane::Dataplane;
use crate::gossip::Sockets;
use crate::netlink::{Netlink, UnderlayChanged};
use crate::resolver::Upstreams;
use crate::store::NodeStore;
use capacity::Capacity;
use diagnose::Syncing;
use endpoints::Endpoints;
use membership::Membership;
use recording::Recording;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant as Deadline, MissedTickBehavior, interval, sleep_until};
use uplink::Complaints;
use weft_core::id::NodeId;
use weft_core::networkdb;
use weft_core::node::{Input, Node};
use weft_core::recording::Ending;
use weft_core::time::Instant;
use weft_dataplane::abi::Counter;
use weft_diag::server::{Ask, DiagnosticServer};

/// The host's resolver configuration.
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// How often a part of the balanced connections is looked at for expired ones: all of them in half a minute.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often the kernel's maps are read back and compared, in case that something else changed them.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// How often it is looked whether the programs are where they were put: the kernel tells of removed filters, but not of detached links.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A join of the gossip that somebody waits for.
type Joining = ReplyTo<Result<(), String>>;

/// Who waits for this node to have left the gossip.
enum Leaving {
    Diagnostic(ReplyTo<Result<(), String>>),
    Cluster(ReplyTo<Result<(), Refused>>),
    Swarm(ReplyTo<Result<String, Refused>>, String),
}

/// What the daemon needs to start, all of it checked.
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The address that others reach this node at.
    pub advertise: IpAddr,
    /// Where gossip and cluster listen.
    pub listen: IpAddr,
    /// This node's VTEP address.
    pub vtep: IpAddr,
    /// The device that carries the overlay.
    pub uplink: Uplink,
    /// The loaded programs, attached to the uplink.
    pub dataplane: Dataplane,
    /// Index of the vxlan device that the programs send to, if they do.
    pub encap_device: Option<u32>,
    /// The gossip's sockets.
    pub sockets: Sockets,
    /// What this node remembers.
    pub store: NodeStore,
    /// The kernel's links and routes in the daemon's namespace.
    pub netlink: Netlink,
    /// Tells when routes or links change.
    pub underlay: mpsc::Receiver<UnderlayChanged>,
    /// Notices that the kernel's neighbour table changed.
    pub neighbors: mpsc::Receiver<()>,
}

/// The owner of all state.
pub struct Daemon {
    config: Config,
    handle: Handle,
    started: Deadline,
    advertise: IpAddr,
    listen: IpAddr,
    vtep: IpAddr,
    uplink: Uplink,
    complaints: Complaints,
    capacity: Capacity,
    node: Node,
    sockets: Sockets,
    dataplane: Dataplane,
    encap_device: Option<u32>,
    store: NodeStore,
    netlink: Netlink,
    underlay: mpsc::Receiver<UnderlayChanged>,
    upstreams: Arc<Upstreams>,
    membership: Membership,
    endpoints: Endpoints,
    diagnostics: DiagnosticServer,
    joining: BTreeMap<u64, Joining>,
    leaving: Vec<Leaving>,
    syncing: Vec<Syncing>,
    /// Somebody reads along what enters the gossip.
    recording: Option<Recording>,
    /// A join of a swarm is on its way.
    swarm_joining: bool,
    /// How the last membership of a swarm ended, if it was not by this node's will.
    swarm_ended: Option<String>,
}

impl Daemon {
    /// Takes over what an earlier run left in the kernel and in the store.
    pub async fn start(parts: Parts, handle: Handle) -> Result<Daemon, String> {
        let started = Deadline::now();
        let node = new_node(Instant::ZERO, &parts.config, parts.advertise, parts.vtep)?;
        let asking = handle.clone();
        let diagnostics = DiagnosticServer::new(Ask::new(move |request| {
            let handle = asking.clone();
            async move { handle.tell(Command::Diagnose(request)).await }
        }));
        let mut daemon = Daemon {
            config: parts.config,
            handle,
            started,
            advertise: parts.advertise,
            listen: parts.listen,
            vtep: parts.vtep,
            uplink: parts.uplink,
            complaints: Complaints::default(),
            capacity: Capacity::default(),
            node,
            sockets: parts.sockets,
            dataplane: parts.dataplane,
            encap_device: parts.encap_device,
            store: parts.store,
            netlink: parts.netlink,
            underlay: parts.underlay,
            upstreams: Arc::new(Upstreams::from_resolv_conf(HOST_RESOLV_CONF)),
            membership: Membership::Outside,
            endpoints: Endpoints::default(),
            diagnostics,
            joining: BTreeMap::new(),
            leaving: Vec::new(),
            syncing: Vec::new(),
            recording: None,
            swarm_joining: false,
            swarm_ended: None,
        };
        // On a socket of its own, so that its listings keep no others waiting.
        let own = Netlink::open().map_err(|error| error.to_string())?;
        tokio::spawn(neighbors::follow(own, parts.neighbors, daemon.handle.clone()));
        daemon.read_maps();
        daemon.restore_membership().await?;
        daemon.restore_endpoints().await?;
        daemon.join_again();
        daemon.take_own_settings();
        Ok(daemon)
    }

    /// Runs until `shutdown`. The programs and maps stay in the kernel, so traffic goes on.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut resync = interval(RESYNC_INTERVAL);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(namespaces::watch(self.handle.clone()));
        loop {
            // 1. Do what the node wants done, before anything new is heard.
            self.advance_keys();
            self.perform_effects();
            self.answer_synced();
            self.advance_recording();
            // 2. Wait for the first thing that happens.
            let timeouts = [self.node.poll_timeout(), self.keys_timeout(), self.recording_timeout()];
            let wake = timeouts
                .into_iter()
                .flatten()
                .min()
                .map(|at| self.started + at.since_origin());
            tokio::select! {
                () = &mut shutdown => break,
                input = self.sockets.next() => {
                    let now = self.now();
                    self.node.handle(now, Input::Gossip(input));
                }
                Some(command) = commands.recv() => self.command(command),
                Some(UnderlayChanged) = self.underlay.recv() => self.underlay_changed(),
                () = sleep_until(wake.unwrap_or_else(|| Deadline::now() + RESYNC_INTERVAL)) => {
                    let now = self.now();
                    self.node.handle_timeout(now);
                }
                _ = look.tick() => {
                    self.look_at_uplink();
                    self.remember_first_peers();
                    self.look_at_flow_tables();
                }
                _ = sweep.tick() => self.sweep_flows(),
                _ = resync.tick() => {
                    self.read_maps();
                    self.remember_gossip_peers();
                    self.release_unheld();
                    self.remember_swarm_peers();
                    self.join_swarm_gossip();
                    self.list_interfaces();
                }
            }
        }
        self.remember_gossip_peers();
        self.remember_swarm_peers();
        self.end_recording(Ending::Stopped);
        self.diagnostics.stop();
    }

    fn now(&self) -> Instant {
        Instant::from_origin(self.started.elapsed())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Manager(request, reply) => self.ask_manager(request, reply),
            Command::FromNode { node, request, reply } => {
                let _ = reply.send(self.answer_node(&node, request));
            }
            Command::Admit {
                secret,
                name,
                address,
                csr,
                reply,
            } => {
                let _ = reply.send(self.admit(&secret, name, address, &csr));
            }
            Command::Connect(request, reply) => self.connect(request, reply),
            Command::Connected(connected, reply) => self.connected(*connected, reply),
            Command::ConnectFailed(id) => self.endpoints.connect_failed(&id),
            Command::Disconnect {
                network,
                endpoint,
                reply,
            } => self.disconnect(network, endpoint, reply),
            Command::View(network, reply) => {
                let _ = reply.send(self.view(&network));
            }
            Command::ClusterInit(gossip_key, reply) => {
                let _ = reply.send(self.cluster_init(gossip_key));
            }
            Command::Keys(command) => self.keys(command),
            Command::Settings(command) => self.settings(command),
            Command::ClusterToken(reply) => {
                let _ = reply.send(self.cluster_token());
            }
            Command::ClusterJoin(request, reply) => self.cluster_join(request, reply),
            Command::ClusterJoined(joined, reply) => {
                let _ = reply.send(self.cluster_joined(*joined));
            }
            Command::ClusterLeave { force, reply } => self.cluster_leave(force, reply),
            Command::ClusterLeft(reply) => self.cluster_left(reply),
            Command::Allocated(endpoints) => self.allocated(endpoints),
            Command::Nodes(reply) => self.nodes(reply),
            Command::Info(reply) => {
                let _ = reply.send(self.info());
            }
            Command::Resolve {
                endpoint,
                question,
                reply,
            } => {
                let decision = self.resolve(&endpoint, &question);
                let _ = reply.send(decision);
            }
            Command::Diagnose(request) => self.diagnose(request),
            Command::GossipJoin { members, reply } => self.gossip_join(&members, reply),
            Command::NetworkKnown(network) => {
                let now = self.now();
                self.node.handle(now, Input::NetworkKnown(*network));
            }
            Command::Routes(routes) => {
                let now = self.now();
                self.node.handle(now, Input::Routes(routes));
            }
            Command::Neighbors(known) => self.neighbors(&known),
            Command::HostInterfaces { before, present } => self.host_interfaces(&before, &present),
            Command::UplinkSeen(seen) => self.uplink_seen(seen),
            Command::Namespaces(reply) => {
                let _ = reply.send(self.endpoints.namespaces());
            }
            Command::NamespacesEnded(endpoints) => self.let_gone(endpoints, "namespace is gone, endpoint disconnected"),
            Command::Reload => self.reload(),
            Command::Swarm(command) => self.swarm(command),
            Command::Record(command) => self.record(command),
        }
    }

    fn gossip_join(&mut self, members: &[SocketAddr], reply: Option<Joining>) {
        let now = self.now();
        let request = self.node.join(now, members);
        if let Some(reply) = reply {
            self.joining.insert(request, reply);
        }
    }

    fn info(&self) -> Info {
        Info {
            node_name: self.config.node_name.clone(),
            role: self.membership.role(),
            manager: self.membership.manager(),
            swarm_node_id: self.membership.swarm_node_id(),
            gossip_name: self.node.name().to_string(),
            gossip_peers: self.node.peers().len(),
            gossip_keys: self
                .node
                .gossip()
                .keyring()
                .keys()
                .iter()
                .map(|key| key.fingerprint())
                .collect(),
            gossip: self.node.gossip().stats(),
            endpoints: self.endpoints.len(),
            features: self.dataplane.features().choices().to_vec(),
            uplink: self.uplink.name.clone(),
            maps: self.map_uses(),
            timeouts: self.config.timeouts,
            flows_refused: self.dataplane.counter(Counter::DropFlowTableFull).unwrap_or(0),
        }
    }

    /// SIGHUP: what may change while the daemon runs is taken from the file; a bad file changes nothing.
    fn reload(&mut self) {
        match self.config.reload() {
            Ok(reloadable) => {
                tracing::info!("configuration read again");
                self.config.network_diagnostic_port = reloadable.network_diagnostic_port;
                match reloadable.network_diagnostic_port {
                    0 => self.diagnostics.stop(),
                    port => self.diagnostics.start(port),
                }
            }
            Err(error) => tracing::error!(%error, "configuration not read again, nothing changed"),
        }
    }
}

/// A node of a fresh name (`spec/networkdb.md` 3.1: a name must never be used again after a restart).
fn new_node(now: Instant, config: &Config, advertise: IpAddr, vtep: IpAddr) -> Result<Node, String> {
    let mut random = [0; 14];
    getrandom::fill(&mut random).map_err(|error| format!("no random bytes from the kernel: {error}"))?;
    let name: String = random[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = NodeId::new(name).map_err(|error| error.to_string())?;
    let mut seed = [0; 8];
    seed.copy_from_slice(&random[6..]);
    let advertise = SocketAddr::new(advertise, config.gossip_port);
    let gossip = networkdb::Config::new(name, advertise, u64::from_le_bytes(seed));
    Ok(Node::new(
        now,
        weft_core::node::Config {
            gossip,
            vtep,
            sizes: config.sizes,
        },
    ))
}
