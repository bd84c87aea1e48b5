//! The entries, and in which order they end.

mod snapshot;

use super::digest::{Item, Sums, bucket_of};
use crate::id::{NetworkId, NodeId};
use crate::time::Instant;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How many entries are held at most, over all networks. The largest cluster reported had a tenth of it
/// (`spec/pains.md` part A, 6).
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// Lamport time, owner, whether it is a tombstone, value.
pub(super) type Rank<'a> = (u64, &'a NodeId, bool, &'a [u8]);

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Who wrote it last.
    pub(super) owner: NodeId,
    /// Table clock of that write.
    pub(super) time: u64,
    /// Its value; of a tombstone, the last one.
    pub(super) value: Vec<u8>,
    /// It is a tombstone.
    pub(super) deleted: bool,
    /// Its owner has failed.
    pub(super) hidden: bool,
    /// When a tombstone or hidden entry is forgotten.
    pub(super) until: Instant,
}

impl Entry {
    pub(super) fn visible(&self) -> bool {
        !self.deleted && !self.hidden
    }

    /// Of two entries of a key the one with the greater rank stays: the later write, of writes at the same time that of the greater
    /// name, of one node's at the same time the tombstone, and last the greater value, so that no two that differ can stay side by
    /// side. Docker's engines keep what came first.
    ///
    /// A node that takes back its own row writes the tombstone at the row's own time: whoever wrote over it, even unheard and at the
    /// same tick, keeps its row.
    pub(super) fn rank(&self) -> Rank<'_> {
        (self.time, &self.owner, self.deleted, &self.value)
    }

    /// How it is compared with other nodes'.
    pub(super) fn item(&self, table: &str, key: &str) -> Item {
        Item::entry(table, key, self.time, &self.owner, self.deleted, &self.value)
    }

    fn ends(&self) -> Option<Instant> {
        (!self.visible()).then_some(self.until)
    }
}

/// Which entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct EntryKey {
    pub(super) network: NetworkId,
    pub(super) table: Box<str>,
    pub(super) key: Box<str>,
}

impl EntryKey {
    pub(super) fn new(network: &NetworkId, table: &str, key: &str) -> Self {
        EntryKey {
            network: network.clone(),
            table: table.into(),
            key: key.into(),
        }
    }
}

type Table = BTreeMap<Box<str>, Entry>;

/// All entries of all tables of all networks. The indexes always agree with the entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    networks: BTreeMap<NetworkId, BTreeMap<Box<str>, Table>>,
    sizes: BTreeMap<NetworkId, usize>,
    owners: BTreeMap<NodeId, BTreeSet<EntryKey>>,
    ends: BTreeSet<(Instant, EntryKey)>,
    size: usize,
    /// Sums over what [lasts](Tables::lasts), by network.
    sums: BTreeMap<NetworkId, Sums>,
    /// What ends by then does not last.
    retired: Instant,
    /// Nodes that are not live: what they own does not last.
    absent: BTreeSet<NodeId>,
}

impl Tables {
    pub(super) fn len(&self) -> usize {
        self.size
    }

    pub(super) fn get(&self, network: &NetworkId, table: &str, key: &str) -> Option<&Entry> {
        self.networks.get(network)?.get(table)?.get(key)
    }

    pub(super) fn find(&self, key: &EntryKey) -> Option<&Entry> {
        self.get(&key.network, &key.table, &key.key)
    }

    /// Sets an entry; the caller has looked at [`full`](Self::full) if it is a new one.
    pub(super) fn insert(&mut self, key: EntryKey, entry: Entry) -> Option<Entry> {
        let old = self.remove(&key);
        if let Some(end) = entry.ends() {
            self.ends.insert((end, key.clone()));
        }
        if self.lasts(&entry) {
            let sums = self.sums.entry(key.network.clone()).or_default();
            sums.add(entry.item(&key.table, &key.key));
        }
        self.owners.entry(entry.owner.clone()).or_default().insert(key.clone());
        *self.sizes.entry(key.network.clone()).or_default() += 1;
        self.size += 1;
        let EntryKey { network, table, key } = key;
        self.networks
            .entry(network)
            .or_default()
            .entry(table)
            .or_default()
            .insert(key, entry);
        old
    }

    /// Whether no new entry is taken.
    pub(super) fn full(&self) -> bool {
        self.size >= MAX_ENTRIES
    }

    pub(super) fn remove(&mut self, key: &EntryKey) -> Option<Entry> {
        let tables = self.networks.get_mut(&key.network)?;
        let table = tables.get_mut(&key.table)?;
        let entry = table.remove(&key.key)?;
        if table.is_empty() {
            tables.remove(&key.table);
        }
        self.size -= 1;
        if let Some(size) = self.sizes.get_mut(&key.network) {
            *size -= 1;
        }
        if tables.is_empty() {
            self.networks.remove(&key.network);
            self.sizes.remove(&key.network);
        }
        if let Some(owned) = self.owners.get_mut(&entry.owner) {
            owned.remove(key);
            if owned.is_empty() {
                self.owners.remove(&entry.owner);
            }
        }
        if let Some(end) = entry.ends() {
            self.ends.remove(&(end, key.clone()));
        }
        self.discount(key, &entry);
        if self.size_of(&key.network) == 0 {
            self.sums.remove(&key.network);
        }
        Some(entry)
    }

