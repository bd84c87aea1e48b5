//! `nodes`: how to reach each VTEP over the underlay.

use super::{V6, map_type};

/// Name of the map: hash, VTEP address (16 bytes, an IPv4 one [mapped](super::mapped)) -> [`Node`].
pub const NAME: &str = "nodes";

/// A few thousand hosts is the largest cluster that weft is built for.
pub const MAX_ENTRIES: u32 = 8192;

/// The underlay's answer for one VTEP, found by a route look-up in the host's table when the peer appears and whenever routes change.
/// IPv4 addresses are [mapped](super::mapped); all of a node's are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Node {
    /// The neighbour to hand the packet to: the gateway of the route, or the VTEP itself when it is on the link.
    pub next_hop: V6,
    /// Outer source address.
    pub source: V6,
    /// Device to send from.
    pub ifindex: u32,
    /// Path MTU towards the VTEP in bytes, outer headers included.
    pub mtu: u32,
    /// Family of the underlay: [`IPV4`] or [`IPV6`].
    pub family: u32,
    /// Always zero.
    pub padding: u32,
}

/// [`Node::family`]: IPv4.
pub const IPV4: u32 = 4;
/// [`Node::family`]: IPv6.
pub const IPV6: u32 = 6;

map_type!(Node, 48);
