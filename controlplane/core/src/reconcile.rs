//! From what the maps hold to what they should hold: make before break.
//!
//! The order of the steps keeps these true after every single one:
//!
//! - no service counts a slot that is not there;
//! - what is new is complete before anything points at it: nodes, peers, endpoints, then backends, then services, and at last the
//!   attachment that lets a container send;
//! - what goes is no longer pointed at: the attachment first, then the service or its higher count, then slots, and at last
//!   endpoints, peers and nodes;
//! - no map is over its limit: where old and new do not fit together, the old goes first.

#[cfg(test)]
mod tests;

use crate::wanted::MapContents;
use std::collections::BTreeMap;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service,
};

/// An entry of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In `attachments`.
    Attachment(u32, Attachment),
    /// In `networks`.
    Network(u32, Network),
    /// In `endpoints`.
    Endpoint(OverlayAddress, Endpoint),
    /// In `peers`.
    Peer(OverlayAddress, Peer),
    /// In `nodes`.
    Node([u8; 4], Node),
    /// In `services`.
    Service(OverlayAddress, Service),
    /// In `backends`.
    Backend(BackendKey, Backend),
}

/// The key of an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKey {
    /// In `attachments`.
    Attachment(u32),
    /// In `networks`.
    Network(u32),
    /// In `endpoints`.
    Endpoint(OverlayAddress),
    /// In `peers`.
    Peer(OverlayAddress),
    /// In `nodes`.
    Node([u8; 4]),
    /// In `services`.
    Service(OverlayAddress),
    /// In `backends`.
    Backend(BackendKey),
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
pub fn steps(wanted: &MapContents, present: &MapContents) -> Vec<Step> {
    let mut steps = Vec::new();
    detach(&mut steps, wanted, present);
    shrink_services(&mut steps, wanted, present);

    let networks = Map::new(
        &wanted.networks,
        &present.networks,
        abi::network::MAX_ENTRIES,
        Entry::Network,
        EntryKey::Network,
    );
    let nodes = Map::new(
        &wanted.nodes,
        &present.nodes,
        abi::node::MAX_ENTRIES,
        Entry::Node,
        EntryKey::Node,
    );
    let peers = Map::new(
        &wanted.peers,
        &present.peers,
        abi::peer::MAX_ENTRIES,
        Entry::Peer,
        EntryKey::Peer,
    );
    let endpoints = Map::new(
        &wanted.endpoints,
        &present.endpoints,
        abi::endpoint::MAX_ENTRIES,
        Entry::Endpoint,
        EntryKey::Endpoint,
    );
    let backends = Map::new(
        &wanted.backends,
        &present.backends,
        abi::backend::MAX_ENTRIES,
        Entry::Backend,
        EntryKey::Backend,
    );

    backends.make_room(&mut steps);
    endpoints.make_room(&mut steps);
    peers.make_room(&mut steps);
    nodes.make_room(&mut steps);
    networks.make_room(&mut steps);

    networks.put(&mut steps);
    nodes.put(&mut steps);
    peers.put(&mut steps);
    endpoints.put(&mut steps);
    backends.put(&mut steps);
    grow_services(&mut steps, wanted, present);

    backends.clear(&mut steps);
    endpoints.clear(&mut steps);
    peers.clear(&mut steps);
    nodes.clear(&mut steps);
    networks.clear(&mut steps);
    attach(&mut steps, wanted, present);
    steps
}

/// Does the step on a copy of the maps.
pub fn apply(step: &Step, contents: &mut MapContents) {
    match *step {
        Step::Put(entry) => match entry {
            Entry::Attachment(key, value) => drop(contents.attachments.insert(key, value)),
            Entry::Network(key, value) => drop(contents.networks.insert(key, value)),
            Entry::Endpoint(key, value) => drop(contents.endpoints.insert(key, value)),
            Entry::Peer(key, value) => drop(contents.peers.insert(key, value)),
            Entry::Node(key, value) => drop(contents.nodes.insert(key, value)),
            Entry::Service(key, value) => drop(contents.services.insert(key, value)),
            Entry::Backend(key, value) => drop(contents.backends.insert(key, value)),
        },
        Step::Remove(key) => match key {
            EntryKey::Attachment(key) => drop(contents.attachments.remove(&key)),
            EntryKey::Network(key) => drop(contents.networks.remove(&key)),
            EntryKey::Endpoint(key) => drop(contents.endpoints.remove(&key)),
            EntryKey::Peer(key) => drop(contents.peers.remove(&key)),
            EntryKey::Node(key) => drop(contents.nodes.remove(&key)),
            EntryKey::Service(key) => drop(contents.services.remove(&key)),
            EntryKey::Backend(key) => drop(contents.backends.remove(&key)),
        },
    }
}

impl Entry {
    /// The entry without its value.
    pub fn key(&self) -> EntryKey {
        match *self {
            Entry::Attachment(key, _) => EntryKey::Attachment(key),
            Entry::Network(key, _) => EntryKey::Network(key),
            Entry::Endpoint(key, _) => EntryKey::Endpoint(key),
            Entry::Peer(key, _) => EntryKey::Peer(key),
            Entry::Node(key, _) => EntryKey::Node(key),
            Entry::Service(key, _) => EntryKey::Service(key),
            Entry::Backend(key, _) => EntryKey::Backend(key),
        }
    }
}

impl EntryKey {
    /// Name of the map, as [`weft_dataplane::abi`] has it.
    pub fn map(&self) -> &'static str {
        match self {
            EntryKey::Attachment(_) => abi::attachment::NAME,
            EntryKey::Network(_) => abi::network::NAME,
            EntryKey::Endpoint(_) => abi::endpoint::NAME,
            EntryKey::Peer(_) => abi::peer::NAME,
            EntryKey::Node(_) => abi::node::NAME,
            EntryKey::Service(_) => abi::service::NAME,
            EntryKey::Backend(_) => abi::backend::NAME,
        }
    }
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

/// What a service may count before new slots are written: what it should count, or the slots that are there, if they are fewer.
fn count_before_growth(address: &OverlayAddress, wanted: &Service, present: &MapContents) -> u32 {
    let is_there = |slot: &u32| {
        present.backends.contains_key(&BackendKey {
            vni: address.vni,
            vip: address.ip,
            slot: *slot,
        })
    };
    (0..wanted.backend_count)
        .find(|slot| !is_there(slot))
        .unwrap_or(wanted.backend_count)
}

/// Removes services that go, and lowers the count of those that lose slots.
fn shrink_services(steps: &mut Vec<Step>, wanted: &MapContents, present: &MapContents) {
    for (address, old) in &present.services {
        let Some(new) = wanted.services.get(address) else {
            steps.push(Step::Remove(EntryKey::Service(*address)));
            continue;
        };
        let backend_count = count_before_growth(address, new, present);
        if backend_count < old.backend_count {
            steps.push(Step::Put(Entry::Service(*address, Service { backend_count, ..*new })));
        }
    }
}

/// Writes new services, those that gain slots, and those whose policy changed.
fn grow_services(steps: &mut Vec<Step>, wanted: &MapContents, present: &MapContents) {
    for (address, new) in &wanted.services {
        let lowered = present.services.get(address).map(|old| {
            let backend_count = count_before_growth(address, new, present);
            if backend_count < old.backend_count {
                Service { backend_count, ..*new }
            } else {
                *old
            }
        });
        if lowered.as_ref() != Some(new) {
            steps.push(Step::Put(Entry::Service(*address, *new)));
        }
    }
}
