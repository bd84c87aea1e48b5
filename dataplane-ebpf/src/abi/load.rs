//! `loads`, `weights`, and their twins: how much each backend of a virtual IP has to do, and how much it can take.

use super::{Ip, V4, V6, map_type};

/// Name of the map: hash, [`MemberKey`] -> `u32`, how many connections are open. Written by the kernel.
///
/// Counted are the connections of this node's endpoints: TCP until both sides have finished or one has reset, UDP until its time-out.
pub const NAME: &str = "loads";
/// Name of the map for IPv6.
pub const NAME6: &str = "loads6";

/// Name of the map: hash, [`MemberKey`] -> `u32`, weight. A backend without an entry has weight 1.
pub const WEIGHTS_NAME: &str = "weights";
/// Name of the map of weights for IPv6.
pub const WEIGHTS_NAME6: &str = "weights6";

/// The largest weight of a backend: as many slots of `backends` may one take.
pub const MAX_WEIGHT: u32 = 100;

/// An address that a virtual IP has to do with: a backend of it, or a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MemberKey<A: Ip = V4> {
    /// The virtual IP.
    pub vip: A,
    /// The address.
    pub ip: A,
    /// VNI of their network.
    pub vni: A::Vni,
}

impl<A: Ip> MemberKey<A> {
    /// The network.
    pub fn vni(&self) -> u32 {
        let vni: u64 = self.vni.into();
        vni as u32
    }
}

impl<A: Ip> PartialOrd for MemberKey<A> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// By network, then by virtual IP, then by address.
impl<A: Ip> Ord for MemberKey<A> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.vni, self.vip, self.ip).cmp(&(other.vni, other.vip, other.ip))
    }
}

/// Of two backends, whether the first has less to do for its weight, or as much.
#[inline(always)]
pub const fn is_lighter(load: u32, weight: u32, than_load: u32, than_weight: u32) -> bool {
    load as u64 * than_weight as u64 <= than_load as u64 * weight as u64
}

map_type!(MemberKey<V4>, 12);
map_type!(MemberKey<V6>, 40);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_counts_for_its_weight() {
        assert!(is_lighter(1, 1, 1, 1) && is_lighter(1, 1, 2, 1) && !is_lighter(2, 1, 1, 1));
        assert!(is_lighter(2, 2, 1, 1) && is_lighter(5, 3, 2, 1) && !is_lighter(5, 2, 2, 1));
        assert!(is_lighter(u32::MAX, 100, u32::MAX, 100));
    }
}
