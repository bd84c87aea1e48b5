//! Services and tasks.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use weft_core::service::Policy;

/// A service, as `GET /services` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Counts changes of the declared state.
    pub version: Version,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub updated_at: String,
    /// What was declared.
    pub spec: ServiceSpec,
    /// What was allocated.
    pub endpoint: ServiceEndpoint,
}

/// `Version`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The count.
    pub index: u64,
}

/// `Spec`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceSpec {
    /// Its name.
    pub name: String,
    /// Always empty.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The networks it is on.
    pub task_template: TaskTemplate,
    /// Mode.
    pub endpoint_spec: EndpointSpec,
}

/// `TaskTemplate`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskTemplate {
    /// The networks it is on.
    #[serde(default)]
    pub networks: Vec<NetworkTarget>,
}

/// A network of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkTarget {
    /// Id or name.
    pub target: String,
}

/// `EndpointSpec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EndpointSpec {
    /// `vip` or `dnsrr`.
    #[serde(default)]
    pub mode: weft_core::cluster::EndpointMode,
    /// How a task is chosen for a new connection; none in dnsrr mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// So many seconds a client keeps its task after its last new connection; 0: each connection is on its own. None in dnsrr mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<u32>,
}

/// `POST /services/{id}/update`. What is not given stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ServiceUpdate {
    /// Policy and affinity.
    #[serde(default)]
    pub endpoint_spec: EndpointUpdate,
    /// By name or id of the task.
    #[serde(default)]
    pub weights: BTreeMap<String, u32>,
}

/// `EndpointSpec` of an update.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EndpointUpdate {
    /// How a task is chosen for a new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// So many seconds a client keeps its task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<u32>,
}

/// The answer to a service update.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceUpdated {
    /// Always empty.
    pub warnings: Vec<String>,
}

/// `Endpoint`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceEndpoint {
    /// Mode.
    pub spec: EndpointSpec,
    /// One a network, in vip mode.
    #[serde(rename = "VirtualIPs", default)]
    pub virtual_ips: Vec<VirtualIp>,
}

/// A virtual IP.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VirtualIp {
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Address with the subnet's prefix length.
    #[serde(rename = "Addr")]
    pub address: String,
}

/// `POST /services/create`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceCreate {
    /// Its name.
    pub name: String,
    /// The networks it is on.
    pub task_template: TaskTemplate,
    /// Mode.
    #[serde(default)]
    pub endpoint_spec: EndpointSpec,
}

/// The answer to a service create.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceCreated {
    /// The new id.
    #[serde(rename = "ID")]
    pub id: String,
}

/// An endpoint of a service, as `GET /tasks` shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// The endpoint's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Name of its node.
    pub node: String,
    /// Its network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Its address, without prefix length.
    pub address: Ipv4Addr,
    /// RFC 3339.
    pub created_at: String,
    /// `running`, or `orphaned` when its node is not alive.
    pub state: String,
    /// Its weight among the tasks of its service; 0: it takes nothing new.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}
