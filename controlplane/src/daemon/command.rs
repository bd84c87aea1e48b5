//! The messages that others send the daemon, and what it answers.

use super::recording::RecordCommand;
use crate::dataplane::Choice;
use crate::netns::NetnsSpec;
use crate::swarm;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::sync::{mpsc, oneshot};
use weft_core::cluster;
use weft_core::cluster::keys::{KeySet, KeysView};
use weft_core::cluster::settings::Settings;
use weft_core::id::{EndpointId, MacAddress, NetworkId};
use weft_core::networkdb::{Key, Stats};
use weft_dataplane::abi::flow::Timeouts;

/// Where an answer goes.
pub type ReplyTo<T> = oneshot::Sender<T>;

/// How many commands may wait for the daemon. Each is one request of a user or a socket; when it is full, senders wait.
pub const COMMAND_QUEUE: usize = 1024;

/// Why a command was refused: one line for the user, and which HTTP status fits it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What kind of refusal.
    pub kind: RefusedKind,
    /// One line that names the thing, the value and what would be right.
    pub message: String,
}

impl Refused {
    /// The request itself is wrong.
    pub fn invalid(message: impl ToString) -> Refused {
        Refused {
            kind: RefusedKind::Invalid,
            message: message.to_string(),
        }
    }

    /// The thing does not exist.
    pub fn not_found(message: impl ToString) -> Refused {
        Refused {
            kind: RefusedKind::NotFound,
            message: message.to_string(),
        }
    }

    /// The thing is in use or exists already.
    pub fn conflict(message: impl ToString) -> Refused {
        Refused {
            kind: RefusedKind::Conflict,
            message: message.to_string(),
        }
    }

    /// The node is not in a cluster, or the manager is away.
    pub fn unavailable(message: impl ToString) -> Refused {
        Refused {
            kind: RefusedKind::Unavailable,
            message: message.to_string(),
        }
    }

    /// The kernel or the disk refused.
    pub fn failed(message: impl ToString) -> Refused {
        Refused {
            kind: RefusedKind::Failed,
            message: message.to_string(),
        }
    }

    pub(crate) fn stopping() -> Refused {
        Refused::unavailable("the daemon is stopping")
    }
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// The request itself is wrong (HTTP 400).
    Invalid,
    /// The thing does not exist (HTTP 404).
    NotFound,
    /// The thing is in use or exists already (HTTP 409).
    Conflict,
    /// The node is not in a cluster, or the manager is away (HTTP 503).
    Unavailable,
    /// The kernel or the disk refused (HTTP 500).
    Failed,
}

impl RefusedKind {
    /// The HTTP status that says it.
    pub const fn status(self) -> u16 {
        match self {
            RefusedKind::Invalid => 400,
            RefusedKind::NotFound => 404,
            RefusedKind::Conflict => 409,
            RefusedKind::Failed => 500,
            RefusedKind::Unavailable => 503,
        }
    }

    /// What an HTTP status says.
    pub const fn from_status(status: u16) -> RefusedKind {
        match status {
            404 => RefusedKind::NotFound,
            409 => RefusedKind::Conflict,
            503 => RefusedKind::Unavailable,
            400..=499 => RefusedKind::Invalid,
            _ => RefusedKind::Failed,
        }
    }
}

/// A request to connect a namespace to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Id, name or unique id prefix.
    pub network: String,
    /// The namespace.
    pub netns: NetnsSpec,
    /// Name of the endpoint, as DNS answers it.
    pub name: String,
    /// The service that it is a task of.
    pub service: Option<String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// A certain address.
    pub ip: Option<Ipv4Addr>,
    /// Its weight among the tasks of the service.
    pub weight: Option<u32>,
}

/// An endpoint of this node, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// Its network.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// Its address and the subnet's prefix length.
    pub ip: ipnet::Ipv4Net,
    /// Its IPv6 address beside it, with that subnet's.
    pub ip6: Option<ipnet::Ipv6Net>,
    /// Its MAC.
    pub mac: MacAddress,
    /// The namespace.
    pub netns: NetnsSpec,
    /// The interface inside the namespace.
    pub interface: String,
    /// The host-side interface.
    pub host_interface: String,
    /// Where its `resolv.conf` was written.
    pub resolv_conf: std::path::PathBuf,
}

/// What this node sees of one network, for `network inspect`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// Its endpoints on this node.
    pub endpoints: Vec<LocalEndpoint>,
    /// The nodes that take part: gossip name and address.
    pub peers: Vec<(String, IpAddr)>,
}

/// What `weft cluster init` and `join` need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The token that `init` printed.
    pub token: String,
    /// The manager: host, optionally with `:port`.
    pub manager: String,
}

/// A live node of the gossip, for `weft node ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// The member as declared.
    pub member: cluster::Member,
    /// `Ready` when the gossip sees a live node at its address, else `Down`.
    pub ready: bool,
    /// Whether it is this node.
    pub this: bool,
}

