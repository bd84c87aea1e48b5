//! The JSON of the API, in Docker's names and order, for both ends of the socket.

mod services;

pub use services::*;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// A network, as `GET /networks` and `GET /networks/{id}` show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// RFC 3339.
    pub created: String,
    /// Always `swarm`: the whole cluster.
    pub scope: String,
    /// Always `overlay`.
    pub driver: String,
    /// Always true.
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    /// IPv6 too.
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Subnets.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Always false.
    pub internal: bool,
    /// Always true: any namespace may be connected.
    pub attachable: bool,
    /// Always false.
    pub ingress: bool,
    /// Empty.
    pub config_from: ConfigFrom,
    /// Always false.
    pub config_only: bool,
    /// The endpoints on this node, by id; only of one network.
    pub containers: BTreeMap<String, Container>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The nodes that take part; only of one network with endpoints on this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// `IPAM`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    /// Always `default`.
    #[serde(default)]
    pub driver: String,
    /// Always null.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
    /// One subnet of each family.
    #[serde(default)]
    pub config: Vec<IpamConfig>,
}

/// A subnet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct IpamConfig {
    /// CIDR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// `ConfigFrom`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    /// Always empty.
    pub network: String,
}

/// An endpoint in `Containers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Its MAC.
    pub mac_address: String,
    /// Address with the subnet's prefix length.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// The same of IPv6; empty where there is none.
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
}

/// A node in `Peers`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Peer {
    /// Gossip name.
    pub name: String,
    /// Address.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
}

/// `POST /networks/create`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkCreate {
    /// Its name.
    pub name: String,
    /// `overlay`, or nothing.
    #[serde(default)]
    pub driver: Option<String>,
    /// Subnet and gateway.
    #[serde(default, rename = "IPAM")]
    pub ipam: Option<Ipam>,
    /// Driver options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Must be false: there are no networks without a way out.
    #[serde(default)]
    pub internal: bool,
    /// IPv6 too.
    #[serde(default, rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    /// Must be false: there is no routing mesh.
    #[serde(default)]
    pub ingress: bool,
}

/// The answer to a create.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Created {
    /// The new id.
    #[serde(rename = "Id")]
    pub id: String,
    /// Always empty.
    #[serde(rename = "Warning")]
    pub warning: String,
}

/// `POST /networks/{id}/connect`. One of the three namespaces is wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Connect {
    /// Name under `/run/netns`.
    #[serde(default)]
    pub netns: Option<String>,
    /// Path of a namespace file.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// A process in the namespace.
    #[serde(default)]
    pub pid: Option<u32>,
    /// Name of the endpoint.
    pub name: String,
    /// Its service.
    #[serde(default)]
    pub service: Option<String>,
    /// Further names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// A certain address.
    #[serde(default, rename = "IPv4Address")]
    pub ipv4_address: Option<Ipv4Addr>,
    /// Its weight among the tasks of its service; 0: it takes nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// What was connected.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Connected {
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: Container,
    /// Interface inside the namespace.
    pub interface: String,
    /// Interface on the host.
    pub host_interface: String,
    /// A `resolv.conf` for the namespace.
    pub resolv_conf: PathBuf,
}

/// `POST /networks/{id}/disconnect`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Disconnect {
    /// Name or id of the endpoint.
    pub endpoint: String,
}

/// A member, as `GET /nodes` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub hostname: String,
    /// `ready` or `down`.
    pub status: String,
    /// `manager` or `worker`.
    pub role: weft_core::cluster::Role,
    /// Address.
    pub address: IpAddr,
    /// The node that answers.
    #[serde(rename = "Self")]
    pub this: bool,
}

/// `POST /cluster/join`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Join {
    /// The token that `weft cluster init` printed.
    pub join_token: String,
    /// The manager: host, optionally with `:port`.
    pub remote_addr: String,
}

/// `POST /cluster/leave`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Leave {
    /// Also with endpoints connected, or as the manager.
    #[serde(default)]
    pub force: bool,
}

/// `POST /swarm/join`, as in Docker's Engine API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SwarmJoin {
    /// What `docker swarm join-token worker` printed.
    pub join_token: String,
    /// One manager: host, optionally with `:port`.
    pub remote_addrs: Vec<String>,
}

/// The node that a swarm has, or had.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SwarmNode {
    /// Its id.
    #[serde(rename = "NodeID")]
    pub node_id: String,
}

