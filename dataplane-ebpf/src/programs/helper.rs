//! The kernel's helpers, in safe clothes. What moves a packet's bytes takes `&mut Packet`, so no header outlives it.
#![allow(unsafe_code)]

use super::cursor::Packet;
use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_DONT_FRAGMENT, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
    BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh,
    bpf_redir_neigh__bindgen_ty_1, bpf_tunnel_key, bpf_tunnel_key__bindgen_ty_1, bpf_tunnel_key__bindgen_ty_2,
    bpf_tunnel_key__bindgen_ty_3,
};
use aya_ebpf::helpers::{
    bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
    bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_change_type,
    bpf_skb_load_bytes, bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
};
use core::mem::offset_of;
use weft_dataplane::abi::{MapType, V6, flow, node};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ipv6, ethernet, vxlan};

/// Address family of IPv4.
const AF_INET: u32 = 2;
/// Address family of IPv6.
const AF_INET6: u32 = 10;
/// Flag of `bpf_l4_csum_replace`: the header that the pseudo-header stands for has no checksum of its own (Linux 6.16).
const BPF_F_IPV6: u64 = 1 << 7;

/// 1 if the kernel can take a header of one family off a packet of the other (Linux 6.3); the loader sets it.
#[unsafe(no_mangle)]
static HAS_DECAP_L3: Global<u8> = Global::new(0);
/// 1 if the kernel knows [`BPF_F_IPV6`]; the loader sets it.
#[unsafe(no_mangle)]
static HAS_CSUM_IPV6: Global<u8> = Global::new(0);

/// 0 if packets go to containers through the queues of their veths; the loader sets it.
#[unsafe(no_mangle)]
static HAS_REDIRECT_PEER: Global<u8> = Global::new(1);

/// Index of the vxlan device that encapsulates, 0 if the programs do; the loader sets it.
#[unsafe(no_mangle)]
static ENCAP_DEVICE: Global<u32> = Global::new(0);

/// `skb->pkt_type` of a frame for this host.
const PACKET_HOST: u32 = 0;

/// The kernel refused; the packet may have changed, so it can only be dropped.
pub(super) struct Refused;

#[inline(always)]
fn done(result: i64) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}

/// The vxlan device that encapsulates; `None` if the programs do.
#[inline(always)]
pub(super) fn encap_device() -> Option<u32> {
    match ENCAP_DEVICE.load() {
        0 => None,
        device => Some(device),
    }
}

/// What a vxlan device writes around a packet.
pub(super) struct Tunnel<'a> {
    pub(super) vni: u32,
    /// [`node::IPV4`] or [`node::IPV6`].
    pub(super) family: u32,
    pub(super) source: &'a V6,
    pub(super) destination: &'a V6,
    pub(super) traffic_class: u8,
    pub(super) ttl: u8,
    /// The flow label, if the family is IPv6.
    pub(super) label: u32,
}

