//! `scratch`, `scratch6`: room for what a program's stack of 512 bytes has none for. Means nothing after a run.

/// Name of the map: per-CPU array with one entry.
pub const NAME: &str = "scratch";
/// Name of the map for IPv6.
pub const NAME6: &str = "scratch6";

/// Name of the map: per-CPU array with one entry, a connection about to be remembered.
pub const NEW_FLOW_NAME: &str = "new_flow";
/// Name of the map for IPv6.
pub const NEW_FLOW_NAME6: &str = "new_flow6";

/// Name of the map: per-CPU array with one entry, what the choice of a backend works with.
pub const CHOICE_NAME: &str = "choice";
/// Name of the map for IPv6.
pub const CHOICE_NAME6: &str = "choice6";

/// One a CPU.
pub const MAX_ENTRIES: u32 = 1;

/// Its size in bytes for IPv4.
pub const BYTES: u32 = 64;
/// Its size in bytes for IPv6.
pub const BYTES6: u32 = 136;
