//! Taking addresses for endpoints.

use super::decide::{Decided, Moment, look};
use super::index::Holder;
use super::refusal::{Refusal, list};
use super::{Allocation, Change, Network, Reply, Service, State, Usage, check, index};
use crate::id::{EndpointId, MacAddress};
use crate::ipam::Unavailable;
use std::net::Ipv4Addr;

/// The most allocations of a cluster: a node on every network still has room for every peer in its maps.
pub const MAX_ALLOCATIONS: usize = weft_dataplane::abi::peer::MAX_ENTRIES as usize;

/// The most further names of an endpoint; users give one or two.
pub const MAX_ALIASES: usize = 16;

/// The most bytes of all further names of an endpoint together: they are gossiped in one UDP packet with the rest of the record,
/// and the packets of memberlist carry 1400 bytes.
pub const MAX_ALIAS_BYTES: usize = 512;

/// What is asked for.
pub(super) struct Wish<'a> {
    pub(super) endpoint: &'a EndpointId,
    pub(super) network: &'a str,
    pub(super) node: &'a str,
    pub(super) name: &'a str,
    pub(super) service: Option<&'a str>,
    pub(super) aliases: &'a [String],
    pub(super) ip: Option<Ipv4Addr>,
    pub(super) weight: Option<u32>,
}

impl State {
    pub(super) fn allocate(&self, at: Moment, wish: &Wish<'_>) -> Decided {
        let network = self.find_network(wish.network)?;
        if let Some(held) = self.allocations.get(wish.endpoint) {
            return self.same_again(wish, network, held);
        }
        check_endpoint(wish.name, wish.aliases)?;
        if !self.index.members.contains_key(&index::key(wish.node)) {
            return Err(Refusal::not_found(format!(
                "node {} not found: it should be a member of the cluster",
                wish.node
            )));
        }
        let service = wish.service.map(|text| self.find_service(text)).transpose()?;
        if let Some(service) = service {
            self.check_on_network(service, network)?;
        }
        check_weight(wish, service)?;
        if self
            .index
            .endpoints
            .contains_key(&(network.id.clone(), index::key(wish.name)))
        {
            return Err(Refusal::conflict(format!(
                "endpoint with name {} already exists in network {}",
                wish.name, network.name
            )));
        }
        if self.allocations.len() >= MAX_ALLOCATIONS {
            return Err(Refusal::conflict(format!(
                "endpoint {} cannot be connected: there are {MAX_ALLOCATIONS} endpoints, the most that are possible",
                wish.name
            )));
        }
        let ip = self.choose_address(network, wish.ip)?;
        let allocation = Allocation {
            endpoint: wish.endpoint.clone(),
            network: network.id.clone(),
            node: wish.node.to_owned(),
            name: wish.name.to_owned(),
            service: service.map(|service| service.id.clone()),
            aliases: wish.aliases.to_vec(),
            ip,
            mac: MacAddress::from_ipv4(ip),
            created: at.now,
            weight: wish.weight.unwrap_or(1),
        };
        Ok((
            self.allocated(network, allocation.clone()),
            vec![Change::PutAllocation(allocation)],
        ))
    }

    /// The endpoint holds an address already: the same one, if it is asked for the same.
    fn same_again(&self, wish: &Wish<'_>, network: &Network, held: &Allocation) -> Decided {
        let same = held.network == network.id
            && index::key(&held.node) == index::key(wish.node)
            && index::key(&held.name) == index::key(wish.name)
            && wish.ip.is_none_or(|ip| ip == held.ip);
        if same {
            return look(self.allocated(network, held.clone()));
        }
        let held_on = self
            .networks
            .get(&held.network)
            .map_or(held.network.as_str(), |network| &network.name);
        Err(Refusal::conflict(format!(
            "endpoint {} is already connected: as {} with {} to network {held_on} on node {}; release it first",
            held.endpoint, held.name, held.ip, held.node
        )))
    }

