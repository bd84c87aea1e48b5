//! `nodes`: how to reach each VTEP over the underlay.

use super::map_type;

/// Name of the map: hash, VTEP address (`[u8; 4]`) -> [`Node`].
pub const NAME: &str = "nodes";

/// A few thousand hosts is the largest cluster that weft is built for.
pub const MAX_ENTRIES: u32 = 8192;

/// The underlay's answer for one VTEP, found by a route look-up in the host's table when the peer appears and whenever routes change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Node {
    /// The neighbour to hand the packet to: the gateway of the route, or the VTEP itself when it is on the link.
    pub next_hop: [u8; 4],
    /// Outer source address.
    pub source: [u8; 4],
    /// Device to send from.
    pub ifindex: u32,
    /// Path MTU towards the VTEP in bytes, outer headers included.
    pub mtu: u32,
}

map_type!(Node, 16);
