//! The names that resolve on one network (`spec/service-discovery-lb.md` 5.2).

use super::{EndpointRow, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Names to addresses, and back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By lower-case name.
    forward: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// Address of an endpoint to its name as it was given.
    reverse: BTreeMap<Ipv4Addr, String>,
}

impl Names {
    /// The addresses of a name, in any case.
    pub fn addresses(&self, name: &str) -> Option<&BTreeSet<Ipv4Addr>> {
        self.forward.get(&name.to_lowercase())
    }

    /// The name of an endpoint's address. VIPs have none.
    pub fn name_of(&self, address: Ipv4Addr) -> Option<&str> {
        self.reverse.get(&address).map(String::as_str)
    }

    /// All names, lower-case and sorted, with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<Ipv4Addr>)> {
        self.forward.iter().map(|(name, addresses)| (name.as_str(), addresses))
    }

    /// Rows sorted by endpoint id; of two rows with the same address, the first one's name is the address's.
    pub(super) fn new(rows: &[&EndpointRow], services: &BTreeMap<String, Service>) -> Self {
        let mut names = Names::default();
        let mut named_services = BTreeSet::new();
        for EndpointRow { record, .. } in rows {
            if record.is_task() {
                named_services.insert(record.service_id.as_str());
            }
            if record.service_disabled {
                continue;
            }
            names
                .reverse
                .entry(record.endpoint_ip)
                .or_insert_with(|| record.name.clone());
            names.add(&record.name, record.endpoint_ip);
            for alias in &record.task_aliases {
                names.add(alias, record.endpoint_ip);
            }
            if record.is_task() {
                for name in record
                    .aliases
                    .iter()
                    .chain([&record.service_name])
                    .filter(|name| !name.is_empty())
                {
                    names.add(&format!("tasks.{name}"), record.endpoint_ip);
                }
            }
        }
        for service in named_services.into_iter().filter_map(|id| services.get(id)) {
            let addresses = match service.vip {
                Some(vip) => BTreeSet::from([vip]),
                None => service.backends(),
            };
            for name in service.aliases.iter().chain([&service.name]) {
                for address in &addresses {
                    names.add(name, *address);
                }
            }
        }
        names
    }

    fn add(&mut self, name: &str, address: Ipv4Addr) {
        if !name.is_empty() {
            self.forward.entry(name.to_lowercase()).or_default().insert(address);
        }
    }
}
