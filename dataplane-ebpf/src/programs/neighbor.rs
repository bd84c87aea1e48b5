//! Answers a container's ARP requests out of the maps, so that none crosses the overlay.

use super::cursor::Packet;
use super::family::Inet;
use super::maps::FamilyMaps;
use super::verdict::Verdict;
use weft_dataplane::abi::{Attachment, Counter, OverlayAddress};
use weft_dataplane::packet::{Arp, Ethernet, Header};

/// Turns the request into its answer and hands it back to the container.
#[inline(always)]
pub(super) fn answer(packet: &mut Packet, attachment: &Attachment) -> Verdict {
    packet.pull(Ethernet::LENGTH + Arp::LENGTH);
    let mut headers = packet.headers();
    let (Some(ethernet), Some(arp)) = (headers.next::<Ethernet>(), headers.next::<Arp>()) else {
        return Verdict::Drop(Counter::DropTruncated);
    };
    if ethernet.source != attachment.mac {
        return Verdict::Drop(Counter::DropSpoofedSource);
    }
    if !arp.is_ipv4_request() {
        return Verdict::Drop(Counter::DropUnexpectedArp);
    }
    // A probe asks on behalf of no address yet (RFC 5227 section 1.1).
    if arp.sender_mac != attachment.mac || arp.sender_ip != attachment.ip && arp.sender_ip != [0; 4] {
        return Verdict::Drop(Counter::DropSpoofedSource);
    }
    if arp.target_ip == attachment.ip {
        return Verdict::Drop(Counter::DropUnexpectedArp);
    }
    let Some(mac) = mac_of(attachment, arp.target_ip) else {
        return Verdict::Drop(Counter::DropUnknownArpTarget);
    };
    *arp = arp.answer(mac);
    ethernet.destination = attachment.mac;
    ethernet.source = mac;
    Verdict::Redirect(Counter::ArpAnswered, packet.redirect_peer(packet.ifindex()))
}

#[inline(always)]
fn mac_of(attachment: &Attachment, ip: [u8; 4]) -> Option<[u8; 6]> {
    let address = OverlayAddress {
        vni: attachment.vni,
        ip,
    };
    if ip == attachment.gateway {
        return Some(attachment.gateway_mac);
    }
    if let Some(peer) = Inet::peer(&address) {
        return Some(peer.mac);
    }
    if let Some(endpoint) = Inet::endpoint(&address) {
        return Some(endpoint.mac);
    }
    Inet::service(&address).map(|_| attachment.gateway_mac)
}
