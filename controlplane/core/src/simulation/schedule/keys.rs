//! The rotation of keys, node by node, in the order that loses nothing: add, send with, forget.

use crate::networkdb::{Key, Keyring};
use std::collections::BTreeMap;

/// How many steps a rotation has.
const STEPS: u32 = 3;

/// How far each node is. No two are ever more than one step apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Rotation {
    first: u32,
    nodes: BTreeMap<usize, u32>,
}

impl Rotation {
    /// What the foremost nodes have, and those that start.
    pub(super) fn newest(&self) -> Keyring {
        keyring(self.first)
    }

    pub(super) fn started(&mut self, node: usize) {
        self.nodes.insert(node, self.first);
    }

    /// The next step: of a node that is behind, or of the first one to go on.
    pub(super) fn step(&mut self, running: &[usize]) -> Option<(usize, Keyring)> {
        let at = |node: &usize| self.nodes.get(node).copied().unwrap_or_default();
        let node = running.iter().copied().min_by_key(|node| at(node))?;
        let step = at(&node) + 1;
        self.first = self.first.max(step);
        self.nodes.insert(node, step);
        Some((node, keyring(step)))
    }
}

/// The keys after so many steps.
fn keyring(step: u32) -> Keyring {
    let (old, new) = (key(step / STEPS), key(step / STEPS + 1));
    match step % STEPS {
        0 => Keyring::new(old, Vec::new()),
        1 => Keyring::new(old, vec![new]),
        _ => Keyring::new(new, vec![old]),
    }
}

fn key(number: u32) -> Key {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Key::new(&bytes).expect("16 bytes are a key")
}
