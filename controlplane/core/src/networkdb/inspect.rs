//! What a simulation may see and set.

use super::attachments::{MAX_NETWORKS, MAX_TABLE_BROADCASTS};
use super::nodes::MAX_NODES;
use super::tables::MAX_ENTRIES;
use super::{NetworkDb, Random};
use crate::id::{NetworkId, NodeId};
use crate::membership::{Held, OPEN_STREAMS, OPEN_STREAMS_AT_REST, QUEUED_AT_REST};

impl NetworkDb {
    /// From here on chance takes another course.
    pub(crate) fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed.rotate_left(32));
        self.membership.reseed(seed);
    }

    /// Whether anything waits to be gossiped.
    pub(crate) fn busy(&self) -> bool {
        self.membership.busy() || self.own.values().any(|own| own.queued() > 0)
    }

    /// Lamport time and writer of an entry that is held, tombstones included.
    pub(crate) fn last_write(&self, network: &NetworkId, table: &str, key: &str) -> Option<(u64, &NodeId)> {
        let entry = self.tables.get(network, table, key)?;
        Some((entry.time, &entry.owner))
    }

    /// An entry in words, whether it shows or not.
    pub(crate) fn held_entry(&self, network: &NetworkId, table: &str, key: &str) -> String {
        match self.tables.get(network, table, key) {
            None => "nothing".to_owned(),
            Some(entry) => {
                let deleted = if entry.deleted { "the tombstone of " } else { "" };
                let hidden = if entry.hidden { ", hidden" } else { "" };
                format!("{deleted}time {} by {}{hidden}", entry.time, entry.owner)
            }
        }
    }

    /// What is held, and how much may be.
    pub(crate) fn held(&self) -> Vec<Held> {
        let held = |what, count, limit, at_rest| Held {
            what,
            count,
            limit,
            at_rest,
        };
        let mut all = self.membership.held();
        let attachments = self.attachments.values().map(|networks| networks.len()).max();
        let queues = self.own.values().flat_map(|own| [own.local.len(), own.relay.len()]);
        let waits: usize = self.own.values().map(|own| own.waits.len()).sum();
        all.extend([
            held("entries", self.tables.len(), MAX_ENTRIES, MAX_ENTRIES),
            held("nodes", self.nodes.len(), MAX_NODES, MAX_NODES),
            held(
                "attachments of a node",
                attachments.unwrap_or_default(),
                MAX_NETWORKS,
                MAX_NETWORKS,
            ),
            held(
                "table messages of a network",
                queues.max().unwrap_or_default(),
                MAX_TABLE_BROADCASTS,
                QUEUED_AT_REST,
            ),
            held(
                "bulk syncs",
                self.bulk_streams.len(),
                OPEN_STREAMS,
                OPEN_STREAMS_AT_REST,
            ),
            held("awaited bulk syncs", waits, OPEN_STREAMS, 0),
            held("effects", self.effects.len(), 0, 0),
        ]);
        all
    }
}
