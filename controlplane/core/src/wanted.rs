//! The complete content that the kernel's maps should have.

#[cfg(test)]
mod tests;

use crate::cluster;
use crate::id::{EndpointId, MacAddress, NetworkId};
use crate::overlay::Overlay;
use crate::service::Services;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service, V6, mapped,
};

/// The control maps, whole. What the kernel itself writes (flows, rotations, counters) is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapContents {
    /// `attachments`: host-side ifindex.
    pub attachments: BTreeMap<u32, Attachment>,
    /// `networks`: VNI.
    pub networks: BTreeMap<u32, Network>,
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
    /// Its address.
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
    pub routes: &'a BTreeMap<Ipv4Addr, Node>,
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
    /// The maps that are too small, in the order of the fields of [`MapContents`].
    pub overflows: Vec<Overflow>,
}

/// The VTEPs for which [`Inputs::routes`] should have an answer: those behind which a remote endpoint of a network lives that
/// this node takes part in.
pub fn vteps(inputs: &Inputs<'_>) -> BTreeSet<Ipv4Addr> {
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
/// newest are without; backends: whole slots of the last services), and nothing points at what was left out.
pub fn wanted(inputs: &Inputs<'_>) -> Wanted {
    build(inputs, Limits::ABI)
}

fn build(inputs: &Inputs<'_>, limits: Limits) -> Wanted {
    let mut builder = Builder {
        inputs,
        networks: taken_part_in(inputs),
        limits,
        wanted: Wanted::default(),
    };
    builder.networks();
    builder.endpoints();
    builder.nodes();
    builder.peers();
    builder.services();
    builder.mark_backends();
    builder
        .wanted
        .overflows
        .sort_by_key(|overflow| MAP_ORDER.iter().position(|map| *map == overflow.map));
    builder.wanted
}

const MAP_ORDER: [&str; 7] = [
    abi::attachment::NAME,
    abi::network::NAME,
    abi::endpoint::NAME,
    abi::peer::NAME,
    abi::node::NAME,
    abi::service::NAME,
    abi::backend::NAME,
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

/// How many entries each map holds.
#[derive(Clone, Copy)]
struct Limits {
    attachments: u32,
    networks: u32,
    peers: u32,
    nodes: u32,
    services: u32,
    backends: u32,
}

impl Limits {
    const ABI: Limits = Limits {
        // An endpoint stands in both maps.
        attachments: if abi::attachment::MAX_ENTRIES < abi::endpoint::MAX_ENTRIES {
            abi::attachment::MAX_ENTRIES
        } else {
            abi::endpoint::MAX_ENTRIES
        },
        networks: abi::network::MAX_ENTRIES,
        peers: abi::peer::MAX_ENTRIES,
        nodes: abi::node::MAX_ENTRIES,
        services: abi::service::MAX_ENTRIES,
        backends: abi::backend::MAX_ENTRIES,
    };
}

struct Builder<'a> {
    inputs: &'a Inputs<'a>,
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
    }

    fn endpoints(&mut self) {
        let mut attachments: Vec<&LocalAttachment> = self.inputs.attachments.iter().collect();
        attachments.sort_by_key(|attachment| (attachment.ifindex, &attachment.endpoint));
        let contents = &mut self.wanted.contents;
        let mut count = 0;
        for attachment in attachments {
            let network = self.inputs.networks.get(&attachment.network);
            let Some(network) = network.filter(|network| is_present(&self.networks, network)) else {
                continue;
            };
            let address = OverlayAddress {
                vni: network.vni.get(),
                ip: attachment.ip.octets(),
            };
            let doubled =
                contents.endpoints.contains_key(&address) || contents.attachments.contains_key(&attachment.ifindex);
            if doubled || !network.subnet.contains(&attachment.ip) {
                continue;
            }
            count += 1;
            if count > self.limits.attachments as usize {
                continue;
            }
            contents.attachments.insert(
                attachment.ifindex,
                Attachment {
                    vni: network.vni.get(),
                    ip: attachment.ip.octets(),
                    gateway: network.gateway.octets(),
                    mac: attachment.mac.0,
                    gateway_mac: MacAddress::from_ipv4(network.gateway).0,
                    ip6: V6::UNSPECIFIED,
                    gateway6: V6::UNSPECIFIED,
                },
            );
            let endpoint = Endpoint {
                ifindex: attachment.ifindex,
                mac: attachment.mac.0,
                flags: 0,
            };
            contents.endpoints.insert(address, endpoint);
        }
        self.cut(abi::attachment::NAME, count, self.limits.attachments);
        self.cut(abi::endpoint::NAME, count, self.limits.attachments);
    }

    fn nodes(&mut self) {
        let vteps = vteps(self.inputs);
        let nodes = vteps
            .iter()
            .filter_map(|vtep| Some((mapped(vtep.octets()), *self.inputs.routes.get(vtep)?)));
        let nodes: Vec<_> = nodes.collect();
        self.cut(abi::node::NAME, nodes.len(), self.limits.nodes);
        self.wanted.contents.nodes = nodes.into_iter().take(self.limits.nodes as usize).collect();
    }

    /// A peer whose VTEP has no route is there all the same: the drop then has its own name.
    fn peers(&mut self) {
        let mut count = 0;
        for (vni, network) in &self.networks {
            for (ip, location) in self.inputs.overlay.peers.get(&network.id).into_iter().flatten() {
                let address = OverlayAddress {
                    vni: *vni,
                    ip: ip.octets(),
                };
                let local = self.wanted.contents.endpoints.contains_key(&address);
                if local || !network.subnet.contains(ip) {
                    continue;
                }
                count += 1;
                if count <= self.limits.peers as usize {
                    let peer = Peer {
                        vtep: mapped(location.vtep.octets()),
                        mac: location.mac.0,
                        flags: 0,
                    };
                    self.wanted.contents.peers.insert(address, peer);
                }
            }
        }
        self.cut(abi::peer::NAME, count, self.limits.peers);
    }

    fn services(&mut self) {
        let vips = self.vips();
        self.cut(abi::service::NAME, vips.len(), self.limits.services);
        let mut slots = 0;
        for (address, backends) in vips.into_iter().take(self.limits.services as usize) {
            let contents = &mut self.wanted.contents;
            let room = (self.limits.backends as usize).saturating_sub(contents.backends.len());
            slots += backends.len();
            let mut backend_count = 0;
            for (slot, ip) in (0..).zip(backends.into_iter().take(room)) {
                let key = BackendKey {
                    vni: address.vni,
                    vip: address.ip,
                    slot,
                };
                contents.backends.insert(key, Backend { ip: ip.octets() });
                backend_count = slot + 1;
            }
            let service = Service {
                backend_count,
                policy: abi::service::POLICY_ROUND_ROBIN,
                affinity_seconds: 0,
            };
            contents.services.insert(address, service);
        }
        self.cut(abi::backend::NAME, slots, self.limits.backends);
    }

    /// Endpoints behind a virtual IP are marked: whoever talks to one past the virtual IP may meet a balanced connection.
    fn mark_backends(&mut self) {
        let contents = &mut self.wanted.contents;
        for (key, backend) in &contents.backends {
            let address = OverlayAddress {
                vni: key.vni,
                ip: backend.ip,
            };
            if let Some(peer) = contents.peers.get_mut(&address) {
                peer.flags |= abi::peer::BACKEND;
            } else if let Some(endpoint) = contents.endpoints.get_mut(&address) {
                endpoint.flags |= abi::peer::BACKEND;
            }
        }
    }

    /// The VIPs and, of each, the backends that a packet can reach.
    fn vips(&self) -> BTreeMap<OverlayAddress, Vec<Ipv4Addr>> {
        let contents = &self.wanted.contents;
        let mut vips = BTreeMap::new();
        for (vni, network) in &self.networks {
            let services = self
                .inputs
                .services
                .networks
                .get(&network.id)
                .into_iter()
                .flat_map(|known| known.services.values());
            for service in services {
                let Some(vip) = service
                    .vip
                    .filter(|vip| network.subnet.contains(vip) && *vip != network.gateway)
                else {
                    continue;
                };
                let backends = service.backends().into_iter().filter(|ip| {
                    let address = OverlayAddress {
                        vni: *vni,
                        ip: ip.octets(),
                    };
                    contents.endpoints.contains_key(&address) || contents.peers.contains_key(&address)
                });
                let address = OverlayAddress {
                    vni: *vni,
                    ip: vip.octets(),
                };
                vips.entry(address).or_insert_with(|| backends.collect());
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
