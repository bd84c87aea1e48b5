//! Look-ups that would otherwise walk all rows. Computed from the rows, row by row, and nothing but that.

use super::{Allocation, Member, Network, Service};
use crate::id::{EndpointId, NetworkId, ServiceId};
use crate::ipam::{Addresses, Vnis};
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The network itself.
    Gateway,
    /// A service, as its VIP.
    Vip(ServiceId),
    /// An endpoint.
    Endpoint(EndpointId),
}

/// The addresses of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) addresses: Addresses,
    pub(super) holders: BTreeMap<Ipv4Addr, Holder>,
}

impl Space {
    fn new(network: &Network) -> Self {
        let mut space = Space {
            addresses: Addresses::new(network.subnet),
            holders: BTreeMap::new(),
        };
        // The gateway last, for automatic choice goes on after it.
        if let Some(beside) = network.beside_ipv6_gateway() {
            space.take(beside, Holder::Gateway);
        }
        space.take(network.gateway, Holder::Gateway);
        space
    }

    /// A row that claims what another one has is kept, but does not get the address.
    fn take(&mut self, ip: Ipv4Addr, holder: Holder) {
        if self.addresses.take(ip).is_ok() {
            self.addresses.advance_past(ip);
            self.holders.insert(ip, holder);
        }
    }

    fn release(&mut self, ip: Ipv4Addr, holder: &Holder) {
        if self.holders.get(&ip) == Some(holder) {
            self.holders.remove(&ip);
            self.addresses.release(ip);
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// By lower-case name.
    pub(super) networks: BTreeMap<String, NetworkId>,
    /// By lower-case name.
    pub(super) services: BTreeMap<String, ServiceId>,
    /// By lower-case name.
    pub(super) members: BTreeMap<String, String>,
    pub(super) subnets: BTreeMap<Ipv4Net, NetworkId>,
    pub(super) vnis: Vnis,
    pub(super) spaces: BTreeMap<NetworkId, Space>,
    /// By network and lower-case name.
    pub(super) endpoints: BTreeMap<(NetworkId, String), EndpointId>,
    pub(super) tasks: BTreeMap<ServiceId, BTreeSet<EndpointId>>,
    /// Allocations by node name, lower-case.
    pub(super) nodes: BTreeMap<String, BTreeSet<EndpointId>>,
}

impl Index {
    pub(super) fn add_network(&mut self, network: &Network) {
        self.networks.insert(key(&network.name), network.id.clone());
        self.subnets.insert(network.subnet, network.id.clone());
        self.vnis.take(network.vni);
        self.spaces.insert(network.id.clone(), Space::new(network));
    }

    pub(super) fn remove_network(&mut self, network: &Network) {
        remove_if(&mut self.networks, &key(&network.name), &network.id);
        remove_if(&mut self.subnets, &network.subnet, &network.id);
        self.vnis.release(network.vni);
        self.spaces.remove(&network.id);
    }

    pub(super) fn add_service(&mut self, service: &Service) {
        self.services.insert(key(&service.name), service.id.clone());
        for network in service.networks.keys() {
            self.take_vip(service, network);
        }
    }

    /// Takes the service's VIP on one network, if both exist.
    pub(super) fn take_vip(&mut self, service: &Service, network: &NetworkId) {
        let vip = service.networks.get(network).copied().flatten();
        if let (Some(vip), Some(space)) = (vip, self.spaces.get_mut(network)) {
            space.take(vip, Holder::Vip(service.id.clone()));
        }
    }

    pub(super) fn remove_service(&mut self, service: &Service) {
        remove_if(&mut self.services, &key(&service.name), &service.id);
        for (network, vip) in &service.networks {
            if let (Some(vip), Some(space)) = (vip, self.spaces.get_mut(network)) {
                space.release(*vip, &Holder::Vip(service.id.clone()));
            }
        }
    }

    pub(super) fn add_allocation(&mut self, allocation: &Allocation) {
        let id = &allocation.endpoint;
        self.endpoints
            .insert((allocation.network.clone(), key(&allocation.name)), id.clone());
        self.nodes.entry(key(&allocation.node)).or_default().insert(id.clone());
        if let Some(service) = &allocation.service {
            self.tasks.entry(service.clone()).or_default().insert(id.clone());
        }
        self.take_endpoint(allocation);
    }

    /// Takes the endpoint's address, if its network exists.
    pub(super) fn take_endpoint(&mut self, allocation: &Allocation) {
        if let Some(space) = self.spaces.get_mut(&allocation.network) {
            space.take(allocation.ip, Holder::Endpoint(allocation.endpoint.clone()));
        }
    }

    pub(super) fn remove_allocation(&mut self, allocation: &Allocation) {
        let id = &allocation.endpoint;
        remove_if(
            &mut self.endpoints,
            &(allocation.network.clone(), key(&allocation.name)),
            id,
        );
        remove_member(&mut self.nodes, &key(&allocation.node), id);
        if let Some(service) = &allocation.service {
            remove_member(&mut self.tasks, service, id);
        }
        if let Some(space) = self.spaces.get_mut(&allocation.network) {
            space.release(allocation.ip, &Holder::Endpoint(id.clone()));
        }
    }

    pub(super) fn add_member(&mut self, member: &Member) {
        self.members.insert(key(&member.name), member.id.clone());
    }

    pub(super) fn remove_member(&mut self, member: &Member) {
        remove_if(&mut self.members, &key(&member.name), &member.id);
    }
}

/// Names that differ in case only are one name, because DNS cannot tell them apart (RFC 4343).
pub(super) fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Removes the entry unless it is another row's by now.
fn remove_if<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: &K, value: &V) {
    if map.get(key) == Some(value) {
        map.remove(key);
    }
}

fn remove_member<K: Ord>(map: &mut BTreeMap<K, BTreeSet<EndpointId>>, key: &K, id: &EndpointId) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}
