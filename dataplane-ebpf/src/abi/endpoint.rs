//! `endpoints`, `endpoints6`: the endpoints of this node.

use super::map_type;

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) -> [`Endpoint`].
pub const NAME: &str = "endpoints";
/// Name of the map for IPv6.
pub const NAME6: &str = "endpoints6";

/// As many as `attachments`: each endpoint stands in both.
pub const MAX_ENTRIES: u32 = super::attachment::MAX_ENTRIES;

/// A local endpoint: where a packet for its address is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Endpoint {
    /// Index of the host-side veth.
    pub ifindex: u32,
    /// MAC of the container-side veth.
    pub mac: [u8; 6],
    /// Bits of [`peer::BACKEND`](super::peer::BACKEND).
    pub flags: u16,
}

map_type!(Endpoint, 12);
