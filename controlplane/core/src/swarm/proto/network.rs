//! `ResourceAllocator`, and networks as tasks and nodes name them.

use super::Period;
use prost::Message;
use std::collections::BTreeMap;

/// `ResourceAllocator.AttachNetwork`.
#[derive(Clone, PartialEq, Message)]
pub struct AttachNetworkRequest {
    /// Where.
    #[prost(message, optional, tag = "1")]
    pub config: Option<NetworkAttachmentConfig>,
    /// For whom; comes back in the task.
    #[prost(string, tag = "2")]
    pub container_id: String,
}

/// Where to attach.
#[derive(Clone, PartialEq, Message)]
pub struct NetworkAttachmentConfig {
    /// Id or name of the network.
    #[prost(string, tag = "1")]
    pub target: String,
    /// At most one wanted address.
    #[prost(string, repeated, tag = "3")]
    pub addresses: Vec<String>,
}

/// The attachment, which is a task.
#[derive(Clone, PartialEq, Message)]
pub struct AttachNetworkResponse {
    /// Id of the task.
    #[prost(string, tag = "1")]
    pub attachment_id: String,
}

/// `ResourceAllocator.DetachNetwork`.
#[derive(Clone, PartialEq, Message)]
pub struct DetachNetworkRequest {
    /// Id of the task.
    #[prost(string, tag = "1")]
    pub attachment_id: String,
}

/// An address on a network.
#[derive(Clone, PartialEq, Message)]
pub struct NetworkAttachment {
    /// The network.
    #[prost(message, optional, tag = "1")]
    pub network: Option<Network>,
    /// Addresses with the subnet's prefix length.
    #[prost(string, repeated, tag = "2")]
    pub addresses: Vec<String>,
}

/// A network.
#[derive(Clone, PartialEq, Message)]
pub struct Network {
    /// 25 characters; the gossip's network id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its history.
    #[prost(message, optional, tag = "2")]
    pub meta: Option<Meta>,
    /// What the operator wants.
    #[prost(message, optional, tag = "3")]
    pub spec: Option<NetworkSpec>,
    /// What the managers chose.
    #[prost(message, optional, tag = "4")]
    pub driver_state: Option<Driver>,
    /// Its subnets.
    #[prost(message, optional, tag = "5")]
    pub ipam: Option<IpamOptions>,
}

/// History of an object.
#[derive(Clone, PartialEq, Message)]
pub struct Meta {
    /// When it was made.
    #[prost(message, optional, tag = "2")]
    pub created_at: Option<Period>,
}

/// What the operator wants of a network.
#[derive(Clone, PartialEq, Message)]
pub struct NetworkSpec {
    /// Name and labels.
    #[prost(message, optional, tag = "1")]
    pub annotations: Option<Annotations>,
    /// Whether containers that are no tasks may be attached.
    #[prost(bool, tag = "6")]
    pub attachable: bool,
    /// Whether it is the routing mesh.
    #[prost(bool, tag = "7")]
    pub ingress: bool,
}

/// Name and labels.
#[derive(Clone, PartialEq, Message)]
pub struct Annotations {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Labels.
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
}

/// A driver and its options.
#[derive(Clone, PartialEq, Message)]
pub struct Driver {
    /// As `overlay`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Options.
    #[prost(btree_map = "string, string", tag = "2")]
    pub options: BTreeMap<String, String>,
}

/// Subnets of a network.
#[derive(Clone, PartialEq, Message)]
pub struct IpamOptions {
    /// One each.
    #[prost(message, repeated, tag = "3")]
    pub configs: Vec<IpamConfig>,
}

/// A subnet.
#[derive(Clone, PartialEq, Message)]
pub struct IpamConfig {
    /// CIDR.
    #[prost(string, tag = "2")]
    pub subnet: String,
    /// Address.
    #[prost(string, tag = "4")]
    pub gateway: String,
}
