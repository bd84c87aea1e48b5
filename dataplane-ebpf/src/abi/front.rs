//! `front_places`, `front_nodes`, `front_links`: what the load looks up, again, in arrays. A look-up in an array is a few instructions in
//! the program itself, one in a hash map a call of several functions.
//!
//! A slot holds one key of those that share it, or none; whoever finds another key there looks into the hash map. So the hash maps alone
//! decide, and a front may be as empty as it likes, but never says what they do not. To that end whoever writes a hash map empties the
//! key's slot first, and fills it afterwards. A slot is filled in two writes, the one that makes it valid last: the kernel copies a value
//! while programs read it.

use super::{Attachment, Endpoint, Node, OverlayAddress, Peer, V4, V6, map_type, unmapped};

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

/// Where [`PlaceSlot::kind`] is in the slot's first word, above the VNI.
const KIND_SHIFT: u32 = 56;

/// What an IPv4 address of an overlay is, if it is one thing. Sixteen bytes, so that four share a line of the caches and all of a large
/// network fit into them: with many peers nearly every packet meets another slot.
///
/// A slot has no room for a MAC, and says no more of a VTEP than an IPv4 address. Peers and endpoints whose MAC is not [the one of their
/// address](mac_of), which it is unless somebody chose another, and peers behind VTEPs of IPv6 are in the hash maps alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct PlaceSlot {
    /// The address, the VNI, and the kind.
    key: u64,
    /// Of a peer the VTEP, of an endpoint the index of its host-side veth.
    value: u32,
    /// The entry's flags.
    flags: u32,
}

/// The slot of an address.
#[inline(always)]
pub fn place_of(key: &OverlayAddress<V4>) -> u32 {
    // Odd and large, so that subnets of networks with neighbouring numbers do not begin at neighbouring slots.
    const SPREAD: u32 = 0x9e37_79b1;
    u32::from_be_bytes(key.ip).wrapping_add(key.vni().wrapping_mul(SPREAD)) & (PLACES - 1)
}

/// The MAC that an endpoint with this address has if nobody chose another (`spec/overlay-driver.md`).
#[inline(always)]
pub const fn mac_of([a, b, c, d]: V4) -> [u8; 6] {
    [0x02, 0x42, a, b, c, d]
}

impl PlaceSlot {
    /// A remote endpoint, if there is room for it.
    pub fn of_peer(key: OverlayAddress<V4>, peer: &Peer) -> Option<PlaceSlot> {
        let vtep = unmapped(peer.vtep).filter(|_| peer.mac == mac_of(key.ip))?;
        Some(PlaceSlot::new(key, PEER, u32::from_ne_bytes(vtep), peer.flags))
    }

    /// A local endpoint, if there is room for it.
    pub fn of_endpoint(key: OverlayAddress<V4>, endpoint: &Endpoint) -> Option<PlaceSlot> {
        let slot = PlaceSlot::new(key, ENDPOINT, endpoint.ifindex, endpoint.flags);
        (endpoint.mac == mac_of(key.ip)).then_some(slot)
    }

    /// A virtual IP.
    pub fn of_service(key: OverlayAddress<V4>) -> PlaceSlot {
        PlaceSlot::new(key, SERVICE, 0, 0)
    }

    fn new(key: OverlayAddress<V4>, kind: u32, value: u32, flags: u16) -> PlaceSlot {
        PlaceSlot {
            key: word_of(&key) | u64::from(kind) << KIND_SHIFT,
            value,
            flags: u32::from(flags),
        }
    }

    /// [`PEER`], [`ENDPOINT`] or [`SERVICE`]; [`NOTHING`] if the slot is empty.
    #[inline(always)]
    pub fn kind(&self) -> u32 {
        (self.key >> KIND_SHIFT) as u32
    }

    /// Whether the slot says what this address is.
    #[inline(always)]
    pub fn is_of(&self, key: &OverlayAddress<V4>) -> bool {
        self.kind() != NOTHING && self.unmarked().key == word_of(key)
    }

    /// Of a peer: its VTEP.
    #[inline(always)]
    pub fn vtep(&self) -> V4 {
        self.value.to_ne_bytes()
    }

    /// Of an endpoint: the index of its host-side veth.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.value
    }

    /// Of a peer or an endpoint: its flags.
    #[inline(always)]
    pub fn flags(&self) -> u16 {
        self.flags as u16
    }

    /// The same, but not valid.
    #[inline(always)]
    pub fn unmarked(&self) -> PlaceSlot {
        PlaceSlot {
            key: self.key & ((1 << KIND_SHIFT) - 1),
            ..*self
        }
    }
}

/// An address and its VNI, of 24 bits, in a word.
#[inline(always)]
fn word_of(key: &OverlayAddress<V4>) -> u64 {
    u64::from(u32::from_ne_bytes(key.ip)) | u64::from(key.vni() & 0x00ff_ffff) << 32
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

map_type!(PlaceSlot, 16);
map_type!(NodeSlot, 64);
map_type!(LinkSlot, 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{MapType, mapped};

    #[test]
    fn a_slot_gives_back_what_was_put_in_and_is_of_its_address_only() {
        let key = OverlayAddress::new(0x00ff_fffe, [10, 0, 0, 2]);
        let peer = Peer {
            vtep: mapped([192, 168, 50, 2]),
            mac: [2, 0x42, 10, 0, 0, 2],
            flags: 7,
        };
        let slot = PlaceSlot::of_peer(key, &peer).unwrap();
        assert_eq!((slot.kind(), slot.vtep(), slot.flags()), (PEER, [192, 168, 50, 2], 7));
        assert!(slot.is_of(&key));
        assert!(!slot.is_of(&OverlayAddress::new(0x00ff_ffff, key.ip)));
        assert!(!slot.is_of(&OverlayAddress::new(key.vni(), [10, 0, 0, 3])));
        assert!(!slot.unmarked().is_of(&key) && slot.unmarked().kind() == NOTHING);
        assert_eq!(PlaceSlot::from_bytes(slot.as_bytes()), Some(slot));
        let endpoint = Endpoint {
            ifindex: u32::MAX,
            mac: peer.mac,
            flags: 9,
        };
        let slot = PlaceSlot::of_endpoint(key, &endpoint).unwrap();
        assert_eq!((slot.kind(), slot.ifindex(), slot.flags()), (ENDPOINT, u32::MAX, 9));
        let slot = PlaceSlot::of_service(key);
        assert_eq!((slot.kind(), slot.is_of(&key)), (SERVICE, true));
        let empty = PlaceSlot::from_bytes(&[0; 16]).unwrap();
        assert!(!empty.is_of(&OverlayAddress::new(0, [0; 4])));
    }

    #[test]
    fn there_is_no_room_for_a_chosen_mac_or_a_vtep_of_ipv6() {
        let key = OverlayAddress::new(4096, [10, 0, 0, 2]);
        let peer = Peer {
            vtep: mapped([192, 168, 50, 2]),
            mac: [2, 0x42, 10, 0, 0, 3],
            flags: 0,
        };
        assert_eq!(PlaceSlot::of_peer(key, &peer), None);
        let peer = Peer {
            vtep: V6::new([0xfd; 16]),
            mac: mac_of(key.ip),
            flags: 0,
        };
        assert_eq!(PlaceSlot::of_peer(key, &peer), None);
        let endpoint = Endpoint {
            ifindex: 7,
            mac: [2, 0, 0, 0, 0, 1],
            flags: 0,
        };
        assert_eq!(PlaceSlot::of_endpoint(key, &endpoint), None);
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
