//! Declaring and removing networks.

use super::decide::{Decided, Moment};
use super::index::Holder;
use super::refusal::{Refusal, list};
use super::{Change, Ipv6Wish, Network, Reply, State, VNI_OPTION, check, index, options};
use crate::id::{NetworkId, Vni};
use crate::ipam::{FIRST_AUTOMATIC_VNI, MAX_POOL_MASK};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The most networks of a cluster: a node with an endpoint on each of them still has room for all in its maps.
pub const MAX_NETWORKS: usize = weft_dataplane::abi::network::MAX_ENTRIES as usize;

/// The largest subnet, as a prefix length: the whole of 10.0.0.0/8.
const MIN_SUBNET_PREFIX: u8 = 8;

/// What is asked for.
pub(super) struct Wish<'a> {
    pub(super) name: &'a str,
    pub(super) subnet: Option<&'a str>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) ipv6: Option<&'a Ipv6Wish>,
    pub(super) options: &'a BTreeMap<String, String>,
    pub(super) labels: &'a BTreeMap<String, String>,
}

impl State {
    pub(super) fn create_network(&self, at: Moment, wish: &Wish<'_>) -> Decided {
        let Wish {
            name,
            subnet,
            gateway,
            ipv6,
            options,
            labels,
        } = *wish;
        check::name("network name", name, check::MAX_NAME)?;
        check::labels(labels)?;
        if self.index.networks.contains_key(&index::key(name)) {
            return Err(Refusal::conflict(format!("network with name {name} already exists")));
        }
        if self.networks.len() >= MAX_NETWORKS {
            return Err(Refusal::conflict(format!(
                "network {name} cannot be created: there are {MAX_NETWORKS} networks, the most that are possible"
            )));
        }
        if let (None, Some(gateway)) = (subnet, gateway) {
            return Err(Refusal::invalid(format!(
                "invalid gateway {gateway}: it should come with the subnet that holds it"
            )));
        }
        let overhead = self.encapsulation_overhead();
        let driver = options::parse(options, overhead)?;
        let subnet = self.choose_subnet(subnet)?;
        let gateway = choose_gateway(subnet, gateway)?;
        let ipv6 = ipv6.map(|wish| self.choose_ipv6(at, subnet, wish)).transpose()?;
        if ipv6.is_some() {
            options::check_mtu_for_ipv6(driver.mtu, overhead)?;
        }
        let vni = self.choose_vni(subnet, driver.vni)?;
        let id = at.new_id(|id| NetworkId::new(id).is_ok_and(|id| self.networks.contains_key(&id)));
        let mut options = options.clone();
        options.insert(VNI_OPTION.to_owned(), vni.to_string());
        let network = Network {
            id: NetworkId::new(id).map_err(|error| Refusal::invalid(error.to_string()))?,
            name: name.to_owned(),
            created: at.now,
            vni,
            subnet,
            gateway,
            ipv6,
            mtu: driver.mtu,
            options,
            labels: labels.clone(),
        };
        Ok((Reply::Network(network.clone()), vec![Change::PutNetwork(network)]))
    }

    pub(super) fn remove_network(&self, text: &str) -> Decided {
        let network = self.find_network(text)?;
        let services = self
            .services
            .values()
            .filter(|service| service.networks.contains_key(&network.id));
        let services: Vec<&str> = services.map(|service| service.name.as_str()).collect();
        if !services.is_empty() {
            return Err(Refusal::conflict(format!(
                "network {} is in use by service {}",
                network.name,
                list(services.into_iter())
            )));
        }
        let holders = self
            .space(&network.id)
            .into_iter()
            .flat_map(|space| space.holders.values());
        let endpoints: Vec<&str> = holders
            .filter_map(|holder| match holder {
                Holder::Endpoint(id) => self.allocations.get(id).map(|allocation| allocation.name.as_str()),
                Holder::Gateway | Holder::Vip(_) => None,
            })
            .collect();
        if !endpoints.is_empty() {
            return Err(Refusal::conflict(format!(
                "network {} has active endpoints ({})",
                network.name,
                list(endpoints.into_iter())
            )));
        }
        Ok((Reply::Done, vec![Change::RemoveNetwork(network.id.clone())]))
    }

    /// What VXLAN takes of a packet between the members, as they know each other's addresses.
    fn encapsulation_overhead(&self) -> u32 {
        if self.members.values().any(|member| member.address.is_ipv6()) {
            options::ENCAPSULATION_OVERHEAD_IPV6
        } else {
            options::ENCAPSULATION_OVERHEAD
        }
    }

