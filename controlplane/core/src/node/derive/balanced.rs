//! What the kernel has of virtual IPs, and stays while the tables may still be on their way.

use crate::service::maglev::Outline;
use crate::wanted::{MapContents, Maps};
use std::collections::{BTreeMap, BTreeSet};
use weft_dataplane::abi::{BackendKey, Ip, MaglevKey, MaglevTable, MemberKey, OverlayAddress, Service, Sizes};

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
        replace(self.backends, present.backends, of_slot);
        replace(self.weights, present.weights, of_weight);
        replace(self.maglev_tables, present.maglev_tables, |vip| kept.contains_key(vip));
        self.services.extend(kept);
    }

    /// Puts what the kept tables name; where it does not fit, the table goes, and connections are balanced in turns.
    fn fill_tables(&mut self, present: &Maps<'_, A>, sizes: &Sizes) {
        let mut left_out = BTreeSet::new();
        let there = |members: &BTreeMap<MaglevKey, _>, name| of_name(members, name).next().is_some();
        for MaglevTable { name, size, .. } in self.maglev_tables.values() {
            if there(self.maglev_members, *name) {
                continue;
            }
            let parts: Vec<_> = of_name(present.maglev, *name).collect();
            let members: Vec<_> = of_name(present.maglev_members, *name).collect();
            let is_whole = parts.len()
                == Outline {
                    name: *name,
                    size: *size,
                }
                .parts()
                && !members.is_empty();
            let fits = self.maglev.len() + parts.len() <= sizes.maglev_parts as usize
                && self.maglev_members.len() + members.len() <= sizes.maglev_parts as usize;
            if is_whole && fits {
                self.maglev.extend(parts);
                self.maglev_members.extend(members);
            } else {
                left_out.insert(*name);
            }
        }
        self.maglev_tables.retain(|_, table| !left_out.contains(&table.name));
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
