//! `maglev_tables`, `maglev`, `maglev_members`, and their twins: the look-up tables of virtual IPs that are balanced by the client
//! (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! A table lies in parts under a name that is made of its content, so a new one stands beside the old, and the one write of the virtual
//! IP's entry in `maglev_tables` puts it in force. Virtual IPs with the same backends share a table.

use super::map_type;

/// Name of the map: hash, [`OverlayAddress`](super::OverlayAddress) of the VIP -> [`MaglevTable`].
pub const TABLES_NAME: &str = "maglev_tables";
/// Name of the map for IPv6.
pub const TABLES_NAME6: &str = "maglev_tables6";

/// Name of the map: hash, [`MaglevKey`] of a part -> [`MaglevPart`]. Of both families.
pub const NAME: &str = "maglev";

/// Name of the map: hash, [`MaglevKey`] of a member -> [`Backend`](super::Backend).
pub const MEMBERS_NAME: &str = "maglev_members";
/// Name of the map for IPv6.
pub const MEMBERS_NAME6: &str = "maglev_members6";

/// Parts of all tables together: those of five hundred services of up to ten backends. Memory is taken as tables come.
pub const MAX_ENTRIES: u32 = 32_768;

/// How many entries of a table one part holds.
pub const PART: u32 = 64;

/// Which table a virtual IP has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct MaglevTable {
    /// A hash of its content.
    pub name: u64,
    /// How many entries it has: a prime number.
    pub size: u32,
    /// Zero.
    pub padding: u32,
}

/// Something of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct MaglevKey {
    /// The table.
    pub name: u64,
    /// A part: entries `index * PART` and those that follow. Or a member: what entries name.
    pub index: u32,
    /// Zero.
    pub padding: u32,
}

/// A part of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct MaglevPart {
    /// The member of each entry; zero behind the end of the table.
    pub members: [u16; PART as usize],
}

map_type!(MaglevTable, 16);
map_type!(MaglevKey, 16);
map_type!(MaglevPart, 2 * PART as usize);
