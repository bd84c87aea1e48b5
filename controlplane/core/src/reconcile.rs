//! From what the maps hold to what they should hold: make before break.
//!
//! The order of the steps keeps these true after every single one:
//!
//! - no service counts a slot that is not there;
//! - no table of Maglev's names a part or a member that is not there;
//! - what is new is complete before anything points at it: nodes, peers, endpoints, then backends and weights, Maglev's members and
//!   parts, then its tables, then services, and at last the attachment that lets a container send;
//! - what goes is no longer pointed at: the attachment first, then the service or its higher count, then slots, weights, tables, and
//!   what those named, and at last endpoints, peers and nodes;
//! - no map is over its limit: where old and new do not fit together, the old goes first.

#[cfg(test)]
mod tests;

use crate::wanted::MapContents;
use std::collections::BTreeMap;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Clamp, Endpoint, Ip, MaglevKey, MaglevPart, MaglevTable, MemberKey, Network,
    Node, OverlayAddress, Peer, Service, Sizes, V4, V6,
};

/// The maps of [`MapContents`], and what each holds.
macro_rules! entries {
    ($($(#[doc = $doc:literal])+ $variant:ident, $field:ident, $name:path, $key:ty => $value:ty;)+) => {
        /// An entry of a map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Entry {
            $($(#[doc = $doc])+ $variant($key, $value),)+
        }

        /// The key of an [`Entry`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EntryKey {
            $($(#[doc = $doc])+ $variant($key),)+
        }

        impl Entry {
            /// The entry without its value.
            pub fn key(&self) -> EntryKey {
                match *self {
                    $(Entry::$variant(key, _) => EntryKey::$variant(key),)+
                }
            }
        }

        impl EntryKey {
            /// Name of the map, as [`weft_dataplane::abi`] has it.
            pub fn map(&self) -> &'static str {
                match self {
                    $(EntryKey::$variant(_) => $name,)+
                }
            }
        }

        /// Does the step on a copy of the maps.
        pub fn apply(step: &Step, contents: &mut MapContents) {
            match *step {
                $(Step::Put(Entry::$variant(key, value)) => drop(contents.$field.insert(key, value)),)+
                $(Step::Remove(EntryKey::$variant(key)) => drop(contents.$field.remove(&key)),)+
            }
        }
    };
}

entries! {
    /// In `attachments`.
    Attachment, attachments, abi::attachment::NAME, u32 => Attachment;
    /// In `networks`.
    Network, networks, abi::network::NAME, u32 => Network;
    /// In `clamps`.
    Clamp, clamps, abi::clamp::NAME, u32 => Clamp;
    /// In `endpoints`.
    Endpoint, endpoints, abi::endpoint::NAME, OverlayAddress<V4> => Endpoint;
    /// In `endpoints6`.
    Endpoint6, endpoints6, abi::endpoint::NAME6, OverlayAddress<V6> => Endpoint;
    /// In `peers`.
    Peer, peers, abi::peer::NAME, OverlayAddress<V4> => Peer;
    /// In `peers6`.
    Peer6, peers6, abi::peer::NAME6, OverlayAddress<V6> => Peer;
    /// In `nodes`.
    Node, nodes, abi::node::NAME, V6 => Node;
    /// In `services`.
    Service, services, abi::service::NAME, OverlayAddress<V4> => Service;
    /// In `services6`.
    Service6, services6, abi::service::NAME6, OverlayAddress<V6> => Service;
    /// In `backends`.
    Backend, backends, abi::backend::NAME, BackendKey<V4> => Backend<V4>;
    /// In `backends6`.
    Backend6, backends6, abi::backend::NAME6, BackendKey<V6> => Backend<V6>;
    /// In `maglev_tables`.
    MaglevTable, maglev_tables, abi::maglev::TABLES_NAME, OverlayAddress<V4> => MaglevTable;
    /// In `maglev_tables6`.
    MaglevTable6, maglev_tables6, abi::maglev::TABLES_NAME6, OverlayAddress<V6> => MaglevTable;
    /// In `maglev`.
    MaglevPart, maglev, abi::maglev::NAME, MaglevKey => MaglevPart;
    /// In `maglev_members`.
    MaglevMember, maglev_members, abi::maglev::MEMBERS_NAME, MaglevKey => Backend<V4>;
    /// In `maglev_members6`.
    MaglevMember6, maglev_members6, abi::maglev::MEMBERS_NAME6, MaglevKey => Backend<V6>;
    /// In `weights`.
    Weight, weights, abi::load::WEIGHTS_NAME, MemberKey<V4> => u32;
    /// In `weights6`.
    Weight6, weights6, abi::load::WEIGHTS_NAME6, MemberKey<V6> => u32;
}

/// One write to a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the entry, whether its key is there or not.
    Put(Entry),
    /// Remove the entry; if it is not there, that is fine.
    Remove(EntryKey),
}

/// The steps from `present` to `wanted`, in order; none if they are equal. Each is harmless when done twice.
pub fn steps(wanted: &MapContents, present: &MapContents, sizes: &Sizes) -> Vec<Step> {
    macro_rules! map {
        ($field:ident, $limit:ident, $variant:ident) => {
            Map::new(
                &wanted.$field,
                &present.$field,
                sizes.$limit,
                Entry::$variant,
                EntryKey::$variant,
            )
        };
    }
    let mut steps = Vec::new();
    detach(&mut steps, wanted, present);
    let services = Balanced::of(wanted, present);
    let services6 = Balanced::of6(wanted, present);
    services.shrink(&mut steps);
    services6.shrink(&mut steps);

    let networks = map!(networks, networks, Network);
    let clamps = map!(clamps, networks, Clamp);
    let nodes = map!(nodes, nodes, Node);
    let peers = map!(peers, peers, Peer);
    let peers6 = map!(peers6, peers, Peer6);
    let endpoints = map!(endpoints, endpoints, Endpoint);
    let endpoints6 = map!(endpoints6, endpoints, Endpoint6);
    let backends = map!(backends, backends, Backend);
    let backends6 = map!(backends6, backends, Backend6);
    let mut tables = map!(maglev_tables, services, MaglevTable);
    let mut tables6 = map!(maglev_tables6, services, MaglevTable6);
    let parts = map!(maglev, maglev_parts, MaglevPart);
    let members = map!(maglev_members, maglev_parts, MaglevMember);
    let members6 = map!(maglev_members6, maglev_parts, MaglevMember6);
    let weights = map!(weights, loads, Weight);
    let weights6 = map!(weights6, loads, Weight6);

    if parts.tight || members.tight || members6.tight {
        withdraw(&mut steps, &mut tables);
        withdraw(&mut steps, &mut tables6);
    }
    tables.make_room(&mut steps);
    tables6.make_room(&mut steps);
    parts.make_room(&mut steps);
    members.make_room(&mut steps);
    members6.make_room(&mut steps);
    weights.make_room(&mut steps);
    weights6.make_room(&mut steps);
    backends.make_room(&mut steps);
    backends6.make_room(&mut steps);
    endpoints.make_room(&mut steps);
    endpoints6.make_room(&mut steps);
    peers.make_room(&mut steps);
    peers6.make_room(&mut steps);
    nodes.make_room(&mut steps);
    clamps.make_room(&mut steps);
    networks.make_room(&mut steps);

    networks.put(&mut steps);
    clamps.put(&mut steps);
    nodes.put(&mut steps);
    peers.put(&mut steps);
    peers6.put(&mut steps);
    endpoints.put(&mut steps);
    endpoints6.put(&mut steps);
    backends.put(&mut steps);
    backends6.put(&mut steps);
    weights.put(&mut steps);
    weights6.put(&mut steps);
    members.put(&mut steps);
    members6.put(&mut steps);
    parts.put(&mut steps);
    tables.put(&mut steps);
    tables6.put(&mut steps);
    services.grow(&mut steps);
    services6.grow(&mut steps);

    tables.clear(&mut steps);
    tables6.clear(&mut steps);
    parts.clear(&mut steps);
    members.clear(&mut steps);
    members6.clear(&mut steps);
    weights.clear(&mut steps);
    weights6.clear(&mut steps);
    backends.clear(&mut steps);
    backends6.clear(&mut steps);
    endpoints.clear(&mut steps);
    endpoints6.clear(&mut steps);
    peers.clear(&mut steps);
    peers6.clear(&mut steps);
    nodes.clear(&mut steps);
    clamps.clear(&mut steps);
    networks.clear(&mut steps);
    attach(&mut steps, wanted, present);
    steps
}

/// The difference of one map.
struct Map<'a, K, V> {
    wanted: &'a BTreeMap<K, V>,
    present: &'a BTreeMap<K, V>,
    entry: fn(K, V) -> Entry,
    key: fn(K) -> EntryKey,
    /// Old and new entries do not fit into the map together.
    tight: bool,
}

impl<'a, K: Copy + Ord, V: Copy + PartialEq> Map<'a, K, V> {
    fn new(
        wanted: &'a BTreeMap<K, V>,
        present: &'a BTreeMap<K, V>,
        limit: u32,
        entry: fn(K, V) -> Entry,
        key: fn(K) -> EntryKey,
    ) -> Self {
        let map = Map {
            wanted,
            present,
            entry,
            key,
            tight: false,
        };
        let tight = wanted.len() + map.stale().count() > limit as usize;
        Map { tight, ..map }
    }

    fn stale(&self) -> impl Iterator<Item = K> + '_ {
        self.present
            .keys()
            .filter(|key| !self.wanted.contains_key(key))
            .copied()
    }

    fn remove_stale(&self, steps: &mut Vec<Step>) {
        steps.extend(self.stale().map(|key| Step::Remove((self.key)(key))));
    }

    fn make_room(&self, steps: &mut Vec<Step>) {
        if self.tight {
            self.remove_stale(steps);
        }
    }

    fn put(&self, steps: &mut Vec<Step>) {
        let changed = self
            .wanted
            .iter()
            .filter(|(key, value)| self.present.get(key) != Some(value));
        steps.extend(changed.map(|(key, value)| Step::Put((self.entry)(*key, *value))));
    }

    fn clear(&self, steps: &mut Vec<Step>) {
        if !self.tight {
            self.remove_stale(steps);
        }
    }
}

