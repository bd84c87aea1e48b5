//! Services, their backends and the names of a network, out of the rows of `endpoint_table` (`spec/service-discovery-lb.md` 5.1
//! to 5.3).
//!
//! Everything is computed from the rows that are there now, so a task that is *disabled* (draining) has no names and takes no
//! new connections, but keeps its service known; and when the last row of a service goes, its VIP and names go.

pub mod maglev;
mod names;
mod policy;
mod turns;

#[cfg(test)]
mod tests;

pub use names::Names;
pub use policy::{InvalidPolicy, MAX_AFFINITY_SECONDS, Policy};
pub use turns::turns;

use crate::id::{NetworkId, NodeId};
use crate::record::EndpointRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A row of `endpoint_table`, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRow {
    /// The network that it belongs to.
    pub network: NetworkId,
    /// The row's key: the endpoint's id. Text, because other members may write what they like.
    pub endpoint: String,
    /// The node that wrote it.
    pub owner: NodeId,
    /// What it says.
    pub record: EndpointRecord,
}

/// A task of a service, or a plain container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address beside it.
    pub ip6: Option<Ipv6Addr>,
    /// The node that wrote its record.
    pub owner: NodeId,
    /// It is draining.
    pub disabled: bool,
    /// Its weight among the others, at least 1.
    pub weight: u32,
}

/// A service on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its VIP; `None` in dnsrr mode. While records disagree, it is what the first enabled task by endpoint id says.
    pub vip: Option<Ipv4Addr>,
    /// Its IPv6 VIP beside it, by the same rule.
    pub vip6: Option<Ipv6Addr>,
    /// How its backends are chosen. While records disagree, it is what the first enabled task by endpoint id says.
    pub policy: Policy,
    /// So long a client keeps its backend, by the same rule.
    pub affinity_seconds: u32,
    /// Its tasks by endpoint id, draining ones included.
    pub tasks: BTreeMap<String, Task>,
    /// Further names of it.
    pub aliases: BTreeSet<String>,
}

impl Service {
    /// The addresses among which connections are balanced: of tasks that are not draining, sorted, each once.
    pub fn backends(&self) -> BTreeSet<Ipv4Addr> {
        self.tasks
            .values()
            .filter(|task| !task.disabled)
            .map(|task| task.ip)
            .collect()
    }

    /// The same by their IPv6 addresses.
    pub fn backends6(&self) -> BTreeSet<Ipv6Addr> {
        let enabled = self.tasks.values().filter(|task| !task.disabled);
        enabled.filter_map(|task| task.ip6).collect()
    }

    /// All that connections of this VIP may go to: `address` finds that of a task. Of tasks that claim one address, the first enabled
    /// one by endpoint id counts.
    pub fn members<A: Ord>(&self, address: impl Fn(&Task) -> Option<A>) -> BTreeMap<A, Member> {
        let mut members = BTreeMap::new();
        for disabled in [false, true] {
            for task in self.tasks.values().filter(|task| task.disabled == disabled) {
                if let Some(address) = address(task) {
                    members.entry(address).or_insert(Member {
                        is_open: !disabled,
                        weight: task.weight,
                    });
                }
            }
        }
        members
    }
}

/// A task's address, as its service has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// It takes new connections.
    pub is_open: bool,
    /// Its weight among the others, at least 1.
    pub weight: u32,
}

/// What the rows of one network say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkServices {
    /// Services by id.
    pub services: BTreeMap<String, Service>,
    /// Containers that are no task, by endpoint id.
    pub containers: BTreeMap<String, Task>,
    /// The names that resolve on the network.
    pub names: Names,
}

/// What the rows of all networks say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// By network.
    pub networks: BTreeMap<NetworkId, NetworkServices>,
}

impl Services {
    /// Reads the rows, in whatever order they come. Of two rows with the same network and endpoint, the one of the smaller owner
    /// counts.
    pub fn new(rows: impl IntoIterator<Item = EndpointRow>) -> Self {
        let mut rows: Vec<EndpointRow> = rows.into_iter().collect();
        rows.sort_by(|a, b| (&a.network, &a.endpoint, &a.owner).cmp(&(&b.network, &b.endpoint, &b.owner)));
        rows.dedup_by(|later, first| later.network == first.network && later.endpoint == first.endpoint);
        let mut services = Services::default();
        for chunk in rows.chunk_by(|a, b| a.network == b.network) {
            if let Some(first) = chunk.first() {
                services
                    .networks
                    .insert(first.network.clone(), NetworkServices::new(chunk));
            }
        }
        services
    }
}

impl NetworkServices {
    /// Rows of one network, sorted by endpoint id.
    fn new(rows: &[EndpointRow]) -> Self {
        let mut network = NetworkServices::default();
        // Enabled rows first: what they say of the service counts before what a draining task still says.
        for row in rows.iter().filter(|row| !row.record.service_disabled) {
            network.add(row);
        }
        for row in rows.iter().filter(|row| row.record.service_disabled) {
            network.add(row);
        }
        // Published ports are filled on an ingress network only, and there nothing has a name.
        let named: Vec<&EndpointRow> = rows.iter().filter(|row| row.record.ingress_ports.is_empty()).collect();
        network.names = Names::new(&named, &network.services);
        network
    }

    fn add(&mut self, row: &EndpointRow) {
        let EndpointRecord {
            name,
            endpoint_ip,
            endpoint_ip6,
            service_disabled,
            weight,
            ..
        } = &row.record;
        let task = Task {
            name: name.clone(),
            ip: *endpoint_ip,
            ip6: *endpoint_ip6,
            owner: row.owner.clone(),
            disabled: *service_disabled,
            weight: *weight,
        };
        if !row.record.is_task() {
            self.containers.insert(row.endpoint.clone(), task);
            return;
        }
        let service = self
            .services
            .entry(row.record.service_id.clone())
            .or_insert_with(|| Service {
                name: row.record.service_name.clone(),
                vip: None,
                vip6: None,
                policy: row.record.policy,
                affinity_seconds: row.record.affinity_seconds,
                tasks: BTreeMap::new(),
                aliases: BTreeSet::new(),
            });
        service.vip = service.vip.or(row.record.virtual_ip);
        service.vip6 = service.vip6.or(row.record.virtual_ip6);
        service.aliases.extend(row.record.aliases.iter().cloned());
        service.tasks.insert(row.endpoint.clone(), task);
    }
}
