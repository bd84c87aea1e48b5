//! `namespaces`, `sockets`: balancing when a socket connects, where that is wanted. The connection then goes to its backend as any other,
//! and no packet of it is translated.
//!
//! A program sees whoever connects on this host; the cookie of the network namespace (Linux 5.14, `SO_NETNS_COOKIE`) tells which
//! endpoints the socket has. Whatever it does not know of, or has no room for, is balanced packet by packet.

use super::{V4, V6, map_type};

/// Name of the map: hash, [`NamespaceKey`] -> [`Seat`].
pub const NAMESPACES_NAME: &str = "namespaces";

/// Networks of one namespace whose virtual IPs are known to its sockets: few containers are on more than three.
pub const SEATS: u32 = 8;

/// Name of the map: hash, cookie of a socket -> [`Connected`]. Written by the kernel: an entry goes when its socket is closed.
pub const SOCKETS_NAME: &str = "sockets";

/// Connections through virtual IPs that the containers of this host have open at the same time; those beyond are balanced packet by
/// packet. `max-sockets` sets it.
pub const MAX_SOCKETS: u32 = 65_536;

/// One of the endpoints that a namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct NamespaceKey {
    /// The kernel's cookie of the namespace.
    pub cookie: u64,
    /// Counts the endpoints from zero, without a gap, up to [`SEATS`].
    pub slot: u32,
    /// Zero.
    pub padding: u32,
}

/// Where an endpoint stands in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Seat {
    /// VNI of the network.
    pub vni: u32,
    /// Its address.
    pub ip: V4,
    /// Its IPv6 address; `::` if it has none.
    pub ip6: V6,
}

/// A socket that connected to a virtual IP. IPv4 addresses are [mapped](super::mapped).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Connected {
    /// What it asked for.
    pub vip: V6,
    /// What it got.
    pub backend: V6,
}

map_type!(NamespaceKey, 16);
map_type!(Seat, 24);
map_type!(Connected, 32);
