//! The broadcast queue: what is still to be told, least told first (`spec/networkdb.md` 3.4).

use super::snapshot::MAX_COUNT;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Least transmitted first, then longest, then newest.
type Rank = (u32, Reverse<usize>, Reverse<u64>);

/// How often a message is sent at most, in a group of `members`: 4 times the decimal logarithm, rounded up.
pub(crate) fn retransmit_limit(members: usize) -> u32 {
    const RETRANSMIT_MULTIPLIER: u32 = 4;
    RETRANSMIT_MULTIPLIER * ((members + 1) as f64).log10().ceil() as u32
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item<K> {
    key: Option<K>,
    bytes: Vec<u8>,
}

/// Messages to be broadcast. At most one message of each key is kept: the newest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de> + Ord"))]
pub(crate) struct Queue<K> {
    items: BTreeMap<Rank, Item<K>>,
    newest: BTreeMap<K, Rank>,
    limit: usize,
    added: u64,
    #[serde(skip)]
    dropped: u64,
}

impl<K: Ord + Clone> Queue<K> {
    /// A queue of at most `limit` messages.
    pub(crate) fn new(limit: usize) -> Self {
        Queue {
            items: BTreeMap::new(),
            newest: BTreeMap::new(),
            limit,
            added: 0,
            dropped: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many messages had to go for newer ones because the queue was full.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.newest.clear();
    }

    /// Adds a message, in place of an older one with the same key. When the queue is full the most told message goes: it has
    /// reached the most members, and push/pull or bulk sync tells the others.
    pub(crate) fn push(&mut self, key: Option<K>, bytes: Vec<u8>) {
        if let Some(old) = key.as_ref().and_then(|key| self.newest.remove(key)) {
            self.items.remove(&old);
        }
        while self.items.len() >= self.limit {
            self.forget_most_told();
        }
        self.added += 1;
        self.insert((0, Reverse(bytes.len()), Reverse(self.added)), Item { key, bytes });
    }

    /// Whether reckoning on with the numbers is safe.
    pub(crate) fn is_plausible(&self) -> bool {
        let fits = |(transmits, ..): &Rank| u64::from(*transmits) < MAX_COUNT >> 32;
        self.added < MAX_COUNT && self.items.keys().all(fits)
    }

    /// Whether a message with this key is still to be told.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.newest.contains_key(key)
    }

    fn insert(&mut self, rank: Rank, item: Item<K>) {
        if let Some(key) = &item.key {
            self.newest.insert(key.clone(), rank);
        }
        self.items.insert(rank, item);
    }

    fn forget_most_told(&mut self) {
        self.dropped += 1;
        if let Some((_, Item { key: Some(key), .. })) = self.items.pop_last() {
            self.newest.remove(&key);
        }
    }

    /// Takes messages for one packet: each costs `overhead` and its length out of `budget`, which shrinks by what was taken. At
    /// most `count` messages. A message that has been taken `limit` times is forgotten.
    pub(crate) fn take(&mut self, overhead: usize, budget: &mut usize, count: usize, limit: u32) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        let mut again = Vec::new();
        let mut from: Rank = (0, Reverse(usize::MAX), Reverse(u64::MAX));
        while taken.len() < count {
            let Some(room) = budget.checked_sub(overhead) else {
                break;
            };
            // Within a tier, what is longer than the room is passed over; the next tier starts from its longest again.
            from = from.max((from.0, Reverse(room), Reverse(u64::MAX)));
            let Some((&rank, item)) = self.items.range(from..).next() else {
                break;
            };
            if item.bytes.len() > room {
                from = (rank.0, Reverse(room), Reverse(u64::MAX));
                continue;
            }
            let Some(item) = self.items.remove(&rank) else { break };
            *budget -= overhead + item.bytes.len();
            taken.push(item.bytes.clone());
            again.push((rank, item));
            from = rank;
        }
        for ((transmits, length, age), item) in again {
            if transmits + 1 < limit {
                self.insert((transmits + 1, length, age), item);
            } else if let Some(key) = item.key {
                self.newest.remove(&key);
            }
        }
        taken
    }
}