    fn allocated(&self, network: &Network, allocation: Allocation) -> Reply {
        let service = allocation
            .service
            .as_ref()
            .and_then(|id| self.services.get(id))
            .cloned();
        Reply::Allocated {
            network: network.clone(),
            service,
            allocation,
        }
    }

    fn check_on_network(&self, service: &Service, network: &Network) -> Result<(), Refusal> {
        if service.networks.contains_key(&network.id) {
            return Ok(());
        }
        let on = service
            .networks
            .keys()
            .map(|id| self.networks.get(id).map_or(id.as_str(), |network| &network.name));
        Err(Refusal::invalid(format!(
            "service {} is not on network {}: it should be one of its networks ({})",
            service.name,
            network.name,
            list(on)
        )))
    }

    fn choose_address(&self, network: &Network, wish: Option<Ipv4Addr>) -> Result<Ipv4Addr, Refusal> {
        let space = self.space(&network.id);
        let Some(ip) = wish else {
            let free = space.and_then(|space| space.addresses.next());
            return free.ok_or_else(|| exhausted("could not find an available IP", network, self.usage(&network.id)));
        };
        let Network { name, subnet, .. } = network;
        let in_use = |by: &str| Refusal::conflict(format!("Address already in use: {ip} is {by} network {name}"));
        match space.map_or(Err(Unavailable::OutOfRange), |space| space.addresses.check(ip)) {
            Ok(()) => Ok(ip),
            Err(Unavailable::OutOfRange) => Err(Refusal::invalid(format!(
                "requested address is out of range: {ip} should be in subnet {subnet} of network {name}"
            ))),
            Err(Unavailable::Network) => Err(in_use("the network address of")),
            Err(Unavailable::Broadcast) => Err(in_use("the broadcast address of")),
            Err(Unavailable::Taken) => Err(in_use(&self.holder_of(network, ip))),
        }
    }

    /// Who has the address, as the middle of a sentence.
    fn holder_of(&self, network: &Network, ip: Ipv4Addr) -> String {
        match self.space(&network.id).and_then(|space| space.holders.get(&ip)) {
            None | Some(Holder::Gateway) => "the gateway of".to_owned(),
            Some(Holder::Vip(id)) => {
                let name = self.services.get(id).map_or(id.as_str(), |service| &service.name);
                format!("the VIP of service {name} on")
            }
            Some(Holder::Endpoint(id)) => {
                let name = self
                    .allocations
                    .get(id)
                    .map_or(id.as_str(), |allocation| &allocation.name);
                format!("the address of endpoint {name} on")
            }
        }
    }
}

/// A weight is that of a task of a service that is balanced.
fn check_weight(wish: &Wish<'_>, service: Option<&Service>) -> Result<(), Refusal> {
    let Some(weight) = wish.weight else { return Ok(()) };
    check::weight(wish.name, weight)?;
    match service {
        Some(service) => check::balanced(service, &format!("weight {weight}")),
        None => Err(Refusal::invalid(format!(
            "endpoint {} has weight {weight} and no service: a weight is that of a task of a service",
            wish.name
        ))),
    }
}

/// Whether an endpoint may be called so.
pub fn check_endpoint(name: &str, aliases: &[String]) -> Result<(), Refusal> {
    check::name("endpoint name", name, check::MAX_ENDPOINT_NAME)?;
    if aliases.len() > MAX_ALIASES {
        return Err(Refusal::invalid(format!(
            "endpoint {name} has {} aliases: it may have at most {MAX_ALIASES}",
            aliases.len()
        )));
    }
    aliases
        .iter()
        .try_for_each(|alias| check::name("alias", alias, check::MAX_ENDPOINT_NAME))
}

/// A subnet without a free address.
pub(super) fn exhausted(what: &str, network: &Network, usage: Option<Usage>) -> Refusal {
    let Usage { used, capacity } = usage.unwrap_or(Usage { used: 0, capacity: 0 });
    Refusal::conflict(format!(
        "{what}: {used} of {capacity} addresses of subnet {} of network {} are in use; release some or create a larger network",
        network.subnet, network.name
    ))
}
