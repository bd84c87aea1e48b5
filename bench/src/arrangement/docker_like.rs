//! `a`: the overlay as Docker builds it: a sandbox with a bridge and a VXLAN device that asks for every neighbour.
//!
//! A dockerd 20.10 leaves the outer UDP checksum on and its sandbox with `bridge-nf-call-iptables = 1`. `an` turns the latter
//! off, `aq` the former, `anq` both: what a careful administrator could make of it.

use super::{Arrangement, Container, HOST_A, HOST_B, HostSide, Hosts, Topology, Vip};
use crate::error::{Context, Error, Result};
use crate::netns::{Netns, format_mac};
use crate::options::Options;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The VNI that Docker gives to a swarm's first network.
const VNI: u32 = 4096;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 1, 3), Ipv4Addr::new(10, 0, 1, 4)];
const VIP_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The arrangement; everything in it ends with it.
#[derive(Debug)]
pub struct DockerLike {
    id: &'static str,
    topology: Topology,
    facts: Vec<String>,
    _hosts: Hosts,
    _sandboxes: [Arc<Netns>; 2],
}

impl Arrangement for DockerLike {
    fn id(&self) -> &'static str {
        self.id
    }

    fn description(&self) -> String {
        "Docker's overlay: sandbox with bridge and VXLAN device (proxy l2miss l3miss), static FDB and neighbours"
            .to_owned()
    }

    fn facts(&self) -> &[String] {
        &self.facts
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }
}

/// Builds `a`, `an`, `aq` or `anq`.
pub fn build(id: &str, options: &Options) -> Result<DockerLike> {
    let (id, filter, checksum) = match id {
        "an" => ("an", false, true),
        "aq" => ("aq", true, false),
        "anq" => ("anq", false, false),
        _ => ("a", true, true),
    };
    let hosts = Hosts::create(id, options)?;
    let near = sandbox(&hosts, Side::Near, filter, checksum)?;
    let far = sandbox(&hosts, Side::Far, filter, checksum)?;
    let client = hosts.container("cA", &near, "vA", CLIENT)?;
    let servers = vec![
        hosts.container("cB", &far, "vB", SERVERS[0])?,
        hosts.container("cC", &far, "vC", SERVERS[1])?,
    ];
    let vip_client = hosts.container("cV", &near, "vV", VIP_CLIENT)?;
    for port in ["vA", "vV"] {
        near.ip(&format!("link set {port} master br0"))?;
    }
    for port in ["vB", "vC"] {
        far.ip(&format!("link set {port} master br0"))?;
    }
    servers.iter().try_for_each(|peer| learn(&near, HOST_B, peer))?;
    [&client, &vip_client]
        .into_iter()
        .try_for_each(|peer| learn(&far, HOST_A, peer))?;
    let mut facts = vec![
        filter_fact(&near)?,
        format!(
            "outer UDP checksum {}",
            if outer_checksum(&near)? { "on" } else { "off" }
        ),
        format!("container MTU {}", client.mtu),
    ];
    let vip = balance(&vip_client, &servers, &mut facts);
    let topology = Topology {
        client_host_side: HostSide {
            netns: Arc::clone(&near),
            interface: "vA".to_owned(),
        },
        client,
        servers,
        vip,
        uplinks: hosts.uplinks(),
    };
    Ok(DockerLike {
        id,
        topology,
        facts,
        _hosts: hosts,
        _sandboxes: [near, far],
    })
}

