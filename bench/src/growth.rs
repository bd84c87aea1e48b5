//! How the packet rate holds when the maps are full: 100,000 peers, 10,000 virtual IPs with 10 backends each, 1,000,000 balanced
//! connections; and what the maps take then.
//!
//! One pair of hosts with weft's programs and full maps. Frames go to a few destinations, and to all of them at random, in turn: the
//! few stay in the caches as they would with small maps.

use crate::arrangement::{HOST_A, HOST_B, Hosts, Topology, UPLINK_A, UPLINK_B};
use crate::dataplane::{self, put};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::load::live_frames::{self, Spread};
use crate::memory::{MEBIBYTES, read_nanoseconds};
use crate::netns::Netns;
use crate::object;
use crate::options::Options;
use crate::statistics::Summary;
use aya::Ebpf;
use aya::maps::{Map, MapData};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use weft_dataplane::abi::front::mac_of;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service, Sizes, V6, mapped,
    peer, program,
};

/// How large it is.
#[derive(Clone, Copy, Debug)]
struct Size {
    peers: u32,
    services: u32,
    backends_each: u32,
    /// Connections of each service.
    ports: u32,
    frames: u32,
    rounds: usize,
}

impl Size {
    /// As README says that a node of so many is configured.
    fn of_maps(&self) -> Sizes {
        Sizes {
            peers: self.peers,
            services: self.services,
            backends: self.services * self.backends_each,
            flows: self.services * self.ports,
            flows6: 8192,
            maglev_parts: 4096,
            loads: 4096,
            affinities: 1024,
            sockets: 4096,
            ..Sizes::DEFAULT
        }
    }
}

const FULL: Size = Size {
    peers: 100_000,
    services: 10_000,
    backends_each: 10,
    ports: 100,
    frames: 300_000,
    rounds: 5,
};

/// Shows that it runs.
const QUICK: Size = Size {
    peers: 2_000,
    services: 200,
    backends_each: 10,
    ports: 10,
    frames: 20_000,
    rounds: 1,
};

/// The few destinations of the small case.
const FEW: u32 = 16;
/// The few ports of the small case.
const FEW_PORTS: u32 = 4;
/// Part of the frames that must arrive.
const DELIVERED: f64 = 0.99;

const VNI: u32 = 4096;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 16, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 16, 0, 3);
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 0);
const FIRST_PEER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
const GATEWAY_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 0, 1];

/// One way in which it was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// How the JSON names it.
    pub key: &'static str,
    /// What was sent to.
    pub case: &'static str,
    /// Packets a second to few destinations, thousands.
    pub few: Summary,
    /// Packets a second to all of them, thousands.
    pub all: Summary,
    /// The latter over the former, in the same round.
    pub ratio: Summary,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// How many of each there were.
    pub size: String,
    /// The packet rates.
    pub rates: Vec<Rate>,
    /// Bytes that each map takes, the largest first.
    pub memory: Vec<(String, u64)>,
    /// Nanoseconds that a read at random takes, in so many MiB of memory.
    pub reads: Vec<(usize, f64)>,
}

