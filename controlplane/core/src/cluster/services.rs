//! Declaring and removing services.

use super::allocations::exhausted;
use super::decide::{Decided, Moment};
use super::refusal::{Refusal, list};
use super::{Allocation, Change, EndpointMode, Network, Reply, Service, State, check, index};
use crate::id::ServiceId;
use crate::service::Policy;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The most services of a cluster: a node on the networks of all of them still has room for every VIP in its maps.
pub const MAX_SERVICES: usize = weft_dataplane::abi::service::MAX_ENTRIES as usize;

/// What is asked for.
pub(super) struct Wish<'a> {
    pub(super) name: &'a str,
    pub(super) networks: &'a [String],
    pub(super) mode: EndpointMode,
    pub(super) policy: Policy,
    pub(super) affinity: u32,
}

impl State {
    pub(super) fn create_service(&self, at: Moment, wish: &Wish<'_>) -> Decided {
        let Wish {
            name,
            networks,
            mode,
            policy,
            affinity,
        } = *wish;
        check::name("service name", name, check::MAX_NAME)?;
        if self.index.services.contains_key(&index::key(name)) {
            return Err(Refusal::conflict(format!("service with name {name} already exists")));
        }
        if self.services.len() >= MAX_SERVICES {
            return Err(Refusal::conflict(format!(
                "service {name} cannot be created: there are {MAX_SERVICES} services, the most that are possible"
            )));
        }
        if networks.is_empty() {
            return Err(Refusal::invalid(format!(
                "service {name} has no network: it should be on at least one"
            )));
        }
        check::affinity(name, affinity)?;
        if mode == EndpointMode::Dnsrr && policy != Policy::default() {
            return Err(check::not_balanced(name, &format!("policy {policy}")));
        }
        if mode == EndpointMode::Dnsrr && affinity != 0 {
            return Err(check::not_balanced(name, &format!("affinity {affinity}")));
        }
        let mut on = BTreeMap::new();
        for text in networks {
            let network = self.find_network(text)?;
            let vip = match mode {
                EndpointMode::Vip => Some(self.free_vip(network)?),
                EndpointMode::Dnsrr => None,
            };
            on.insert(network.id.clone(), vip);
        }
        let id = at.new_id(|id| ServiceId::new(id).is_ok_and(|id| self.services.contains_key(&id)));
        let service = Service {
            id: ServiceId::new(id).map_err(|error| Refusal::invalid(error.to_string()))?,
            name: name.to_owned(),
            created: at.now,
            version: self.version.saturating_add(1),
            mode,
            networks: on,
            policy,
            affinity_seconds: affinity,
            updated: None,
        };
        Ok((Reply::Service(service.clone()), vec![Change::PutService(service)]))
    }

    /// What is as it was already is no change.
    /// Refuses what was asked for with another version of the service in view.
    pub(super) fn is_version(&self, text: &str, version: Option<u64>) -> Result<(), Refusal> {
        let service = self.find_service(text)?;
        match version {
            Some(version) if version != service.version => Err(Refusal::conflict(format!(
                "service {} has changed: its version is {}, and the update is of version {version}; look at it again",
                service.name, service.version
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn update_service(
        &self,
        at: Moment,
        text: &str,
        policy: Option<Policy>,
        affinity: Option<u32>,
        weights: &BTreeMap<String, u32>,
    ) -> Decided {
        let service = self.find_service(text)?;
        if policy.is_none() && affinity.is_none() && weights.is_empty() {
            return Err(Refusal::invalid(format!(
                "update of service {} changes nothing: a policy, an affinity or the weight of a task is wanted",
                service.name
            )));
        }
        if let Some(policy) = policy {
            check::balanced(service, &format!("policy {policy}"))?;
        }
        if let Some(affinity) = affinity {
            check::balanced(service, &format!("affinity {affinity}"))?;
            check::affinity(&service.name, affinity)?;
        }
        let mut changes = Vec::new();
        for (task, weight) in weights {
            check::balanced(service, &format!("weight {weight}"))?;
            check::weight(task, *weight)?;
            let named = self.tasks_named(service, task)?;
            changes.extend(named.filter(|held| held.weight != *weight).map(|held| {
                Change::PutAllocation(Allocation {
                    weight: *weight,
                    ..held.clone()
                })
            }));
        }
        let policy = policy.unwrap_or(service.policy);
        let affinity_seconds = affinity.unwrap_or(service.affinity_seconds);
        if changes.is_empty() && (policy, affinity_seconds) == (service.policy, service.affinity_seconds) {
            return Ok((Reply::Service(service.clone()), changes));
        }
        let service = Service {
            version: self.version.saturating_add(changes.len() as u64 + 1),
            policy,
            affinity_seconds,
            updated: Some(at.now),
            ..service.clone()
        };
        changes.push(Change::PutService(service.clone()));
        Ok((Reply::Service(service), changes))
    }

    fn tasks_of(&self, service: &Service) -> impl Iterator<Item = &Allocation> {
        let tasks = self.index.tasks.get(&service.id).into_iter().flatten();
        tasks.filter_map(|id| self.allocations.get(id))
    }

    /// The tasks of this name or id; a container that is on several networks of the service has several.
    fn tasks_named(&self, service: &Service, text: &str) -> Result<impl Iterator<Item = &Allocation>, Refusal> {
        let key = index::key(text);
        let is_meant = move |task: &&Allocation| index::key(&task.name) == key || task.endpoint.as_str() == key;
        if self.tasks_of(service).any(|task| is_meant(&task)) {
            return Ok(self.tasks_of(service).filter(is_meant));
        }
        let tasks: Vec<&str> = self.tasks_of(service).map(|task| task.name.as_str()).collect();
        let right = match tasks.as_slice() {
            [] => "it has none".to_owned(),
            _ => format!("it should be one of its tasks ({})", list(tasks.into_iter())),
        };
        Err(Refusal::not_found(format!(
            "service {} has no task {text}: {right}",
            service.name
        )))
    }

    pub(super) fn remove_service(&self, text: &str) -> Decided {
        let service = self.find_service(text)?;
        let tasks: Vec<&str> = self
            .tasks_of(service)
            .map(|allocation| allocation.name.as_str())
            .collect();
        if tasks.is_empty() {
            Ok((Reply::Done, vec![Change::RemoveService(service.id.clone())]))
        } else {
            Err(Refusal::conflict(format!(
                "service {} has tasks ({})",
                service.name,
                list(tasks.into_iter())
            )))
        }
    }

    fn free_vip(&self, network: &Network) -> Result<Ipv4Addr, Refusal> {
        let space = self.space(&network.id);
        let free = space.and_then(|space| space.addresses.next());
        free.ok_or_else(|| {
            exhausted(
                "could not find an available IP while allocating VIP",
                network,
                self.usage(&network.id),
            )
        })
    }
}
