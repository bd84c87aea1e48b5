//! `flows`: the balanced connections, both directions. Written by the kernel.

use super::map_type;

/// Name of the map: LRU hash, [`FlowKey`] -> [`Flow`].
pub const NAME: &str = "flows";

/// Two entries for each of 131,072 connections. When it is full, the least recently used connection is forgotten.
pub const MAX_ENTRIES: u32 = 262_144;

/// A packet of the flow as it arrives, before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey {
    /// VNI of the network.
    pub vni: u32,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// IANA protocol number: 6 or 17.
    pub protocol: u8,
    /// Always zero.
    pub padding: [u8; 3],
}

/// What becomes of a packet of the flow: its addresses are rewritten, its ports stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Flow {
    /// Time of the last packet, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_seen_ns: u64,
    /// Source address after translation.
    pub source: [u8; 4],
    /// Destination address after translation.
    pub destination: [u8; 4],
    /// Bits of [`CLOSING`] and [`REPLY`].
    pub flags: u32,
    /// Always zero.
    pub padding: u32,
}

/// The entry translates packets back from the backend; without it, from the client to the backend.
pub const REPLY: u32 = 1;
/// A FIN or RST was seen: a new SYN on the same ports is a new connection and chooses anew.
pub const CLOSING: u32 = 2;

map_type!(FlowKey, 20);
map_type!(Flow, 24);
