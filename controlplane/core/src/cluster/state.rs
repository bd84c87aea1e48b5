//! The declared rows, and the only code that changes them.

use super::index::{Index, Space};
use super::{Allocation, Change, Member, Network, Service, UnixNanos};
use crate::id::{EndpointId, NetworkId, ServiceId};
use crate::ipam::{InvalidPools, Pools};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;

/// All that users declared. One exists in a cluster, on the manager; its store holds the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) pools: Pools,
    pub(super) networks: BTreeMap<NetworkId, Network>,
    pub(super) services: BTreeMap<ServiceId, Service>,
    pub(super) allocations: BTreeMap<EndpointId, Allocation>,
    pub(super) members: BTreeMap<String, Member>,
    pub(super) index: Index,
    /// Counts changes; never below the version of any service.
    pub(super) version: u64,
}

/// How full a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Addresses in use: gateway, VIPs and endpoints.
    pub used: u32,
    /// Addresses there are, without network and broadcast address.
    pub capacity: u32,
}

impl State {
    /// Nothing declared. `pools` are the ranges of which networks without a subnet get one of prefix length `pool_mask`.
    pub fn new(pools: Vec<Ipv4Net>, pool_mask: u8) -> Result<Self, InvalidPools> {
        Ok(State {
            pools: Pools::new(pools, pool_mask)?,
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
            allocations: BTreeMap::new(),
            members: BTreeMap::new(),
            index: Index::default(),
            version: 0,
        })
    }

    /// Takes over the rows of a store, in whatever order. Automatic choice of addresses and VNIs goes on after the newest row.
    pub fn load(&mut self, mut changes: Vec<Change>) {
        changes.sort_by_key(|change| (rank(change), created(change)));
        let vips_and_endpoints = changes.partition_point(|change| rank(change) < SERVICE_RANK);
        changes[vips_and_endpoints..].sort_by_key(created);
        self.apply(&changes);
    }

    /// Writes the rows that [`decide`](State::decide) gave, after the store took them.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.version = self.version.saturating_add(1);
            match change {
                Change::PutNetwork(network) => self.put_network(network),
                Change::RemoveNetwork(id) => {
                    if let Some(old) = self.networks.remove(id) {
                        self.index.remove_network(&old);
                    }
                }
                Change::PutService(service) => self.put_service(service),
                Change::RemoveService(id) => {
                    if let Some(old) = self.services.remove(id) {
                        self.index.remove_service(&old);
                    }
                }
                Change::PutAllocation(allocation) => self.put_allocation(allocation),
                Change::RemoveAllocation(id) => {
                    if let Some(old) = self.allocations.remove(id) {
                        self.index.remove_allocation(&old);
                    }
                }
                Change::PutMember(member) => self.put_member(member),
                Change::RemoveMember(id) => {
                    if let Some(old) = self.members.remove(id) {
                        self.index.remove_member(&old);
                    }
                }
            }
        }
    }

    /// All rows, as [`load`](State::load) takes them.
    pub fn rows(&self) -> Vec<Change> {
        let networks = self.networks.values().cloned().map(Change::PutNetwork);
        let services = self.services.values().cloned().map(Change::PutService);
        let allocations = self.allocations.values().cloned().map(Change::PutAllocation);
        let members = self.members.values().cloned().map(Change::PutMember);
        networks.chain(services).chain(allocations).chain(members).collect()
    }

    /// Networks by id.
    pub fn networks(&self) -> &BTreeMap<NetworkId, Network> {
        &self.networks
    }

    /// Services by id.
    pub fn services(&self) -> &BTreeMap<ServiceId, Service> {
        &self.services
    }

    /// Allocations by endpoint.
    pub fn allocations(&self) -> &BTreeMap<EndpointId, Allocation> {
        &self.allocations
    }

    /// Members by id.
    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    /// How full a network is; `None` if there is no such network.
    pub fn usage(&self, network: &NetworkId) -> Option<Usage> {
        let space = self.space(network)?;
        Some(Usage {
            used: space.addresses.used(),
            capacity: space.addresses.capacity(),
        })
    }

    pub(super) fn space(&self, network: &NetworkId) -> Option<&Space> {
        self.index.spaces.get(network)
    }

    fn put_network(&mut self, network: &Network) {
        if let Some(old) = self.networks.insert(network.id.clone(), network.clone()) {
            self.index.remove_network(&old);
        }
        self.index.add_network(network);
        // Rows may come before their network; and a network that is written anew keeps what its subnet gave.
        for service in self.services.values() {
            self.index.take_vip(service, &network.id);
        }
        for allocation in self
            .allocations
            .values()
            .filter(|allocation| allocation.network == network.id)
        {
            self.index.take_endpoint(allocation);
        }
    }

    fn put_service(&mut self, service: &Service) {
        self.version = self.version.max(service.version);
        if let Some(old) = self.services.insert(service.id.clone(), service.clone()) {
            self.index.remove_service(&old);
        }
        self.index.add_service(service);
    }

    fn put_allocation(&mut self, allocation: &Allocation) {
        if let Some(old) = self.allocations.insert(allocation.endpoint.clone(), allocation.clone()) {
            self.index.remove_allocation(&old);
        }
        self.index.add_allocation(allocation);
    }

    fn put_member(&mut self, member: &Member) {
        if let Some(old) = self.members.insert(member.id.clone(), member.clone()) {
            self.index.remove_member(&old);
        }
        self.index.add_member(member);
    }
}

const SERVICE_RANK: u8 = 2;

/// Networks come first, because the others take addresses of them.
fn rank(change: &Change) -> u8 {
    match change {
        Change::PutMember(_) => 0,
        Change::PutNetwork(_) => 1,
        Change::PutService(_) => SERVICE_RANK,
        Change::PutAllocation(_) => 3,
        Change::RemoveAllocation(_) | Change::RemoveService(_) | Change::RemoveNetwork(_) | Change::RemoveMember(_) => {
            4
        }
    }
}

fn created(change: &Change) -> UnixNanos {
    match change {
        Change::PutNetwork(network) => network.created,
        Change::PutService(service) => service.created,
        Change::PutAllocation(allocation) => allocation.created,
        Change::PutMember(member) => member.joined,
        Change::RemoveNetwork(_) | Change::RemoveService(_) | Change::RemoveAllocation(_) | Change::RemoveMember(_) => {
            UnixNanos::MAX
        }
    }
}
