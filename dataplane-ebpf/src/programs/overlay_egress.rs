//! TC ingress of an endpoint's host-side veth: out of a container, into the overlay.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::verdict::Verdict;
use super::{balance, encap, local, maps, neighbor};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::{Attachment, Counter, OverlayAddress};
use weft_dataplane::packet::{Ethernet, Header, ethernet};

/// The program.
#[classifier]
pub(super) fn overlay_egress(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle(&mut packet).action(&packet)
}

#[inline(always)]
fn handle(packet: &mut Packet) -> Verdict {
    let Some(attachment) = maps::attachment(&packet.ifindex()) else {
        return Verdict::Drop(Counter::DropNotAttached);
    };
    packet.pull(Ethernet::LENGTH);
    let Some(frame) = packet.headers().next::<Ethernet>().map(|header| *header) else {
        return Verdict::Drop(Counter::DropTruncated);
    };
    match frame.ethertype {
        ethernet::IPV4 => {}
        ethernet::ARP => return neighbor::answer(packet, &attachment),
        _ => return Verdict::Drop(Counter::DropUnknownProtocol),
    }
    let datagram = match Datagram::read(packet, Ethernet::LENGTH) {
        Ok(datagram) => datagram,
        Err(counter) => return Verdict::Drop(counter),
    };
    if frame.source != attachment.mac || datagram.source != attachment.ip {
        return Verdict::Drop(Counter::DropSpoofedSource);
    }
    if ethernet::is_group(frame.destination) || datagram.destination[0] >= 224 {
        return Verdict::Drop(Counter::DropMulticast);
    }
    route(packet, &attachment, &datagram)
}

/// Peers first: theirs is the path that most packets take.
#[inline(always)]
fn route(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram) -> Verdict {
    let destination = OverlayAddress {
        vni: attachment.vni,
        ip: datagram.destination,
    };
    if let Some(peer) = maps::peer(&destination) {
        balance::forget_reply_of_direct(attachment.vni, datagram);
        return encap::send(packet, attachment, datagram, &peer);
    }
    if let Some(endpoint) = maps::endpoint(&destination) {
        balance::forget_reply_of_direct(attachment.vni, datagram);
        if let Err(counter) = balance::translate_reply(packet, attachment.vni, datagram) {
            return Verdict::Drop(counter);
        }
        return local::deliver(packet, endpoint.ifindex, endpoint.mac, None, Counter::DeliveredLocally);
    }
    match maps::service(&destination) {
        Some(service) => balance::to_backend(packet, attachment, datagram, &service),
        None => Verdict::Drop(Counter::DropUnknownDestination),
    }
}
