//! TC ingress of the uplink: out of the overlay, into a container. Whatever is not weft's passes untouched.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::verdict::Verdict;
use super::{decap, maps};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::{Counter, OverlayAddress};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Udp, Vxlan, ethernet, ipv4};

/// Where the inner frame starts when the outer IPv4 header has no options.
const INNER_FRAME: usize = Ethernet::LENGTH + Ipv4::LENGTH + Udp::LENGTH + Vxlan::LENGTH;

/// The program.
#[classifier]
pub(super) fn overlay_ingress(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle(&mut packet).action(&packet)
}

/// The outer headers of a packet to the data path's port.
struct Outer {
    source: [u8; 4],
    header_length: usize,
}

#[inline(always)]
fn handle(packet: &mut Packet) -> Verdict {
    let Some(outer) = outer(packet) else {
        return Verdict::Pass;
    };
    if outer.header_length != Ipv4::LENGTH {
        return with_options(packet, &outer);
    }
    packet.pull(INNER_FRAME + Ethernet::LENGTH);
    let mut headers = packet.headers();
    headers.skip(INNER_FRAME - Vxlan::LENGTH);
    let Some(tunnel) = headers.next::<Vxlan>().map(|header| *header) else {
        return Verdict::Pass;
    };
    let frame = headers.next::<Ethernet>().map(|header| *header);
    match receive(packet, &outer, &tunnel, frame) {
        Ok(verdict) => verdict,
        // Only now, because the hot path does without this look-up: is the network weft's at all?
        Err(counter) if maps::network(&tunnel.vni()).is_some() => Verdict::Drop(counter),
        Err(_) => Verdict::Ignored(Counter::PassedForeignVni),
    }
}

/// The outer headers, if the packet is an IPv4 packet of this host's to the data path's port, and whole.
#[inline(always)]
fn outer(packet: &mut Packet) -> Option<Outer> {
    if packet.vlan_present() != 0 || !packet.is_for_host() {
        return None;
    }
    packet.pull(Ethernet::LENGTH + Ipv4::LENGTH + Udp::LENGTH);
    let mut headers = packet.headers();
    if headers.next::<Ethernet>()?.ethertype != ethernet::IPV4 {
        return None;
    }
    let ip = *headers.next::<Ipv4>()?;
    if ip.protocol != [ipv4::UDP] || ip.is_fragment() {
        return None;
    }
    let header_length = ip.header_length()?;
    if header_length != Ipv4::LENGTH {
        packet.pull(Ethernet::LENGTH + header_length + Udp::LENGTH);
        headers = packet.headers();
        headers.skip(Ethernet::LENGTH + header_length);
    }
    if headers.next::<Udp>()?.destination != maps::data_path_port() {
        return None;
    }
    Some(Outer {
        source: ip.source,
        header_length,
    })
}

/// Delivers the inner frame. An error is the reason to drop it, if its network is weft's.
#[inline(always)]
fn receive(packet: &mut Packet, outer: &Outer, tunnel: &Vxlan, frame: Option<Ethernet>) -> Result<Verdict, Counter> {
    if !tunnel.is_valid() {
        return Err(Counter::DropBadVxlan);
    }
    let vni = tunnel.vni();
    let frame = frame.ok_or(Counter::DropTruncated)?;
    if frame.ethertype != ethernet::IPV4 {
        return Err(Counter::DropInnerProtocol);
    }
    let datagram = Datagram::read(packet, INNER_FRAME + Ethernet::LENGTH).map_err(|counter| match counter {
        Counter::DropUnknownProtocol => Counter::DropInnerProtocol,
        other => other,
    })?;
    let destination = OverlayAddress {
        vni,
        ip: datagram.destination,
    };
    let endpoint = maps::endpoint(&destination).ok_or(Counter::DropNoEndpoint)?;
    let source = OverlayAddress {
        vni,
        ip: datagram.source,
    };
    if maps::peer(&source).is_none_or(|peer| peer.vtep != outer.source) {
        return Err(Counter::DropUnknownPeer);
    }
    Ok(decap::receive(packet, vni, &datagram, frame.source, &endpoint))
}

/// VTEPs do not send IPv4 options; what does is not decapsulated.
#[inline(always)]
fn with_options(packet: &mut Packet, outer: &Outer) -> Verdict {
    let tunnel = Ethernet::LENGTH + outer.header_length + Udp::LENGTH;
    packet.pull(tunnel + Vxlan::LENGTH);
    let mut headers = packet.headers();
    headers.skip(tunnel);
    let Some(tunnel) = headers.next::<Vxlan>() else {
        return Verdict::Pass;
    };
    match maps::network(&tunnel.vni()) {
        Some(_) => Verdict::Drop(Counter::DropOuterOptions),
        None => Verdict::Ignored(Counter::PassedForeignVni),
    }
}
