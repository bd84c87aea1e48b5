//! The messages of a swarm's managers (package `docker.swarmkit.v1`), with the fields that this role uses; others are skipped.
//!
//! A message that was decoded here has lost fields: it is never sent back.

mod certificate;
mod network;

pub use certificate::*;
pub use network::*;

use prost::Message;

/// `Dispatcher.Session`: registers the node.
#[derive(Clone, PartialEq, Message)]
pub struct SessionRequest {
    /// What it is.
    #[prost(message, optional, tag = "1")]
    pub description: Option<NodeDescription>,
    /// The session to go on with, or nothing.
    #[prost(string, tag = "2")]
    pub session_id: String,
}

/// What a node tells of itself.
#[derive(Clone, PartialEq, Message)]
pub struct NodeDescription {
    /// Shown by `docker node ls`.
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// What it can run.
    #[prost(message, optional, tag = "2")]
    pub platform: Option<Platform>,
    /// What it has for tasks.
    #[prost(message, optional, tag = "3")]
    pub resources: Option<Resources>,
    /// Its engine.
    #[prost(message, optional, tag = "4")]
    pub engine: Option<EngineDescription>,
    /// Whose certificate it holds.
    #[prost(message, optional, tag = "5")]
    pub tls_info: Option<NodeTlsInfo>,
}

/// A platform.
#[derive(Clone, PartialEq, Message)]
pub struct Platform {
    /// As `x86_64`.
    #[prost(string, tag = "1")]
    pub architecture: String,
    /// As `linux`.
    #[prost(string, tag = "2")]
    pub os: String,
}

/// Resources.
#[derive(Clone, PartialEq, Message)]
pub struct Resources {
    /// CPUs times 10^9.
    #[prost(int64, tag = "1")]
    pub nano_cpus: i64,
    /// Memory, bytes.
    #[prost(int64, tag = "2")]
    pub memory_bytes: i64,
}

/// An engine.
#[derive(Clone, PartialEq, Message)]
pub struct EngineDescription {
    /// Shown by `docker node ls`.
    #[prost(string, tag = "1")]
    pub engine_version: String,
    /// What it can do.
    #[prost(message, repeated, tag = "3")]
    pub plugins: Vec<PluginDescription>,
}

/// A plugin of an engine.
#[derive(Clone, PartialEq, Message)]
pub struct PluginDescription {
    /// As `Network`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// As `overlay`.
    #[prost(string, tag = "2")]
    pub name: String,
}

/// Whose certificate a node holds: a root rotation waits until every node tells the new issuer.
#[derive(Clone, PartialEq, Message)]
pub struct NodeTlsInfo {
    /// The trusted certificates, PEM.
    #[prost(bytes = "vec", tag = "1")]
    pub trust_root: Vec<u8>,
    /// The issuer's subject, DER.
    #[prost(bytes = "vec", tag = "2")]
    pub cert_issuer_subject: Vec<u8>,
    /// The issuer's public key, DER.
    #[prost(bytes = "vec", tag = "3")]
    pub cert_issuer_public_key: Vec<u8>,
}

/// What the managers tell a registered node, complete each time.
#[derive(Clone, PartialEq, Message)]
pub struct SessionMessage {
    /// Named in all further calls.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// This node.
    #[prost(message, optional, tag = "2")]
    pub node: Option<Node>,
    /// All managers.
    #[prost(message, repeated, tag = "3")]
    pub managers: Vec<WeightedPeer>,
    /// Keys of the gossip and of encrypted networks.
    #[prost(message, repeated, tag = "4")]
    pub network_bootstrap_keys: Vec<EncryptionKey>,
    /// The certificates to trust, PEM.
    #[prost(bytes = "vec", tag = "5")]
    pub root_ca: Vec<u8>,
}

/// A manager, and how much it should be asked.
#[derive(Clone, PartialEq, Message)]
pub struct WeightedPeer {
    /// The manager.
    #[prost(message, optional, tag = "1")]
    pub peer: Option<Peer>,
}

/// A manager.
#[derive(Clone, PartialEq, Eq, Message, serde::Serialize, serde::Deserialize)]
pub struct Peer {
    /// Its node id.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// `ip:port`.
    #[prost(string, tag = "2")]
    pub addr: String,
}

/// A key that all nodes share.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct EncryptionKey {
    /// `networking:gossip` or `networking:ipsec`.
    #[prost(string, tag = "1")]
    pub subsystem: String,
    /// Zero: AES-128-GCM.
    #[prost(int32, tag = "2")]
    pub algorithm: i32,
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    /// Its order, and its identity.
    #[prost(uint64, tag = "4")]
    pub lamport_time: u64,
}

impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EncryptionKey({} at {})", self.subsystem, self.lamport_time)
    }
}

/// A node.
#[derive(Clone, PartialEq, Message)]
pub struct Node {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What the operator wants of it.
    #[prost(message, optional, tag = "3")]
    pub spec: Option<NodeSpec>,
    /// How it is.
    #[prost(message, optional, tag = "5")]
    pub status: Option<NodeStatus>,
    /// Its certificate.
    #[prost(message, optional, tag = "8")]
    pub certificate: Option<Certificate>,
    /// One of [`role`].
    #[prost(int32, tag = "9")]
    pub role: i32,
    /// An address of its own on each overlay network in use here, for load balancing.
    #[prost(message, repeated, tag = "10")]
    pub attachments: Vec<NetworkAttachment>,
    /// UDP port of VXLAN; zero: 4789.
    #[prost(uint32, tag = "11")]
    pub vxlan_udp_port: u32,
}

