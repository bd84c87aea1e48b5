//! `loads`, `weights`, and their twins: how much each backend of a virtual IP has to do, and how much it can take.

use super::{Ip, OverlayAddress, V4, V6, map_type};

/// Name of the map: hash, [`MemberKey`] -> `u32`, how many connections are open. Written by the kernel.
///
/// Counted are the connections of this node's endpoints that began while their virtual IP balances by them: TCP until both sides have
/// finished or one has reset, UDP until its time-out.
pub const NAME: &str = "loads";
/// Name of the map for IPv6.
pub const NAME6: &str = "loads6";

/// Name of the map: hash, [`MemberKey`] -> `u32`, weight. A backend without an entry has weight 1.
pub const WEIGHTS_NAME: &str = "weights";
/// Name of the map of weights for IPv6.
pub const WEIGHTS_NAME6: &str = "weights6";

/// Backends of all virtual IPs together that balance by open connections. Memory is taken as they come.
pub const MAX_ENTRIES: u32 = 16_384;

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
    /// The virtual IP inside its network.
    pub fn network_vip(&self) -> OverlayAddress<A> {
        OverlayAddress {
            ip: self.vip,
            vni: self.vni,
        }
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

/// The two slots of `count`, which is not zero, between which the connection of this turn is decided: as if drawn at random, and two different
/// ones if there are two (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
#[inline(always)]
pub const fn two_slots(turn: u32, count: u32) -> [u32; 2] {
    // A second draw of the first slot means its neighbour; both draws are one-to-one functions of the turn.
    let first = remainder(scattered(turn), count);
    let second = remainder(scattered(!turn), count);
    if first == second {
        [first, remainder(second.wrapping_add(1), count)]
    } else {
        [first, second]
    }
}

/// The finishing steps of MurmurHash3 (Appleby): every bit of the result depends on every bit of the number.
#[inline(always)]
const fn scattered(number: u32) -> u32 {
    let number = (number ^ number >> 16).wrapping_mul(0x85eb_ca6b);
    let number = (number ^ number >> 13).wrapping_mul(0xc2b2_ae35);
    number ^ number >> 16
}

/// Zero if `count` is: no division may panic in a program.
#[inline(always)]
const fn remainder(number: u32, count: u32) -> u32 {
    match number.checked_rem(count) {
        Some(remainder) => remainder,
        None => 0,
    }
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

    #[test]
    fn each_slot_is_drawn_as_often_as_any_other() {
        for count in [1, 2, 3, 10, 100] {
            let mut drawn = vec![0_u32; count as usize];
            for turn in 0..10_000 * count {
                let [first, second] = two_slots(turn, count);
                assert!(count == 1 || first != second);
                drawn[first as usize] += 1;
                drawn[second as usize] += 1;
            }
            assert!(
                drawn.iter().all(|times| (19_000..21_000).contains(times)),
                "{count}: {drawn:?}"
            );
        }
    }
}
