//! `backends`, `backends6`: who stands behind each virtual IP.

use super::{V4, V6, map_type};

/// Name of the map: hash, [`BackendKey`] -> [`Backend`].
pub const NAME: &str = "backends";
/// Name of the map for IPv6.
pub const NAME6: &str = "backends6";

/// Ten backends for each of ten thousand services.
pub const MAX_ENTRIES: u32 = 131_072;

/// A slot of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct BackendKey<A = V4> {
    /// The virtual IP.
    pub vip: A,
    /// VNI of the service's network.
    pub vni: u32,
    /// 0 to `backend_count - 1`.
    pub slot: u32,
}

/// A backend: an endpoint of the same network, local or remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Backend<A = V4> {
    /// The endpoint's address.
    pub ip: A,
}

map_type!(BackendKey<V4>, 12);
map_type!(BackendKey<V6>, 24);
map_type!(Backend<V4>, 4);
map_type!(Backend<V6>, 16);
