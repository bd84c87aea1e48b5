//! Map keys, values, names and limits: everything that crosses the kernel line exists once, here.
//!
//! Addresses and ports are byte arrays in network order; other integers are in the host's order and explicitly padded.
//! Sizes are pinned at compile time, because the kernel compares keys byte by byte, padding included.

pub mod address;
pub mod affinity;
pub mod answer;
pub mod attachment;
pub mod backend;
pub mod clamp;
pub mod counter;
pub mod endpoint;
pub mod filter;
pub mod flow;
pub mod fragment;
pub mod front;
pub mod jump;
pub mod load;
pub mod maglev;
pub mod neighbor;
pub mod network;
pub mod node;
pub mod peer;
pub mod scratch;
pub mod service;
pub mod size;
pub mod socket;

pub use address::{Ip, OverlayAddress, V4, V6, mapped, unmapped};
pub use affinity::Affinity;
pub use attachment::Attachment;
pub use backend::{Backend, BackendKey};
pub use clamp::Clamp;
pub use counter::Counter;
pub use endpoint::Endpoint;
pub use flow::{Flow, FlowKey};
pub use fragment::{FragmentKey, FragmentPorts};
pub use load::MemberKey;
pub use maglev::{MaglevKey, MaglevPart, MaglevTable};
pub use neighbor::Neighbor;
pub use network::Network;
pub use node::Node;
pub use peer::Peer;
pub use service::Service;
pub use size::Sizes;
pub use socket::{Connected, NamespaceKey, Seat};

/// Raised whenever a map's key or value changes its bytes or its meaning. The object and the daemon must agree on it.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-abi") {
    RELEASED + 1
} else {
    RELEASED
};

/// The version without what only tests build.
const RELEASED: u32 = 4;

/// What stands before [`ABI_VERSION`] (four bytes, little-endian) in the object's section `.weft_abi`, so that a loader finds it.
pub const ABI_MARK: [u8; 16] = *b"weft-abi-version";

/// The IANA port of VXLAN (RFC 7348 section 5), the default of `data-path-port`.
pub const VXLAN_PORT: u16 = 4789;

/// Names of the programs in the object.
pub mod program {
    /// TC ingress of an endpoint's host-side veth: out of a container, into the overlay.
    pub const OVERLAY_EGRESS: &str = "overlay_egress";
    /// TC ingress of the uplink: out of the overlay, into a container.
    pub const OVERLAY_INGRESS: &str = "overlay_ingress";
    /// XDP of the uplink: what is dropped before the kernel has made a packet of it.
    pub const OVERLAY_FILTER: &str = "overlay_filter";
    /// Forgets balanced connections that have expired: attached nowhere, run by the daemon.
    pub const FLOW_SWEEP: &str = "flow_sweep";
    /// A cgroup: a socket of IPv4 connects.
    pub const OVERLAY_CONNECT4: &str = "overlay_connect4";
    /// A cgroup: a socket of IPv6 connects, perhaps to an IPv4 address.
    pub const OVERLAY_CONNECT6: &str = "overlay_connect6";
    /// A cgroup: a socket of IPv4 is asked who is at its other end.
    pub const OVERLAY_GETPEERNAME4: &str = "overlay_getpeername4";
    /// A cgroup: the same for IPv6.
    pub const OVERLAY_GETPEERNAME6: &str = "overlay_getpeername6";
    /// A cgroup: a socket is closed.
    pub const OVERLAY_RELEASE: &str = "overlay_release";
    /// Those that are attached to a cgroup.
    pub const OF_CGROUP: [&str; 5] = [
        OVERLAY_CONNECT4,
        OVERLAY_CONNECT6,
        OVERLAY_GETPEERNAME4,
        OVERLAY_GETPEERNAME6,
        OVERLAY_RELEASE,
    ];
}

