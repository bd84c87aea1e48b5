//! The programs. Named by the overlay's direction, not by the hook's.

mod answer;
mod answer6;
mod balance;
mod clamp;
mod cursor;
mod datagram;
mod decap;
mod early;
mod encap;
mod family;
mod filter;
mod flows;
mod frame;
mod handover;
mod helper;
mod icmp_error;
mod local;
mod maps;
mod members;
mod neighbor;
mod neighbor6;
mod overlay_egress;
mod overlay_ingress;
mod plain;
mod policy;
mod quoted;
mod socket;
mod sweep;
mod translate;
mod verdict;

use weft_dataplane::abi::{ABI_MARK, ABI_VERSION};

/// What the loader compares with its own version before it loads anything.
#[repr(C)]
struct Abi {
    mark: [u8; 16],
    version: [u8; 4],
}

#[used]
#[allow(unsafe_code)]
// SAFETY: a name and a section of our own, which nothing else uses. Needed because the loader looks for them.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".weft_abi")]
static WEFT_ABI: Abi = Abi {
    mark: ABI_MARK,
    version: ABI_VERSION.to_le_bytes(),
};

/// `redirect_peer` and its kin are offered to programs under a licence that is compatible with the GPL.
#[used]
#[allow(unsafe_code)]
// SAFETY: the name and section that the kernel's loaders expect a licence at. Needed because they look there.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
