//! `services`, `services6`: the virtual IPs.

use super::map_type;

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) of the VIP -> [`Service`].
///
/// A VIP is keyed by address alone, because Docker's VIPs carry every port and protocol to the same port of a backend.
pub const NAME: &str = "services";
/// Name of the map for IPv6.
pub const NAME6: &str = "services6";

/// Ten thousand services in use by one host is beyond what swarm users report (3,000).
pub const MAX_ENTRIES: u32 = 16_384;

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) of the VIP -> `u32`, how many connections were balanced so far.
/// Written by the kernel only: the round-robin position survives a change of the service's backends.
pub const ROTATION_NAME: &str = "rotations";
/// Name of the map of positions for IPv6.
pub const ROTATION_NAME6: &str = "rotations6";

/// A virtual IP. Its backends are in `backends`, slots 0 to `backend_count - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Service {
    /// How many slots are filled. Zero: the VIP has no backend.
    pub backend_count: u32,
    /// How a backend is chosen: [`POLICY_ROUND_ROBIN`], [`POLICY_MAGLEV`] or [`POLICY_LEAST_CONNECTIONS`].
    pub policy: u32,
    /// A client keeps its backend for so many seconds after its last new connection; 0: each connection is on its own.
    pub affinity_seconds: u32,
}

/// One backend after the other, a step for each new connection. A backend with a weight has so many slots.
pub const POLICY_ROUND_ROBIN: u32 = 0;
/// By the client's address and port, from the service's table in `maglev`; round robin until it has one.
pub const POLICY_MAGLEV: u32 = 1;
/// Of two slots drawn at random, the backend with fewer open connections.
pub const POLICY_LEAST_CONNECTIONS: u32 = 2;

map_type!(Service, 12);
