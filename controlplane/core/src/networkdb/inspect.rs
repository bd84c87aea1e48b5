//! What a simulation may see and set.

use super::attachments::{MAX_NETWORKS, MAX_TABLE_BROADCASTS};
use super::nodes::MAX_NODES;
use super::tables::MAX_ENTRIES;
use super::{NetworkDb, Random};
use crate::id::{NetworkId, NodeId};
use crate::membership::{Held, OPEN_STREAMS, OPEN_STREAMS_AT_REST, QUEUED_AT_REST};
use crate::time::Instant;
use std::net::SocketAddr;

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

    /// Nothing waits to be gossiped any more.
    pub(crate) fn hush(&mut self) {
        self.membership.hush();
        self.own
            .values_mut()
            .for_each(super::attachments::OwnNetwork::clear_queues);
    }

    /// Exchanges views with a member now, as happens every 30 seconds or so.
    pub fn exchange_views(&mut self, now: Instant, member: SocketAddr) {
        let state = self.state();
        self.membership.push_pull(now, member, false, state);
        self.settle(now);
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
