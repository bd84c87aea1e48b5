//! The names that resolve on one network (`spec/service-discovery-lb.md` 5.2).

use super::{EndpointRow, Service};
use crate::record::EndpointRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names to addresses, and back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// By lower-case name, of both families.
    forward: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Address of an endpoint to its name as it was given.
    reverse: BTreeMap<IpAddr, String>,
}

impl Names {
    /// The addresses of a name, in any case.
    pub fn addresses(&self, name: &str) -> Option<&BTreeSet<IpAddr>> {
        self.forward.get(&name.to_lowercase())
    }

    /// The name of an endpoint's address. VIPs have none.
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.reverse.get(&address).map(String::as_str)
    }

    /// All names, lower-case and sorted, with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
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
            for address in both(Some(record.endpoint_ip), record.endpoint_ip6) {
                names.add_endpoint(record, address);
            }
        }
        for service in named_services.into_iter().filter_map(|id| services.get(id)) {
            let addresses: BTreeSet<IpAddr> = match service.vip {
                Some(_) => both(service.vip, service.vip6).collect(),
                None => {
                    let ipv6 = service.backends6().into_iter().map(IpAddr::V6);
                    service.backends().into_iter().map(IpAddr::V4).chain(ipv6).collect()
                }
            };
            for name in service.aliases.iter().chain([&service.name]) {
                for address in &addresses {
                    names.add(name, *address);
                }
            }
        }
        names
    }

    fn add_endpoint(&mut self, record: &EndpointRecord, address: IpAddr) {
        self.reverse.entry(address).or_insert_with(|| record.name.clone());
        self.add(&record.name, address);
        for alias in &record.task_aliases {
            self.add(alias, address);
        }
        if record.is_task() {
            for name in record
                .aliases
                .iter()
                .chain([&record.service_name])
                .filter(|name| !name.is_empty())
            {
                self.add(&format!("tasks.{name}"), address);
            }
        }
    }

    fn add(&mut self, name: &str, address: IpAddr) {
        if !name.is_empty() {
            self.forward.entry(name.to_lowercase()).or_default().insert(address);
        }
    }
}

fn both(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> impl Iterator<Item = IpAddr> {
    let ipv4 = ipv4.map(IpAddr::V4);
    ipv4.into_iter().chain(ipv6.map(IpAddr::V6))
}
