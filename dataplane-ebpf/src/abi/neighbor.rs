//! `neighbors`: what is written into the outer Ethernet header of packets to a VTEP over IPv4, while it is known.
//!
//! An entry says what the kernel's neighbour table says, and only while that would use it unasked itself (`NUD_CONNECTED`); without
//! one, or after its time, a packet is left to the kernel's neighbour, who asks (RFC 826). The time is short, because a daemon that died
//! takes nothing back.

use super::{V4, V6, front, map_type};

/// Name of the map: array, [`slot_of`] a VTEP -> [`Neighbor`].
pub const NAME: &str = "neighbors";
/// As many as there are slots for nodes.
pub const MAX_ENTRIES: u32 = front::NODES;

/// For how long an entry holds, in seconds: the kernel's own base for a neighbour that was reachable (`base_reachable_time_ms`).
pub const SECONDS: u32 = 30;

/// The link addresses of the neighbour to which packets for a VTEP are handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Neighbor {
    /// The VTEP.
    pub vtep: V4,
    /// Index of the device that the addresses are of: that of the way to the node; 0 if the slot is empty.
    pub ifindex: u32,
    /// When it stops to hold, see [`ticks`](super::flow::ticks).
    pub until: u32,
    /// The neighbour's address.
    pub destination: [u8; 6],
    /// The device's own.
    pub source: [u8; 6],
}

impl Neighbor {
    /// The same, but of no device. A program that has just looked still reads addresses that held until now.
    pub fn unmarked(&self) -> Neighbor {
        Neighbor { ifindex: 0, ..*self }
    }

    /// Whether it is that of this VTEP on this device, and holds now.
    #[inline(always)]
    pub fn holds(&self, vtep: V4, ifindex: u32, now: u32) -> bool {
        self.vtep == vtep && self.ifindex == ifindex && self.until.wrapping_sub(now) <= u32::MAX / 2
    }
}

/// The slot of a VTEP.
#[inline(always)]
pub fn slot_of(vtep: &V6) -> u32 {
    front::node_of(vtep)
}

map_type!(Neighbor, 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_until_its_time_and_for_its_own_only() {
        let entry = Neighbor {
            vtep: [192, 168, 50, 2],
            ifindex: 7,
            until: 5,
            destination: [2; 6],
            source: [4; 6],
        };
        for (vtep, ifindex, now, holds) in [
            ([192, 168, 50, 2], 7, 4, true),
            ([192, 168, 50, 2], 7, 5, true),
            ([192, 168, 50, 2], 7, 6, false),
            // The clock's 32 bits went round between the two.
            ([192, 168, 50, 2], 7, u32::MAX, true),
            ([192, 168, 50, 3], 7, 4, false),
            ([192, 168, 50, 2], 8, 4, false),
        ] {
            assert_eq!(entry.holds(vtep, ifindex, now), holds, "{vtep:?} {ifindex} {now}");
        }
        assert!(!entry.unmarked().holds(entry.vtep, entry.ifindex, 4));
    }
}