    fn choose_subnet(&self, wish: Option<&str>) -> Result<Ipv4Net, Refusal> {
        let Some(text) = wish else {
            return self.free_subnet(self.pools.mask());
        };
        let subnet = parse_subnet(text)?;
        if subnet.addr().is_unspecified() {
            return self.free_subnet(subnet.prefix_len());
        }
        match self.overlapping(subnet) {
            None => Ok(subnet),
            Some((taken, name)) => Err(Refusal::conflict(format!(
                "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps {taken} of network \
                 {name}"
            ))),
        }
    }

    /// `spec/ipam.md` 6.2: the lowest free block.
    fn free_subnet(&self, prefix_len: u8) -> Result<Ipv4Net, Refusal> {
        self.pools.lowest_free(prefix_len, || self.index.subnets.keys()).ok_or_else(|| {
            let pools: Vec<String> = self.pools.pools().iter().map(Ipv4Net::to_string).collect();
            Refusal::conflict(format!(
                "all predefined address pools have been fully subnetted: no /{prefix_len} is left of {}; remove a network or name a \
                 subnet outside of them",
                list(pools.iter().map(String::as_str))
            ))
        })
    }

    /// A network whose subnet overlaps this one.
    fn overlapping(&self, subnet: Ipv4Net) -> Option<(Ipv4Net, &str)> {
        let name = |id| self.networks.get(id).map_or("", |network| network.name.as_str());
        let mut subnets = self.index.subnets.iter();
        subnets
            .find(|(taken, _)| taken.contains(&subnet) || subnet.contains(*taken))
            .map(|(taken, id)| (*taken, name(id)))
    }

    fn choose_vni(&self, subnet: Ipv4Net, wish: Option<Vni>) -> Result<Vni, Refusal> {
        let Some(vni) = wish else {
            return self.index.vnis.next().ok_or_else(|| {
                Refusal::conflict(format!(
                    "could not obtain vxlan id for pool {subnet}: all from {FIRST_AUTOMATIC_VNI} to {} are in use",
                    Vni::MAX
                ))
            });
        };
        match self.networks.values().find(|network| network.vni == vni) {
            None => Ok(vni),
            Some(other) => Err(Refusal::conflict(format!(
                "could not assign vxlan id {vni} to pool {subnet}: it is the VNI of network {}",
                other.name
            ))),
        }
    }
}

fn parse_subnet(text: &str) -> Result<Ipv4Net, Refusal> {
    let invalid = |right: String| Refusal::invalid(format!("invalid subnet {text}: it should be {right}"));
    let subnet: Ipv4Net = text
        .parse()
        .map_err(|_| invalid("an IPv4 subnet, as 10.1.0.0/24".to_owned()))?;
    if !(MIN_SUBNET_PREFIX..=MAX_POOL_MASK).contains(&subnet.prefix_len()) {
        return Err(invalid(format!("a /{MIN_SUBNET_PREFIX} to /{MAX_POOL_MASK}")));
    }
    if subnet.trunc() != subnet {
        return Err(invalid(subnet.trunc().to_string()));
    }
    // 0.0.0.0/24 asks for any /24.
    match subnet.addr().octets()[0] {
        0 if !subnet.addr().is_unspecified() => Err(invalid("outside of 0.0.0.0/8, which has no hosts".to_owned())),
        127 => Err(invalid("outside of 127.0.0.0/8, which is loopback".to_owned())),
        224.. => Err(invalid(
            "below 224.0.0.0, where multicast and reserved addresses begin".to_owned(),
        )),
        _ => Ok(subnet),
    }
}

fn choose_gateway(subnet: Ipv4Net, wish: Option<Ipv4Addr>) -> Result<Ipv4Addr, Refusal> {
    let Some(gateway) = wish else {
        return Ok((u32::from(subnet.network()) + 1).into());
    };
    let invalid = |why| {
        Refusal::invalid(format!(
            "invalid gateway {gateway}: it should be a host address of {subnet}, {why}"
        ))
    };
    if !subnet.contains(&gateway) {
        Err(invalid("but is outside"))
    } else if gateway == subnet.network() {
        Err(invalid("but is its network address"))
    } else if gateway == subnet.broadcast() {
        Err(invalid("but is its broadcast address"))
    } else {
        Ok(gateway)
    }
}
