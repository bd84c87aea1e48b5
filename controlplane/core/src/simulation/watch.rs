//! When rows have arrived everywhere: exact to the event, without looking at every node again and again.

use crate::networkdb::Event;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// A row that is waited for.
#[derive(Clone, Debug)]
struct Waited {
    since: Instant,
    have: BTreeSet<usize>,
    /// Live members that lack it.
    lack: usize,
    took: Option<Duration>,
}

/// Who is a live member, and which rows are awaited at all of them. Keys name rows: one watch serves one table.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    members: BTreeSet<usize>,
    rows: BTreeMap<String, Waited>,
    waiting: usize,
}

impl Watch {
    /// From now on a node is a live member.
    pub fn member(&mut self, node: usize) {
        if self.members.insert(node) {
            for row in self.rows.values_mut().filter(|row| !row.have.contains(&node)) {
                row.lack += 1;
            }
        }
    }

    /// A node is a live member no more.
    pub fn gone(&mut self, now: Instant, node: usize) {
        if self.members.remove(&node) {
            for row in self.rows.values_mut().filter(|row| !row.have.contains(&node)) {
                row.lack -= 1;
                self.waiting -= row.finish(now);
            }
        }
    }

    /// A row is about to be written.
    pub fn row(&mut self, now: Instant, key: &str) {
        let row = Waited {
            since: now,
            have: BTreeSet::new(),
            lack: self.members.len(),
            took: None,
        };
        self.rows.insert(key.to_owned(), row);
        self.waiting += 1;
    }

    /// A row is not waited for any more: its writer is gone.
    pub fn forget(&mut self, key: &str) {
        if self.rows.remove(key).is_some_and(|row| row.took.is_none()) {
            self.waiting -= 1;
        }
    }

    /// How many rows have not been everywhere yet.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How long each row took to be at all live members at once; `None` if it has not been.
    pub fn times(&self) -> impl Iterator<Item = (&str, Option<Duration>)> {
        self.rows.iter().map(|(key, row)| (&**key, row.took))
    }

    pub(super) fn event(&mut self, now: Instant, node: usize, event: &Event) {
        if self.waiting == 0 {
            return;
        }
        let (key, has) = match event {
            Event::EntrySet { key, .. } => (key, true),
            Event::EntryGone { key, .. } => (key, false),
            Event::NodeUp { .. } | Event::NodeDown { .. } => return,
        };
        let Some(row) = self.rows.get_mut(key) else { return };
        let changed = if has {
            row.have.insert(node)
        } else {
            row.have.remove(&node)
        };
        if changed && self.members.contains(&node) {
            if has {
                row.lack -= 1;
            } else {
                row.lack += 1;
            }
            self.waiting -= row.finish(now);
        }
    }
}

impl Waited {
    /// How many rows are waited for no more: one if this was the last that this one lacked.
    fn finish(&mut self, now: Instant) -> usize {
        if self.lack > 0 || self.took.is_some() {
            return 0;
        }
        self.took = Some(now.saturating_since(self.since));
        1
    }
}
