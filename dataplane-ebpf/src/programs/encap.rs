//! Puts a frame into VXLAN and sends it to the node that its destination lives on.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::maps;
use super::verdict::Verdict;
use weft_dataplane::abi::{Attachment, Counter, Node, Peer};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Udp, Vxlan, ethernet, hash, ipv4, vxlan};

/// Time to live of the outer header, the kernel's default.
const TTL: u8 = 64;

/// Sends the packet, an IPv4 packet behind an Ethernet header, to `peer`.
#[inline(always)]
pub(super) fn send(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram, peer: &Peer) -> Verdict {
    let Some(node) = maps::node(&peer.vtep) else {
        return Verdict::Drop(Counter::DropNoRoute);
    };
    let outer_length = packet.len() as usize - Ethernet::LENGTH + vxlan::OVERHEAD;
    if outer_length > usize::from(u16::MAX) || largest_packet(packet, datagram, outer_length) > node.mtu as usize {
        return Verdict::Drop(Counter::DropTooBig);
    }
    let port = hash::source_port(datagram.hash(packet));
    if packet.grow(vxlan::OVERHEAD).is_err() {
        return Verdict::Drop(Counter::DropAdjustRoom);
    }
    if write_headers(packet, attachment, peer, &node, port, outer_length as u16).is_none() {
        return Verdict::Drop(Counter::DropTruncated);
    }
    Verdict::Redirect(
        Counter::Encapsulated,
        packet.redirect_neigh(node.ifindex, node.next_hop),
    )
}

/// Length of the largest outer IPv4 packet that the packet, or its segments, will make.
#[inline(always)]
fn largest_packet(packet: &Packet, datagram: &Datagram, outer_length: usize) -> usize {
    match packet.gso_size() {
        0 => outer_length,
        segment => datagram.header_length + datagram.transport_length + segment as usize + vxlan::OVERHEAD,
    }
}

#[inline(always)]
fn write_headers(
    packet: &mut Packet,
    attachment: &Attachment,
    peer: &Peer,
    node: &Node,
    port: u16,
    outer_length: u16,
) -> Option<()> {
    let mut headers = packet.headers();
    let _outer_ethernet = headers.next::<Ethernet>()?;
    let ip = headers.next::<Ipv4>()?;
    let udp = headers.next::<Udp>()?;
    let tunnel = headers.next::<Vxlan>()?;
    let inner = headers.next::<Ethernet>()?;
    let mut outer = Ipv4 {
        version_ihl: [0x45],
        tos: [0],
        total_length: outer_length.to_be_bytes(),
        identification: [0; 2],
        fragment: ipv4::DONT_FRAGMENT.to_be_bytes(),
        ttl: [TTL],
        protocol: [ipv4::UDP],
        checksum: [0; 2],
        source: node.source,
        destination: peer.vtep,
    };
    outer.checksum = outer.computed_checksum();
    *ip = outer;
    *udp = Udp {
        source: port.to_be_bytes(),
        destination: maps::data_path_port(),
        length: (outer_length - Ipv4::LENGTH as u16).to_be_bytes(),
        // None (RFC 7348 section 5): the inner packet has its own.
        checksum: [0; 2],
    };
    *tunnel = Vxlan::new(attachment.vni);
    *inner = Ethernet {
        destination: peer.mac,
        source: attachment.mac,
        ethertype: ethernet::IPV4,
    };
    Some(())
}
