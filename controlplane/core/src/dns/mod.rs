//! The answer to a question (`spec/service-discovery-lb.md` 5.8).

#[cfg(test)]
mod tests;

use crate::id::NetworkId;
use crate::service::Names;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a container asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// IPv4 addresses of a name. Names are without the trailing dot, in any case.
    A(String),
    /// IPv6 addresses of a name.
    Aaaa(String),
    /// Mail exchangers of a name.
    Mx(String),
    /// The name of an address.
    Ptr(IpAddr),
    /// Anything else.
    Other(String),
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// These addresses, of the family that was asked for, in this order.
    Addresses(Vec<IpAddr>),
    /// The name exists, but has no such record: no error, no data.
    NoData,
    /// The name of the address, without the trailing dot.
    Name(String),
    /// Not ours: ask the host's resolvers.
    Forward,
}

/// The names of all networks that this node knows, with what the networks are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    zones: BTreeMap<NetworkId, Zone>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Zone {
    network_name: String,
    names: Names,
}

impl Zones {
    /// Names of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the names of a network; what was known of it before is forgotten.
    pub fn set(&mut self, network: NetworkId, network_name: String, names: Names) {
        self.zones.insert(network, Zone { network_name, names });
    }

    /// Forgets a network.
    pub fn remove(&mut self, network: &NetworkId) {
        self.zones.remove(network);
    }

    /// The answer for an endpoint that is attached to `networks`, which are searched in this order. Several addresses come in an
    /// order that depends on `shuffle_seed`: this is the round robin of DNS, so it should differ from query to query.
    pub fn answer(&self, question: &Question, networks: &[NetworkId], shuffle_seed: u64) -> Decision {
        match question {
            // A known name must not leak to the host's resolvers, also where it has nothing of what is asked: the overlay has no
            // mail, and IPv6 only on some networks.
            Question::A(name) => self.addresses(name, networks, IpAddr::is_ipv4, shuffle_seed),
            Question::Aaaa(name) => self.addresses(name, networks, IpAddr::is_ipv6, shuffle_seed),
            Question::Mx(name) => match self.resolve(name, networks) {
                Some(_) => Decision::NoData,
                None => Decision::Forward,
            },
            Question::Ptr(address) => self
                .reverse(*address, networks)
                .map_or(Decision::Forward, Decision::Name),
            Question::Other(_) => Decision::Forward,
        }
    }

    fn addresses(&self, name: &str, networks: &[NetworkId], family: fn(&IpAddr) -> bool, seed: u64) -> Decision {
        let Some(known) = self.resolve(name, networks) else {
            return Decision::Forward;
        };
        let asked: Vec<IpAddr> = known.iter().copied().filter(family).collect();
        match asked.is_empty() {
            true => Decision::NoData,
            false => Decision::Addresses(shuffled(asked, seed)),
        }
    }

    /// `a.b.c` is tried as `a.b.c` in any attached network, then `a.b` in network `c`, then `a` in network `b.c`.
    fn resolve(&self, name: &str, networks: &[NetworkId]) -> Option<&BTreeSet<IpAddr>> {
        let attached = || networks.iter().filter_map(|id| self.zones.get(id));
        let plain = attached().find_map(|zone| zone.names.addresses(name));
        let mut dots = name.rmatch_indices('.').map(|(at, _)| (&name[..at], &name[at + 1..]));
        plain.or_else(|| {
            dots.find_map(|(host, network)| {
                attached()
                    .filter(|zone| zone.network_name.eq_ignore_ascii_case(network))
                    .find_map(|zone| zone.names.addresses(host))
            })
        })
    }

    fn reverse(&self, address: IpAddr, networks: &[NetworkId]) -> Option<String> {
        let mut zones = networks.iter().filter_map(|id| self.zones.get(id));
        zones.find_map(|zone| {
            zone.names
                .name_of(address)
                .map(|name| format!("{name}.{}", zone.network_name))
        })
    }
}

/// Fisher and Yates's shuffle.
fn shuffled(mut addresses: Vec<IpAddr>, seed: u64) -> Vec<IpAddr> {
    let mut random = Pcg32::seed_from_u64(seed);
    for last in (1..addresses.len()).rev() {
        // The remainder favours low indices by less than length / 2^64, which nobody can notice.
        let chosen = random.next_u64() % (last as u64 + 1);
        addresses.swap(last, chosen as usize);
    }
    addresses
}
