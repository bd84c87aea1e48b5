//! Pools, subnets, addresses and VNIs: who may have which number, and which is next (`spec/ipam.md` 6.1 to 6.3).
//!
//! Nothing here is stored: all of it is computed again from the declared networks, services and allocations.

mod addresses;
mod pools;
mod vnis;

#[cfg(test)]
mod tests;

pub use addresses::{Addresses, Unavailable};
pub use pools::{DEFAULT_POOL, DEFAULT_POOL_MASK, InvalidPools, MAX_POOL_MASK, Pools};
pub use vnis::{FIRST_AUTOMATIC_VNI, Vnis};