/// What the operator wants of a node.
#[derive(Clone, PartialEq, Message)]
pub struct NodeSpec {
    /// One of [`role`].
    #[prost(int32, tag = "2")]
    pub desired_role: i32,
    /// One of [`availability`].
    #[prost(int32, tag = "4")]
    pub availability: i32,
}

/// How a node is.
#[derive(Clone, PartialEq, Message)]
pub struct NodeStatus {
    /// 2: ready.
    #[prost(int32, tag = "1")]
    pub state: i32,
    /// Whence its connection comes, as a manager sees it.
    #[prost(string, tag = "3")]
    pub addr: String,
}

/// `Dispatcher.Heartbeat`.
#[derive(Clone, PartialEq, Message)]
pub struct HeartbeatRequest {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
}

/// When the next one is due.
#[derive(Clone, PartialEq, Message)]
pub struct HeartbeatResponse {
    /// From now.
    #[prost(message, optional, tag = "1")]
    pub period: Option<Period>,
}

/// `google.protobuf.Duration`, and `Timestamp`, which has the same fields.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Period {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The rest.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `Dispatcher.Assignments`.
#[derive(Clone, PartialEq, Message)]
pub struct AssignmentsRequest {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
}

/// Tasks of this node.
#[derive(Clone, PartialEq, Message)]
pub struct AssignmentsMessage {
    /// Zero: all that there is; one: what changed.
    #[prost(int32, tag = "1")]
    pub kind: i32,
    /// The message that this one follows.
    #[prost(string, tag = "2")]
    pub applies_to: String,
    /// Its own mark.
    #[prost(string, tag = "3")]
    pub results_in: String,
    /// What changed.
    #[prost(message, repeated, tag = "4")]
    pub changes: Vec<AssignmentChange>,
}

/// A change.
#[derive(Clone, PartialEq, Message)]
pub struct AssignmentChange {
    /// Of what.
    #[prost(message, optional, tag = "1")]
    pub assignment: Option<Assignment>,
    /// Zero: update; one: removal.
    #[prost(int32, tag = "2")]
    pub action: i32,
}

/// A task; secrets, configs and volumes are skipped unread.
#[derive(Clone, PartialEq, Message)]
pub struct Assignment {
    /// The task.
    #[prost(message, optional, tag = "1")]
    pub task: Option<Task>,
}

/// A task.
#[derive(Clone, PartialEq, Message)]
pub struct Task {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What it is to do.
    #[prost(message, optional, tag = "3")]
    pub spec: Option<TaskSpec>,
    /// Its service; empty for an attachment.
    #[prost(string, tag = "4")]
    pub service_id: String,
    /// How it is.
    #[prost(message, optional, tag = "9")]
    pub status: Option<TaskStatus>,
    /// One of [`state`].
    #[prost(int32, tag = "10")]
    pub desired_state: i32,
    /// Its networks, with the addresses on them.
    #[prost(message, repeated, tag = "11")]
    pub networks: Vec<NetworkAttachment>,
}

/// States of a task; they only grow.
pub mod state {
    /// It has an address, and waits for a node.
    pub const PENDING: i32 = 64;
    /// The node knows of it.
    pub const ACCEPTED: i32 = 256;
    /// It runs.
    pub const RUNNING: i32 = 512;
    /// It ended as it should.
    pub const COMPLETE: i32 = 576;
    /// It was ended.
    pub const SHUTDOWN: i32 = 640;
    /// The node does not take it.
    pub const REJECTED: i32 = 768;
}

/// What a task is to do; containers are skipped unread.
#[derive(Clone, PartialEq, Message)]
pub struct TaskSpec {
    /// Hold an address.
    #[prost(message, optional, tag = "8")]
    pub attachment: Option<AttachmentSpec>,
}

/// Who holds an address.
#[derive(Clone, PartialEq, Message)]
pub struct AttachmentSpec {
    /// What the node named when it asked.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

/// How a task is.
#[derive(Clone, PartialEq, Message)]
pub struct TaskStatus {
    /// Since when.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Period>,
    /// One of [`state`].
    #[prost(int32, tag = "2")]
    pub state: i32,
    /// For people.
    #[prost(string, tag = "3")]
    pub message: String,
    /// What went wrong.
    #[prost(string, tag = "4")]
    pub err: String,
}

/// `Dispatcher.UpdateTaskStatus`. There is no field 2.
#[derive(Clone, PartialEq, Message)]
pub struct UpdateTaskStatusRequest {
    /// The session.
    #[prost(string, tag = "1")]
    pub session_id: String,
    /// New states.
    #[prost(message, repeated, tag = "3")]
    pub updates: Vec<TaskStatusUpdate>,
}

/// A new state of a task.
#[derive(Clone, PartialEq, Message)]
pub struct TaskStatusUpdate {
    /// The task.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// The state.
    #[prost(message, optional, tag = "2")]
    pub status: Option<TaskStatus>,
}

/// Nothing, as most calls answer.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[cfg(test)]
mod tests;
