//! The records that a node writes for an endpoint of its own, out of what the manager declared.

use super::{EndpointRecord, PeerRecord};
use crate::cluster::{Allocation, Network, Service};
use ipnet::Ipv4Net;
use std::net::IpAddr;

impl PeerRecord {
    /// The row of an endpoint that lives behind `vtep`.
    pub fn declared(network: &Network, allocation: &Allocation, vtep: IpAddr) -> Self {
        let with_mask = Ipv4Net::new(allocation.ip, network.subnet.prefix_len());
        PeerRecord {
            endpoint_ip: with_mask.unwrap_or_else(|_| Ipv4Net::from(allocation.ip)),
            endpoint_mac: allocation.mac,
            tunnel_endpoint_ip: vtep,
            endpoint_ip6: network.ipv6_net_of(allocation.ip),
        }
    }
}

impl EndpointRecord {
    /// The row of an endpoint, enabled unless its weight is 0. `service` is the one that it is a task of.
    pub fn declared(network: &Network, service: Option<&Service>, allocation: &Allocation) -> Self {
        let virtual_ip = service.and_then(|service| service.networks.get(&allocation.network).copied().flatten());
        EndpointRecord {
            name: allocation.name.clone(),
            service_name: service.map(|service| service.name.clone()).unwrap_or_default(),
            service_id: service.map(|service| service.id.to_string()).unwrap_or_default(),
            virtual_ip,
            endpoint_ip: allocation.ip,
            ingress_ports: Vec::new(),
            aliases: Vec::new(),
            task_aliases: allocation.aliases.clone(),
            service_disabled: allocation.weight == 0,
            endpoint_ip6: network.ipv6_of(allocation.ip),
            virtual_ip6: virtual_ip.and_then(|ip| network.ipv6_of(ip)),
            policy: service.map(|service| service.policy).unwrap_or_default(),
            affinity_seconds: service.map_or(0, |service| service.affinity_seconds),
            weight: allocation.weight.max(1),
        }
    }
}
