//! The complete content that the kernel's maps should have.

mod family;
mod members;
#[cfg(test)]
mod tests;

use crate::cluster;
use crate::id::{EndpointId, MacAddress, NetworkId};
use crate::overlay::{Location, Overlay};
use crate::service::maglev::Tables;
use crate::service::{self, Services, Task};
pub(crate) use family::Maps;
use family::{Counts, Vip};
pub use members::{Members, MembersOf};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Clamp, Endpoint, Ip, MaglevKey, MaglevPart, MaglevTable, MemberKey, Network,
    Node, OverlayAddress, Peer, Service, Sizes, V6, mapped,
};

/// The control maps, whole. What the kernel itself writes (flows, rotations, counters) is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapContents {
    /// `attachments`: host-side ifindex.
    pub attachments: BTreeMap<u32, Attachment>,
    /// `networks`: VNI.
    pub networks: BTreeMap<u32, Network>,
    /// `clamps`: VNI.
    pub clamps: BTreeMap<u32, Clamp>,
    /// `endpoints`.
    pub endpoints: BTreeMap<OverlayAddress, Endpoint>,
    /// `endpoints6`.
    pub endpoints6: BTreeMap<OverlayAddress<V6>, Endpoint>,
    /// `peers`.
    pub peers: BTreeMap<OverlayAddress, Peer>,
    /// `peers6`.
    pub peers6: BTreeMap<OverlayAddress<V6>, Peer>,
    /// `nodes`: VTEP address, mapped.
    pub nodes: BTreeMap<V6, Node>,
    /// `services`.
    pub services: BTreeMap<OverlayAddress, Service>,
    /// `services6`.
    pub services6: BTreeMap<OverlayAddress<V6>, Service>,
    /// `backends`.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// `backends6`.
    pub backends6: BTreeMap<BackendKey<V6>, Backend<V6>>,
    /// `maglev_tables`.
    pub maglev_tables: BTreeMap<OverlayAddress, MaglevTable>,
    /// `maglev_tables6`.
    pub maglev_tables6: BTreeMap<OverlayAddress<V6>, MaglevTable>,
    /// `maglev`: parts of tables.
    pub maglev: BTreeMap<MaglevKey, MaglevPart>,
    /// `maglev_members`.
    pub maglev_members: BTreeMap<MaglevKey, Backend>,
    /// `maglev_members6`.
    pub maglev_members6: BTreeMap<MaglevKey, Backend<V6>>,
    /// `weights`.
    pub weights: BTreeMap<MemberKey, u32>,
    /// `weights6`.
    pub weights6: BTreeMap<MemberKey<V6>, u32>,
}

/// An endpoint of this node whose interface exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAttachment {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its network.
    pub network: NetworkId,
    /// Index of the host-side veth.
    pub ifindex: u32,
    /// Its address. Where its network has IPv6, another one stands beside it.
    pub ip: Ipv4Addr,
    /// Its MAC.
    pub mac: MacAddress,
}

/// All that the maps depend on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What this node knows of the declared networks. It may know more than it takes part in.
    pub networks: &'a BTreeMap<NetworkId, cluster::Network>,
    /// Networks to take part in even without a local endpoint.
    pub joined: &'a BTreeSet<NetworkId>,
    /// The endpoints of this node.
    pub attachments: &'a [LocalAttachment],
    /// Where the remote endpoints live.
    pub overlay: &'a Overlay,
    /// Services and their tasks.
    pub services: &'a Services,
    /// The underlay's answer for each of the [`vteps`], as far as it has one.
    pub routes: &'a BTreeMap<IpAddr, Node>,
}

/// A map that would have to be larger. What does not fit is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// Name of the map, as [`weft_dataplane::abi`] has it.
    pub map: &'static str,
    /// How many entries it should hold.
    pub wanted: usize,
    /// How many it can.
    pub limit: u32,
}

/// What the maps should hold, and what did not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What the maps should hold.
    pub contents: MapContents,
    /// Who the connections of each virtual IP may go to.
    pub members: Members,
    /// The maps that are too small, in the order of the fields of [`MapContents`].
    pub overflows: Vec<Overflow>,
}

