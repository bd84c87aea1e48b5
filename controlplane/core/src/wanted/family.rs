//! The maps of one family: alike for IPv4 and IPv6.

use super::{Limits, MapContents, Members, MembersOf};
use crate::service::maglev::{Outline, Tables, Weights};
use crate::service::{Member, Policy, turns};
use std::collections::{BTreeMap, BTreeSet};
use weft_dataplane::abi::{
    self, Backend, BackendKey, Endpoint, Ip, MaglevKey, MaglevPart, MaglevTable, MemberKey, OverlayAddress, Peer,
    Service, V4, V6,
};

/// Those of the [`MapContents`] that have a twin, and the one that both families share.
pub(crate) struct Maps<'a, A: Ip> {
    pub(crate) endpoints: &'a mut BTreeMap<OverlayAddress<A>, Endpoint>,
    pub(crate) peers: &'a mut BTreeMap<OverlayAddress<A>, Peer>,
    pub(crate) services: &'a mut BTreeMap<OverlayAddress<A>, Service>,
    pub(crate) backends: &'a mut BTreeMap<BackendKey<A>, Backend<A>>,
    pub(crate) maglev_tables: &'a mut BTreeMap<OverlayAddress<A>, MaglevTable>,
    pub(crate) maglev_members: &'a mut BTreeMap<MaglevKey, Backend<A>>,
    pub(crate) weights: &'a mut BTreeMap<MemberKey<A>, u32>,
    pub(crate) maglev: &'a mut BTreeMap<MaglevKey, MaglevPart>,
}

/// A virtual IP as its service has it.
pub(super) struct Vip<A: Ip> {
    pub(super) policy: Policy,
    pub(super) affinity_seconds: u32,
    pub(super) members: BTreeMap<A, Member>,
}

/// How many entries there should be, whether or not they fit.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) services: usize,
    pub(super) backends: usize,
    pub(super) maglev_parts: usize,
    pub(super) maglev_members: usize,
    pub(super) weights: usize,
}

impl<'a> Maps<'a, V4> {
    pub(crate) fn ipv4(contents: &'a mut MapContents) -> Self {
        Maps {
            endpoints: &mut contents.endpoints,
            peers: &mut contents.peers,
            services: &mut contents.services,
            backends: &mut contents.backends,
            maglev_tables: &mut contents.maglev_tables,
            maglev_members: &mut contents.maglev_members,
            weights: &mut contents.weights,
            maglev: &mut contents.maglev,
        }
    }
}

