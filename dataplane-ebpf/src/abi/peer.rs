//! `peers`: where each remote endpoint lives. The shadow of `overlay_peer_table`.

use super::map_type;

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) -> [`Peer`].
pub const NAME: &str = "peers";

/// A thousand hosts with a hundred containers each.
pub const MAX_ENTRIES: u32 = 131_072;

/// A remote endpoint. Aligned, so that it is copied in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct Peer {
    /// Address of the VTEP (RFC 7348 section 2) behind which the endpoint lives.
    pub vtep: [u8; 4],
    /// The endpoint's MAC.
    pub mac: [u8; 6],
    /// Always zero.
    pub padding: [u8; 2],
}

map_type!(Peer, 12);