/// The VTEPs for which [`Inputs::routes`] should have an answer: those behind which a remote endpoint of a network lives that
/// this node takes part in.
pub fn vteps(inputs: &Inputs<'_>) -> BTreeSet<IpAddr> {
    let peers = taken_part_in(inputs)
        .into_values()
        .filter_map(|network| inputs.overlay.peers.get(&network.id));
    peers.flat_map(BTreeMap::values).map(|location| location.vtep).collect()
}

/// Computes the maps anew. The same inputs give the same contents on every call.
///
/// Of endpoints of this node that claim one address, the one with the smaller interface index counts; an address of this node
/// counts before a peer of the same address; and of services that claim one VIP, the one with the smaller id.
///
/// What does not fit into a map is left out from the end of the map's key order (endpoints: of the interface index, so that the
/// newest are without; backends: whole slots of the last services; Maglev: whole tables of the last services, which are balanced in
/// turns then; weights: those of the last services), and nothing points at what was left out.
///
/// `tables` are those of the last time, so that only what changed is made anew.
pub fn wanted(inputs: &Inputs<'_>, sizes: &Sizes, tables: &mut Tables) -> Wanted {
    build(inputs, Limits::of(sizes), tables)
}

fn build(inputs: &Inputs<'_>, limits: Limits, tables: &mut Tables) -> Wanted {
    let mut builder = Builder {
        inputs,
        tables,
        networks: taken_part_in(inputs),
        limits,
        wanted: Wanted::default(),
    };
    builder.networks();
    builder.endpoints();
    builder.nodes();
    builder.peers();
    builder.services();
    builder.tables.clear_up();
    builder
        .wanted
        .overflows
        .sort_by_key(|overflow| MAP_ORDER.iter().position(|map| *map == overflow.map));
    builder.wanted
}

const MAP_ORDER: [&str; 16] = [
    abi::attachment::NAME,
    abi::network::NAME,
    abi::endpoint::NAME,
    abi::endpoint::NAME6,
    abi::peer::NAME,
    abi::peer::NAME6,
    abi::node::NAME,
    abi::service::NAME,
    abi::service::NAME6,
    abi::backend::NAME,
    abi::backend::NAME6,
    abi::maglev::NAME,
    abi::maglev::MEMBERS_NAME,
    abi::maglev::MEMBERS_NAME6,
    abi::load::WEIGHTS_NAME,
    abi::load::WEIGHTS_NAME6,
];

/// Known networks with a local endpoint or explicitly joined, by VNI. Two networks of one VNI are a mistake of the declared
/// state; the smaller id counts.
fn taken_part_in<'a>(inputs: &Inputs<'a>) -> BTreeMap<u32, &'a cluster::Network> {
    let attached: BTreeSet<&NetworkId> = inputs
        .attachments
        .iter()
        .map(|attachment| &attachment.network)
        .collect();
    let mut networks = BTreeMap::new();
    for (id, network) in inputs.networks {
        if attached.contains(id) || inputs.joined.contains(id) {
            networks.entry(network.vni.get()).or_insert(network);
        }
    }
    networks
}

/// How many entries each map holds, of either family.
#[derive(Clone, Copy)]
struct Limits {
    attachments: u32,
    networks: u32,
    peers: u32,
    nodes: u32,
    services: u32,
    backends: u32,
    maglev_parts: u32,
    loads: u32,
}

impl Limits {
    fn of(sizes: &Sizes) -> Limits {
        Limits {
            attachments: sizes.endpoints,
            networks: sizes.networks,
            peers: sizes.peers,
            nodes: sizes.nodes,
            services: sizes.services,
            backends: sizes.backends,
            maglev_parts: sizes.maglev_parts,
            loads: sizes.loads,
        }
    }
}

struct Builder<'a> {
    inputs: &'a Inputs<'a>,
    tables: &'a mut Tables,
    /// By VNI.
    networks: BTreeMap<u32, &'a cluster::Network>,
    limits: Limits,
    wanted: Wanted,
}

