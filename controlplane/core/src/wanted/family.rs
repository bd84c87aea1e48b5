//! The maps of one family: alike for IPv4 and IPv6.

use super::{Limits, MapContents};
use std::collections::BTreeMap;
use weft_dataplane::abi::{self, Backend, BackendKey, Endpoint, Ip, OverlayAddress, Peer, Service, V4, V6};

/// Those of the [`MapContents`] that have a twin.
pub(super) struct Maps<'a, A: Ip> {
    endpoints: &'a mut BTreeMap<OverlayAddress<A>, Endpoint>,
    peers: &'a mut BTreeMap<OverlayAddress<A>, Peer>,
    services: &'a mut BTreeMap<OverlayAddress<A>, Service>,
    backends: &'a mut BTreeMap<BackendKey<A>, Backend<A>>,
}

/// How many entries there should be, whether or not they fit.
pub(super) struct Counts {
    pub(super) services: usize,
    pub(super) backends: usize,
}

impl<'a> Maps<'a, V4> {
    pub(super) fn ipv4(contents: &'a mut MapContents) -> Self {
        Maps {
            endpoints: &mut contents.endpoints,
            peers: &mut contents.peers,
            services: &mut contents.services,
            backends: &mut contents.backends,
        }
    }
}

impl<'a> Maps<'a, V6> {
    pub(super) fn ipv6(contents: &'a mut MapContents) -> Self {
        Maps {
            endpoints: &mut contents.endpoints6,
            peers: &mut contents.peers6,
            services: &mut contents.services6,
            backends: &mut contents.backends6,
        }
    }
}

impl<A: Ip> Maps<'_, A> {
    /// Puts the peers whose addresses are not endpoints' of this node, and tells how many there are.
    pub(super) fn put_peers(&mut self, peers: impl Iterator<Item = (OverlayAddress<A>, Peer)>, limit: u32) -> usize {
        let mut count = 0;
        for (address, peer) in peers.filter(|(address, _)| !self.endpoints.contains_key(address)) {
            count += 1;
            if count <= limit as usize {
                self.peers.insert(address, peer);
            }
        }
        count
    }

    /// Puts the VIPs with those of their backends that a packet can reach, and marks these.
    pub(super) fn put_services(&mut self, vips: BTreeMap<OverlayAddress<A>, Vec<A>>, limits: Limits) -> Counts {
        let mut counts = Counts {
            services: vips.len(),
            backends: 0,
        };
        for (address, mut backends) in vips.into_iter().take(limits.services as usize) {
            let vni = address.vni();
            backends.retain(|ip| self.is_reachable(OverlayAddress::new(vni, *ip)));
            counts.backends += backends.len();
            let room = (limits.backends as usize).saturating_sub(self.backends.len());
            let mut backend_count = 0;
            for (slot, ip) in (0..).zip(backends.into_iter().take(room)) {
                let vip = address.ip;
                self.backends.insert(BackendKey { vip, vni, slot }, Backend { ip });
                self.mark_backend(OverlayAddress::new(vni, ip));
                backend_count = slot + 1;
            }
            let service = Service {
                backend_count,
                policy: abi::service::POLICY_ROUND_ROBIN,
                affinity_seconds: 0,
            };
            self.services.insert(address, service);
        }
        counts
    }

    fn is_reachable(&self, address: OverlayAddress<A>) -> bool {
        self.endpoints.contains_key(&address) || self.peers.contains_key(&address)
    }

    /// Endpoints behind a virtual IP are marked: whoever talks to one past the virtual IP may meet a balanced connection.
    fn mark_backend(&mut self, address: OverlayAddress<A>) {
        if let Some(peer) = self.peers.get_mut(&address) {
            peer.flags |= abi::peer::BACKEND;
        } else if let Some(endpoint) = self.endpoints.get_mut(&address) {
            endpoint.flags |= abi::peer::BACKEND;
        }
    }
}
