//! Declaring and removing services.

use super::allocations::exhausted;
use super::decide::{Decided, Moment};
use super::refusal::{Refusal, list};
use super::{Change, EndpointMode, Network, Reply, Service, State, check, index};
use crate::id::ServiceId;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The most services of a cluster: a node on the networks of all of them still has room for every VIP in its maps.
pub const MAX_SERVICES: usize = weft_dataplane::abi::service::MAX_ENTRIES as usize;

impl State {
    pub(super) fn create_service(&self, at: Moment, name: &str, networks: &[String], mode: EndpointMode) -> Decided {
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
        };
        Ok((Reply::Service(service.clone()), vec![Change::PutService(service)]))
    }

    pub(super) fn remove_service(&self, text: &str) -> Decided {
        let service = self.find_service(text)?;
        let tasks = self.index.tasks.get(&service.id).into_iter().flatten();
        let tasks: Vec<&str> = tasks
            .filter_map(|id| self.allocations.get(id))
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
