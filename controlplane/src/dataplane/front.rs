//! The fronts of the hash maps, which the load looks up first: [`weft_dataplane::abi::front`] says what they promise.
//!
//! Around each step on a hash map: the key's slot is emptied before, and filled from the hash maps afterwards. So a front never says what
//! the hash maps do not, not even if the daemon dies between the two.

use super::maps::{Maps, MapsError, Slots};
use aya::Ebpf;
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_dataplane::abi::front::{self, LinkSlot, NodeSlot, PlaceSlot};
use weft_dataplane::abi::{OverlayAddress, V6};

/// All of them.
pub(super) struct Front {
    places: Slots<PlaceSlot>,
    nodes: Slots<NodeSlot>,
    links: Slots<LinkSlot>,
}

/// Whose slot it is.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// An IPv4 address of an overlay.
    Place(OverlayAddress),
    /// A VTEP.
    Node(V6),
    /// An interface.
    Link(u32),
}

impl Key {
    /// The key that a step is about, if it has a front.
    pub(super) fn of(step: &Step) -> Option<Key> {
        match *step {
            Step::Put(Entry::Peer(key, _)) | Step::Remove(EntryKey::Peer(key)) => Some(Key::Place(key)),
            Step::Put(Entry::Endpoint(key, _)) | Step::Remove(EntryKey::Endpoint(key)) => Some(Key::Place(key)),
            Step::Put(Entry::Service(key, _)) | Step::Remove(EntryKey::Service(key)) => Some(Key::Place(key)),
            Step::Put(Entry::Node(key, _)) | Step::Remove(EntryKey::Node(key)) => Some(Key::Node(key)),
            Step::Put(Entry::Attachment(key, _)) | Step::Remove(EntryKey::Attachment(key)) => Some(Key::Link(key)),
            _ => None,
        }
    }
}

impl Front {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Ok(Front {
            places: Slots::take(ebpf, front::PLACES_NAME)?,
            nodes: Slots::take(ebpf, front::NODES_NAME)?,
            links: Slots::take(ebpf, front::LINKS_NAME)?,
        })
    }

    /// Empties the key's slot, if the slot is the key's.
    pub(super) fn leave(&mut self, key: Key) -> Result<(), MapsError> {
        match key {
            Key::Place(key) => {
                let slot = front::place_of(&key);
                let content = self.places.read(slot)?;
                if content.is_of(&key) {
                    self.places.write(slot, content.unmarked())?;
                }
            }
            Key::Node(vtep) => {
                let slot = front::node_of(&vtep);
                let content = self.nodes.read(slot)?;
                if content.vtep == vtep {
                    self.nodes.write(slot, content.unmarked())?;
                }
            }
            Key::Link(ifindex) => {
                let slot = front::link_of(ifindex);
                let content = self.links.read(slot)?;
                if content.ifindex == ifindex {
                    self.links.write(slot, content.unmarked())?;
                }
            }
        }
        Ok(())
    }
}

/// Fills the key's slot from the hash maps, unless it is another's.
pub(super) fn enter(maps: &mut Maps, key: Key) -> Result<(), MapsError> {
    match key {
        Key::Place(key) => {
            let slot = front::place_of(&key);
            if maps.front.places.read(slot)?.kind() != front::NOTHING {
                return Ok(());
            }
            let all = (
                maps.peers.get(&key)?,
                maps.endpoints.get(&key)?,
                maps.services.get(&key)?,
            );
            let content = match all {
                (Some(peer), None, None) => PlaceSlot::of_peer(key, &peer),
                (None, Some(endpoint), None) => PlaceSlot::of_endpoint(key, &endpoint),
                (None, None, Some(_)) => Some(PlaceSlot::of_service(key)),
                _ => None,
            };
            if let Some(content) = content {
                maps.front.places.write(slot, content.unmarked())?;
                maps.front.places.write(slot, content)?;
            }
        }
        Key::Node(vtep) => {
            let slot = front::node_of(&vtep);
            if maps.front.nodes.read(slot)?.vtep != V6::UNSPECIFIED {
                return Ok(());
            }
            if let Some(node) = maps.nodes.get(&vtep)? {
                let content = NodeSlot { vtep, node };
                maps.front.nodes.write(slot, content.unmarked())?;
                maps.front.nodes.write(slot, content)?;
            }
        }
        Key::Link(ifindex) => {
            let slot = front::link_of(ifindex);
            if maps.front.links.read(slot)?.ifindex != 0 {
                return Ok(());
            }
            if let Some(attachment) = maps.attachments.get(&ifindex)? {
                let content = LinkSlot {
                    ifindex,
                    padding: 0,
                    attachment,
                };
                maps.front.links.write(slot, content.unmarked())?;
                maps.front.links.write(slot, content)?;
            }
        }
    }
    Ok(())
}

/// Fills the slots of all keys, where a front is new and the hash maps behind it are not.
pub(super) fn enter_all(maps: &mut Maps) -> Result<(), MapsError> {
    let present = maps.present()?;
    let places = present.endpoints.keys().chain(present.peers.keys());
    let places = places.chain(present.services.keys()).copied().map(Key::Place);
    let nodes = present.nodes.keys().copied().map(Key::Node);
    let links = present.attachments.keys().copied().map(Key::Link);
    for key in nodes.chain(links).chain(places) {
        enter(maps, key)?;
    }
    Ok(())
}