/// `GET /swarm`: how this node stands in a Docker swarm.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Swarm {
    /// `inactive`; `active` with a session; `pending` without one.
    pub local_node_state: String,
    /// The node's id.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// The swarm's id.
    #[serde(rename = "ClusterID")]
    pub cluster_id: String,
    /// Whence the managers see this node connect.
    pub node_addr: String,
    /// `active`, `pause` or `drain`.
    pub availability: String,
    /// The manager of the present session.
    pub manager: Option<String>,
    /// All managers.
    pub remote_managers: Vec<String>,
    /// RFC 3339: when the node's certificate ends; long before, it is renewed.
    pub certificate_expires: Option<String>,
    /// What is wrong, if anything.
    pub error: String,
}

/// `POST /cluster/init`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Init {
    /// The primary gossip key, base64 or hex; one is made if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip_key: Option<String>,
}

/// `POST /cluster/keys/rotate`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RotateKeys {
    /// The new primary key, base64 or hex; one is made if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip_key: Option<String>,
}

/// `GET /cluster/keys`: never the keys themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Keys {
    /// Counts the sets.
    pub version: u64,
    /// `settled`, `adding` or `switching`; only on the manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Fingerprints, the primary key's first.
    pub fingerprints: Vec<String>,
    /// When the last rotation began, RFC 3339; only on the manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<String>,
    /// In how many seconds the next one begins by itself; only on the manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_in_seconds: Option<u64>,
    /// Members that have not acknowledged this version.
    pub waiting_for: Vec<String>,
}

/// `POST /debug/recording`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// How long.
    pub seconds: u64,
}

/// A token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Token {
    /// For `weft cluster join`.
    pub join_token: String,
}

/// Something of the kernel that is used, or done without.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Feature {
    /// Its name in the configuration.
    pub name: String,
    /// The way that was chosen.
    pub choice: String,
    /// Why.
    pub why: String,
}

/// How far a map of the kernel is filled.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MapUse {
    /// Its name.
    pub name: String,
    /// The key of the configuration that sets its limit.
    pub setting: String,
    /// How many entries it holds.
    pub entries: u64,
    /// How many it can.
    pub limit: u32,
    /// How many more it should hold.
    pub left_out: u64,
}

/// After how many seconds without a packet a balanced connection is forgotten.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FlowTimeouts {
    /// TCP, not established yet.
    pub tcp_opening: u32,
    /// TCP, established.
    pub tcp_established: u32,
    /// TCP, one side or both have finished.
    pub tcp_finished: u32,
    /// TCP, reset.
    pub tcp_reset: u32,
    /// UDP, not answered yet.
    pub udp: u32,
    /// UDP, packets both ways.
    pub udp_answered: u32,
}

/// `GET /info`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// `node-name`.
    pub name: String,
    /// `manager`, `worker`, or nothing outside a cluster.
    pub role: Option<weft_core::cluster::Role>,
    /// The manager's address.
    pub manager: Option<String>,
    /// Its id in the Docker swarm that it is in.
    #[serde(default, rename = "SwarmNodeID", skip_serializing_if = "Option::is_none")]
    pub swarm_node_id: Option<String>,
    /// Gossip name.
    pub gossip_name: String,
    /// Live gossip members.
    pub gossip_peers: usize,
    /// Fingerprints of its gossip keys, the primary one's first; empty: it gossips in the clear.
    pub gossip_keys: Vec<String>,
    /// Gossip refused for not being encrypted.
    pub gossip_refused_plaintext: u64,
    /// Gossip refused because no key opens it.
    pub gossip_refused_keys: u64,
    /// Gossip that went for newer one because a queue was full.
    pub gossip_dropped_messages: u64,
    /// Times that this node asked another one whether both know the same.
    pub gossip_comparisons: u64,
    /// Networks of which one that asked knew something else.
    pub gossip_differences: u64,
    /// Rows and attachments sent to those that lacked them.
    pub gossip_repaired: u64,
    /// Endpoints of this node.
    pub endpoints: usize,
    /// What of the kernel is used, and why.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// Device that carries the overlay.
    pub uplink: String,
    /// The kernel's maps whose size can be set.
    #[serde(default)]
    pub maps: Vec<MapUse>,
    /// Time-outs of balanced connections.
    #[serde(default)]
    pub flow_timeouts: FlowTimeouts,
    /// Connections that were refused because the flow table was full.
    #[serde(default)]
    pub flows_refused: u64,
    /// Version of the daemon.
    pub server_version: String,
}
