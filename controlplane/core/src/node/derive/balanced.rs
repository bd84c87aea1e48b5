//! What the kernel has of virtual IPs, and stays while the tables may still be on their way.

use crate::service::maglev::Outline;
use crate::wanted::MapContents;
use std::collections::{BTreeMap, BTreeSet};
use weft_dataplane::abi::{
    Backend, BackendKey, Ip, MaglevKey, MaglevPart, MaglevTable, MemberKey, OverlayAddress, Service, Sizes, V6,
};

/// The maps of virtual IPs of one family, and the one that both share.
struct Maps<'a, A: Ip> {
    services: &'a mut BTreeMap<OverlayAddress<A>, Service>,
    slots: &'a mut BTreeMap<BackendKey<A>, Backend<A>>,
    weights: &'a mut BTreeMap<MemberKey<A>, u32>,
    tables: &'a mut BTreeMap<OverlayAddress<A>, MaglevTable>,
    members: &'a mut BTreeMap<MaglevKey, Backend<A>>,
    parts: &'a mut BTreeMap<MaglevKey, MaglevPart>,
}

impl<'a> Maps<'a, [u8; 4]> {
    fn ipv4(contents: &'a mut MapContents) -> Self {
        Maps {
            services: &mut contents.services,
            slots: &mut contents.backends,
            weights: &mut contents.weights,
            tables: &mut contents.maglev_tables,
            members: &mut contents.maglev_members,
            parts: &mut contents.maglev,
        }
    }
}

impl<'a> Maps<'a, V6> {
    fn ipv6(contents: &'a mut MapContents) -> Self {
        Maps {
            services: &mut contents.services6,
            slots: &mut contents.backends6,
            weights: &mut contents.weights6,
            tables: &mut contents.maglev_tables6,
            members: &mut contents.maglev_members6,
            parts: &mut contents.maglev,
        }
    }
}

/// Virtual IPs on these networks that would have fewer slots, or none, stay as they are: with slots, weights and table.
pub(super) fn keep(networks: &BTreeSet<u32>, wanted: &mut MapContents, present: &MapContents, sizes: &Sizes) {
    // Taken apart as the wanted ones are; a node settles once.
    let mut present = present.clone();
    Maps::ipv4(wanted).keep(networks, &Maps::ipv4(&mut present));
    Maps::ipv6(wanted).keep(networks, &Maps::ipv6(&mut present));
    // Room for the tables that are kept: of the new ones in their place nobody knows any more.
    let tables = wanted.maglev_tables.values().chain(wanted.maglev_tables6.values());
    let named: BTreeSet<u64> = tables.map(|table| table.name).collect();
    wanted.maglev.retain(|key, _| named.contains(&key.name));
    wanted.maglev_members.retain(|key, _| named.contains(&key.name));
    wanted.maglev_members6.retain(|key, _| named.contains(&key.name));
    Maps::ipv4(wanted).fill_tables(&Maps::ipv4(&mut present), sizes);
    Maps::ipv6(wanted).fill_tables(&Maps::ipv6(&mut present), sizes);
}

impl<A: Ip> Maps<'_, A> {
    fn keep(&mut self, networks: &BTreeSet<u32>, present: &Maps<'_, A>) {
        let has_fewer = |(vip, service): &(&OverlayAddress<A>, &Service)| {
            let new = self.services.get(vip);
            networks.contains(&vip.vni()) && new.is_none_or(|new| new.backend_count < service.backend_count)
        };
        let kept: BTreeMap<_, _> = present
            .services
            .iter()
            .filter(has_fewer)
            .map(|(k, v)| (*k, *v))
            .collect();
        let of_slot = |key: &BackendKey<A>| kept.contains_key(&OverlayAddress::new(key.vni, key.vip));
        let of_weight = |key: &MemberKey<A>| kept.contains_key(&key.network_vip());
        replace(self.slots, present.slots, of_slot);
        replace(self.weights, present.weights, of_weight);
        replace(self.tables, present.tables, |vip| kept.contains_key(vip));
        self.services.extend(kept);
    }

    /// Puts what the kept tables name; where it does not fit, the table goes, and connections are balanced in turns.
    fn fill_tables(&mut self, present: &Maps<'_, A>, sizes: &Sizes) {
        let mut left_out = BTreeSet::new();
        let there = |members: &BTreeMap<MaglevKey, _>, name| of_name(members, name).next().is_some();
        for MaglevTable { name, size, .. } in self.tables.values() {
            if there(self.members, *name) {
                continue;
            }
            let parts: Vec<_> = of_name(present.parts, *name).collect();
            let members: Vec<_> = of_name(present.members, *name).collect();
            let is_whole = parts.len()
                == Outline {
                    name: *name,
                    size: *size,
                }
                .parts()
                && !members.is_empty();
            let fits = self.parts.len() + parts.len() <= sizes.maglev_parts as usize
                && self.members.len() + members.len() <= sizes.maglev_parts as usize;
            if is_whole && fits {
                self.parts.extend(parts);
                self.members.extend(members);
            } else {
                left_out.insert(*name);
            }
        }
        self.tables.retain(|_, table| !left_out.contains(&table.name));
    }
}

/// Takes over the entries that `concerns` picks, instead of those that are there.
fn replace<K: Copy + Ord, V: Copy>(map: &mut BTreeMap<K, V>, by: &BTreeMap<K, V>, concerns: impl Fn(&K) -> bool) {
    map.retain(|key, _| !concerns(key));
    map.extend(
        by.iter()
            .filter(|(key, _)| concerns(key))
            .map(|(key, value)| (*key, *value)),
    );
}

/// What belongs to the table of this name.
fn of_name<V: Copy>(map: &BTreeMap<MaglevKey, V>, name: u64) -> impl Iterator<Item = (MaglevKey, V)> + '_ {
    let key = |index| MaglevKey {
        name,
        index,
        padding: 0,
    };
    map.range(key(0)..=key(u32::MAX)).map(|(key, value)| (*key, *value))
}
