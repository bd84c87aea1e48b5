//! How maps that another contract version wrote become this version's: one row for each version that can be taken over from.
//!
//! A version whose maps only *grew* (keys and values got something at their end) needs no row in older weftds: it says in its pins who may
//! read them so ([`READABLE_BY`]).

use weft_core::wanted::MapContents;
#[cfg(feature = "next-abi")]
use weft_dataplane::abi::{FlowKey, V4, V6, flow};

/// An entry of a map, as bytes.
pub(super) type Bytes = (Vec<u8>, Vec<u8>);

/// Turns an entry into this version's; `None` leaves it out.
pub(super) type ConvertEntry = fn(key: &[u8], value: &[u8]) -> Option<Bytes>;

/// All entries of a map of the other version, by its name.
pub(super) type Read<'a> = dyn Fn(&str) -> Vec<Bytes> + 'a;

/// What the daemon writes.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "not every set of rows has both")]
pub(super) enum Control {
    /// Its maps are the same in both versions.
    Same,
    /// All of them are made anew, with this content.
    Anew(fn(&Read<'_>) -> MapContents),
}

/// What one other version takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    /// The version.
    pub(super) contract: u32,
    /// The daemon's maps.
    pub(super) control: Control,
    /// Maps that the kernel writes and whose bytes changed; those that are not named are the same.
    pub(super) entries: &'static [(&'static str, ConvertEntry)],
}

/// The table.
#[cfg(not(feature = "next-abi"))]
pub(super) const FROM: &[From] = &[From {
    // Its slots of places were larger: fronts are filled from what they stand before.
    contract: 3,
    control: Control::Same,
    entries: &[],
}];

/// The version that only tests build: the keys of its flows are longer.
#[cfg(feature = "next-abi")]
pub(super) const FROM: &[From] = &[From {
    contract: weft_dataplane::abi::ABI_VERSION - 1,
    control: Control::Same,
    entries: &[
        (flow::NAME, |key, value| {
            Some((grown(key, size_of::<FlowKey<V4>>()), value.to_vec()))
        }),
        (flow::NAME6, |key, value| {
            Some((grown(key, size_of::<FlowKey<V6>>()), value.to_vec()))
        }),
        (flow::RING_NAME, |key, value| {
            Some((key.to_vec(), grown(value, size_of::<FlowKey<V4>>())))
        }),
        (flow::RING_NAME6, |key, value| {
            Some((key.to_vec(), grown(value, size_of::<FlowKey<V6>>())))
        }),
    ],
}];

/// Bytes with zeros at their end.
#[cfg(feature = "next-abi")]
fn grown(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(length, 0);
    bytes
}

/// The oldest version that reads this version's maps by taking the beginning of each key and value: going back to it then loses nothing.
pub(super) const READABLE_BY: u32 = if cfg!(feature = "next-abi") {
    weft_dataplane::abi::ABI_VERSION - 1
} else {
    weft_dataplane::abi::ABI_VERSION
};

/// The row of a version.
pub(super) fn from(contract: u32) -> Option<&'static From> {
    FROM.iter().find(|from| from.contract == contract)
}
