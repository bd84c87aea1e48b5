//! The filter before the table of connections, see [`weft_dataplane::abi::filter`].
#![allow(unsafe_code)]

use super::maps::{self, atomic_or_64};
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use weft_dataplane::abi::filter::{self, FIRST, HALF, OFF};
use weft_dataplane::abi::{FlowKey, V4};

maps::maps! {
    "flow_filter" is filter::NAME, FLOW_FILTER: Array<u64> = Array::with_max_entries(filter::MAX_ENTRIES, BPF_F_MMAPABLE);
    "flow_filter_state" is filter::STATE_NAME, FLOW_FILTER_STATE: Array<u32> = Array::with_max_entries(filter::STATE_ENTRIES, 0);
}

/// Which half is in force.
#[inline(always)]
pub(super) fn state() -> u32 {
    // SAFETY: as in `maps::look_up!`.
    FLOW_FILTER_STATE.get_ptr(0).map_or(OFF, |state| unsafe { *state })
}

/// Whether there may be a connection with this key, or with its opposite.
#[inline(always)]
pub(super) fn may_know(key: &FlowKey<V4>) -> bool {
    may_know_by(state(), key)
}

/// [`may_know`], where the [`state`] is known.
#[inline(always)]
pub(super) fn may_know_by(state: u32, key: &FlowKey<V4>) -> bool {
    if state == OFF {
        return true;
    }
    let (word, mask) = filter::bits(key);
    let first = if state == FIRST { 0 } else { HALF };
    // SAFETY: as in `maps::look_up!`.
    FLOW_FILTER
        .get_ptr(first + word)
        .is_none_or(|word| unsafe { *word } & mask == mask)
}

/// A connection with this key is in the table now.
#[inline(always)]
pub(super) fn know(key: &FlowKey<V4>) {
    let (word, mask) = filter::bits(key);
    for first in [0, HALF] {
        if let Some(word) = FLOW_FILTER.get_ptr_mut(first + word) {
            // SAFETY: the word is in the map's entry and aligned. Needed because the entry is written in place.
            unsafe { atomic_or_64(word, mask) };
        }
    }
}
