//! Takes a frame out of VXLAN and delivers it.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::encap::ECN;
use super::family::{Family, Inet6};
use super::maps::FamilyMaps;
use super::overlay_ingress::Outer;
use super::verdict::Verdict;
use super::{balance, clamp, icmp_error, local};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::{Counter, Endpoint, Ip, OverlayAddress, jump, node};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ipv6};

/// Removes the outer headers, translates what answers a balanced connection, and delivers to `endpoint`.
#[inline(always)]
pub(super) fn receive<F: Family>(
    packet: &mut Packet,
    outer: &Outer,
    vni: u32,
    datagram: &Datagram<F::Ip>,
    source_mac: [u8; 6],
    endpoint: &Endpoint,
) -> Verdict {
    let inner = if <F::Ip as Ip>::V6 { node::IPV6 } else { node::IPV4 };
    let revealed = (inner != outer.family).then_some(inner);
    let congested = outer.traffic_class & ECN == ECN;
    if congested && datagram.traffic_class & ECN == 0 {
        // The inner packet cannot say so (RFC 6040 section 4.2).
        return Verdict::Drop(Counter::DropCongestionMark);
    }
    if packet.shrink(outer.overhead(), revealed).is_err() {
        return Verdict::Drop(Counter::DropAdjustRoom);
    }
    if inner != outer.family {
        let Some(ethernet) = packet.headers().next::<Ethernet>() else {
            return Verdict::Drop(Counter::DropTruncated);
        };
        ethernet.ethertype = F::ETHERTYPE;
    }
    if congested
        && datagram.traffic_class & ECN != ECN
        && let Err(counter) = mark_congestion::<F>(packet)
    {
        return Verdict::Drop(counter);
    }
    clamp::clamp::<F>(packet, datagram, vni, Some(&outer.source));
    if <F::Ip as Ip>::V6 {
        // The stack has no room for the translation, too, with addresses of 16 bytes.
        if balance::may_be_reply::<F>(vni, datagram) {
            return reply_of_another(packet, vni, source_mac);
        }
    } else if let Err(counter) = translate::<F>(packet, vni, datagram) {
        return Verdict::Drop(counter);
    }
    local::deliver(
        packet,
        endpoint.ifindex,
        endpoint.mac,
        Some(source_mac),
        Counter::Delivered,
    )
}

/// What answers a balanced connection comes from the virtual IP, and what is about it, too.
#[inline(always)]
fn translate<F: Family>(packet: &mut Packet, vni: u32, datagram: &Datagram<F::Ip>) -> Result<(), Counter> {
    if datagram.protocol == F::ICMP {
        icmp_error::from_backend::<F>(packet, vni, datagram)
    } else {
        balance::translate_reply::<F>(packet, vni, datagram)
    }
}

/// Leaves the packet, taken out of its tunnel, to [`overlay_reply6`].
#[inline(always)]
fn reply_of_another(packet: &mut Packet, vni: u32, source_mac: [u8; 6]) -> Verdict {
    let (Some(scratch), Some(ethernet)) = (Inet6::scratch(), packet.headers().next::<Ethernet>()) else {
        return Verdict::Drop(Counter::DropTruncated);
    };
    ethernet.source = source_mac;
    scratch.vni = u64::from(vni);
    packet.go_on(jump::REPLY6)
}

/// Where [`overlay_ingress6`](super::overlay_ingress) goes on with a packet, taken out of its tunnel, that may belong to a balanced
/// connection.
#[classifier]
pub(super) fn overlay_reply6(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle(&mut packet).action(&packet)
}

#[inline(always)]
fn handle(packet: &mut Packet) -> Verdict {
    let Some(scratch) = Inet6::scratch() else {
        return Verdict::Drop(Counter::DropNoProgram);
    };
    let vni = scratch.vni as u32;
    let mut datagram = Datagram::default();
    if let Err(counter) = Inet6::read(packet, Ethernet::LENGTH, &mut datagram) {
        return Verdict::Drop(counter);
    }
    let Some(endpoint) = Inet6::endpoint(&OverlayAddress::new(vni, datagram.destination)) else {
        return Verdict::Drop(Counter::DropNoEndpoint);
    };
    match translate::<Inet6>(packet, vni, &datagram) {
        Ok(()) => local::deliver(packet, endpoint.ifindex, endpoint.mac, None, Counter::Delivered),
        Err(counter) => Verdict::Drop(counter),
    }
}

/// The underlay met congestion: the inner packet says so (RFC 6040 section 4.2).
#[inline(always)]
fn mark_congestion<F: Family>(packet: &mut Packet) -> Result<(), Counter> {
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    if <F::Ip as Ip>::V6 {
        let ip = headers.next::<Ipv6>().ok_or(Counter::DropTruncated)?;
        ip.version_class_flow[1] |= ECN << 4;
    } else {
        let ip = headers.next::<Ipv4>().ok_or(Counter::DropTruncated)?;
        ip.set_tos(ip.tos[0] | ECN);
    }
    Ok(())
}
