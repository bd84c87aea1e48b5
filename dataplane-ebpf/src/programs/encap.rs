//! Puts a frame into VXLAN and sends it to the node that its destination lives on.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Family, Refusal, Trouble};
use super::helper::{self, Tunnel};
use super::maps;
use super::verdict::Verdict;
use weft_dataplane::abi::{Attachment, Counter, Node, Peer, node};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ipv6, Udp, Vxlan, hash, ipv4, vxlan};

/// Time to live of the outer header, the kernel's default.
pub(super) const TTL: u8 = 64;

/// The bits of congestion notification (RFC 3168 section 5).
pub(super) const ECN: u8 = 3;

/// Sends the packet behind an Ethernet header to `peer`.
#[inline(always)]
pub(super) fn send<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    peer: &Peer,
) -> Verdict {
    match way(packet, datagram.header_length + datagram.transport_length, peer) {
        Ok(node) => send_by::<F>(packet, attachment, datagram, peer, node),
        Err(refused) => tell::<F>(packet, attachment, datagram, refused),
    }
}

/// [`send`], where the stack has no room for it.
#[inline(never)]
pub(super) fn send_apart<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    peer: &Peer,
) -> Verdict {
    send::<F>(packet, attachment, datagram, peer)
}

/// Sends the packet, which fits, by a known [`way`].
#[inline(always)]
pub(super) fn send_by<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    peer: &Peer,
    node: &Node,
) -> Verdict {
    let outer = Outer {
        length: outer_length(packet, node) as u16,
        hash: datagram.hash::<F>(packet),
        // What the underlay marks, the receiver hands on (RFC 6040 section 4.1, normal mode).
        traffic_class: datagram.traffic_class & ECN,
    };
    if let Some(device) = helper::encap_device() {
        return send_through(packet, attachment, peer, node, &outer, device);
    }
    if packet.grow(node.family).is_err() {
        return Verdict::Drop(Counter::DropAdjustRoom);
    }
    if write_headers::<F>(packet, attachment, peer, node, &outer).is_none() {
        return Verdict::Drop(Counter::DropTruncated);
    }
    Verdict::Redirect(
        Counter::Encapsulated,
        packet.redirect_neigh(node.family, node.ifindex, &node.next_hop),
    )
}

/// Leaves the outer headers to a vxlan device, and with them the way: it asks the host's routes.
#[inline(always)]
fn send_through(
    packet: &mut Packet,
    attachment: &Attachment,
    peer: &Peer,
    node: &Node,
    outer: &Outer,
    device: u32,
) -> Verdict {
    let Some(ethernet) = packet.headers().next::<Ethernet>() else {
        return Verdict::Drop(Counter::DropTruncated);
    };
    ethernet.destination = peer.mac;
    ethernet.source = attachment.mac;
    let tunnel = Tunnel {
        vni: attachment.vni,
        family: node.family,
        source: &node.source,
        destination: &peer.vtep,
        traffic_class: outer.traffic_class,
        ttl: TTL,
        label: flow_label(outer),
    };
    if packet.set_tunnel(&tunnel).is_err() {
        return Verdict::Drop(Counter::DropAdjustRoom);
    }
    Verdict::Redirect(Counter::Encapsulated, packet.redirect(device))
}

/// Why a packet does not go to its peer.
pub(super) enum NoWay {
    /// The underlay has no route.
    NoRoute,
    /// It does not fit: how long an inner packet may be.
    TooBig(u32),
}

/// The way to the peer, if the packet fits it. `headers` is the length of what each of its segments begins with.
#[inline(always)]
pub(super) fn way(packet: &Packet, headers: usize, peer: &Peer) -> Result<&'static Node, NoWay> {
    let node = maps::node(&peer.vtep).ok_or(NoWay::NoRoute)?;
    let length = outer_length(packet, node);
    let largest = match packet.gso_size() {
        0 => length,
        segment => headers + segment as usize + overhead(node),
    };
    if length > usize::from(u16::MAX) || largest > node.mtu as usize {
        return Err(NoWay::TooBig(node.mtu.saturating_sub(overhead(node) as u32)));
    }
    Ok(node)
}

