//! The kernel's helpers, in safe clothes. What moves a packet's bytes takes `&mut Packet`, so no header outlives it.
#![allow(unsafe_code)]

use super::cursor::Packet;
use aya_ebpf::bindings::{
    BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
    bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::{
    bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect_neigh,
    bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_store_bytes,
};
use weft_dataplane::packet::{Ethernet, Header};

/// Address family of IPv4.
const AF_INET: u32 = 2;
/// `skb->pkt_type` of a frame for this host.
const PACKET_HOST: u32 = 0;

/// The kernel refused; the packet may have changed, so it can only be dropped.
pub(super) struct Refused;

#[inline(always)]
fn done(result: i64) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(super) fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments. Needed because it is foreign code.
    unsafe { bpf_ktime_get_ns() }
}

/// A pseudo-random number.
#[inline(always)]
pub(super) fn random() -> u32 {
    // SAFETY: the helper has no arguments. Needed because it is foreign code.
    unsafe { bpf_get_prandom_u32() }
}

impl Packet {
    /// Hands the packet to the device behind the veth `ifindex`, in its namespace, as if it had come in there. Returns the action.
    #[inline(always)]
    pub(super) fn redirect_peer(&mut self, ifindex: u32) -> i32 {
        if !self.is_for_host() {
            // Kernels before 6.15 leave the type as it is, and a frame for another host would not be taken in.
            // SAFETY: the context is valid. Needed because it is foreign code.
            unsafe { bpf_skb_change_type(self.skb, PACKET_HOST) };
        }
        // SAFETY: plain integers. Needed because it is foreign code.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }

    /// Sends the packet out of `ifindex` to the neighbour `next_hop`, whose Ethernet header the kernel writes. Returns the action.
    #[inline(always)]
    pub(super) fn redirect_neigh(&mut self, ifindex: u32, next_hop: [u8; 4]) -> i32 {
        let mut address = [0; 4];
        address[0] = u32::from_ne_bytes(next_hop);
        let mut params = bpf_redir_neigh {
            nh_family: AF_INET,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: address },
        };
        // SAFETY: the parameters are valid, whole and live through the call. Needed because it is foreign code.
        unsafe { bpf_redirect_neigh(ifindex, &mut params, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
    }

    /// Makes `overhead` bytes of room between the Ethernet and the IPv4 header for an outer IPv4, UDP and tunnel header and an inner
    /// Ethernet header. These flags keep segmentation offload working; others lose bulk TCP silently.
    #[inline(always)]
    pub(super) fn grow(&mut self, overhead: usize) -> Result<(), Refused> {
        const FLAGS: u64 = (BPF_F_ADJ_ROOM_FIXED_GSO
            | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
            | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
            | BPF_F_ADJ_ROOM_ENCAP_L2_ETH) as u64
            | (Ethernet::LENGTH as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_adjust_room(self.skb, overhead as i32, BPF_ADJ_ROOM_MAC, FLAGS) })
    }

    /// Cuts the frame off after `length` bytes, or fails if it is shorter. What was to be segmented no longer is.
    #[inline(always)]
    pub(super) fn cut(&mut self, length: usize) -> Result<(), Refused> {
        if (self.len() as usize) < length {
            return Err(Refused);
        }
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_change_tail(self.skb, length as u32, 0) })
    }

    /// Makes `overhead` bytes of room between the Ethernet and the IPv4 header, for headers that encapsulate nothing.
    #[inline(always)]
    pub(super) fn grow_plain(&mut self, overhead: usize) -> Result<(), Refused> {
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_adjust_room(self.skb, overhead as i32, BPF_ADJ_ROOM_MAC, 0) })
    }

    /// Takes `overhead` bytes away that follow the Ethernet header.
    #[inline(always)]
    pub(super) fn shrink(&mut self, overhead: usize) -> Result<(), Refused> {
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe {
            bpf_skb_adjust_room(
                self.skb,
                -(overhead as i32),
                BPF_ADJ_ROOM_MAC,
                u64::from(BPF_F_ADJ_ROOM_FIXED_GSO),
            )
        })
    }

    /// Writes an address of the packet, which the checksum at `checksum_offset` of its transport covers by the pseudo-header, and the
    /// IPv4 header's own checksum. A transport checksum of zero means "none" if `zero_is_none`.
    #[inline(always)]
    pub(super) fn replace_address(&mut self, place: AddressPlace, old: [u8; 4], new: [u8; 4]) -> Result<(), Refused> {
        let (from, to) = (u64::from(u32::from_ne_bytes(old)), u64::from(u32::from_ne_bytes(new)));
        let zero = if place.zero_is_none { BPF_F_MARK_MANGLED_0 } else { 0 };
        let flags = u64::from(BPF_F_PSEUDO_HDR | zero | 4);
        // SAFETY: the context is valid, no header is alive, and the kernel checks the offsets. Needed because it is foreign code, and
        // because only the kernel knows whether the checksum is complete or partial.
        unsafe {
            done(bpf_l4_csum_replace(self.skb, place.transport_checksum, from, to, flags))?;
            done(bpf_l3_csum_replace(self.skb, place.ip_checksum, from, to, 4))?;
            done(bpf_skb_store_bytes(
                self.skb,
                place.address,
                (&raw const new).cast(),
                4,
                0,
            ))
        }
    }
}

/// Where an address and the checksums over it are: offsets from the start of the packet.
#[derive(Clone, Copy)]
pub(super) struct AddressPlace {
    /// The address itself.
    pub(super) address: u32,
    /// The IPv4 header's checksum.
    pub(super) ip_checksum: u32,
    /// The transport's checksum.
    pub(super) transport_checksum: u32,
    /// Whether a transport checksum of zero means that there is none, as in UDP.
    pub(super) zero_is_none: bool,
}