    /// Whether other nodes are asked whether they have it too: it is not about to be forgotten, and its owner is live.
    fn lasts(&self, entry: &Entry) -> bool {
        !self.absent.contains(&entry.owner) && entry.ends().is_none_or(|end| end > self.retired)
    }

    fn discount(&mut self, key: &EntryKey, entry: &Entry) {
        if self.lasts(entry)
            && let Some(sums) = self.sums.get_mut(&key.network)
        {
            sums.subtract(entry.item(&key.table, &key.key));
        }
    }

    /// What ends by `until` does not last any more.
    pub(super) fn retire(&mut self, until: Instant) {
        let ending = self.ends.iter().skip_while(|(end, _)| *end <= self.retired);
        let keys: Vec<_> = ending
            .take_while(|(end, _)| *end <= until)
            .map(|(_, key)| key.clone())
            .collect();
        for key in keys {
            if let Some(entry) = self.find(&key).cloned() {
                self.discount(&key, &entry);
            }
        }
        self.retired = self.retired.max(until);
    }

    /// A node is live or not.
    pub(super) fn set_live(&mut self, node: &NodeId, live: bool) {
        if self.absent.contains(node) != live {
            return;
        }
        let owned = self.owned_by(node, None);
        let entries: Vec<_> = owned
            .into_iter()
            .filter_map(|key| self.find(&key).cloned().map(|entry| (key, entry)))
            .collect();
        if live {
            self.absent.remove(node);
        }
        for (key, entry) in &entries {
            if !self.lasts(entry) {
                continue;
            }
            let item = entry.item(&key.table, &key.key);
            let sums = self.sums.entry(key.network.clone()).or_default();
            if live {
                sums.add(item);
            } else {
                sums.subtract(item);
            }
        }
        if !live {
            self.absent.insert(node.clone());
        }
    }

    /// Sums over the lasting entries of a network.
    pub(super) fn sums(&self, network: &NetworkId) -> Sums {
        self.sums.get(network).cloned().unwrap_or_default()
    }

    /// The entries of a network in some buckets (a bit each) as they are compared: all, or the lasting ones.
    pub(super) fn items(
        &self,
        network: &NetworkId,
        buckets: u64,
        lasting: bool,
    ) -> impl Iterator<Item = (&str, &str, &Entry, Item)> {
        let entries = self.of_network(network).filter(move |(table, key, entry)| {
            let bucket = bucket_of(Item::entry_key(table, key));
            buckets >> bucket & 1 == 1 && (!lasting || self.lasts(entry))
        });
        entries.map(|(table, key, entry)| (table, key, entry, entry.item(table, key)))
    }

    /// When the next entry ends that is not [retired](Self::retire).
    pub(super) fn next_lasting_end(&self) -> Option<Instant> {
        self.ends.iter().map(|(end, _)| *end).find(|end| *end > self.retired)
    }

    /// Changes an entry in place; returns how it is now.
    pub(super) fn change(&mut self, key: &EntryKey, change: impl FnOnce(&mut Entry)) -> Option<Entry> {
        let mut entry = self.remove(key)?;
        change(&mut entry);
        self.insert(key.clone(), entry.clone());
        Some(entry)
    }

    /// All that a node owns, or what it owns of one network.
    pub(super) fn owned_by(&self, node: &NodeId, network: Option<&NetworkId>) -> Vec<EntryKey> {
        let owned = self.owners.get(node).into_iter().flatten();
        owned
            .filter(|key| network.is_none_or(|network| key.network == *network))
            .cloned()
            .collect()
    }

    /// The entries of a network, by table and key.
    pub(super) fn of_network(&self, network: &NetworkId) -> impl Iterator<Item = (&str, &str, &Entry)> {
        let tables = self.networks.get(network).into_iter().flatten();
        tables.flat_map(|(table, rows)| rows.iter().map(move |(key, entry)| (&**table, &**key, entry)))
    }

    /// The entries of a table, by key.
    pub(super) fn of_table<'a>(
        &'a self,
        network: &NetworkId,
        table: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Entry)> + use<'a> {
        let rows = self
            .networks
            .get(network)
            .and_then(|tables| tables.get(table))
            .into_iter()
            .flatten();
        rows.map(|(key, entry)| (&**key, entry))
    }

    /// How many entries a network has, tombstones included.
    pub(super) fn size_of(&self, network: &NetworkId) -> usize {
        self.sizes.get(network).copied().unwrap_or_default()
    }

    /// When the next tombstone or hidden entry ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Forgets what ends by `now`.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((end, key)) = self.ends.first().cloned()
            && end <= now
        {
            self.remove(&key);
        }
    }
}
