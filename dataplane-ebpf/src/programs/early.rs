//! The uplink's own verdict on VXLAN of weft's networks, before the kernel has made a packet of it: what
//! [`overlay_ingress`](super::overlay_ingress) would drop because nobody here has the address, or because its sender does not live where
//! it comes from, costs a host that is flooded with it a fraction this way. Everything else goes on, and is looked at there.
#![allow(unsafe_code)]

use super::family::{Family, Inet, Inet6};
use super::maps;
use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use weft_dataplane::abi::{Counter, OverlayAddress, V6, mapped};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ipv6, Udp, Vxlan, ethernet, ipv4};

/// This node's VTEP in two halves, as they lie in memory; the loader sets them. Zero: nothing is dropped here.
#[unsafe(no_mangle)]
static OWN_VTEP_HIGH: Global<u64> = Global::new(0);
/// The other half.
#[unsafe(no_mangle)]
static OWN_VTEP_LOW: Global<u64> = Global::new(0);

/// The program.
#[xdp(frags)]
pub(super) fn overlay_filter(context: XdpContext) -> u32 {
    match reason_to_drop(&context) {
        Some(counter) => {
            maps::count(counter);
            xdp_action::XDP_DROP
        }
        None => xdp_action::XDP_PASS,
    }
}

/// A header at a place that is known when this is compiled, if the frame's first buffer reaches so far.
#[inline(always)]
fn header<H: Header>(context: &XdpContext, offset: usize) -> Option<&'static H> {
    let start = context.data() + offset;
    if start + H::LENGTH > context.data_end() {
        return None;
    }
    // SAFETY: headers are byte arrays of any alignment, every bit pattern of which is valid, and the bytes are inside the frame, which
    // stays for the whole run. Needed because the context gives addresses.
    Some(unsafe { &*(start as *const H) })
}

#[inline(always)]
fn reason_to_drop(context: &XdpContext) -> Option<Counter> {
    match header::<Ethernet>(context, 0)?.ethertype {
        ethernet::IPV4 => {
            let ip = header::<Ipv4>(context, Ethernet::LENGTH)?;
            if ip.protocol != [ipv4::UDP] || ip.is_fragment() || ip.header_length()? != Ipv4::LENGTH {
                return None;
            }
            let (source, destination) = (mapped(ip.source), mapped(ip.destination));
            of_datagram(context, Ethernet::LENGTH + Ipv4::LENGTH, source, destination)
        }
        ethernet::IPV6 => {
            let ip = header::<Ipv6>(context, Ethernet::LENGTH)?;
            if ip.next_header != [ipv4::UDP] || !ip.is_valid() {
                return None;
            }
            let (source, destination) = (V6::new(ip.source), V6::new(ip.destination));
            of_datagram(context, Ethernet::LENGTH + Ipv6::LENGTH, source, destination)
        }
        _ => None,
    }
}

#[inline(always)]
fn of_datagram(context: &XdpContext, offset: usize, vtep: V6, destination: V6) -> Option<Counter> {
    // A host may carry others' VXLAN, of virtual machines that have networks of the same numbers.
    if destination.halves() != [OWN_VTEP_HIGH.load(), OWN_VTEP_LOW.load()] {
        return None;
    }
    if header::<Udp>(context, offset)?.destination != maps::data_path_port() {
        return None;
    }
    let tunnel = header::<Vxlan>(context, offset + Udp::LENGTH)?;
    if !tunnel.is_valid() {
        return None;
    }
    let vni = tunnel.vni();
    maps::network(&vni)?;
    let inner = offset + Udp::LENGTH + Vxlan::LENGTH;
    let packet = inner + Ethernet::LENGTH;
    match header::<Ethernet>(context, inner)?.ethertype {
        ethernet::IPV4 => {
            let ip = header::<Ipv4>(context, packet)?;
            ip.header_length()?;
            of_packet::<Inet>(vni, vtep, ip.source, ip.destination)
        }
        ethernet::IPV6 => {
            let ip = header::<Ipv6>(context, packet)?;
            if !ip.is_valid() {
                return None;
            }
            of_packet::<Inet6>(vni, vtep, V6::new(ip.source), V6::new(ip.destination))
        }
        _ => None,
    }
}

#[inline(always)]
fn of_packet<F: Family>(vni: u32, vtep: V6, source: F::Ip, destination: F::Ip) -> Option<Counter> {
    if F::endpoint(&OverlayAddress::new(vni, destination)).is_none() {
        return Some(Counter::DropNoEndpoint);
    }
    match F::peer(&OverlayAddress::new(vni, source)) {
        Some(peer) if peer.vtep == vtep => None,
        _ => Some(Counter::DropUnknownPeer),
    }
}
