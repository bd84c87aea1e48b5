//! What the programs must know of a frame's Ethernet header, copied out of it.

use weft_dataplane::packet::{Ethernet, ethernet};

/// An Ethernet header. Aligned, because the verifier wants accesses to the stack aligned.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Frame {
    /// Source MAC.
    pub(super) source: [u8; 6],
    /// EtherType.
    pub(super) ethertype: [u8; 2],
    /// Whether it is for a group, or for all.
    pub(super) group: bool,
}

impl Frame {
    /// Copies a header.
    #[inline(always)]
    pub(super) fn of(header: &Ethernet) -> Frame {
        Frame {
            source: header.source,
            ethertype: header.ethertype,
            group: ethernet::is_group(header.destination),
        }
    }
}

/// A value on the stack at an address that accesses of any width are aligned at.
#[repr(C, align(8))]
pub(super) struct Aligned<T>(pub(super) T);