impl<'a> Maps<'a, V6> {
    pub(crate) fn ipv6(contents: &'a mut MapContents) -> Self {
        Maps {
            endpoints: &mut contents.endpoints6,
            peers: &mut contents.peers6,
            services: &mut contents.services6,
            backends: &mut contents.backends6,
            maglev_tables: &mut contents.maglev_tables6,
            maglev_members: &mut contents.maglev_members6,
            weights: &mut contents.weights6,
            maglev: &mut contents.maglev,
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
    pub(super) fn put_services(
        &mut self,
        vips: &BTreeMap<OverlayAddress<A>, Vip<A>>,
        limits: Limits,
        tables: &mut Tables,
    ) -> Counts {
        let mut counts = Counts {
            services: vips.len(),
            ..Counts::default()
        };
        let mut left_out = BTreeSet::new();
        for (address, vip) in vips.iter().take(limits.services as usize) {
            let backends = self.backends_of(address.vni(), vip);
            let backend_count = self.put_slots(*address, &backends, limits, &mut counts);
            match vip.policy {
                Policy::RoundRobin => {}
                // One backend needs no table.
                Policy::Maglev if backends.len() < 2 => {}
                Policy::Maglev => self.put_table(*address, &backends, limits, tables, (&mut counts, &mut left_out)),
                Policy::LeastConnections => counts.weights += self.put_weights(*address, &backends, limits.loads),
            }
            let service = Service {
                backend_count,
                policy: vip.policy.number(),
                affinity_seconds: vip.affinity_seconds,
            };
            self.services.insert(*address, service);
        }
        counts
    }

    /// Those that take new connections and that a packet can reach.
    fn backends_of(&self, vni: u32, vip: &Vip<A>) -> Weights<A> {
        let usable = |(ip, member): &(&A, &Member)| member.is_open && self.is_reachable(OverlayAddress::new(vni, **ip));
        let usable = vip.members.iter().filter(usable);
        usable.map(|(ip, member)| (*ip, member.weight)).collect()
    }

    /// Puts a slot for each turn, as far as there is room; tells how many there are.
    fn put_slots(
        &mut self,
        address: OverlayAddress<A>,
        backends: &Weights<A>,
        limits: Limits,
        counts: &mut Counts,
    ) -> u32 {
        let (vip, vni) = (address.ip, address.vni());
        let (addresses, weights): (Vec<A>, Vec<u32>) = backends.iter().map(|(ip, weight)| (*ip, *weight)).unzip();
        let turns = turns(&weights);
        counts.backends += turns.len();
        let room = (limits.backends as usize).saturating_sub(self.backends.len());
        let slots = turns.iter().filter_map(|place| addresses.get(*place)).take(room);
        let mut backend_count = 0;
        for (slot, ip) in (0..).zip(slots) {
            self.backends.insert(BackendKey { vip, vni, slot }, Backend { ip: *ip });
            self.mark_backend(OverlayAddress::new(vni, *ip));
            backend_count = slot + 1;
        }
        backend_count
    }

    /// Puts the table of these backends, whole; or nothing of it, if it does not fit.
    fn put_table(
        &mut self,
        address: OverlayAddress<A>,
        backends: &Weights<A>,
        limits: Limits,
        tables: &mut Tables,
        (counts, left_out): (&mut Counts, &mut BTreeSet<u64>),
    ) {
        let Outline { name, size } = Outline::of(backends);
        let key = |index: u32| MaglevKey {
            name,
            index,
            padding: 0,
        };
        if left_out.contains(&name) {
            return;
        }
        if !self.maglev_members.contains_key(&key(0)) {
            let parts = Outline { name, size }.parts();
            counts.maglev_parts += parts;
            counts.maglev_members += backends.len();
            let fits = |there: usize, more: usize, limit: u32| there + more <= limit as usize;
            let members = self.maglev_members.len();
            if !fits(self.maglev.len(), parts, limits.maglev_parts)
                || !fits(members, backends.len(), limits.maglev_parts)
            {
                left_out.insert(name);
                return;
            }
            let entries = tables.of(backends).entries.chunks(abi::maglev::PART as usize);
            self.maglev.extend((0..).zip(entries).map(|(index, entries)| {
                let mut members = [0; abi::maglev::PART as usize];
                members.iter_mut().zip(entries).for_each(|(to, from)| *to = *from);
                (key(index), MaglevPart { members })
            }));
            let members = (0..).zip(backends.keys());
            self.maglev_members
                .extend(members.map(|(index, ip)| (key(index), Backend { ip: *ip })));
        }
        let table = MaglevTable { name, size, padding: 0 };
        self.maglev_tables.insert(address, table);
        for ip in backends.keys() {
            self.mark_backend(OverlayAddress::new(address.vni(), *ip));
        }
    }

    /// Puts the weights of these backends, or none of them if they do not fit; tells how many there are.
    fn put_weights(&mut self, address: OverlayAddress<A>, backends: &Weights<A>, limit: u32) -> usize {
        let OverlayAddress { ip: vip, vni } = address;
        let weighted = backends.iter().filter(|(_, weight)| **weight != 1);
        let weights: Vec<_> = weighted
            .map(|(ip, weight)| (MemberKey { vip, ip: *ip, vni }, *weight))
            .collect();
        let count = weights.len();
        if self.weights.len() + count <= limit as usize {
            self.weights.extend(weights);
        }
        count
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

/// Of each virtual IP who its connections may go to.
pub(super) fn members(
    ipv4: &BTreeMap<OverlayAddress<V4>, Vip<V4>>,
    ipv6: &BTreeMap<OverlayAddress<V6>, Vip<V6>>,
) -> Members {
    Members {
        ipv4: ipv4.iter().map(|(address, vip)| (*address, open(vip))).collect(),
        ipv6: ipv6.iter().map(|(address, vip)| (*address, open(vip))).collect(),
    }
}

fn open<A: Ip>(vip: &Vip<A>) -> MembersOf<A> {
    vip.members.iter().map(|(ip, member)| (*ip, member.is_open)).collect()
}