/// Nanoseconds of `CLOCK_MONOTONIC`, as of the last timer tick: a few milliseconds old at most, which is a quarter of the price.
#[inline(always)]
pub(super) fn now_ns() -> u64 {
    // SAFETY: the helper has no arguments. Needed because it is foreign code.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The same in the ticks of flows.
#[inline(always)]
pub(super) fn now_ticks() -> u32 {
    flow::ticks(now_ns())
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
        if HAS_REDIRECT_PEER.load() != 0 && !self.is_for_host() {
            // Kernels before 6.15 leave the type as it is, and a frame for another host would not be taken in.
            // SAFETY: the context is valid. Needed because it is foreign code.
            unsafe { bpf_skb_change_type(self.skb, PACKET_HOST) };
        }
        self.redirect_peer_for_host(ifindex)
    }

    /// [`Packet::redirect_peer`] of a frame that is known to be for this host.
    #[inline(always)]
    pub(super) fn redirect_peer_for_host(&mut self, ifindex: u32) -> i32 {
        if HAS_REDIRECT_PEER.load() == 0 {
            return self.redirect(ifindex);
        }
        // SAFETY: plain integers. Needed because it is foreign code.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }

    /// Sends the packet out of `ifindex`: by the host side of a veth into the container. Returns the action.
    #[inline(always)]
    pub(super) fn redirect(&mut self, ifindex: u32) -> i32 {
        // SAFETY: plain integers. Needed because it is foreign code.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    /// Sends the packet out of `ifindex` to the neighbour `next_hop`, whose Ethernet header the kernel writes. Returns the action.
    #[inline(always)]
    pub(super) fn redirect_neigh(&mut self, family: u32, ifindex: u32, next_hop: &V6) -> i32 {
        let [a, b, c, d] = words_of(next_hop);
        let (nh_family, ipv6_nh) = if family == node::IPV6 {
            (AF_INET6, [a, b, c, d])
        } else {
            (AF_INET, [d, 0, 0, 0])
        };
        let mut params = bpf_redir_neigh {
            nh_family,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh },
        };
        // SAFETY: the parameters are valid, whole and live through the call. Needed because it is foreign code.
        unsafe { bpf_redirect_neigh(ifindex, &mut params, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
    }

    /// Makes room between the Ethernet and the IP header for an outer IP, UDP and tunnel header and an inner Ethernet header. These
    /// flags keep segmentation offload working; others lose bulk TCP silently.
    #[inline(always)]
    pub(super) fn grow(&mut self, underlay: u32) -> Result<(), Refused> {
        const FLAGS: u64 = (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
            as u64
            | (Ethernet::LENGTH as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;
        let (overhead, network) = if underlay == node::IPV6 {
            (vxlan::OVERHEAD6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)
        } else {
            (vxlan::OVERHEAD, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)
        };
        let flags = FLAGS | u64::from(network);
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_adjust_room(self.skb, overhead as i32, BPF_ADJ_ROOM_MAC, flags) })
    }

    /// Notes for the vxlan device what to write around the packet.
    #[inline(always)]
    pub(super) fn set_tunnel(&mut self, tunnel: &Tunnel<'_>) -> Result<(), Refused> {
        const FLAGS: u64 = (BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT) as u64;
        const SIZE: u32 = size_of::<bpf_tunnel_key>() as u32;
        const WITHOUT_SOURCE: u32 = offset_of!(bpf_tunnel_key, __bindgen_anon_3) as u32;
        let (remote_ipv6, local_ipv6, tunnel_label, network) = if tunnel.family == node::IPV6 {
            let (remote, local) = (words_of(tunnel.destination), words_of(tunnel.source));
            (remote, local, tunnel.label, BPF_F_TUNINFO_IPV6)
        } else {
            // In host order, as nowhere else.
            let [remote, local] = [tunnel.destination, tunnel.source].map(|it| u32::from_be_bytes(it.last_four()));
            ([remote, 0, 0, 0], [local, 0, 0, 0], 0, 0)
        };
        let mut key = bpf_tunnel_key {
            tunnel_id: tunnel.vni,
            __bindgen_anon_1: bpf_tunnel_key__bindgen_ty_1 { remote_ipv6 },
            tunnel_tos: tunnel.traffic_class,
            tunnel_ttl: tunnel.ttl,
            __bindgen_anon_2: bpf_tunnel_key__bindgen_ty_2 { tunnel_ext: 0 },
            tunnel_label,
            __bindgen_anon_3: bpf_tunnel_key__bindgen_ty_3 { local_ipv6 },
        };
        let flags = FLAGS | u64::from(network);
        // SAFETY: the context is valid, the key is valid, whole and lives through the call. Needed because it is foreign code.
        let set = |key: &mut bpf_tunnel_key, size| done(unsafe { bpf_skb_set_tunnel_key(self.skb, key, size, flags) });
        // Before Linux 5.19 the key ends before the source, which the route then tells.
        set(&mut key, SIZE).or_else(|_| set(&mut key, WITHOUT_SOURCE))
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

    /// Cuts the frame off after `length` bytes, or fills it up with zeros.
    #[inline(always)]
    pub(super) fn set_length(&mut self, length: usize) -> Result<(), Refused> {
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_change_tail(self.skb, length as u32, 0) })
    }

    /// Makes `overhead` bytes of room between the Ethernet and the IPv4 header, for headers that encapsulate nothing.
    #[inline(always)]
    pub(super) fn grow_plain(&mut self, overhead: usize) -> Result<(), Refused> {
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_adjust_room(self.skb, overhead as i32, BPF_ADJ_ROOM_MAC, 0) })
    }

    /// Takes `overhead` bytes away that follow the Ethernet header. If what follows then is of another family than what was taken away,
    /// `revealed` says which: the kernel's note of the packet's protocol changes with it.
    #[inline(always)]
    pub(super) fn shrink(&mut self, overhead: usize, revealed: Option<u32>) -> Result<(), Refused> {
        let (overhead, network) = match revealed {
            None => (overhead, 0),
            Some(family) if HAS_DECAP_L3.load() == 0 => (self.change_family(overhead, family)?, 0),
            Some(node::IPV6) => (overhead, BPF_F_ADJ_ROOM_DECAP_L3_IPV6),
            Some(_) => (overhead, BPF_F_ADJ_ROOM_DECAP_L3_IPV4),
        };
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | network);
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_adjust_room(self.skb, -(overhead as i32), BPF_ADJ_ROOM_MAC, flags) })
    }

    /// Makes the packet one of `family`, and its outer IP header as long as one of that family, whatever it holds: the whole outer header
    /// is taken away next. Returns its length, which was `overhead`.
    #[inline(always)]
    fn change_family(&mut self, overhead: usize, family: u32) -> Result<usize, Refused> {
        const DIFFERENCE: usize = Ipv6::LENGTH - Ipv4::LENGTH;
        let (ethertype, overhead) = if family == node::IPV6 {
            (ethernet::IPV6, overhead + DIFFERENCE)
        } else {
            (ethernet::IPV4, overhead - DIFFERENCE)
        };
        // SAFETY: the context is valid, no header is alive. Needed because it is foreign code.
        done(unsafe { bpf_skb_change_proto(self.skb, u16::from_ne_bytes(ethertype), 0) })?;
        Ok(overhead)
    }

    /// Reads what stands `place` bytes after the start of the frame.
    #[inline(always)]
    pub(super) fn read<T: MapType>(&mut self, place: u32, into: &mut T) -> Result<(), Refused> {
        let into: *mut T = into;
        // SAFETY: the context is valid, and so many bytes are there to be written, of a type for which any are valid. Needed because it
        // is foreign code.
        done(unsafe { bpf_skb_load_bytes(self.skb.cast(), place, into.cast(), size_of::<T>() as u32) })
    }

    /// Reads bytes that stand `place` bytes after the start of the frame.
    #[inline(always)]
    pub(super) fn read_bytes<const N: usize>(&mut self, place: u32, into: &mut [u8; N]) -> Result<(), Refused> {
        // SAFETY: the context is valid, and N bytes are there to be written. Needed because it is foreign code.
        done(unsafe { bpf_skb_load_bytes(self.skb.cast(), place, into.as_mut_ptr().cast(), N as u32) })
    }

    /// Writes bytes `place` bytes after the start of the frame; checksums are the caller's.
    #[inline(always)]
    pub(super) fn write_bytes<const N: usize>(&mut self, place: u32, from: &[u8; N]) -> Result<(), Refused> {
        // SAFETY: the context is valid, no header is alive, and N bytes are there to be read. Needed because it is foreign code.
        done(unsafe { bpf_skb_store_bytes(self.skb, place, from.as_ptr().cast(), N as u32, 0) })
    }

    /// What [`Packet::replace_pseudo_header`] wants to know of an IPv6 packet.
    #[inline(always)]
    pub(super) fn ipv6_checksum_flag() -> u64 {
        if HAS_CSUM_IPV6.load() == 0 { 0 } else { BPF_F_IPV6 }
    }

    /// Changes the transport's checksum, `place` bytes after the start of the frame, by the difference of its pseudo-header. A checksum of
    /// zero means "none" if `zero_is_none`.
    #[inline(always)]
    pub(super) fn replace_pseudo_header(
        &mut self,
        place: u32,
        difference: u32,
        zero_is_none: bool,
        flag: u64,
    ) -> Result<(), Refused> {
        let zero = if zero_is_none { BPF_F_MARK_MANGLED_0 } else { 0 };
        let flags = u64::from(BPF_F_PSEUDO_HDR | zero) | flag;
        // SAFETY: the context is valid, no header is alive, and the kernel checks the offset. Needed because it is foreign code, and
        // because only the kernel knows whether the checksum is complete or partial.
        done(unsafe { bpf_l4_csum_replace(self.skb, place, 0, u64::from(difference), flags) })
    }

    /// Changes a checksum without pseudo-header, `place` bytes after the start of the frame, by a difference.
    #[inline(always)]
    pub(super) fn replace_sum(&mut self, place: u32, difference: u32) -> Result<(), Refused> {
        // SAFETY: as in `replace_pseudo_header`.
        done(unsafe { bpf_l4_csum_replace(self.skb, place, 0, u64::from(difference), 0) })
    }

    /// Changes the transport's checksum as one of its ports changes.
    #[inline(always)]
    pub(super) fn replace_port(
        &mut self,
        place: u32,
        old: [u8; 2],
        new: [u8; 2],
        zero_is_none: bool,
    ) -> Result<(), Refused> {
        let zero = if zero_is_none { BPF_F_MARK_MANGLED_0 } else { 0 };
        let (from, to) = (u64::from(u16::from_ne_bytes(old)), u64::from(u16::from_ne_bytes(new)));
        // SAFETY: as in `replace_pseudo_header`.
        done(unsafe { bpf_l4_csum_replace(self.skb, place, from, to, u64::from(zero | 2)) })
    }
}

/// The four words of an address, in the order in which they lie in memory, whatever the byte order.
#[inline(always)]
fn words_of(address: &V6) -> [u32; 4] {
    let [[a, b], [c, d]] = address.halves().map(words);
    [a, b, c, d]
}

/// The two words of four bytes in eight, in the order in which they lie in memory.
#[inline(always)]
fn words(eight: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [eight as u32, (eight >> 32) as u32]
    } else {
        [(eight >> 32) as u32, eight as u32]
    }
}
