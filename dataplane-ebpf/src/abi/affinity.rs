//! `affinities`, `affinities6`: which backend a client had last, of virtual IPs with client affinity. Written by the kernel.

use super::{V4, V6, map_type};

/// Name of the map: LRU hash, [`MemberKey`](super::MemberKey) of the client -> [`Affinity`].
pub const NAME: &str = "affinities";
/// Name of the map for IPv6.
pub const NAME6: &str = "affinities6";

/// Containers of this node, each with the virtual IPs that it talks to. When it is full the client that was longest away is forgotten,
/// and gets whatever backend is next.
pub const MAX_ENTRIES: u32 = 8192;

/// The backend of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Affinity<A = V4> {
    /// Its address.
    pub backend: A,
    /// When the client's last connection began, see [`ticks`](super::flow::ticks).
    pub last_seen: u32,
    /// Zero.
    pub padding: u32,
}

impl<A> Affinity<A> {
    /// Whether it still holds at `now`, for so many ticks after the last connection. A clock that reads a little earlier on another CPU
    /// makes nothing old.
    #[inline(always)]
    pub fn holds(&self, ticks: u32, now: u32) -> bool {
        let idle = now.wrapping_sub(self.last_seen);
        idle >= u32::MAX / 2 || idle <= ticks
    }
}

map_type!(Affinity<V4>, 12);
map_type!(Affinity<V6>, 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_until_its_time_is_over() {
        let affinity = Affinity {
            backend: [10, 0, 0, 3],
            last_seen: 100,
            padding: 0,
        };
        assert!(affinity.holds(60, 160) && !affinity.holds(60, 161) && affinity.holds(60, 99));
    }
}
