//! TC ingress of an endpoint's host-side veth: out of a container, into the overlay.

use super::balance::{self, Choice, Place};
use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Family, Inet, Inet6, Refusal, Trouble};
use super::frame::Frame;
use super::verdict::Verdict;
use super::{clamp, encap, handover, icmp_error, local, maps, neighbor, neighbor6, plain, socket};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::{Attachment, Counter, Endpoint, Flow, Ip, OverlayAddress, Peer, jump};
use weft_dataplane::packet::{Ethernet, Header, ethernet, ipv4, ipv6, transport};

/// The program, which knows what makes up the load and nothing else: what it runs of stays in the processor's caches, where all of what
/// follows has no room beside the packet's own users.
#[classifier]
pub(super) fn overlay_egress(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    let Some(attachment) = maps::attachment_by_slot(&packet.ifindex()) else {
        return Verdict::Drop(Counter::DropNotAttached).action(&packet);
    };
    match plain::to_peer(&mut packet, attachment) {
        Some(verdict) => verdict.action(&packet),
        None => packet.go_on(jump::EGRESS4).action(&packet),
    }
}

/// Where [`overlay_egress`] goes on with all that is not plain, as far as IPv4 goes; IPv6 goes on in [`overlay_egress6`], which has a
/// stack of its own.
#[classifier]
pub(super) fn overlay_egress4(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle(&mut packet).action(&packet)
}

/// Where [`overlay_egress4`] goes on with an IPv6 packet.
#[classifier]
pub(super) fn overlay_egress6(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle6(&mut packet).action(&packet)
}

#[inline(always)]
fn handle6(packet: &mut Packet) -> Verdict {
    let Some(attachment) = maps::attachment(&packet.ifindex()) else {
        return Verdict::Drop(Counter::DropNotAttached);
    };
    let Some(frame) = packet.headers().next::<Ethernet>().map(|header| Frame::of(header)) else {
        return Verdict::Drop(Counter::DropTruncated);
    };
    packet_of::<Inet6>(packet, attachment, &frame)
}

/// Where [`overlay_egress4`] goes on with a packet of which more must be found out than of those that make up the load: one that opens a
/// balanced connection, or is refused, or needs an answer.
#[classifier]
pub(super) fn overlay_balance(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle_balanced::<Inet>(&mut packet).action(&packet)
}

/// The same for IPv6.
#[classifier]
pub(super) fn overlay_balance6(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle_balanced::<Inet6>(&mut packet).action(&packet)
}

#[inline(always)]
fn handle_balanced<F: Family>(packet: &mut Packet) -> Verdict {
    let Some(attachment) = maps::attachment(&packet.ifindex()) else {
        return Verdict::Drop(Counter::DropNotAttached);
    };
    let mut datagram = Datagram::default();
    match F::read(packet, Ethernet::LENGTH, &mut datagram) {
        Ok(()) => route_all::<F>(packet, attachment, &mut datagram),
        Err(counter) => Verdict::Drop(counter),
    }
}

#[inline(always)]
fn handle(packet: &mut Packet) -> Verdict {
    let Some(attachment) = maps::attachment(&packet.ifindex()) else {
        return Verdict::Drop(Counter::DropNotAttached);
    };
    packet.pull(Ethernet::LENGTH);
    let Some(frame) = packet.headers().next::<Ethernet>().map(|header| Frame::of(header)) else {
        return Verdict::Drop(Counter::DropTruncated);
    };
    match frame.ethertype {
        ethernet::IPV4 => packet_of::<Inet>(packet, attachment, &frame),
        ethernet::IPV6 => packet.go_on(jump::EGRESS6),
        ethernet::ARP => neighbor::answer(packet, attachment),
        _ => Verdict::Drop(Counter::DropUnknownProtocol),
    }
}

#[inline(always)]
fn packet_of<F: Family>(packet: &mut Packet, attachment: &Attachment, frame: &Frame) -> Verdict {
    let mut datagram = Datagram::default();
    if let Err(counter) = F::read(packet, Ethernet::LENGTH, &mut datagram) {
        return Verdict::Drop(counter);
    }
    if datagram.protocol == ipv6::ICMP
        && F::ICMP == ipv6::ICMP
        && let Some(verdict) = neighbor6::answer::<F>(packet, attachment, frame, &datagram)
    {
        return verdict;
    }
    // Before the source is looked at, because much of IPv6's comes from the link's own address.
    if frame.group || F::is_group(&datagram.destination) {
        return Verdict::Drop(Counter::DropMulticast);
    }
    if frame.source != attachment.mac || datagram.source != F::own(attachment) {
        return Verdict::Drop(Counter::DropSpoofedSource);
    }
    if datagram.ttl == 0 {
        let refusal = Refusal {
            from: F::gateway(attachment),
            trouble: Trouble::TimeExceeded,
            reason: Counter::DropTtlExpired,
        };
        return F::unreachable(packet, attachment, &datagram, &refusal);
    }
    if datagram.tcp_flags & transport::SYN != 0 {
        let peer = F::peer(&OverlayAddress::new(attachment.vni, datagram.destination));
        clamp::clamp::<F>(packet, &datagram, attachment.vni, peer.map(|peer| &peer.vtep));
    }
    route::<F>(packet, attachment, &datagram)
}

