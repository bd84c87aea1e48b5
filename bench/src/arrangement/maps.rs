//! `maps`: weft's programs alone: the bench fills the maps, no daemon runs. What `weft` adds to its cost is the control plane's.

use super::{Arrangement, Container, HOST_A, HOST_B, HostSide, Hosts, Topology, UPLINK_A, UPLINK_B, Vip};
use crate::dataplane::{self, put};
use crate::error::Result;
use crate::netns::Netns;
use crate::object;
use crate::options::Options;
use aya::Ebpf;
use std::net::Ipv4Addr;
use std::sync::Arc;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service, V6, mapped, program,
};

const VNI: u32 = 4096;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const GATEWAY_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 1];
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 1, 3), Ipv4Addr::new(10, 0, 1, 4)];
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);

/// The arrangement; everything in it ends with it.
#[derive(Debug)]
pub struct Maps {
    topology: Topology,
    facts: Vec<String>,
    _programs: [Ebpf; 2],
    _hosts: Hosts,
}

impl Arrangement for Maps {
    fn id(&self) -> &'static str {
        "maps"
    }

    fn description(&self) -> String {
        "weft's programs with maps that the bench filled, without daemons".to_owned()
    }

    fn facts(&self) -> &[String] {
        &self.facts
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }
}

/// Builds it.
pub fn build(options: &Options) -> Result<Maps> {
    let hosts = Hosts::create("maps", options)?;
    let client = hosts.container("cA", &hosts.a, "vA", CLIENT)?;
    let servers = vec![
        hosts.container("cB", &hosts.b, "vB", SERVERS[0])?,
        hosts.container("cC", &hosts.b, "vC", SERVERS[1])?,
    ];
    let near = Side {
        host: &hosts.a,
        uplink: UPLINK_A,
        address: HOST_A,
        other: HOST_B,
        locals: vec![("vA", &client)],
        peers: servers.iter().collect(),
    };
    let far = Side {
        host: &hosts.b,
        uplink: UPLINK_B,
        address: HOST_B,
        other: HOST_A,
        locals: ["vB", "vC"].into_iter().zip(&servers).collect(),
        peers: vec![&client],
    };
    let programs = [near.start(options)?, far.start(options)?];
    let facts = vec![format!("container MTU {}", client.mtu)];
    let vip = Vip {
        client: Arc::clone(&client.netns),
        address: VIRTUAL,
    };
    let client_host_side = HostSide {
        netns: Arc::clone(&hosts.a),
        interface: "vA".to_owned(),
    };
    Ok(Maps {
        topology: Topology {
            client,
            client_host_side,
            servers,
            vip: Some(vip),
            uplinks: hosts.uplinks(),
        },
        facts,
        _programs: programs,
        _hosts: hosts,
    })
}

/// One host as its daemon would see it.
struct Side<'a> {
    host: &'a Netns,
    uplink: &'static str,
    address: Ipv4Addr,
    other: Ipv4Addr,
    locals: Vec<(&'static str, &'a Container)>,
    peers: Vec<&'a Container>,
}

impl Side<'_> {
    fn start(&self, options: &Options) -> Result<Ebpf> {
        // Without a socket on the port the kernel does not aggregate VXLAN on receive.
        self.host.ip(&format!(
            "link add gro0 type vxlan external dstport {}\nlink set gro0 up",
            abi::VXLAN_PORT
        ))?;
        let mut programs = dataplane::load(options)?;
        self.fill(&mut programs)?;
        self.host.within(|| {
            for (veth, _) in &self.locals {
                object::attach(&mut programs, program::OVERLAY_EGRESS, veth)?;
            }
            object::attach(&mut programs, program::OVERLAY_INGRESS, self.uplink)?;
            Ok(programs)
        })
    }

    fn fill(&self, programs: &mut Ebpf) -> Result<()> {
        let at = |ip: Ipv4Addr| OverlayAddress {
            vni: VNI,
            ip: ip.octets(),
        };
        let network = Network {
            gateway: GATEWAY.octets(),
            gateway_mac: GATEWAY_MAC,
            prefix_len: 24,
            padding: 0,
        };
        put(programs, abi::network::NAME, VNI, network)?;
        dataplane::put_node(programs, mapped(self.other.octets()), self.node()?)?;
        for (veth, container) in &self.locals {
            let ifindex = self.host.link(veth)?.index;
            dataplane::put_attachment(programs, ifindex, attachment(container))?;
            let endpoint = Endpoint {
                ifindex,
                mac: container.mac,
                flags: flags(container.address),
            };
            dataplane::put_endpoint(programs, at(container.address), endpoint)?;
        }
        for container in &self.peers {
            let peer = Peer {
                vtep: mapped(self.other.octets()),
                mac: container.mac,
                flags: flags(container.address),
            };
            dataplane::put_peer(programs, at(container.address), peer)?;
        }
        let service = Service {
            backend_count: 2,
            policy: abi::service::POLICY_ROUND_ROBIN,
            affinity_seconds: 0,
        };
        dataplane::put_service(programs, at(VIRTUAL), service)?;
        for (slot, address) in (0..).zip(SERVERS) {
            let key = BackendKey {
                vni: VNI,
                vip: VIRTUAL.octets(),
                slot,
            };
            put(programs, abi::backend::NAME, key, Backend { ip: address.octets() })?;
        }
        Ok(())
    }

    fn node(&self) -> Result<Node> {
        let link = self.host.link(self.uplink)?;
        Ok(Node {
            next_hop: mapped(self.other.octets()),
            source: mapped(self.address.octets()),
            ifindex: link.index,
            mtu: u32::try_from(link.mtu).unwrap_or(u32::MAX),
            family: abi::node::IPV4,
            padding: 0,
        })
    }
}

/// What the daemon notes of an endpoint that stands behind a virtual IP.
fn flags(address: Ipv4Addr) -> u16 {
    if SERVERS.contains(&address) {
        abi::peer::BACKEND
    } else {
        0
    }
}

fn attachment(container: &Container) -> Attachment {
    Attachment {
        vni: VNI,
        ip: container.address.octets(),
        gateway: GATEWAY.octets(),
        mac: container.mac,
        gateway_mac: GATEWAY_MAC,
        ip6: V6::UNSPECIFIED,
        gateway6: V6::UNSPECIFIED,
    }
}
