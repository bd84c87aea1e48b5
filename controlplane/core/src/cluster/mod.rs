//! What users declared: networks, services, and who holds which address.
//!
//! [`State::decide`] looks and answers, [`State::apply`] changes: between the two the caller commits the changes to its store, so
//! that memory never holds what the store refused.

mod allocations;
mod check;
mod decide;
mod index;
mod ipv6;
pub mod keys;
mod members;
mod networks;
mod options;
mod refusal;
mod services;
pub mod settings;
mod state;

#[cfg(test)]
mod tests;

pub use allocations::check_endpoint;
pub use allocations::{MAX_ALIAS_BYTES, MAX_ALIASES, MAX_ALLOCATIONS};
pub use check::{MAX_ENDPOINT_NAME, MAX_NAME};
pub use members::MAX_MEMBERS;
pub use networks::MAX_NETWORKS;
pub use options::{DEFAULT_MTU, ENCAPSULATION_OVERHEAD, MIN_MTU, MTU_OPTION, VNI_OPTION};
pub use refusal::{Refusal, RefusalKind};
pub use services::MAX_SERVICES;
pub use state::{State, Usage};

use crate::id::{EndpointId, MacAddress, NetworkId, ServiceId, Vni};
use crate::service::Policy;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub type UnixNanos = u64;

/// A declared overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 25 characters `0-9a-z`.
    pub id: NetworkId,
    /// Unique name.
    pub name: String,
    /// When it was created.
    pub created: UnixNanos,
    /// VXLAN network identifier, unique in the cluster.
    pub vni: Vni,
    /// Address range of its endpoints and VIPs.
    pub subnet: Ipv4Net,
    /// The subnet's first address unless chosen.
    pub gateway: Ipv4Addr,
    /// Its IPv6 part, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Range>,
    /// MTU inside the overlay, bytes.
    pub mtu: u32,
    /// Driver options as the user gave them.
    pub options: BTreeMap<String, String>,
    /// Labels as the user gave them.
    pub labels: BTreeMap<String, String>,
}

/// Where a network has IPv6: each IPv4 address of it has one beside it there, as [`Network::ipv6_of`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Range {
    /// Address range.
    pub subnet: Ipv6Net,
    /// The subnet's first address unless chosen.
    pub gateway: Ipv6Addr,
}

/// What is asked for of a network's IPv6 part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Wish {
    /// Its subnet; a free /64 of the cluster's unique local addresses if none is given.
    pub subnet: Option<String>,
    /// Its gateway; the first address if none is given.
    pub gateway: Option<Ipv6Addr>,
}

/// How a service's name resolves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// One virtual IP, balanced in the kernel.
    #[default]
    Vip,
    /// All addresses, in an order that changes with each query.
    Dnsrr,
}

/// A declared service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// 25 characters `0-9a-z`.
    pub id: ServiceId,
    /// Unique name, as DNS answers it.
    pub name: String,
    /// When it was created.
    pub created: UnixNanos,
    /// Counts the changes of the whole cluster's state, as Docker's `Version.Index`.
    pub version: u64,
    /// How its name resolves.
    pub mode: EndpointMode,
    /// The networks that it is on, with the VIP on each; `None` in dnsrr mode.
    pub networks: BTreeMap<NetworkId, Option<Ipv4Addr>>,
    /// How a task is chosen for a new connection.
    #[serde(default, skip_serializing_if = "is_default")]
    pub policy: Policy,
    /// So long a client keeps its task after its last new connection; 0: each connection is on its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub affinity_seconds: u32,
    /// When it was changed last, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<UnixNanos>,
}

/// An address that an endpoint holds until it is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its network.
    pub network: NetworkId,
    /// Name of the node it lives on.
    pub node: String,
    /// Its name, as DNS answers it.
    pub name: String,
    /// The service it is a task of.
    pub service: Option<ServiceId>,
    /// Further names.
    pub aliases: Vec<String>,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its MAC.
    pub mac: MacAddress,
    /// When it was allocated.
    pub created: UnixNanos,
    /// Its weight among the tasks of its service; 0: it is draining.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> u32 {
    1
}

fn is_one(value: &u32) -> bool {
    *value == 1
}

/// What a node is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the declared state.
    Manager,
    /// Asks the manager.
    Worker,
}

/// A node that was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// 25 characters `0-9a-z`.
    pub id: String,
    /// Unique name: its `node-name`.
    pub name: String,
    /// Its advertised address.
    pub address: IpAddr,
    /// Manager or worker.
    pub role: Role,
    /// When it joined.
    pub joined: UnixNanos,
}

