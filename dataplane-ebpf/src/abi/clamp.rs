//! `clamps`: the networks whose TCP connections are told what fits, at their start.

use super::map_type;

/// Name of the map: hash, VNI (`u32`) -> [`Clamp`].
pub const NAME: &str = "clamps";

/// One entry a network at most.
pub const MAX_ENTRIES: u32 = super::network::MAX_ENTRIES;

/// The MSS that a TCP segment with SYN announces (RFC 9293 section 3.7.1) is lowered to what fits into a packet of the network and, as far
/// as it is known, of the path to the peer. Networks without an entry are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Clamp {
    /// MTU inside the network in bytes.
    pub mtu: u32,
}

map_type!(Clamp, 4);
