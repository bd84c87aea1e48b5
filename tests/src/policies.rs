//! What policies have in maps, by the maps' pins: tests write it without the daemon's reckoning, and read what the kernel wrote.

use crate::model::{Address, Policy};
use crate::packet::Ip;
use crate::programs::Lab;
use crate::table::{clear, pinned};
use aya::Pod;
use std::collections::{BTreeMap, BTreeSet};
use weft_dataplane::abi::{
    self, Affinity, Backend, MaglevKey, MaglevPart, MaglevTable, MapType, MemberKey, OverlayAddress, affinity, flow,
    load, maglev,
};

/// A virtual IP's backend, or its client.
pub type Member = (Address, Ip);

fn key(((vni, vip), ip): Member) -> MemberKey {
    MemberKey { vip, ip, vni }
}

fn member(key: MemberKey) -> Member {
    ((key.vni, key.vip), key.ip)
}

/// Writes the tables and the weights, and nothing else stays.
pub fn put_back(lab: &Lab, policies: &BTreeMap<Address, Policy>) {
    clear::<MaglevKey, MaglevPart>(&lab.dataplane.pin_of(maglev::NAME));
    clear::<MaglevKey, Backend>(&lab.dataplane.pin_of(maglev::MEMBERS_NAME));
    clear::<MemberKey, u32>(&lab.dataplane.pin_of(load::NAME));
    clear::<MemberKey, Affinity>(&lab.dataplane.pin_of(affinity::NAME));
    put(lab, policies);
}

/// Writes the tables and the weights.
pub fn put(lab: &Lab, policies: &BTreeMap<Address, Policy>) {
    clear::<OverlayAddress, MaglevTable>(&lab.dataplane.pin_of(maglev::TABLES_NAME));
    clear::<MemberKey, u32>(&lab.dataplane.pin_of(load::WEIGHTS_NAME));
    for (name, (address, policy)) in (1..).zip(policies) {
        put_weights(lab, *address, &policy.weights);
        if !policy.table.is_empty() {
            let (vni, vip) = *address;
            put_table(lab, OverlayAddress::new(vni, vip), name, &policy.table);
        }
    }
}

/// Gives backends of a virtual IP their weights.
pub fn put_weights(lab: &Lab, address: Address, weights: &BTreeMap<Ip, u32>) {
    let mut map = pinned::<MemberKey, u32>(&lab.dataplane.pin_of(load::WEIGHTS_NAME));
    for (ip, weight) in weights {
        map.insert(key((address, *ip)), weight, 0).expect("the map has room");
    }
}

/// Gives a virtual IP a Maglev table of this name: first the members and the parts, then what names them.
pub fn put_table<A: abi::Ip>(lab: &Lab, vip: OverlayAddress<A>, name: u64, table: &[A])
where
    OverlayAddress<A>: Pod,
    Backend<A>: Pod,
{
    let (tables, of_members) = if A::V6 {
        (maglev::TABLES_NAME6, maglev::MEMBERS_NAME6)
    } else {
        (maglev::TABLES_NAME, maglev::MEMBERS_NAME)
    };
    let at = |index: usize| MaglevKey {
        name,
        index: u32::try_from(index).expect("a small table"),
        padding: 0,
    };
    let members: Vec<A> = table.iter().copied().collect::<BTreeSet<A>>().into_iter().collect();
    let mut map = pinned::<MaglevKey, Backend<A>>(&lab.dataplane.pin_of(of_members));
    for (index, ip) in members.iter().enumerate() {
        map.insert(at(index), Backend { ip: *ip }, 0).expect("the map has room");
    }
    let mut map = pinned::<MaglevKey, MaglevPart>(&lab.dataplane.pin_of(maglev::NAME));
    for (index, entries) in table.chunks(maglev::PART as usize).enumerate() {
        let mut part = MaglevPart {
            members: [0; maglev::PART as usize],
        };
        for (entry, ip) in part.members.iter_mut().zip(entries) {
            *entry = members.iter().position(|member| member == ip).expect("a member") as u16;
        }
        map.insert(at(index), part, 0).expect("the map has room");
    }
    let mut map = pinned::<OverlayAddress<A>, MaglevTable>(&lab.dataplane.pin_of(tables));
    let size = u32::try_from(table.len()).expect("a small table");
    let entry = MaglevTable { name, size, padding: 0 };
    map.insert(vip, entry, 0).expect("the map has room");
}

/// How many connections each backend has open; those with none are left out.
pub fn loads(lab: &weft::dataplane::Dataplane) -> BTreeMap<Member, u32> {
    let mut loads = read(lab, load::NAME);
    loads.retain(|_, load| *load != 0);
    loads
}

/// The backend that each client had last.
pub fn affinities(lab: &weft::dataplane::Dataplane) -> BTreeMap<Member, Ip> {
    let read = read::<Affinity>(lab, affinity::NAME);
    read.into_iter()
        .map(|(client, affinity)| (client, affinity.backend))
        .collect()
}

fn read<V: MapType>(dataplane: &weft::dataplane::Dataplane, name: &str) -> BTreeMap<Member, V> {
    let dump = dataplane.dump(name).unwrap_or_else(|error| panic!("{error}"));
    let entry = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let key = MemberKey::from_bytes(key).expect("a key of the map");
        (member(key), V::from_bytes(value).expect("a value of the map"))
    };
    dump.entries.iter().map(entry).collect()
}

/// Every client was last seen so many seconds earlier.
pub fn age(lab: &Lab, seconds: u32) {
    let mut map = pinned::<MemberKey, Affinity>(&lab.dataplane.pin_of(affinity::NAME));
    let entries: Vec<_> = map.iter().filter_map(Result::ok).collect();
    for (client, mut affinity) in entries {
        affinity.last_seen = affinity.last_seen.wrapping_sub(flow::ticks_of_seconds(seconds));
        map.insert(client, affinity, 0).expect("it is there already");
    }
}