/// Where old and new tables do not fit together, no old one may be in force when what it names goes: until the new one is, connections
/// are balanced in turns.
fn withdraw<A: Ip>(steps: &mut Vec<Step>, tables: &mut Map<'_, OverlayAddress<A>, MaglevTable>) {
    let replaced = tables.present.iter().filter(|(vip, old)| {
        let new = tables.wanted.get(vip);
        new.is_some_and(|new| new.name != old.name)
    });
    steps.extend(replaced.map(|(vip, _)| Step::Remove((tables.key)(*vip))));
    tables.tight = true;
}

/// Attachments that go, and those whose interface now belongs to another endpoint: until the maps are complete, it sends nothing.
fn detach(steps: &mut Vec<Step>, wanted: &MapContents, present: &MapContents) {
    for (ifindex, old) in &present.attachments {
        let same_endpoint = |new: &&Attachment| (new.vni, new.ip, new.mac) == (old.vni, old.ip, old.mac);
        if wanted.attachments.get(ifindex).filter(same_endpoint).is_none() {
            steps.push(Step::Remove(EntryKey::Attachment(*ifindex)));
        }
    }
}

fn attach(steps: &mut Vec<Step>, wanted: &MapContents, present: &MapContents) {
    for (ifindex, new) in &wanted.attachments {
        if present.attachments.get(ifindex) != Some(new) {
            steps.push(Step::Put(Entry::Attachment(*ifindex, *new)));
        }
    }
}

