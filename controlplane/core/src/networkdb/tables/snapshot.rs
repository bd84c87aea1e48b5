//! Tables as they are written down: the entries, and what decides whether they last; the indexes are made anew.

use super::{Entry, EntryKey, Tables};
use crate::id::{NetworkId, NodeId};
use crate::time::Instant;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;

#[derive(Serialize)]
struct Written<'a> {
    retired: Instant,
    absent: &'a BTreeSet<NodeId>,
    entries: Entries<'a>,
}

#[derive(Deserialize)]
struct Read {
    retired: Instant,
    absent: BTreeSet<NodeId>,
    entries: Vec<(EntryKey, Entry)>,
}

struct Entries<'a>(&'a Tables);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = serializer.serialize_seq(Some(self.0.len()))?;
        for (network, table, key, entry) in self.0.all() {
            entries.serialize_element(&(EntryKey::new(network, table, key), entry))?;
        }
        entries.end()
    }
}

impl Serialize for Tables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            retired: self.retired,
            absent: &self.absent,
            entries: Entries(self),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Tables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Read::deserialize(deserializer)?;
        let mut tables = Tables {
            retired: read.retired,
            absent: read.absent,
            ..Tables::default()
        };
        for (key, entry) in read.entries {
            tables.insert(key, entry);
        }
        Ok(tables)
    }
}

impl Tables {
    /// All entries, by network, table and key.
    pub(in crate::networkdb) fn all(&self) -> impl Iterator<Item = (&NetworkId, &str, &str, &Entry)> {
        let networks = self.networks.keys();
        networks.flat_map(|network| {
            let entries = self.of_network(network);
            entries.map(move |(table, key, entry)| (network, table, key, entry))
        })
    }
}
