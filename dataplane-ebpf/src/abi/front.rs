//! `front_places`, `front_nodes`, `front_links`: what the load looks up, again, in arrays. A look-up in an array is a few instructions in
//! the program itself, one in a hash map a call of several functions.
//!
//! A slot holds one key of those that share it, or none; whoever finds another key there looks into the hash map. So the hash maps alone
//! decide, and a front may be as empty as it likes, but never says what they do not. To that end whoever writes a hash map empties the
//! key's slot first, and fills it afterwards. A slot is filled in two writes, the one that makes it valid last: the kernel copies a value
//! while programs read it.

use super::{Attachment, Endpoint, Node, OverlayAddress, Peer, Service, V4, V6, map_type};

/// Name of the map: array, [`PlaceSlot`]s.
pub const PLACES_NAME: &str = "front_places";
/// As many as there may be peers: addresses of one subnet do not share slots.
pub const PLACES: u32 = super::peer::MAX_ENTRIES;

/// Name of the map: array, [`NodeSlot`]s.
pub const NODES_NAME: &str = "front_nodes";
/// Half of what `nodes` may hold.
pub const NODES: u32 = 4096;

/// Name of the map: array, [`LinkSlot`]s.
pub const LINKS_NAME: &str = "front_links";
/// As many as there may be attachments.
pub const LINKS: u32 = super::attachment::MAX_ENTRIES;

const _: () = assert!(PLACES.is_power_of_two() && NODES.is_power_of_two() && LINKS.is_power_of_two());

/// [`PlaceSlot::kind`]: the slot is empty.
pub const NOTHING: u32 = 0;
/// [`PlaceSlot::kind`]: the address is in `peers`, and in neither of the others.
pub const PEER: u32 = 1;
/// [`PlaceSlot::kind`]: the address is in `endpoints`, and in neither of the others.
pub const ENDPOINT: u32 = 2;
/// [`PlaceSlot::kind`]: the address is in `services`, and in neither of the others.
pub const SERVICE: u32 = 3;

/// What the value of a slot has room for.
const VALUE: usize = 24;

/// What an IPv4 address of an overlay is, if it is one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct PlaceSlot {
    /// Which.
    pub key: OverlayAddress<V4>,
    /// [`PEER`], [`ENDPOINT`] or [`SERVICE`]; [`NOTHING`] if the slot is empty.
    pub kind: u32,
    /// Always zero.
    pub padding: u32,
    /// The entry of that map, and zeros.
    value: [u64; VALUE / 8],
}

/// The slot of an address.
#[inline(always)]
pub fn place_of(key: &OverlayAddress<V4>) -> u32 {
    // Odd and large, so that subnets of networks with neighbouring numbers do not begin at neighbouring slots.
    const SPREAD: u32 = 0x9e37_79b1;
    u32::from_be_bytes(key.ip).wrapping_add(key.vni().wrapping_mul(SPREAD)) & (PLACES - 1)
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident, $get:ident, $make:ident: $type:ty;)+) => {
        impl PlaceSlot {
            $(
                $(#[doc = $doc])+
                #[inline(always)]
                #[allow(unsafe_code)]
                pub fn $get(&self) -> Option<&$type> {
                    const { assert!(size_of::<$type>() <= VALUE && align_of::<$type>() <= align_of::<u64>()) };
                    if self.kind != $kind {
                        return None;
                    }
                    // SAFETY: the value begins with the bytes of an entry of this type, which is at most as large and as aligned, has no
                    // padding, and takes any bytes. Needed because a slot has room for one of several types.
                    Some(unsafe { &*(&raw const self.value).cast::<$type>() })
                }

                $(#[doc = $doc])+
                pub fn $make(key: OverlayAddress<V4>, entry: &$type) -> PlaceSlot {
                    let mut bytes = [0; VALUE];
                    bytes[..size_of::<$type>()].copy_from_slice(super::MapType::as_bytes(entry));
                    let mut value = [0; VALUE / 8];
                    for (word, bytes) in value.iter_mut().zip(bytes.as_chunks::<8>().0) {
                        *word = u64::from_ne_bytes(*bytes);
                    }
                    PlaceSlot { key, kind: $kind, padding: 0, value }
                }
            )+
        }
    };
}

kinds! {
    /// A remote endpoint.
    PEER, peer, of_peer: Peer;
    /// A local endpoint.
    ENDPOINT, endpoint, of_endpoint: Endpoint;
    /// A virtual IP.
    SERVICE, service, of_service: Service;
}

impl PlaceSlot {
    /// The same, but not valid.
    pub fn unmarked(&self) -> PlaceSlot {
        PlaceSlot { kind: NOTHING, ..*self }
    }
}

/// How to reach a VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct NodeSlot {
    /// The VTEP's address; `::` if the slot is empty.
    pub vtep: V6,
    /// The entry of `nodes`.
    pub node: Node,
}

/// The slot of a VTEP.
#[inline(always)]
pub fn node_of(vtep: &V6) -> u32 {
    u32::from_be_bytes(vtep.last_four()) & (NODES - 1)
}

impl NodeSlot {
    /// The same, but not valid.
    pub fn unmarked(&self) -> NodeSlot {
        NodeSlot {
            vtep: V6::UNSPECIFIED,
            ..*self
        }
    }
}

/// The overlay of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct LinkSlot {
    /// Index of the interface; 0, which none has, if the slot is empty.
    pub ifindex: u32,
    /// Always zero.
    pub padding: u32,
    /// The entry of `attachments`.
    pub attachment: Attachment,
}

/// The slot of an interface.
#[inline(always)]
pub fn link_of(ifindex: u32) -> u32 {
    ifindex & (LINKS - 1)
}

impl LinkSlot {
    /// The same, but not valid.
    pub fn unmarked(&self) -> LinkSlot {
        LinkSlot { ifindex: 0, ..*self }
    }
}

map_type!(PlaceSlot, 40);
map_type!(NodeSlot, 64);
map_type!(LinkSlot, 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{MapType, mapped};

    #[test]
    fn a_slot_gives_back_what_was_put_in_and_nothing_else() {
        let key = OverlayAddress::new(4096, [10, 0, 0, 2]);
        let peer = Peer {
            vtep: mapped([192, 168, 50, 2]),
            mac: [1, 2, 3, 4, 5, 6],
            flags: 7,
        };
        let endpoint = Endpoint {
            ifindex: 8,
            mac: [1, 2, 3, 4, 5, 6],
            flags: 9,
        };
        let slot = PlaceSlot::of_peer(key, &peer);
        assert_eq!((slot.key, slot.peer(), slot.endpoint()), (key, Some(&peer), None));
        assert_eq!(slot.unmarked().peer(), None);
        assert_eq!(PlaceSlot::from_bytes(slot.as_bytes()), Some(slot));
        let slot = PlaceSlot::of_endpoint(key, &endpoint);
        assert_eq!(
            (slot.endpoint(), slot.peer(), slot.service()),
            (Some(&endpoint), None, None)
        );
    }

    #[test]
    fn addresses_of_a_subnet_have_slots_of_their_own() {
        for (vni, first) in [
            (4096, [10, 0, 0, 0]),
            (4097, [10, 1, 255, 0]),
            (0x00ff_ffff, [172, 31, 0, 0]),
        ] {
            let first = u32::from_be_bytes(first);
            let mut taken = [false; PLACES as usize];
            for ip in first..first + PLACES {
                let slot = place_of(&OverlayAddress::new(vni, ip.to_be_bytes()));
                assert!(!core::mem::replace(&mut taken[slot as usize], true), "{vni} {ip:#x}");
            }
        }
    }
}