/// Names of the read-only globals that the loader sets before loading.
pub mod global {
    /// `u16`: UDP port of the data path, host order.
    pub const DATA_PATH_PORT: &str = "DATA_PATH_PORT";
    /// `u32`: index of the vxlan device that encapsulates, 0 if the programs do (`bpf_skb_adjust_room`).
    pub const ENCAP_DEVICE: &str = "ENCAP_DEVICE";
    /// `u64`: first half of this node's VTEP as 16 bytes; zero, if the XDP program is to drop nothing.
    pub const OWN_VTEP_HIGH: &str = "OWN_VTEP_HIGH";
    /// `u64`: the other half.
    pub const OWN_VTEP_LOW: &str = "OWN_VTEP_LOW";
    /// `u32`: slots in the ring of IPv4 flows, as many as the map has.
    pub const RING_SIZE: &str = "RING_SIZE";
    /// `u32`: slots in the ring of IPv6 flows, as many as the map has.
    pub const RING_SIZE6: &str = "RING_SIZE6";
    /// `u8`: 1 if `bpf_skb_adjust_room` can take a header of one family off a packet of the other (Linux 6.3).
    pub const HAS_DECAP_L3: &str = "HAS_DECAP_L3";
    /// `u8`: 1 if packets are handed to a container by `bpf_redirect_peer`, 0 if by its veth's queue.
    pub const HAS_REDIRECT_PEER: &str = "HAS_REDIRECT_PEER";
    /// `u8`: 1 if `bpf_l4_csum_replace` knows of IPv6 (Linux 6.16).
    pub const HAS_CSUM_IPV6: &str = "HAS_CSUM_IPV6";
    /// `u32`, ticks: [`Timeouts::tcp_opening`](super::flow::Timeouts::tcp_opening).
    pub const TCP_OPENING_TICKS: &str = "TCP_OPENING_TICKS";
    /// `u32`, ticks: [`Timeouts::tcp_established`](super::flow::Timeouts::tcp_established).
    pub const TCP_ESTABLISHED_TICKS: &str = "TCP_ESTABLISHED_TICKS";
    /// `u32`, ticks: [`Timeouts::tcp_finished`](super::flow::Timeouts::tcp_finished).
    pub const TCP_FINISHED_TICKS: &str = "TCP_FINISHED_TICKS";
    /// `u32`, ticks: [`Timeouts::tcp_reset`](super::flow::Timeouts::tcp_reset).
    pub const TCP_RESET_TICKS: &str = "TCP_RESET_TICKS";
    /// `u32`, ticks: [`Timeouts::udp`](super::flow::Timeouts::udp).
    pub const UDP_TICKS: &str = "UDP_TICKS";
    /// `u32`, ticks: [`Timeouts::udp_answered`](super::flow::Timeouts::udp_answered).
    pub const UDP_ANSWERED_TICKS: &str = "UDP_ANSWERED_TICKS";
}

/// A type whose value is its bytes: fixed layout, no padding, every bit pattern valid.
///
/// Sealed by [`map_type!`], which is the only place that argues why the byte views are sound.
pub trait MapType: Copy + 'static {
    /// The value as the kernel stores it.
    fn as_bytes(&self) -> &[u8];
    /// Reads a value from exactly `size_of::<Self>()` bytes; `None` on any other length.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Implements [`MapType`] (and, with feature `user`, `aya::Pod`) for a type and pins its size.
macro_rules! map_type {
    ($type:ty, $size:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);

        #[allow(unsafe_code)]
        impl $crate::abi::MapType for $type {
            fn as_bytes(&self) -> &[u8] {
                // SAFETY: the type is `repr(C)` or an integer, without padding (its size is the sum of its fields, checked
                // above), so every byte is initialised. Needed because the map system calls take bytes.
                unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast::<u8>(), $size) }
            }

            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                if bytes.len() != $size {
                    return None;
                }
                // SAFETY: the length was checked, every bit pattern is a valid value, and the read does not need alignment.
                // Needed because the map system calls give bytes.
                Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast::<Self>()) })
            }
        }

        #[cfg(feature = "user")]
        #[allow(unsafe_code)]
        // SAFETY: same argument as for `MapType`: no padding, every bit pattern valid.
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use map_type;

macro_rules! integer_map_type {
    ($($type:ty, $size:literal;)+) => {
        $(
            impl MapType for $type {
                fn as_bytes(&self) -> &[u8] {
                    let this: *const $type = self;
                    // SAFETY: an integer has no padding. Needed because the map system calls take bytes.
                    #[allow(unsafe_code)]
                    unsafe {
                        core::slice::from_raw_parts(this.cast::<u8>(), $size)
                    }
                }

                fn from_bytes(bytes: &[u8]) -> Option<Self> {
                    bytes.try_into().ok().map(<$type>::from_ne_bytes)
                }
            }
        )+
    };
}

integer_map_type! {
    u32, 4;
    u64, 8;
}
