//! `peers`, `peers6`: where each remote endpoint lives. The shadow of `overlay_peer_table`.

use super::{V6, map_type};

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) -> [`Peer`].
pub const NAME: &str = "peers";
/// Name of the map for IPv6.
pub const NAME6: &str = "peers6";

/// A thousand hosts with a hundred containers each.
pub const MAX_ENTRIES: u32 = 131_072;

/// A remote endpoint. Aligned, so that it is copied in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct Peer {
    /// Address of the VTEP (RFC 7348 section 2) behind which the endpoint lives; an IPv4 one [mapped](super::mapped).
    pub vtep: V6,
    /// The endpoint's MAC.
    pub mac: [u8; 6],
    /// Bits of [`BACKEND`].
    pub flags: u16,
}

/// The endpoint stands behind a virtual IP, so a packet to it may meet a balanced connection between the same two ports.
pub const BACKEND: u16 = 1;

map_type!(Peer, 24);