/// The sandbox namespace of one host: `br0` with `vx0` in it, made in the host and moved, as Docker's driver does.
fn sandbox(hosts: &Hosts, side: Side, filter: bool, checksum: bool) -> Result<Arc<Netns>> {
    let (host, name, local) = match side {
        Side::Near => (&hosts.a, "oA", HOST_A),
        Side::Far => (&hosts.b, "oB", HOST_B),
    };
    let sandbox = hosts.namespace(name)?;
    let mtu = hosts.container_mtu();
    let checksum = if checksum { "udpcsum" } else { "noudpcsum" };
    host.ip(&format!(
        "link add vx0 mtu {mtu} type vxlan id {VNI} dstport 4789 local {local} proxy l2miss l3miss {checksum}\n\
         link set vx0 netns {}",
        sandbox.name()
    ))?;
    sandbox.ip(&format!(
        "link add br0 mtu {mtu} type bridge\nlink set vx0 master br0\naddr add 10.0.1.1/24 dev br0\n\
         link set br0 up\nlink set vx0 up"
    ))?;
    set_filter(&sandbox, filter)?;
    Ok(sandbox)
}

#[derive(Clone, Copy)]
enum Side {
    Near,
    Far,
}

/// What Docker's driver writes when the gossip tells of a peer: where its MAC is, and which MAC its address has.
fn learn(sandbox: &Netns, vtep: Ipv4Addr, peer: &Container) -> Result<()> {
    let (mac, vtep) = (format_mac(peer.mac), vtep.to_string());
    sandbox.run(
        "bridge",
        &["fdb", "replace", &mac, "dev", "vx0", "dst", &vtep, "self", "permanent"],
    )?;
    sandbox.ip(&format!(
        "neigh replace {} lladdr {mac} dev vx0 nud permanent",
        peer.address
    ))
}

/// Whether bridged packets pass the namespace's IP filters. Without the kernel's `br_netfilter` they never do.
fn set_filter(sandbox: &Netns, on: bool) -> Result<()> {
    sandbox.within(|| {
        if std::fs::exists(BRIDGE_FILTER).unwrap_or(false) {
            let value = if on { "1" } else { "0" };
            std::fs::write(BRIDGE_FILTER, value).context(|| format!("cannot write {BRIDGE_FILTER}"))?;
        }
        Ok(())
    })
}

fn filter_fact(sandbox: &Netns) -> Result<String> {
    sandbox.within(|| {
        Ok(match std::fs::read_to_string(BRIDGE_FILTER) {
            Ok(value) => format!("br_netfilter present, bridge-nf-call-iptables = {}", value.trim()),
            Err(_) => "br_netfilter absent (modprobe br_netfilter; without it the baseline is faster than Docker's)"
                .to_owned(),
        })
    })
}

fn outer_checksum(sandbox: &Netns) -> Result<bool> {
    let json = sandbox.link("vx0")?.json;
    let value = json["linkinfo"]["info_data"]["udp_csum"].as_bool();
    value.ok_or_else(|| Error::new("ip does not tell whether vx0 has udpcsum"))
}

/// A virtual IP by iptables, in a container of its own: connection tracking would slow down the direct measures.
///
/// Docker uses IPVS; few kernels that benches run on have it, and both pay for connection tracking and address translation.
fn balance(client: &Container, servers: &[Container], facts: &mut Vec<String>) -> Option<Vip> {
    let rules = servers.iter().enumerate().map(|(index, server)| {
        let every = (servers.len() - index).to_string();
        let (vip, to) = (VIP.to_string(), server.address.to_string());
        let mut rule = vec![
            "-t",
            "nat",
            "-A",
            "OUTPUT",
            "-d",
            &vip,
            "-m",
            "statistic",
            "--mode",
            "nth",
            "--every",
            &every,
        ];
        rule.extend(["--packet", "0", "-j", "DNAT", "--to-destination", &to]);
        client.netns.run("iptables", &rule).map(drop)
    });
    match rules.collect::<Result<()>>() {
        Ok(()) => {
            facts.push("VIP by iptables statistic DNAT in the client's namespace (Docker: IPVS)".to_owned());
            Some(Vip {
                client: Arc::clone(&client.netns),
                address: VIP,
            })
        }
        Err(error) => {
            facts.push(format!("no VIP: {error}"));
            None
        }
    }
}
