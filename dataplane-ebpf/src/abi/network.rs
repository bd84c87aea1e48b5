//! `networks`: the overlays that this node takes part in.

use super::map_type;

/// Name of the map: hash, VNI (`u32`) -> [`Network`].
pub const NAME: &str = "networks";

/// One entry per network with an endpoint on this node; an endpoint has at least one, so the limit of `attachments` is enough.
pub const MAX_ENTRIES: u32 = super::attachment::MAX_ENTRIES;

/// Tells a VNI of weft's from another user's of the same UDP port: packets of a VNI without an entry pass untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Network {
    /// Gateway address of the subnet.
    pub gateway: [u8; 4],
    /// The MAC that stands for the gateway and for every VIP.
    pub gateway_mac: [u8; 6],
    /// Prefix length of the subnet, 0 to 32.
    pub prefix_len: u8,
    /// Always zero.
    pub padding: u8,
}

map_type!(Network, 12);