/// What may be asked of the manager. Where a text names a network or service, its id, its name or a unique prefix of its id will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Declare a network.
    NetworkCreate {
        /// Its name.
        name: String,
        /// Its subnet; the next free /24 if none is given. Text, so that the manager can tell what is wrong with it.
        subnet: Option<String>,
        /// Its gateway; the first address if none is given.
        gateway: Option<Ipv4Addr>,
        /// IPv6 too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ipv6: Option<Ipv6Wish>,
        /// Driver options (`spec/overlay-driver.md` 4.2).
        options: BTreeMap<String, String>,
        /// Labels.
        labels: BTreeMap<String, String>,
    },
    /// All networks.
    NetworkList,
    /// One network.
    NetworkInspect {
        /// Which.
        network: String,
    },
    /// Remove a network that nothing uses.
    NetworkRemove {
        /// Which.
        network: String,
    },
    /// Declare a service.
    ServiceCreate {
        /// Its name.
        name: String,
        /// The networks it is on.
        networks: Vec<String>,
        /// How its name resolves.
        mode: EndpointMode,
        /// How a task is chosen for a new connection.
        #[serde(default, skip_serializing_if = "is_default")]
        policy: Policy,
        /// So long a client keeps its task, seconds.
        #[serde(default, skip_serializing_if = "is_default")]
        affinity: u32,
    },
    /// Change a service; what is not given stays. Connections stay too.
    ServiceUpdate {
        /// Which.
        service: String,
        /// How a task is chosen for a new connection.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<Policy>,
        /// So long a client keeps its task, seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        affinity: Option<u32>,
        /// Weights by name or id of the task; 0 lets it drain.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        weights: BTreeMap<String, u32>,
        /// The version of the service that this is a change of, if whoever asks has looked at it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// All services.
    ServiceList,
    /// One service.
    ServiceInspect {
        /// Which.
        service: String,
    },
    /// Remove a service that has no tasks.
    ServiceRemove {
        /// Which.
        service: String,
    },
    /// Take an address for an endpoint.
    Allocate {
        /// The endpoint; asking again for the same one gives the same answer.
        endpoint: EndpointId,
        /// Its network.
        network: String,
        /// The node it lives on.
        node: String,
        /// Its name.
        name: String,
        /// The service it is a task of.
        service: Option<String>,
        /// Further names.
        aliases: Vec<String>,
        /// A certain address.
        ip: Option<Ipv4Addr>,
        /// Its weight among the tasks of the service; 1 if none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// Give an endpoint's address back.
    Release {
        /// The endpoint. Releasing one that holds nothing is no error.
        endpoint: EndpointId,
    },
    /// All allocations.
    AllocationList,
    /// All members.
    MemberList,
    /// Let a node in. A member of the same name at the same address is replaced, at another one refused.
    MemberAdd {
        /// Its name.
        name: String,
        /// Its advertised address.
        address: IpAddr,
        /// Manager or worker.
        role: Role,
    },
    /// A node leaves; its allocations are released.
    MemberRemove {
        /// Its name or id.
        name: String,
    },
}

/// What the manager answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "kebab-case")]
// One reply at a time is in flight; boxes would only make it harder to take apart.
#[allow(clippy::large_enum_variant)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// One network.
    Network(Network),
    /// Networks, by name.
    Networks(Vec<Network>),
    /// One service.
    Service(Service),
    /// Services, by name.
    Services(Vec<Service>),
    /// The address taken, and all that a node needs to connect the endpoint.
    Allocated {
        /// The endpoint's network.
        network: Network,
        /// The endpoint's service.
        service: Option<Service>,
        /// The address.
        allocation: Allocation,
    },
    /// Allocations, by network and address.
    Allocations(Vec<Allocation>),
    /// One member.
    Member(Member),
    /// Members, by name.
    Members(Vec<Member>),
}

/// One row of declared state written or removed. The store keeps them; nothing else is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", content = "value", rename_all = "kebab-case")]
pub enum Change {
    /// Written.
    PutNetwork(Network),
    /// Removed.
    RemoveNetwork(NetworkId),
    /// Written.
    PutService(Service),
    /// Removed.
    RemoveService(ServiceId),
    /// Written.
    PutAllocation(Allocation),
    /// Removed.
    RemoveAllocation(EndpointId),
    /// Written.
    PutMember(Member),
    /// Removed, by id.
    RemoveMember(String),
}