impl Builder<'_> {
    fn networks(&mut self) {
        self.cut(abi::network::NAME, self.networks.len(), self.limits.networks);
        while self.networks.len() > self.limits.networks as usize {
            self.networks.pop_last();
        }
        self.wanted.contents.networks = self
            .networks
            .iter()
            .map(|(vni, network)| (*vni, network_entry(network)))
            .collect();
        let clamped = self.networks.iter().filter(|(_, network)| network.clamps_mss());
        self.wanted.contents.clamps = clamped
            .map(|(vni, network)| (*vni, Clamp { mtu: network.mtu }))
            .collect();
    }

    fn endpoints(&mut self) {
        let mut attachments: Vec<&LocalAttachment> = self.inputs.attachments.iter().collect();
        attachments.sort_by_key(|attachment| (attachment.ifindex, &attachment.endpoint));
        let contents = &mut self.wanted.contents;
        let (mut count, mut count6) = (0, 0);
        for attachment in attachments {
            let network = self.inputs.networks.get(&attachment.network);
            let Some(network) = network.filter(|network| is_present(&self.networks, network)) else {
                continue;
            };
            let vni = network.vni.get();
            let address = OverlayAddress::new(vni, attachment.ip.octets());
            let doubled =
                contents.endpoints.contains_key(&address) || contents.attachments.contains_key(&attachment.ifindex);
            if doubled || !network.subnet.contains(&attachment.ip) {
                continue;
            }
            let ip6 = network.ipv6_of(attachment.ip).map(v6);
            count += 1;
            count6 += usize::from(ip6.is_some());
            if count > self.limits.attachments as usize {
                continue;
            }
            contents.attachments.insert(
                attachment.ifindex,
                Attachment {
                    vni,
                    ip: attachment.ip.octets(),
                    gateway: network.gateway.octets(),
                    mac: attachment.mac.0,
                    gateway_mac: MacAddress::from_ipv4(network.gateway).0,
                    ip6: ip6.unwrap_or(V6::UNSPECIFIED),
                    gateway6: network.ipv6.map_or(V6::UNSPECIFIED, |range| v6(range.gateway)),
                },
            );
            let endpoint = Endpoint {
                ifindex: attachment.ifindex,
                mac: attachment.mac.0,
                flags: 0,
            };
            contents.endpoints.insert(address, endpoint);
            if let Some(ip6) = ip6 {
                contents.endpoints6.insert(OverlayAddress::new(vni, ip6), endpoint);
            }
        }
        self.cut(abi::attachment::NAME, count, self.limits.attachments);
        self.cut(abi::endpoint::NAME, count, self.limits.attachments);
        self.cut(abi::endpoint::NAME6, count6, self.limits.attachments);
    }

    fn nodes(&mut self) {
        let vteps = vteps(self.inputs);
        let nodes = vteps
            .iter()
            .filter_map(|vtep| Some((sixteen_bytes(*vtep), *self.inputs.routes.get(vtep)?)));
        let nodes: Vec<_> = nodes.collect();
        self.cut(abi::node::NAME, nodes.len(), self.limits.nodes);
        self.wanted.contents.nodes = nodes.into_iter().take(self.limits.nodes as usize).collect();
    }

    /// A peer whose VTEP has no route is there all the same: the drop then has its own name.
    fn peers(&mut self) {
        let located = |network: &cluster::Network| self.inputs.overlay.peers.get(&network.id).into_iter().flatten();
        let located6 = |network: &cluster::Network| self.inputs.overlay.peers6.get(&network.id).into_iter().flatten();
        let peers = self.networks.iter().flat_map(|(vni, network)| {
            located(network)
                .filter(|(ip, _)| network.subnet.contains(*ip))
                .map(|(ip, location)| (OverlayAddress::new(*vni, ip.octets()), peer(location)))
        });
        let peers6 = self.networks.iter().flat_map(|(vni, network)| {
            located6(network)
                .filter(|(ip, _)| network.ipv6.is_some_and(|range| range.subnet.contains(*ip)))
                .map(|(ip, location)| (OverlayAddress::new(*vni, v6(*ip)), peer(location)))
        });
        let limit = self.limits.peers;
        let contents = &mut self.wanted.contents;
        let count = Maps::ipv4(contents).put_peers(peers, limit);
        let count6 = Maps::ipv6(contents).put_peers(peers6, limit);
        self.cut(abi::peer::NAME, count, limit);
        self.cut(abi::peer::NAME6, count6, limit);
    }

    fn services(&mut self) {
        let vips = self.vips(
            |network, service| {
                let vip = service
                    .vip
                    .filter(|vip| network.subnet.contains(vip) && *vip != network.gateway);
                vip.map(|vip| vip.octets())
            },
            |task| Some(task.ip.octets()),
        );
        let vips6 = self.vips(
            |network, service| {
                let range = network.ipv6?;
                let vip = service
                    .vip6
                    .filter(|vip| range.subnet.contains(vip) && *vip != range.gateway);
                vip.map(v6)
            },
            |task| task.ip6.map(v6),
        );
        let contents = &mut self.wanted.contents;
        let of_ipv4 = Maps::ipv4(contents).put_services(&vips, self.limits, self.tables);
        let of_ipv6 = Maps::ipv6(contents).put_services(&vips6, self.limits, self.tables);
        self.wanted.members = family::members(&vips, &vips6);
        self.cut_services(of_ipv4, of_ipv6);
    }

    fn cut_services(&mut self, of_ipv4: Counts, of_ipv6: Counts) {
        let Limits {
            services,
            backends,
            maglev_parts,
            loads,
            ..
        } = self.limits;
        self.cut(abi::service::NAME, of_ipv4.services, services);
        self.cut(abi::service::NAME6, of_ipv6.services, services);
        self.cut(abi::backend::NAME, of_ipv4.backends, backends);
        self.cut(abi::backend::NAME6, of_ipv6.backends, backends);
        let parts = of_ipv4.maglev_parts + of_ipv6.maglev_parts;
        self.cut(abi::maglev::NAME, parts, maglev_parts);
        self.cut(abi::maglev::MEMBERS_NAME, of_ipv4.maglev_members, maglev_parts);
        self.cut(abi::maglev::MEMBERS_NAME6, of_ipv6.maglev_members, maglev_parts);
        self.cut(abi::load::WEIGHTS_NAME, of_ipv4.weights, loads);
        self.cut(abi::load::WEIGHTS_NAME6, of_ipv6.weights, loads);
    }

    /// The VIPs of one family in order, as `vip` finds them in a service, with those of its tasks that `address` finds an address of.
    fn vips<A: Ip>(
        &self,
        vip: impl Fn(&cluster::Network, &service::Service) -> Option<A>,
        address: impl Fn(&Task) -> Option<A>,
    ) -> BTreeMap<OverlayAddress<A>, Vip<A>> {
        let mut vips = BTreeMap::new();
        for (vni, network) in &self.networks {
            let known = self.inputs.services.networks.get(&network.id);
            for service in known.into_iter().flat_map(|known| known.services.values()) {
                let Some(vip) = vip(network, service) else { continue };
                vips.entry(OverlayAddress::new(*vni, vip)).or_insert_with(|| Vip {
                    policy: service.policy,
                    affinity_seconds: service.affinity_seconds,
                    members: service.members(&address),
                });
            }
        }
        vips
    }

    fn cut(&mut self, map: &'static str, wanted: usize, limit: u32) {
        if wanted > limit as usize {
            self.wanted.overflows.push(Overflow { map, wanted, limit });
        }
    }
}

/// Whether the network is the one that counts for its VNI, and fits.
fn is_present(networks: &BTreeMap<u32, &cluster::Network>, network: &cluster::Network) -> bool {
    networks
        .get(&network.vni.get())
        .is_some_and(|present| present.id == network.id)
}

fn network_entry(network: &cluster::Network) -> Network {
    Network {
        gateway: network.gateway.octets(),
        gateway_mac: MacAddress::from_ipv4(network.gateway).0,
        prefix_len: network.subnet.prefix_len(),
        padding: 0,
    }
}

fn peer(location: &Location) -> Peer {
    Peer {
        vtep: sixteen_bytes(location.vtep),
        mac: location.mac.0,
        flags: 0,
    }
}

/// An address of the underlay as it stands in maps: of either family, an IPv4 one mapped.
pub fn sixteen_bytes(ip: IpAddr) -> V6 {
    match ip {
        IpAddr::V4(ip) => mapped(ip.octets()),
        IpAddr::V6(ip) => v6(ip),
    }
}

fn v6(ip: Ipv6Addr) -> V6 {
    V6::new(ip.octets())
}
