//! How maps that another contract version wrote become this version's: one row for each version that can be taken over from.
//!
//! A version whose maps only *grew* (keys and values got something at their end) needs no row in older weftds: it says in its pins who may
//! read them so ([`READABLE_BY`]).

use weft_core::wanted::MapContents;

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
pub(super) const FROM: &[From] = &[];

/// The version that only tests build: the keys of its flows are longer.
#[cfg(feature = "next-abi")]
pub(super) const FROM: &[From] = &[From {
    contract: weft_dataplane::abi::ABI_VERSION - 1,
    control: Control::Same,
    entries: &[(weft_dataplane::abi::flow::NAME, |key, value| {
        let mut key = key.to_vec();
        // The protocol at its end became wider; it is in the host's order, of which tests know one.
        key.resize(size_of::<weft_dataplane::abi::FlowKey>(), 0);
        Some((key, value.to_vec()))
    })],
}];

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
