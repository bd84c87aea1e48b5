//! Headers over bytes in network order: no alignment, no references into a packet, no allocation.
//!
//! A header is a `repr(C)` struct of byte arrays, so it has exactly the layout of the wire. Numbers come out of methods.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod hash;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod transport;
pub mod tunnel;
pub mod vxlan;

pub use arp::Arp;
pub use ethernet::Ethernet;
pub use icmp::Icmp;
pub use icmpv6::{Icmpv6, LinkLayerAddress, Neighbor, Quote6, QuoteTcp6};
pub use ipv4::{Ipv4, Quote, QuoteTcp};
pub use ipv6::{Extension, FragmentHeader, Ipv6};
pub use transport::{Ports, Tcp, Udp};
pub use tunnel::TunnelIpv4;
pub use vxlan::Vxlan;

/// A header whose bytes are its fields: alignment 1, no padding, every bit pattern valid.
///
/// Sealed: implemented by `header!` only, which checks the layout at compile time.
pub trait Header: sealed::Sealed + Copy + 'static {
    /// Length on the wire in bytes.
    const LENGTH: usize;

    /// Reads the header at the start of `bytes`; `None` if they are too few.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// Writes the header to the start of `bytes`; `None`, and nothing written, if they are too few.
    fn write(&self, bytes: &mut [u8]) -> Option<()>;
}

mod sealed {
    /// Keeps [`Header`](super::Header) in this module, so that the programs may rely on its layout.
    pub trait Sealed {}
}

/// Defines a header of byte arrays in wire order.
macro_rules! header {
    ($(#[doc = $doc:literal])+ $name:ident, $length:literal { $($(#[doc = $field_doc:literal])+ $field:ident: $size:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: [u8; $size],)+
        }

        const _: () = assert!(core::mem::size_of::<$name>() == $length && core::mem::align_of::<$name>() == 1);

        impl $crate::packet::sealed::Sealed for $name {}

        impl $crate::packet::Header for $name {
            const LENGTH: usize = $length;

            fn read(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                $(let $field; ($field, rest) = rest.split_first_chunk::<$size>()?;)+
                let _ = rest;
                Some($name { $($field: *$field,)+ })
            }

            fn write(&self, bytes: &mut [u8]) -> Option<()> {
                let mut rest = bytes.get_mut(..$length)?;
                $(let $field; ($field, rest) = rest.split_first_chunk_mut::<$size>()?; *$field = self.$field;)+
                let _ = rest;
                Some(())
            }
        }
    };
}
pub(crate) use header;
