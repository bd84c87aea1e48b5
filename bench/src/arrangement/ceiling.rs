//! `e2`: no overlay at all: TC programs put new MACs on a packet and redirect it. No TC data path on this topology can be faster.

use super::{Arrangement, HostSide, Hosts, Topology, UPLINK_A, UPLINK_B};
use crate::error::{Context, Result};
use crate::netns::{Netns, format_mac};
use crate::object::{self, map, program};
use crate::options::Options;
use aya::Ebpf;
use aya::maps::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 1, 3), Ipv4Addr::new(10, 0, 1, 4)];

/// The arrangement; everything in it ends with it.
#[derive(Debug)]
pub struct Ceiling {
    topology: Topology,
    facts: Vec<String>,
    _programs: [Ebpf; 2],
    _hosts: Hosts,
}

impl Arrangement for Ceiling {
    fn id(&self) -> &'static str {
        "e2"
    }

    fn description(&self) -> String {
        "no overlay: TC redirect out of a container, redirect_peer into one; the ceiling of any TC design".to_owned()
    }

    fn facts(&self) -> &[String] {
        &self.facts
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }
}

/// Builds it.
pub fn build(options: &Options) -> Result<Ceiling> {
    let hosts = Hosts::create("e2", options)?;
    let client = hosts.container("cA", &hosts.a, "vA", CLIENT)?;
    let servers = vec![
        hosts.container("cB", &hosts.b, "vB", SERVERS[0])?,
        hosts.container("cC", &hosts.b, "vC", SERVERS[1])?,
    ];
    for server in &servers {
        let neighbour = |address, mac| {
            format!(
                "neigh replace {address} lladdr {} dev eth0 nud permanent",
                format_mac(mac)
            )
        };
        client.netns.ip(&neighbour(server.address, server.mac))?;
        server.netns.ip(&neighbour(client.address, client.mac))?;
    }
    let (uplink_a, uplink_b) = (hosts.a.link(UPLINK_A)?, hosts.b.link(UPLINK_B)?);
    let mut near = vec![deliver(&hosts.a, "vA", client.address, client.mac)?];
    let mut far = vec![(
        client.address,
        object::route(uplink_b.index, uplink_a.mac, uplink_b.mac),
    )];
    for (server, veth) in servers.iter().zip(["vB", "vC"]) {
        near.push((
            server.address,
            object::route(uplink_a.index, uplink_b.mac, uplink_a.mac),
        ));
        far.push(deliver(&hosts.b, veth, server.address, server.mac)?);
    }
    let programs = [
        forward(&hosts.a, options, &near, UPLINK_A, &["vA"])?,
        forward(&hosts.b, options, &far, UPLINK_B, &["vB", "vC"])?,
    ];
    let facts = vec![format!("container MTU {}", client.mtu)];
    let client_host_side = HostSide {
        netns: Arc::clone(&hosts.a),
        interface: "vA".to_owned(),
    };
    Ok(Ceiling {
        topology: Topology {
            client,
            client_host_side,
            servers,
            vip: None,
            uplinks: hosts.uplinks(),
        },
        facts,
        _programs: programs,
        _hosts: hosts,
    })
}

type Route = (Ipv4Addr, [u8; 16]);

fn deliver(host: &Netns, veth: &str, address: Ipv4Addr, mac: [u8; 6]) -> Result<Route> {
    let link = host.link(veth)?;
    Ok((address, object::route(link.index, mac, link.mac)))
}

fn forward(host: &Netns, options: &Options, routes: &[Route], uplink: &str, veths: &[&str]) -> Result<Ebpf> {
    host.within(|| {
        let mut programs = object::load(&options.bench_object)?;
        let table = programs
            .map_mut(map::ROUTES)
            .context(|| "no map \"routes\" in the object".to_owned())?;
        let mut table: HashMap<_, [u8; 4], [u8; 16]> =
            HashMap::try_from(table).context(|| "map \"routes\"".to_owned())?;
        for (address, route) in routes {
            table
                .insert(address.octets(), route, 0)
                .context(|| format!("route to {address}"))?;
        }
        for veth in veths {
            object::attach(&mut programs, program::EGRESS, veth)?;
        }
        object::attach(&mut programs, program::INGRESS, uplink)?;
        Ok(programs)
    })
}
