//! `services`: the virtual IPs.

use super::map_type;

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) of the VIP -> [`Service`].
///
/// A VIP is keyed by address alone, because Docker's VIPs carry every port and protocol to the same port of a backend.
pub const NAME: &str = "services";

/// Ten thousand services in use by one host is beyond what swarm users report (3,000).
pub const MAX_ENTRIES: u32 = 16_384;

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) of the VIP -> `u32`, how many connections were balanced so far.
/// Written by the kernel only: the round-robin position survives a change of the service's backends.
pub const ROTATION_NAME: &str = "rotations";

/// A virtual IP. Its backends are in `backends`, slots 0 to `backend_count - 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Service {
    /// How many slots are filled. Zero: the VIP has no backend.
    pub backend_count: u32,
    /// How a backend is chosen: [`POLICY_ROUND_ROBIN`].
    pub policy: u32,
}

/// One backend after the other, a step for each new connection.
pub const POLICY_ROUND_ROBIN: u32 = 0;

map_type!(Service, 8);