/// The virtual IPs of one family with their slots.
struct Balanced<'a, A: Ip> {
    wanted: &'a BTreeMap<OverlayAddress<A>, Service>,
    present: &'a BTreeMap<OverlayAddress<A>, Service>,
    slots: &'a BTreeMap<BackendKey<A>, Backend<A>>,
    entry: fn(OverlayAddress<A>, Service) -> Entry,
    key: fn(OverlayAddress<A>) -> EntryKey,
}

impl<'a> Balanced<'a, V4> {
    fn of(wanted: &'a MapContents, present: &'a MapContents) -> Self {
        Balanced {
            wanted: &wanted.services,
            present: &present.services,
            slots: &present.backends,
            entry: Entry::Service,
            key: EntryKey::Service,
        }
    }
}

impl<'a> Balanced<'a, V6> {
    fn of6(wanted: &'a MapContents, present: &'a MapContents) -> Self {
        Balanced {
            wanted: &wanted.services6,
            present: &present.services6,
            slots: &present.backends6,
            entry: Entry::Service6,
            key: EntryKey::Service6,
        }
    }
}

impl<A: Ip> Balanced<'_, A> {
    /// What a service may count before new slots are written: what it should count, or the slots that are there, if they are fewer.
    fn count_before_growth(&self, address: &OverlayAddress<A>, wanted: &Service) -> u32 {
        let is_there = |slot: &u32| {
            self.slots.contains_key(&BackendKey {
                vni: address.vni(),
                vip: address.ip,
                slot: *slot,
            })
        };
        (0..wanted.backend_count)
            .find(|slot| !is_there(slot))
            .unwrap_or(wanted.backend_count)
    }

    /// Removes services that go, and lowers the count of those that lose slots. Another policy waits for what it needs.
    fn shrink(&self, steps: &mut Vec<Step>) {
        for (address, old) in self.present {
            let Some(new) = self.wanted.get(address) else {
                steps.push(Step::Remove((self.key)(*address)));
                continue;
            };
            let backend_count = self.count_before_growth(address, new);
            if backend_count < old.backend_count {
                steps.push(Step::Put((self.entry)(*address, Service { backend_count, ..*old })));
            }
        }
    }

    /// Writes new services, those that gain slots, and those whose policy changed.
    fn grow(&self, steps: &mut Vec<Step>) {
        for (address, new) in self.wanted {
            let lowered = self.present.get(address).map(|old| {
                let backend_count = self.count_before_growth(address, new);
                if backend_count < old.backend_count {
                    Service { backend_count, ..*old }
                } else {
                    *old
                }
            });
            if lowered.as_ref() != Some(new) {
                steps.push(Step::Put((self.entry)(*address, *new)));
            }
        }
    }
}