/// `GET /info`: what the node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// `node-name`.
    pub node_name: String,
    /// Its role, or `None` outside a cluster.
    pub role: Option<cluster::Role>,
    /// The manager's address.
    pub manager: Option<String>,
    /// Its id in the Docker swarm that it is in.
    pub swarm_node_id: Option<String>,
    /// Gossip name.
    pub gossip_name: String,
    /// Live gossip members, itself included.
    pub gossip_peers: usize,
    /// Fingerprints of its gossip keys, the primary one's first; empty: it gossips in the clear.
    pub gossip_keys: Vec<String>,
    /// What the gossip counted.
    pub gossip: Stats,
    /// Endpoints of this node.
    pub endpoints: usize,
    /// What of the kernel is used, and why.
    pub features: Vec<Choice>,
    /// The device that carries the overlay.
    pub uplink: String,
    /// The kernel's maps whose size can be set.
    pub maps: Vec<MapUse>,
    /// After how many seconds without a packet a balanced connection is forgotten.
    pub timeouts: Timeouts,
    /// Connections that were refused because the flow table was full.
    pub flows_refused: u64,
}

/// How far a map is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapUse {
    /// Its name.
    pub name: String,
    /// The key of the configuration that sets its limit.
    pub setting: &'static str,
    /// How many entries it holds.
    pub entries: u64,
    /// How many it can.
    pub limit: u32,
    /// How many more it should hold.
    pub left_out: u64,
}

/// What may be asked of the daemon.
#[derive(Debug)]
pub enum Command {
    /// Ask the manager: answered here if this node is it, else over TLS. `MemberAdd` and `MemberRemove` are refused from users.
    Manager(cluster::Request, ReplyTo<Result<cluster::Reply, Refused>>),
    /// The same, from another node whose certificate names it.
    FromNode {
        /// The node's name, out of its certificate.
        node: String,
        /// What it asks.
        request: cluster::Request,
        /// Where the answer goes.
        reply: ReplyTo<Result<cluster::Reply, Refused>>,
    },
    /// A node presents a token (manager only): its certificate is signed and it becomes a member.
    Admit {
        /// The secret part of the token.
        secret: String,
        /// Its name.
        name: String,
        /// Its advertised address.
        address: IpAddr,
        /// Certificate signing request, PEM.
        csr: String,
        /// Where the answer goes.
        reply: ReplyTo<Result<Admission, Refused>>,
    },
    /// Connect a namespace to a network.
    Connect(Connect, ReplyTo<Result<LocalEndpoint, Refused>>),
    /// Disconnect the endpoint with this name or id from a network.
    Disconnect {
        /// Id, name or unique id prefix of the network.
        network: String,
        /// Name or id of the endpoint.
        endpoint: String,
        /// Where the answer goes.
        reply: ReplyTo<Result<(), Refused>>,
    },
    /// What this node sees of a network.
    View(NetworkId, ReplyTo<NetworkView>),
    /// Make this node the manager of a new cluster, with this gossip key or one of its own; answers with the join token.
    ClusterInit(Option<Key>, ReplyTo<Result<String, Refused>>),
    /// The join token (manager only).
    ClusterToken(ReplyTo<Result<String, Refused>>),
    /// Join a cluster.
    ClusterJoin(JoinRequest, ReplyTo<Result<(), Refused>>),
    /// Leave the cluster; `force` also with endpoints connected, or as the manager.
    ClusterLeave {
        /// Disconnect what is connected, and drop the declared state if this is the manager.
        force: bool,
        /// Where the answer goes.
        reply: ReplyTo<Result<(), Refused>>,
    },
    /// Members and their state.
    Nodes(ReplyTo<Result<Vec<NodeView>, Refused>>),
    /// What the node is.
    Info(ReplyTo<Info>),
    /// A question of a container's resolver.
    Resolve {
        /// The endpoint that asks.
        endpoint: EndpointId,
        /// What it asks.
        question: weft_core::dns::Question,
        /// Where the answer goes.
        reply: ReplyTo<weft_core::dns::Decision>,
    },
    /// A request of the diagnostic server.
    Diagnose(weft_diag::Request),
    /// Read the configuration file again (SIGHUP).
    Reload,
    /// The links of an endpoint were made: it is to be remembered, served and published.
    Connected(Box<super::endpoints::Made>, ReplyTo<Result<LocalEndpoint, Refused>>),
    /// An endpoint could not be connected, and all was undone.
    ConnectFailed(EndpointId),
    /// The manager admitted this node.
    ClusterJoined(Box<super::membership::Admitted>, ReplyTo<Result<(), Refused>>),
    /// The manager was told that this node leaves.
    ClusterLeft(ReplyTo<Result<(), Refused>>),
    /// Something about the gossip keys, or the join token.
    Keys(KeysCommand),
    /// Something about the settings of services.
    Settings(SettingsCommand),
    /// The endpoints that the manager has on record for this node.
    Allocated(Vec<EndpointId>),
    /// Join the gossip through these members.
    GossipJoin {
        /// Their gossip addresses.
        members: Vec<SocketAddr>,
        /// Where the outcome goes.
        reply: Option<ReplyTo<Result<(), String>>>,
    },
    /// The manager told of a network.
    NetworkKnown(Box<cluster::Network>),
    /// How the underlay reaches the VTEPs that were asked for.
    Routes(BTreeMap<IpAddr, weft_dataplane::abi::Node>),
    /// The neighbours that the kernel would send to unasked.
    Neighbors(crate::dataplane::Neighborhood),
    /// What became of the uplink.
    UplinkSeen(super::UplinkSeen),
    /// The host-side interfaces of endpoints that exist.
    HostInterfaces {
        /// The endpoints that were connected before the interfaces were listed: a later one cannot be missing.
        before: Vec<EndpointId>,
        /// Name and index.
        present: Vec<(String, u32)>,
    },
    /// The namespaces of this node's endpoints, to look whether they are there.
    Namespaces(ReplyTo<Vec<super::Watched>>),
    /// Endpoints whose namespace ended.
    NamespacesEnded(Vec<EndpointId>),
    /// Something about a Docker swarm.
    Swarm(SwarmCommand),
    /// About recording the gossip.
    Record(RecordCommand),
}

