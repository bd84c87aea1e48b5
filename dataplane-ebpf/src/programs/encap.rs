//! Puts a frame into VXLAN and sends it to the node that its destination lives on.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::verdict::Verdict;
use super::{answer, maps};
use weft_dataplane::abi::{Attachment, Counter, Node, Peer};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Udp, Vxlan, ethernet, hash, icmp, ipv4, vxlan};

/// Time to live of the outer header, the kernel's default.
const TTL: u8 = 64;

/// Sends the packet, an IPv4 packet behind an Ethernet header, to `peer`.
#[inline(always)]
pub(super) fn send(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram, peer: &Peer) -> Verdict {
    let node = match way(packet, datagram, peer) {
        Ok(node) => node,
        Err(refused) => return tell(packet, attachment, datagram, refused),
    };
    send_by(packet, attachment, datagram, peer, &node)
}

/// Sends the packet, which fits, by a known [`way`].
#[inline(always)]
pub(super) fn send_by(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram,
    peer: &Peer,
    node: &Node,
) -> Verdict {
    let outer_length = outer_length(packet);
    let port = hash::source_port(datagram.hash(packet));
    if packet.grow(vxlan::OVERHEAD).is_err() {
        return Verdict::Drop(Counter::DropAdjustRoom);
    }
    if write_headers(packet, attachment, peer, node, port, outer_length as u16).is_none() {
        return Verdict::Drop(Counter::DropTruncated);
    }
    Verdict::Redirect(
        Counter::Encapsulated,
        packet.redirect_neigh(node.ifindex, node.next_hop),
    )
}

/// Why a packet does not go to its peer.
pub(super) enum NoWay {
    /// The underlay has no route.
    NoRoute,
    /// It does not fit: the MTU of the way, outer header included.
    TooBig(u32),
}

/// The way to the peer, if the packet fits it.
#[inline(always)]
pub(super) fn way(packet: &Packet, datagram: &Datagram, peer: &Peer) -> Result<Node, NoWay> {
    let node = maps::node(&peer.vtep).ok_or(NoWay::NoRoute)?;
    let outer_length = outer_length(packet);
    if outer_length > usize::from(u16::MAX) || largest_packet(packet, datagram, outer_length) > node.mtu as usize {
        return Err(NoWay::TooBig(node.mtu));
    }
    Ok(node)
}

/// Drops the packet; of one that is too big the sender is told what fits, by the gateway, as by a router (RFC 1191).
#[inline(always)]
pub(super) fn tell(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram, refused: NoWay) -> Verdict {
    let mtu = match refused {
        NoWay::NoRoute => return Verdict::Drop(Counter::DropNoRoute),
        NoWay::TooBig(mtu) => mtu,
    };
    let error = answer::Unreachable {
        from: attachment.gateway,
        code: icmp::FRAGMENTATION_NEEDED,
        mtu: mtu.saturating_sub(vxlan::OVERHEAD as u32).min(u32::from(u16::MAX)) as u16,
        reason: Counter::DropTooBig,
    };
    answer::unreachable(packet, attachment, datagram, &error)
}

#[inline(always)]
fn outer_length(packet: &Packet) -> usize {
    packet.len() as usize - Ethernet::LENGTH + vxlan::OVERHEAD
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
