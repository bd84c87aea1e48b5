//! TC ingress of the uplink: out of the overlay, into a container. Whatever is not weft's passes untouched.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Family, Inet, Inet6};
use super::frame::Frame;
use super::verdict::Verdict;
use super::{decap, handover, maps, plain};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::{Counter, OverlayAddress, V6, jump, mapped, node};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ipv6, Udp, Vxlan, ethernet, ipv4, vxlan};

/// The program, which knows what makes up the load and nothing else, see [`overlay_egress`](super::overlay_egress::overlay_egress).
#[classifier]
pub(super) fn overlay_ingress(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    match plain::from_peer(&mut packet) {
        Some(verdict) => verdict.action(&packet),
        None => packet.go_on(jump::INGRESS4).action(&packet),
    }
}

/// Where [`overlay_ingress`] goes on with all that is not plain, as far as IPv4 inside goes; IPv6 goes on in [`overlay_ingress6`], which
/// has a stack of its own.
#[classifier]
pub(super) fn overlay_ingress4(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle::<false>(&mut packet).action(&packet)
}

/// Where [`overlay_ingress4`] goes on with IPv6 inside.
#[classifier]
pub(super) fn overlay_ingress6(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle::<true>(&mut packet).action(&packet)
}

/// The outer headers of a packet to the data path's port.
pub(super) struct Outer {
    /// The VTEP that sent it.
    pub(super) source: V6,
    /// Family of the underlay.
    pub(super) family: u32,
    /// Differentiated services and congestion notification.
    pub(super) traffic_class: u8,
    /// Length of the IP header.
    header_length: usize,
}

impl Outer {
    /// Length of all that is taken off after the Ethernet header.
    #[inline(always)]
    pub(super) fn overhead(&self) -> usize {
        if self.family == node::IPV6 {
            vxlan::OVERHEAD6
        } else {
            vxlan::OVERHEAD
        }
    }

    /// Whether the header has neither options nor extension headers.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.family == node::IPV6 || self.header_length == Ipv4::LENGTH
    }
}

#[inline(always)]
fn handle<const INNER_IPV6: bool>(packet: &mut Packet) -> Verdict {
    let Some(outer) = outer(packet) else {
        return Verdict::Pass;
    };
    if !outer.is_plain() {
        return with_options(packet, &outer);
    }
    let inner_frame = outer.overhead();
    packet.pull(inner_frame + Ethernet::LENGTH);
    let mut headers = packet.headers();
    headers.skip(inner_frame - Vxlan::LENGTH);
    let Some(tunnel) = headers.next::<Vxlan>().map(|header| *header) else {
        return Verdict::Pass;
    };
    let frame = headers.next::<Ethernet>().map(|header| Frame::of(header));
    match receive::<INNER_IPV6>(packet, &outer, &tunnel, frame) {
        Ok(verdict) => verdict,
        // Only now, because the hot path does without this look-up: is the network weft's at all?
        Err(counter) if maps::network(&tunnel.vni()).is_some() => Verdict::Drop(counter),
        Err(_) => Verdict::Ignored(Counter::PassedForeignVni),
    }
}

/// The outer headers, if the packet is an IP packet of this host's to the data path's port, and whole.
#[inline(always)]
fn outer(packet: &mut Packet) -> Option<Outer> {
    if packet.vlan_present() != 0 || !packet.is_for_host() {
        return None;
    }
    packet.pull(Ethernet::LENGTH + Ipv4::LENGTH + Udp::LENGTH);
    let mut headers = packet.headers();
    match headers.next::<Ethernet>()?.ethertype {
        ethernet::IPV4 => {}
        ethernet::IPV6 => return outer_ipv6(packet),
        _ => return None,
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
        source: mapped(ip.source),
        family: node::IPV4,
        traffic_class: ip.tos[0],
        header_length,
    })
}

/// VTEPs send no extension headers; what has some is not looked into.
#[inline(always)]
fn outer_ipv6(packet: &mut Packet) -> Option<Outer> {
    packet.pull(Ethernet::LENGTH + Ipv6::LENGTH + Udp::LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let ip = headers.next::<Ipv6>()?;
    if !ip.is_valid() || ip.next_header != [ipv4::UDP] {
        return None;
    }
    let outer = Outer {
        source: V6::new(ip.source),
        family: node::IPV6,
        traffic_class: ip.traffic_class(),
        header_length: Ipv6::LENGTH,
    };
    (headers.next::<Udp>()?.destination == maps::data_path_port()).then_some(outer)
}

/// Delivers the inner frame. An error is the reason to drop it, if its network is weft's.
#[inline(always)]
fn receive<const INNER_IPV6: bool>(
    packet: &mut Packet,
    outer: &Outer,
    tunnel: &Vxlan,
    frame: Option<Frame>,
) -> Result<Verdict, Counter> {
    if !tunnel.is_valid() {
        return Err(Counter::DropBadVxlan);
    }
    let frame = frame.ok_or(Counter::DropTruncated)?;
    match frame.ethertype {
        ethernet::IPV4 if !INNER_IPV6 => receive_packet::<Inet>(packet, outer, tunnel.vni(), &frame),
        ethernet::IPV6 if INNER_IPV6 => receive_packet::<Inet6>(packet, outer, tunnel.vni(), &frame),
        ethernet::IPV6 => Ok(packet.go_on(jump::INGRESS6)),
        _ => Err(Counter::DropInnerProtocol),
    }
}

#[inline(always)]
fn receive_packet<F: Family>(packet: &mut Packet, outer: &Outer, vni: u32, frame: &Frame) -> Result<Verdict, Counter> {
    let mut datagram = Datagram::default();
    F::read(packet, outer.overhead() + Ethernet::LENGTH, &mut datagram).map_err(|counter| match counter {
        Counter::DropUnknownProtocol => Counter::DropInnerProtocol,
        other => other,
    })?;
    let destination = OverlayAddress::new(vni, datagram.destination);
    let endpoint = F::endpoint(&destination).ok_or(Counter::DropNoEndpoint)?;
    let source = OverlayAddress::new(vni, datagram.source);
    if F::peer(&source).is_none_or(|peer| peer.vtep != outer.source) {
        return Err(Counter::DropUnknownPeer);
    }
    handover::of_reply::<F>(packet, vni, &datagram);
    Ok(decap::receive::<F>(
        packet,
        outer,
        vni,
        &datagram,
        frame.source,
        endpoint,
    ))
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
