//! `fragments`, `fragments6`: the ports of packets that come in fragments, of which only the first carries them. Written by the kernel.

use super::{V4, V6, map_type};

/// Name of the map: LRU hash, [`FragmentKey`] -> [`FragmentPorts`].
pub const NAME: &str = "fragments";
/// Name of the map for IPv6.
pub const NAME6: &str = "fragments6";

/// Packets under way in fragments, of all endpoints of the node: each lives for milliseconds.
pub const MAX_ENTRIES: u32 = 4096;

/// A packet that comes in fragments (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct FragmentKey<A = V4> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// As in a [`FlowKey`](super::FlowKey).
    pub network: u32,
    /// Its number, as it stands in the packet.
    pub identification: u32,
}

/// Its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct FragmentPorts {
    /// Source port.
    pub source: [u8; 2],
    /// Destination port.
    pub destination: [u8; 2],
}

map_type!(FragmentKey<V4>, 16);
map_type!(FragmentKey<V6>, 40);
map_type!(FragmentPorts, 4);
