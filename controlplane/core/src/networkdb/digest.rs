//! Digests of what a node knows of a network: sums of hashes that do not depend on the order, so that each change costs one addition.
//!
//! Two nodes compare one number; if it differs, the sums of the buckets that keys fall into; and of the buckets that differ, the
//! items. The hashes guard against loss and not against malice: who can write to the tables has a key of the cluster.

use crate::hash::{bytes, finish, word};
use crate::id::NodeId;

/// How many buckets: a bucket of a network of 20,000 entries holds about 300, whose list fits into a few packets, and the sums of all
/// buckets fit into one.
pub(super) const BUCKETS: usize = 64;

/// The bits of a hash that choose the bucket.
const BUCKET_SHIFT: u32 = u64::BITS - BUCKETS.ilog2();

/// One thing that two nodes compare: an entry or an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Which one: a hash of its name.
    pub(super) key: u64,
    /// Lamport time of its last change.
    pub(super) time: u64,
    /// A hash of all else that must be equal.
    pub(super) content: u64,
}

impl Item {
    pub(super) fn entry_key(table: &str, key: &str) -> u64 {
        finish(bytes(bytes(0x7461_626c, table.as_bytes()), key.as_bytes()))
    }

    pub(super) fn attachment_key(node: &NodeId) -> u64 {
        finish(bytes(0x6e6f_6465, node.as_str().as_bytes()))
    }

    pub(super) fn entry(table: &str, key: &str, time: u64, owner: &NodeId, deleted: bool, value: &[u8]) -> Item {
        let content = bytes(bytes(u64::from(deleted), owner.as_str().as_bytes()), value);
        Item {
            key: Item::entry_key(table, key),
            time,
            content: finish(content),
        }
    }

    pub(super) fn attachment(node: &NodeId, time: u64) -> Item {
        Item {
            key: Item::attachment_key(node),
            time,
            content: 0,
        }
    }

    fn hash(&self) -> u64 {
        finish(word(word(self.key, self.time), self.content))
    }
}

/// The bucket of a key.
pub(super) fn bucket_of(key: u64) -> usize {
    (key >> BUCKET_SHIFT) as usize
}

/// The sums over some items, by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums([u64; BUCKETS]);

impl Default for Sums {
    fn default() -> Self {
        Sums([0; BUCKETS])
    }
}

impl Sums {
    pub(super) fn add(&mut self, item: Item) {
        if let Some(sum) = self.0.get_mut(bucket_of(item.key)) {
            *sum = sum.wrapping_add(item.hash());
        }
    }

    pub(super) fn subtract(&mut self, item: Item) {
        if let Some(sum) = self.0.get_mut(bucket_of(item.key)) {
            *sum = sum.wrapping_sub(item.hash());
        }
    }

    /// One number for all.
    pub(super) fn total(&self) -> u64 {
        finish(self.0.iter().fold(0, |total, sum| word(total, *sum)))
    }

    pub(super) fn buckets(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    /// The buckets that differ, as bits.
    pub(super) fn difference(&self, theirs: &[u64; BUCKETS]) -> u64 {
        let differs = self.0.iter().zip(theirs).map(|(ours, theirs)| ours != theirs);
        differs
            .enumerate()
            .fold(0, |mask, (bucket, differs)| mask | u64::from(differs) << bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("a node's name")
    }

    fn items() -> Vec<Item> {
        let (a, b) = (node("aaaaaaaaaaaa"), node("bbbbbbbbbbbb"));
        let mut items = vec![
            Item::attachment(&a, 1),
            Item::attachment(&a, 2),
            Item::attachment(&b, 1),
        ];
        for (table, key) in [("t", "k"), ("t", "kk"), ("tk", "k"), ("", "tk")] {
            items.push(Item::entry(table, key, 1, &a, false, b"v"));
        }
        items.push(Item::entry("t", "k", 2, &a, false, b"v"));
        items.push(Item::entry("t", "k", 1, &b, false, b"v"));
        items.push(Item::entry("t", "k", 1, &a, true, b"v"));
        items.push(Item::entry("t", "k", 1, &a, false, b""));
        items
    }

    #[test]
    fn whatever_differs_shows() {
        let hashes: BTreeSet<u64> = items().iter().map(Item::hash).collect();
        assert_eq!(hashes.len(), items().len());
        assert_eq!(
            Item::entry_key("t", "k"),
            Item::entry("t", "k", 9, &node("x"), true, b"").key
        );
        assert_ne!(Item::entry_key("t", "k"), Item::entry_key("tk", ""));
    }

    #[test]
    fn sums_forget_order_and_what_was_taken_out() {
        let mut forwards = Sums::default();
        items().into_iter().for_each(|item| forwards.add(item));
        let mut backwards = Sums::default();
        items().into_iter().rev().for_each(|item| backwards.add(item));
        assert_eq!(forwards, backwards);
        assert_eq!(forwards.difference(backwards.buckets()), 0);
        let extra = Item::attachment(&node("c"), 7);
        backwards.add(extra);
        assert_ne!(forwards.total(), backwards.total());
        assert_eq!(
            forwards.difference(backwards.buckets()),
            1 << bucket_of(extra.key),
            "only its bucket"
        );
        backwards.subtract(extra);
        assert_eq!(forwards.total(), backwards.total());
    }

    #[test]
    fn keys_spread_over_all_buckets() {
        let mut counts = [0; BUCKETS];
        for number in 0..6400 {
            counts[bucket_of(Item::entry_key("endpoint_table", &number.to_string()))] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }
}
