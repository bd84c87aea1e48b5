//! From a request to a reply and the changes it takes.

use super::refusal::{Refusal, list};
use super::{Allocation, Change, Network, Reply, Request, Service, State, UnixNanos, index};
use crate::id::{NetworkId, ServiceId};

/// What a request becomes.
pub(super) type Decided = Result<(Reply, Vec<Change>), Refusal>;

/// Where the moment and the chance of a decision come from: outside.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: UnixNanos,
    entropy: [u8; 32],
}

impl State {
    /// Looks and answers, changes nothing. `entropy` are fresh random bytes, of which ids are made; the changes are to be stored
    /// and then [applied](State::apply) before the next request is decided.
    pub fn decide(&self, now: UnixNanos, entropy: [u8; 32], request: &Request) -> Decided {
        let at = Moment { now, entropy };
        match request {
            Request::NetworkCreate {
                name,
                subnet,
                gateway,
                ipv6,
                options,
                labels,
            } => {
                let wish = super::networks::Wish {
                    name,
                    subnet: subnet.as_deref(),
                    gateway: *gateway,
                    ipv6: ipv6.as_ref(),
                    options,
                    labels,
                };
                self.create_network(at, &wish)
            }
            Request::NetworkList => look(Reply::Networks(self.networks_by_name())),
            Request::NetworkInspect { network } => look(Reply::Network(self.find_network(network)?.clone())),
            Request::NetworkRemove { network } => self.remove_network(network),
            Request::ServiceCreate {
                name,
                networks,
                mode,
                policy,
                affinity,
            } => {
                let wish = super::services::Wish {
                    name,
                    networks,
                    mode: *mode,
                    policy: *policy,
                    affinity: *affinity,
                };
                self.create_service(at, &wish)
            }
            Request::ServiceUpdate {
                service,
                policy,
                affinity,
                weights,
                version,
            } => {
                self.is_version(service, *version)?;
                self.update_service(at, service, *policy, *affinity, weights)
            }
            Request::ServiceList => look(Reply::Services(self.services_by_name())),
            Request::ServiceInspect { service } => look(Reply::Service(self.find_service(service)?.clone())),
            Request::ServiceRemove { service } => self.remove_service(service),
            Request::Allocate {
                endpoint,
                network,
                node,
                name,
                service,
                aliases,
                ip,
                weight,
            } => {
                let service = service.as_deref();
                let wish = super::allocations::Wish {
                    endpoint,
                    network,
                    node,
                    name,
                    service,
                    aliases,
                    ip: *ip,
                    weight: *weight,
                };
                self.allocate(at, &wish)
            }
            Request::Release { endpoint } => {
                let held = self.allocations.contains_key(endpoint);
                Ok((
                    Reply::Done,
                    held.then(|| Change::RemoveAllocation(endpoint.clone()))
                        .into_iter()
                        .collect(),
                ))
            }
            Request::AllocationList => look(Reply::Allocations(self.allocations_by_address())),
            Request::MemberList => look(Reply::Members(self.members_by_name())),
            Request::MemberAdd { name, address, role } => self.add_member(at, name, *address, *role),
            Request::MemberRemove { name } => self.remove_member(name),
        }
    }

    /// The network with this id, name or unique prefix of an id.
    pub fn find_network(&self, text: &str) -> Result<&Network, Refusal> {
        let exact = NetworkId::new(text).ok().and_then(|id| self.networks.get(&id));
        let named = || {
            self.index
                .networks
                .get(&index::key(text))
                .and_then(|id| self.networks.get(id))
        };
        match exact.or_else(named) {
            Some(network) => Ok(network),
            None => by_prefix(
                "network",
                text,
                self.networks.iter().map(|(id, row)| (id.as_str(), row)),
            ),
        }
    }

    /// The service with this id, name or unique prefix of an id.
    pub fn find_service(&self, text: &str) -> Result<&Service, Refusal> {
        let exact = ServiceId::new(text).ok().and_then(|id| self.services.get(&id));
        let named = || {
            self.index
                .services
                .get(&index::key(text))
                .and_then(|id| self.services.get(id))
        };
        match exact.or_else(named) {
            Some(service) => Ok(service),
            None => by_prefix(
                "service",
                text,
                self.services.iter().map(|(id, row)| (id.as_str(), row)),
            ),
        }
    }

    fn networks_by_name(&self) -> Vec<Network> {
        let mut networks: Vec<_> = self.networks.values().cloned().collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        networks
    }

    fn services_by_name(&self) -> Vec<Service> {
        let mut services: Vec<_> = self.services.values().cloned().collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services
    }

    fn allocations_by_address(&self) -> Vec<Allocation> {
        let network_name =
            |allocation: &Allocation| self.networks.get(&allocation.network).map(|network| &network.name);
        let mut allocations: Vec<_> = self.allocations.values().cloned().collect();
        allocations.sort_by(|a, b| (network_name(a), a.ip).cmp(&(network_name(b), b.ip)));
        allocations
    }
}

impl Moment {
    /// 25 characters `0-9a-z` of 128 random bits, as Docker's ids; in the unlikely case that `taken` knows it, the next one.
    pub(super) fn new_id(self, taken: impl Fn(&str) -> bool) -> String {
        let mut bits = [0; 16];
        bits.copy_from_slice(&self.entropy[..16]);
        let mut number = u128::from_be_bytes(bits);
        loop {
            let id = base36(number);
            if !taken(&id) {
                return id;
            }
            number = number.wrapping_add(1);
        }
    }
}

/// 25 digits hold any 128 bits.
fn base36(mut number: u128) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut id = [b'0'; 25];
    for digit in id.iter_mut().rev() {
        *digit = DIGITS[(number % 36) as usize];
        number /= 36;
    }
    id.iter().map(|digit| char::from(*digit)).collect()
}

/// An answer that takes no change.
pub(super) fn look(reply: Reply) -> Decided {
    Ok((reply, Vec::new()))
}

fn by_prefix<'a, T>(what: &str, text: &str, rows: impl Iterator<Item = (&'a str, &'a T)>) -> Result<&'a T, Refusal> {
    if text.is_empty() {
        return Err(Refusal::invalid(format!(
            "{what} \"\" is not valid: it should be an id, a name or the start of an id"
        )));
    }
    let matches: Vec<_> = rows.filter(|(id, _)| id.starts_with(text)).collect();
    match matches.as_slice() {
        [(_, row)] => Ok(*row),
        [] => Err(Refusal::not_found(format!("{what} {text} not found"))),
        several => Err(Refusal::invalid(format!(
            "{what} {text} is ambiguous ({} matches found based on ID prefix): {}",
            several.len(),
            list(several.iter().map(|(id, _)| *id))
        ))),
    }
}
