//! Answers a container's neighbour discovery (RFC 4861) out of the maps, so that none crosses the overlay.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Family, Inet6};
use super::frame::Frame;
use super::local;
use super::maps::FamilyMaps;
use super::verdict::Verdict;
use weft_dataplane::abi::{Attachment, Counter, Ip, OverlayAddress, V6};
use weft_dataplane::packet::{Ethernet, Header, Ipv6, LinkLayerAddress, Neighbor, checksum, icmpv6, ipv6};

/// Neighbour discovery comes from the link: nobody can have forwarded it (RFC 4861 section 7.1.1).
const HOP_LIMIT: u8 = 255;
/// An advertisement with the target's MAC.
const LENGTH: usize = Neighbor::LENGTH + LinkLayerAddress::LENGTH;
/// Types 133 to 137 are neighbour discovery's.
const DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

/// Turns a solicitation into its answer and hands it back to the container; `None` if the packet is no neighbour discovery.
#[inline(never)]
pub(super) fn answer<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    frame: &Frame,
    datagram: &Datagram<F::Ip>,
) -> Option<Verdict> {
    let offset = Ethernet::LENGTH + datagram.header_length;
    packet.pull(offset + Neighbor::LENGTH);
    let mut headers = packet.headers();
    headers.skip(offset);
    let neighbor = *headers.next::<Neighbor>()?;
    if !DISCOVERY.contains(&neighbor.kind[0]) {
        return None;
    }
    if frame.source != attachment.mac {
        return Some(Verdict::Drop(Counter::DropSpoofedSource));
    }
    if neighbor.kind != [icmpv6::SOLICITATION] || datagram.header_length != Ipv6::LENGTH || datagram.ttl != HOP_LIMIT {
        return Some(Verdict::Drop(Counter::DropUnexpectedNeighbor));
    }
    let source = datagram.source.mapped();
    // From `::` it asks whether somebody has its own address: nobody has. Else it comes from its address, or from the link's.
    let target = V6::new(neighbor.target);
    if source == V6::UNSPECIFIED || target == attachment.ip6 {
        return Some(Verdict::Drop(Counter::DropUnexpectedNeighbor));
    }
    if source != attachment.ip6 && !source.is_link_local() {
        return Some(Verdict::Drop(Counter::DropSpoofedSource));
    }
    let Some(mac) = mac_of(attachment, target) else {
        return Some(Verdict::Drop(Counter::DropUnknownNeighborTarget));
    };
    Some(match advertise(packet, &source, target, mac) {
        Some(()) => local::deliver(
            packet,
            packet.ifindex(),
            attachment.mac,
            Some(mac),
            Counter::NeighborAnswered,
        ),
        None => Verdict::Drop(Counter::DropTruncated),
    })
}

/// Writes the advertisement over the solicitation.
#[inline(always)]
fn advertise(packet: &mut Packet, to: &V6, target: V6, mac: [u8; 6]) -> Option<()> {
    packet.set_length(Ethernet::LENGTH + Ipv6::LENGTH + LENGTH).ok()?;
    packet.pull(Ethernet::LENGTH + Ipv6::LENGTH + LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let (ip, advertisement, option) = (
        headers.next::<Ipv6>()?,
        headers.next::<Neighbor>()?,
        headers.next::<LinkLayerAddress>()?,
    );
    *ip = Ipv6 {
        version_class_flow: [0x60, 0, 0, 0],
        payload_length: (LENGTH as u16).to_be_bytes(),
        next_header: [ipv6::ICMP],
        hop_limit: [HOP_LIMIT],
        source: target.octets(),
        destination: to.octets(),
    };
    let new = Neighbor {
        kind: [icmpv6::ADVERTISEMENT],
        code: [0],
        checksum: [0; 2],
        flags: icmpv6::SOLICITED_OVERRIDE,
        target: target.octets(),
    };
    *option = LinkLayerAddress {
        kind: [icmpv6::TARGET_MAC],
        length: [1],
        mac,
    };
    *advertisement = new;
    let start = checksum::pseudo_header6(&target, to, ipv6::ICMP, LENGTH as u16) + advertisement.sum() + option.sum();
    advertisement.checksum = checksum::finish(start).to_be_bytes();
    Some(())
}

#[inline(always)]
fn mac_of(attachment: &Attachment, ip: V6) -> Option<[u8; 6]> {
    let address = OverlayAddress::new(attachment.vni, ip);
    if ip == attachment.gateway6 {
        return Some(attachment.gateway_mac);
    }
    if let Some(peer) = Inet6::peer(&address) {
        return Some(peer.mac);
    }
    if let Some(endpoint) = Inet6::endpoint(&address) {
        return Some(endpoint.mac);
    }
    Inet6::service(&address).map(|_| attachment.gateway_mac)
}
