//! The link addresses that packets to other nodes are sent with, as long as the kernel's neighbour table vouches for them:
//! [`weft_dataplane::abi::neighbor`] says what an entry promises.

use super::expiry::now_ticks;
use super::maps::{Maps, MapsError, Slots};
use aya::Ebpf;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_dataplane::abi::flow::ticks_of_seconds;
use weft_dataplane::abi::{Neighbor, Node, V6, neighbor, node};

/// What a frame to a neighbour has for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddresses {
    /// The neighbour's.
    pub destination: [u8; 6],
    /// That of the device.
    pub source: [u8; 6],
}

/// The neighbours that the kernel would send to unasked: index of the device and address -> what a frame has then.
pub type Neighborhood = BTreeMap<(u32, Ipv4Addr), LinkAddresses>;

/// The map, and what is known of it.
pub(super) struct Neighbors {
    slots: Slots<Neighbor>,
    /// The nodes in the kernel, once they were read.
    nodes: Option<BTreeMap<V6, Node>>,
    filled: BTreeMap<u32, Neighbor>,
}

impl Neighbors {
    /// Takes the map out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Ok(Neighbors {
            slots: Slots::take(ebpf, neighbor::NAME)?,
            nodes: None,
            filled: BTreeMap::new(),
        })
    }

    /// Before a step on a node: what its slot says is of the earlier way.
    pub(super) fn leave(&mut self, step: &Step) -> Result<(), MapsError> {
        let (Step::Put(Entry::Node(vtep, _)) | Step::Remove(EntryKey::Node(vtep))) = step else {
            return Ok(());
        };
        let slot = neighbor::slot_of(vtep);
        // Perhaps an earlier daemon filled it.
        let content = self.slots.read(slot)?;
        if content.ifindex != 0 && content.vtep == vtep.last_four() {
            self.slots.write(slot, content.unmarked())?;
            self.filled.remove(&slot);
        }
        Ok(())
    }

    /// After a step on a node.
    pub(super) fn note(&mut self, step: &Step) {
        let Some(nodes) = &mut self.nodes else { return };
        match step {
            Step::Put(Entry::Node(vtep, node)) => {
                nodes.insert(*vtep, *node);
            }
            Step::Remove(EntryKey::Node(vtep)) => {
                nodes.remove(vtep);
            }
            _ => {}
        }
    }

    fn fill(&mut self, slot: u32, wanted: Neighbor) -> Result<(), MapsError> {
        if let Some(filled) = self.filled.get(&slot) {
            let same = Neighbor {
                until: wanted.until,
                ..*filled
            } == wanted;
            if same && wanted.until.wrapping_sub(filled.until) < ticks_of_seconds(REFRESH_SECONDS) {
                return Ok(());
            }
            if !same {
                self.empty(slot)?;
            }
        }
        self.slots.write(slot, wanted)?;
        self.filled.insert(slot, wanted);
        Ok(())
    }

    fn empty(&mut self, slot: u32) -> Result<(), MapsError> {
        if let Some(content) = self.filled.remove(&slot) {
            self.slots.write(slot, content.unmarked())?;
        }
        Ok(())
    }
}

/// How old an entry may become before it is written again.
const REFRESH_SECONDS: u32 = neighbor::SECONDS / 6;

/// Fills the slots of the nodes whose next hop is among the `known`, and empties the others.
pub(super) fn refresh(maps: &mut Maps, known: &Neighborhood) -> Result<(), MapsError> {
    if maps.neighbors.nodes.is_none() {
        maps.neighbors.nodes = Some(maps.read_nodes()?);
    }
    let until = now_ticks().wrapping_add(ticks_of_seconds(neighbor::SECONDS));
    let mut wanted = BTreeMap::new();
    for (vtep, node) in maps.neighbors.nodes.iter().flatten() {
        if node.family != node::IPV4 {
            continue;
        }
        if let Some(addresses) = known.get(&(node.ifindex, node.next_hop.last_four().into())) {
            // Of two nodes with one slot the first has it.
            wanted.entry(neighbor::slot_of(vtep)).or_insert(Neighbor {
                vtep: vtep.last_four(),
                ifindex: node.ifindex,
                until,
                destination: addresses.destination,
                source: addresses.source,
            });
        }
    }
    let filled: Vec<u32> = maps.neighbors.filled.keys().copied().collect();
    for slot in filled {
        if !wanted.contains_key(&slot) {
            maps.neighbors.empty(slot)?;
        }
    }
    for (slot, content) in wanted {
        maps.neighbors.fill(slot, content)?;
    }
    Ok(())
}
