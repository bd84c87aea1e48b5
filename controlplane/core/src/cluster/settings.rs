//! What nodes have to know of the services that their tasks belong to: they publish it with each task, so they must hear of changes.

use super::{Allocation, Service, State, index};
use crate::hash::{bytes, word};
use crate::id::{EndpointId, ServiceId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The settings of all services that have tasks on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// A hash of the content.
    pub version: u64,
    /// By service.
    pub services: Vec<ServiceSettings>,
}

/// A service as it is now, with the weights of the node's tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// The service.
    pub service: Service,
    /// Weights that are not 1.
    #[serde(default)]
    pub weights: BTreeMap<EndpointId, u32>,
}

impl State {
    /// What a node has to know.
    pub fn settings_of(&self, node: &str) -> Settings {
        let mut weights: BTreeMap<&ServiceId, BTreeMap<EndpointId, u32>> = BTreeMap::new();
        for allocation in self.allocations_on(node) {
            let Some(service) = &allocation.service else { continue };
            let of_service = weights.entry(service).or_default();
            if allocation.weight != 1 {
                of_service.insert(allocation.endpoint.clone(), allocation.weight);
            }
        }
        let services = weights.into_iter().filter_map(|(id, weights)| {
            Some(ServiceSettings {
                service: self.services.get(id)?.clone(),
                weights,
            })
        });
        Settings {
            version: self.settings_version(node),
            services: services.collect(),
        }
    }

    /// The version alone. A service's own rises with every change, also of a weight.
    pub fn settings_version(&self, node: &str) -> u64 {
        let allocations = self.allocations_on(node);
        let ids: BTreeSet<&ServiceId> = allocations
            .filter_map(|allocation| allocation.service.as_ref())
            .collect();
        let services = ids.into_iter().filter_map(|id| self.services.get(id));
        services.fold(0, |version, service| {
            word(bytes(version, service.id.as_str().as_bytes()), service.version)
        })
    }

    fn allocations_on(&self, node: &str) -> impl Iterator<Item = &Allocation> {
        let held = self.index.nodes.get(&index::key(node)).into_iter().flatten();
        held.filter_map(|id| self.allocations.get(id))
    }
}

impl Settings {
    /// Brings what a node remembers of a task up to date; whether there was anything newer.
    pub fn update(&self, service: &mut Option<Service>, allocation: &mut Allocation) -> bool {
        let Some(known) = service else { return false };
        let newer = |told: &&ServiceSettings| told.service.id == known.id && told.service.version > known.version;
        let Some(told) = self.services.iter().find(newer) else {
            return false;
        };
        *known = told.service.clone();
        allocation.weight = told.weights.get(&allocation.endpoint).copied().unwrap_or(1);
        true
    }
}
