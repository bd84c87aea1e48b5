//! `backends`: who stands behind each virtual IP.

use super::map_type;

/// Name of the map: hash, [`BackendKey`] -> [`Backend`].
pub const NAME: &str = "backends";

/// Ten backends for each of ten thousand services.
pub const MAX_ENTRIES: u32 = 131_072;

/// A slot of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct BackendKey {
    /// VNI of the service's network.
    pub vni: u32,
    /// The virtual IP.
    pub vip: [u8; 4],
    /// 0 to `backend_count - 1`.
    pub slot: u32,
}

/// A backend: an endpoint of the same network, local or remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Backend {
    /// The endpoint's address.
    pub ip: [u8; 4],
}

map_type!(BackendKey, 12);
map_type!(Backend, 4);
