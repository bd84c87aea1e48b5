//! `attachments`: which overlay a local container's interface belongs to.

use super::{V4, V6, map_type};

/// Name of the map: hash, host-side ifindex (`u32`) -> [`Attachment`].
pub const NAME: &str = "attachments";

/// One entry per endpoint of this node. Linux hosts run a few hundred containers; 4096 leaves room for ten times that.
pub const MAX_ENTRIES: u32 = 4096;

/// What `overlay_egress` must know of the interface that a frame came from. A frame of an interface without an entry is
/// dropped, so an endpoint cannot leak before its maps are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Attachment {
    /// VXLAN network identifier of the network that the interface is connected to.
    pub vni: u32,
    /// The endpoint's own address: the only source address it may use.
    pub ip: V4,
    /// The network's gateway address, answered by ARP.
    pub gateway: V4,
    /// The endpoint's own MAC: the only source MAC it may use.
    pub mac: [u8; 6],
    /// The MAC that stands for the gateway and for every VIP of the network.
    pub gateway_mac: [u8; 6],
    /// The endpoint's own IPv6 address; `::` if it has none: then it may send no IPv6.
    pub ip6: V6,
    /// The network's IPv6 gateway address, answered by neighbour discovery; `::` if it has none.
    pub gateway6: V6,
}

map_type!(Attachment, 56);