/// What may be asked of the daemon about a Docker swarm, or told.
#[derive(Debug)]
pub enum SwarmCommand {
    /// Join one; the new node's id.
    Join(JoinRequest, ReplyTo<Result<String, Refused>>),
    /// Leave it; the id of the node that was, whose record stays with the managers.
    Leave {
        /// Disconnect what is connected.
        force: bool,
        /// Where the answer goes.
        reply: ReplyTo<Result<String, Refused>>,
    },
    /// How this node stands in it, if it is in one.
    Status(ReplyTo<SwarmView>),
    /// A join that was cut short, if there is one.
    Joining(ReplyTo<Result<Option<swarm::Joining>, Refused>>),
    /// Keep a join on its way, or forget it.
    KeepJoining(Option<swarm::Joining>, ReplyTo<Result<(), Refused>>),
    /// A join ended.
    Joined(Result<Box<swarm::Identity>, Refused>, ReplyTo<Result<String, Refused>>),
    /// Something was heard of the managers; answered when what follows is done.
    Event(swarm::Event, ReplyTo<()>),
    /// Nobody waits for this endpoint's address any more.
    Asked {
        /// For whom it was asked.
        endpoint: EndpointId,
        /// The managers answered, and what they hold is known.
        answered: bool,
        /// Answered when it is remembered.
        reply: ReplyTo<()>,
    },
    /// An endpoint's address was given back.
    Detached(EndpointId),
    /// All addresses were given back as far as possible.
    Left(ReplyTo<Result<String, Refused>>),
}

impl From<SwarmCommand> for Command {
    fn from(command: SwarmCommand) -> Command {
        Command::Swarm(command)
    }
}

/// How this node stands in a swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmView {
    /// Its node id there; nothing when it is in none.
    pub node_id: Option<String>,
    /// The swarm's id.
    pub cluster_id: String,
    /// The managers: `ip:port`.
    pub managers: Vec<String>,
    /// What the agent says.
    pub status: swarm::Status,
    /// How the last membership ended, if it was not by this node's will.
    pub ended: Option<String>,
}

/// What may be asked of the daemon about the cluster's secrets, or told.
#[derive(Debug)]
pub enum KeysCommand {
    /// Another node holds the keys of this version, which acknowledges them; answered when there are others (manager only).
    Follow {
        /// The node's name, out of its certificate.
        node: String,
        /// The version; nothing if it holds none.
        applied: Option<u64>,
        /// Where the answer goes.
        reply: ReplyTo<Result<KeySet, Refused>>,
    },
    /// The manager handed out this set; answered with whether it is in use and stored.
    Changed(KeySet, ReplyTo<bool>),
    /// Replace the gossip keys, by this one or one of the manager's own (manager only).
    Rotate(Option<Key>, ReplyTo<Result<KeysView, Refused>>),
    /// What may be told of the gossip keys.
    View(ReplyTo<Result<KeysView, Refused>>),
    /// Replace the join token (manager only).
    RotateToken(ReplyTo<Result<String, Refused>>),
}

/// What may be asked of the daemon about the settings of services, or told.
#[derive(Debug)]
pub enum SettingsCommand {
    /// Another node holds the settings of this version; answered when there are others (manager only).
    Follow {
        /// The node's name, out of its certificate.
        node: String,
        /// The version; nothing if it wants whatever there is.
        version: Option<u64>,
        /// Where the answer goes.
        reply: ReplyTo<Result<Settings, Refused>>,
    },
    /// The manager told of these settings; answered with whether they are published and stored.
    Changed(Settings, ReplyTo<bool>),
}

/// What an admitted node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Gossip addresses to join: `ip:port`.
    pub gossip: Vec<String>,
    /// The member as recorded.
    pub member: cluster::Member,
    /// The keys of the gossip.
    pub keys: KeySet,
}

/// Talks to the daemon; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

impl Handle {
    /// A handle and the queue that the daemon reads.
    pub fn new() -> (Handle, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        (Handle { commands }, queue)
    }

    /// Sends a command that carries a reply slot and waits for the answer; `None` when the daemon is stopping.
    pub async fn ask<T>(&self, command: impl FnOnce(ReplyTo<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Sends a command without an answer; false when the daemon is stopping.
    pub async fn tell(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }
}