impl Growth {
    /// Bytes that all maps take.
    pub fn bytes(&self) -> u64 {
        self.memory.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The keys of its rates.
pub const KEYS: [&str; 2] = ["growth.peers", "growth.vips"];

/// Builds it, fills it, measures it.
pub fn measure(options: &Options) -> Result<Growth> {
    let size = if options.quick { QUICK } else { FULL };
    let hosts = Hosts::create("grow", options)?;
    let client = hosts.container("cA", &hosts.a, "vA", CLIENT)?;
    let server = hosts.container("cB", &hosts.b, "vB", SERVER)?;
    let (link_a, link_b) = (hosts.a.link(UPLINK_A)?, hosts.b.link(UPLINK_B)?);
    let (veth_a, veth_b) = (hosts.a.link("vA")?.index, hosts.b.link("vB")?.index);

    let connections = size.services * size.ports;
    let sizes = size.of_maps();
    let mut near = dataplane::load_sized(options, &sizes)?;
    fill_near(&mut near, &size, veth_a, client.mac)?;
    dataplane::put_node(&mut near, vtep(HOST_B), node(HOST_A, HOST_B, link_a.index, hosts.mtu))?;
    let far_sizes = Sizes {
        endpoints: size.peers,
        flows: 1,
        ..sizes
    };
    let mut far = dataplane::load_sized(options, &far_sizes)?;
    fill_far(&mut far, &size, veth_b, client.mac, server.mac)?;
    dataplane::put_node(&mut far, vtep(HOST_A), node(HOST_B, HOST_A, link_b.index, hosts.mtu))?;
    attach(&hosts.a, &mut near, "vA", UPLINK_A)?;
    attach(&hosts.b, &mut far, "vB", UPLINK_B)?;

    let topology = Topology {
        client,
        client_host_side: hosts.side(&hosts.a, "vA"),
        servers: vec![server],
        vip: None,
        uplinks: hosts.uplinks(),
    };
    let send = |frames: u32, spread: Spread| {
        interrupt::check()?;
        let passage = live_frames::run_spread(&topology, &options.bench_object, frames, &spread)?;
        if passage.delivered < DELIVERED {
            let delivered = passage.delivered;
            return Err(Error::new(format!("{spread:?}: {delivered:.3} of the frames arrived")));
        }
        Ok(1e6 / passage.nanoseconds)
    };
    let spread = |first, destinations, ports| Spread {
        first,
        destinations,
        // Of ports of their own: straight to a backend from the port of a connection through its virtual IP is another matter.
        first_port: if first == FIRST_VIP { 20_000 } else { 40_000 },
        ports,
        in_order: false,
    };
    let all_connections = Spread {
        in_order: true,
        ..spread(FIRST_VIP, size.services, size.ports)
    };
    send(connections, all_connections).context(|| format!("opening {connections} connections"))?;
    // All connections came after the load, so both halves of the filter know them: what the daemon finds out by a walk.
    dataplane::set_filter(&mut near, abi::filter::FIRST)?;
    dataplane::set_filter(&mut far, abi::filter::FIRST)?;
    let cases = [
        (
            KEYS[0],
            "to peers",
            spread(FIRST_PEER, FEW, FEW_PORTS),
            spread(FIRST_PEER, size.peers, FEW_PORTS),
        ),
        (
            KEYS[1],
            "to VIPs, known connections",
            spread(FIRST_VIP, FEW, FEW_PORTS),
            spread(FIRST_VIP, size.services, size.ports),
        ),
    ];
    let mut rates = Vec::new();
    for (key, case, few, all) in cases {
        let mut rounds = Vec::new();
        for _ in 0..size.rounds {
            rounds.push((send(size.frames, few)?, send(size.frames, all)?));
        }
        let of = |part: fn(&(f64, f64)) -> f64| {
            Summary::of(&rounds.iter().map(part).collect::<Vec<_>>()).context(|| format!("{case}: no rounds"))
        };
        rates.push(Rate {
            key,
            case,
            few: of(|round| round.0)?,
            all: of(|round| round.1)?,
            ratio: of(|round| round.1 / round.0)?,
        });
    }
    Ok(Growth {
        size: format!(
            "{} peers, {} services of {} backends, {connections} connections",
            size.peers, size.services, size.backends_each
        ),
        rates,
        memory: memory(&near)?,
        reads: MEBIBYTES.map(|size| (size, read_nanoseconds(size))).to_vec(),
    })
}

fn attach(host: &Netns, programs: &mut Ebpf, veth: &str, uplink: &str) -> Result<()> {
    host.within(|| {
        object::attach(programs, program::OVERLAY_EGRESS, veth)?;
        object::attach(programs, program::OVERLAY_INGRESS, uplink).map(drop)
    })
}

fn vtep(host: Ipv4Addr) -> V6 {
    mapped(host.octets())
}

fn node(from: Ipv4Addr, to: Ipv4Addr, ifindex: u32, mtu: u32) -> Node {
    Node {
        next_hop: vtep(to),
        source: vtep(from),
        ifindex,
        mtu,
        family: abi::node::IPV4,
        padding: 0,
    }
}

fn at(first: Ipv4Addr, index: u32) -> OverlayAddress {
    OverlayAddress::new(VNI, (first.to_bits() + index).to_be_bytes())
}

fn fill_near(programs: &mut Ebpf, size: &Size, veth: u32, client: [u8; 6]) -> Result<()> {
    put(programs, abi::network::NAME, VNI, network())?;
    dataplane::put_attachment(programs, veth, attachment(CLIENT, client))?;
    for index in 0..size.peers {
        let address = at(FIRST_PEER, index);
        let peer = Peer {
            vtep: vtep(HOST_B),
            mac: mac_of(address.ip),
            flags: peer::BACKEND,
        };
        dataplane::put_peer(programs, address, peer)?;
    }
    for index in 0..size.services {
        let vip = at(FIRST_VIP, index);
        for slot in 0..size.backends_each {
            let key = BackendKey {
                vni: VNI,
                vip: vip.ip,
                slot,
            };
            let ip = at(FIRST_PEER, (index * size.backends_each + slot) % size.peers).ip;
            put(programs, abi::backend::NAME, key, Backend { ip })?;
        }
        let service = Service {
            backend_count: size.backends_each,
            policy: abi::service::POLICY_ROUND_ROBIN,
            affinity_seconds: 0,
        };
        dataplane::put_service(programs, vip, service)?;
    }
    Ok(())
}

fn fill_far(programs: &mut Ebpf, size: &Size, veth: u32, client: [u8; 6], server: [u8; 6]) -> Result<()> {
    put(programs, abi::network::NAME, VNI, network())?;
    dataplane::put_attachment(programs, veth, attachment(SERVER, server))?;
    for index in 0..size.peers {
        let address = at(FIRST_PEER, index);
        let endpoint = Endpoint {
            ifindex: veth,
            mac: mac_of(address.ip),
            flags: 0,
        };
        dataplane::put_endpoint(programs, address, endpoint)?;
    }
    let peer = Peer {
        vtep: vtep(HOST_A),
        mac: client,
        flags: 0,
    };
    dataplane::put_peer(programs, at(CLIENT, 0), peer)
}

fn network() -> Network {
    Network {
        gateway: [10, 0, 0, 1],
        gateway_mac: GATEWAY_MAC,
        prefix_len: 8,
        padding: 0,
    }
}

fn attachment(ip: Ipv4Addr, mac: [u8; 6]) -> Attachment {
    Attachment {
        vni: VNI,
        ip: ip.octets(),
        gateway: [10, 0, 0, 1],
        mac,
        gateway_mac: GATEWAY_MAC,
        ip6: V6::UNSPECIFIED,
        gateway6: V6::UNSPECIFIED,
    }
}

/// What each map takes, as the kernel tells: `memlock` in the map's fdinfo.
fn memory(programs: &Ebpf) -> Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for (name, map) in programs.maps() {
        let Some(data) = data(map) else { continue };
        let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
        let text = std::fs::read_to_string(&path).context(|| format!("cannot read {path}"))?;
        let bytes = parse_memlock(&text).context(|| format!("{path}: no line \"memlock\""))?;
        all.push((name.to_owned(), bytes));
    }
    all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Ok(all)
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::HashOfMaps(data) => Some(data),
        _ => None,
    }
}

fn parse_memlock(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_bytes_is_read() {
        assert_eq!(
            parse_memlock("pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t7\n"),
            Some(4096)
        );
        assert_eq!(parse_memlock("pos:\t0\n"), None);
    }

    #[test]
    fn addresses_go_on_over_the_borders_of_bytes() {
        assert_eq!(at(FIRST_PEER, 65_537).ip, [10, 65, 0, 1]);
    }

    #[test]
    fn the_full_size_is_the_one_that_was_asked_for() {
        let Size {
            peers,
            services,
            backends_each,
            ports,
            ..
        } = FULL;
        assert_eq!((peers, services, backends_each), (100_000, 10_000, 10));
        assert_eq!(services * ports, 1_000_000);
    }
}