/// Drops the packet; of one that is too big the sender is told what fits, by the gateway, as by a router (RFC 1191, RFC 8201).
#[inline(always)]
pub(super) fn tell<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    refused: NoWay,
) -> Verdict {
    let mtu = match refused {
        NoWay::NoRoute => return Verdict::Drop(Counter::DropNoRoute),
        NoWay::TooBig(mtu) => mtu,
    };
    let refusal = Refusal {
        from: F::gateway(attachment),
        trouble: Trouble::TooBig(mtu),
        reason: Counter::DropTooBig,
    };
    F::unreachable(packet, attachment, datagram, &refusal)
}

/// What the encapsulation adds on the way to `node`.
#[inline(always)]
pub(super) fn overhead(node: &Node) -> usize {
    if node.family == node::IPV6 {
        vxlan::OVERHEAD6
    } else {
        vxlan::OVERHEAD
    }
}

/// Length of the outer IP packet.
#[inline(always)]
fn outer_length(packet: &Packet, node: &Node) -> usize {
    packet.len() as usize - Ethernet::LENGTH + overhead(node)
}

/// What the outer headers take from the packet.
struct Outer {
    /// Length of the outer IP packet.
    length: u16,
    /// Of the inner flow.
    hash: u32,
    traffic_class: u8,
}

#[inline(always)]
fn write_headers<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    peer: &Peer,
    node: &Node,
    outer: &Outer,
) -> Option<()> {
    let mut headers = packet.headers();
    let _outer_ethernet = headers.next::<Ethernet>()?;
    let ip_length = if node.family == node::IPV6 {
        write_ipv6(headers.next::<Ipv6>()?, peer, node, outer);
        Ipv6::LENGTH
    } else {
        write_ipv4(headers.next::<Ipv4>()?, peer, node, outer);
        Ipv4::LENGTH
    };
    let udp = headers.next::<Udp>()?;
    let tunnel = headers.next::<Vxlan>()?;
    let inner = headers.next::<Ethernet>()?;
    udp.source = hash::source_port(outer.hash).to_be_bytes();
    udp.destination = maps::data_path_port();
    udp.length = (outer.length - ip_length as u16).to_be_bytes();
    // None (RFC 7348 section 5, for IPv6 RFC 6935): the inner packet has its own.
    udp.checksum = [0; 2];
    *tunnel = Vxlan::new(attachment.vni);
    inner.destination = peer.mac;
    inner.source = attachment.mac;
    inner.ethertype = F::ETHERTYPE;
    Some(())
}

// Field by field, because a whole header is put together on the stack first.

#[inline(always)]
fn write_ipv4(header: &mut Ipv4, peer: &Peer, node: &Node, outer: &Outer) {
    header.version_ihl = [0x45];
    header.tos = [outer.traffic_class];
    header.total_length = outer.length.to_be_bytes();
    header.identification = [0; 2];
    header.fragment = ipv4::DONT_FRAGMENT.to_be_bytes();
    header.ttl = [TTL];
    header.protocol = [ipv4::UDP];
    header.source = node.source.last_four();
    header.destination = peer.vtep.last_four();
    header.checksum = header.computed_checksum();
}

/// The flow label spreads flows like the port does (RFC 6438 section 3).
#[inline(always)]
fn flow_label(outer: &Outer) -> u32 {
    outer.hash & 0x000f_ffff
}

#[inline(always)]
fn write_ipv6(header: &mut Ipv6, peer: &Peer, node: &Node, outer: &Outer) {
    let label = flow_label(outer);
    let class = u32::from(outer.traffic_class);
    header.version_class_flow = (6 << 28 | class << 20 | label).to_be_bytes();
    header.payload_length = (outer.length - Ipv6::LENGTH as u16).to_be_bytes();
    header.next_header = [ipv4::UDP];
    header.hop_limit = [TTL];
    header.source = node.source.octets();
    header.destination = peer.vtep.octets();
}
