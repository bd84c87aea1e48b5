//! What the rows must be in the end: who wrote what last, apart from how the tables are kept.
//!
//! Each write that a node made counts with its Lamport time, as stamped by that node. Of all writes of a key the one with the greatest
//! time wins, of equal times that of the greater name. If the winner's node is still there, its write decides. If all who ever
//! wrote the key are gone, so is the row. Otherwise the winner's write went away with its node, and what remains depends on who had
//! heard what by then: only that all show the same can be asked.

use super::{KEYS, NETWORKS};
use crate::id::NodeId;
use std::collections::BTreeMap;

/// A write that a node made.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) time: u64,
    pub(super) owner: NodeId,
    /// The node's number, and how often it had joined the network.
    pub(super) by: Stay,
    /// `None`: it deleted the row.
    pub(super) value: Option<Vec<u8>>,
}

/// A node's stay in a network: it ends when the node leaves the network or the cluster, or crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stay {
    pub(super) node: usize,
    pub(super) joined: u32,
}

/// What a key of a network must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// This row.
    Row(Vec<u8>, NodeId),
    /// None.
    Nothing,
    /// The same everywhere.
    Same,
}

/// All writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    writes: BTreeMap<(usize, usize), Vec<Written>>,
}

impl Model {
    pub(super) fn wrote(&mut self, network: usize, key: usize, written: Written) {
        self.writes.entry((network, key)).or_default().push(written);
    }

    /// What a key must show, when `lives` tells which stays go on.
    pub(super) fn expected(&self, network: usize, key: usize, lives: impl Fn(Stay) -> bool) -> Expected {
        let writes = self.writes.get(&(network, key)).map(Vec::as_slice).unwrap_or_default();
        let Some(last) = writes.iter().max_by_key(|written| (written.time, &written.owner)) else {
            return Expected::Nothing;
        };
        if lives(last.by) {
            match &last.value {
                Some(value) => Expected::Row(value.clone(), last.owner.clone()),
                None => Expected::Nothing,
            }
        } else if writes.iter().any(|written| lives(written.by)) {
            Expected::Same
        } else {
            Expected::Nothing
        }
    }

    /// Whether anybody wrote a key.
    pub(super) fn written(&self, key: (usize, usize)) -> bool {
        self.writes.contains_key(&key)
    }

    /// All keys there can be.
    pub(super) fn keys() -> impl Iterator<Item = (usize, usize)> {
        (0..NETWORKS).flat_map(|network| (0..KEYS).map(move |key| (network, key)))
    }

    /// The writes of a key, for whoever has to find out what went wrong.
    pub(super) fn history(&self, network: usize, key: usize, lives: impl Fn(Stay) -> bool) -> String {
        let writes = self.writes.get(&(network, key)).into_iter().flatten();
        let line = |written: &Written| {
            let what = written
                .value
                .as_ref()
                .map_or("deleted".to_owned(), |value| brief(value));
            let gone = if lives(written.by) { "" } else { ", gone since" };
            format!(
                "      time {}: {what} by {} (node {}{gone})\n",
                written.time, written.owner, written.by.node
            )
        };
        writes.map(line).collect()
    }
}

/// A value in a line.
pub(super) fn brief(value: &[u8]) -> String {
    let number = value.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    match number {
        Some(number) => format!("write {number}"),
        None => format!("{value:?}"),
    }
}