/// What makes up the load: packets to peers and neighbours, and those of known connections. Peers first: theirs is the path that most
/// packets take.
#[inline(always)]
fn route<F: Family>(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<F::Ip>) -> Verdict {
    let destination = OverlayAddress::new(attachment.vni, datagram.destination);
    if let Some(peer) = F::peer(&destination) {
        if balance::may_be_beside::<F>(attachment, datagram, peer.flags) {
            return handover::go_on_balancing::<F>(packet);
        }
        return encap::send::<F>(packet, attachment, datagram, peer);
    }
    if let Some(endpoint) = F::endpoint(&destination) {
        let beside = balance::may_be_beside::<F>(attachment, datagram, endpoint.flags);
        if beside || balance::may_be_reply::<F>(attachment.vni, datagram) {
            return handover::go_on_balancing::<F>(packet);
        }
        return local::deliver(packet, endpoint.ifindex, endpoint.mac, None, Counter::DeliveredLocally);
    }
    // The stack has no room for that, too, with addresses of 16 bytes.
    if !<F::Ip as Ip>::V6
        && F::service(&destination).is_some()
        && let Some(verdict) = balance::to_known_backend::<F>(packet, attachment, datagram)
    {
        return verdict;
    }
    handover::go_on_balancing::<F>(packet)
}

#[inline(always)]
fn route_all<F: Family>(packet: &mut Packet, attachment: &Attachment, datagram: &mut Datagram<F::Ip>) -> Verdict {
    let destination = OverlayAddress::new(attachment.vni, datagram.destination);
    if let Some(peer) = F::peer(&destination) {
        return match balance::beside::<F>(attachment, datagram, peer.flags) {
            Ok(flow) => send_or_go::<F>(packet, attachment, datagram, flow, peer),
            Err(counter) => Verdict::Drop(counter),
        };
    }
    if let Some(endpoint) = F::endpoint(&destination) {
        return match balance::beside::<F>(attachment, datagram, endpoint.flags) {
            Ok(Some(flow)) => {
                let place = Place::here(endpoint);
                balance::go::<F>(packet, attachment, datagram, &Choice { flow, place })
            }
            Ok(None) => to_endpoint::<F>(packet, attachment, datagram, endpoint),
            Err(counter) => Verdict::Drop(counter),
        };
    }
    if let Some(service) = F::service(&destination) {
        return balance::to_backend::<F>(packet, attachment, datagram, service);
    }
    if datagram.destination == F::gateway(attachment)
        && datagram.protocol == F::ICMP
        && let Some(answered) = F::echo(packet, attachment, datagram)
    {
        return answered;
    }
    to_nobody::<F>(packet, attachment, datagram)
}

/// Nobody has the address. A socket that got it for a virtual IP has lost its backend.
#[inline(never)]
fn to_nobody<F: Family>(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<F::Ip>) -> Verdict {
    if datagram.protocol == ipv4::TCP && socket::is_connected_to(packet, &datagram.destination) {
        return F::reset(packet, attachment, datagram, Counter::DropBackendGone);
    }
    Verdict::Drop(Counter::DropUnknownDestination)
}

#[inline(always)]
fn send_or_go<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    flow: Option<&'static Flow<F::Ip>>,
    peer: &'static Peer,
) -> Verdict {
    match flow {
        None => encap::send_apart::<F>(packet, attachment, datagram, peer),
        Some(flow) => {
            let place = Place::there(peer);
            balance::go::<F>(packet, attachment, datagram, &Choice { flow, place })
        }
    }
}

#[inline(always)]
fn to_endpoint<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    endpoint: &'static Endpoint,
) -> Verdict {
    let translated = if datagram.protocol == F::ICMP {
        icmp_error::from_backend::<F>(packet, attachment.vni, datagram)
    } else {
        balance::translate_reply::<F>(packet, attachment.vni, datagram)
    };
    match translated {
        Ok(()) => local::deliver(packet, endpoint.ifindex, endpoint.mac, None, Counter::DeliveredLocally),
        Err(counter) => Verdict::Drop(counter),
    }
}
