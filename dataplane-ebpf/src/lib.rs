//! The contract between the kernel's programs and the control plane.
//!
//! - [`abi`]: one file a map: its key, its value, its limit and why. Read it first: it is the vocabulary of the whole.
//! - [`packet`]: headers over bytes in network order, checksums and the port hash; used by the programs and by whoever builds or
//!   reads packets on the host.
//!
//! The programs themselves are in the binary of this package and are built for the BPF target only.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod packet;
