//! What makes up the load, in one go: a plain IPv4 packet to a peer, or from one, over IPv4. TCP or UDP, whole, without options, not too
//! long, and if its connection is balanced, then one that is known and keeps its ports. Of a new one it is left to the program that chooses.
//!
//! Whatever is not plain in any way is left, untouched and uncounted, to the general way, which decides alike. So nothing is dropped
//! here but what the kernel refuses once it has begun.

use super::cursor::Packet;
use super::encap::{self, ECN};
use super::family::Inet;
use super::filter;
use super::flows;
use super::handover;
use super::helper::{self, Refused};
use super::maps::{self, FamilyMaps};
use super::verdict::Verdict;
use weft_dataplane::abi::filter::OFF;
use weft_dataplane::abi::flow::{self, DIRECT, REPLY};
use weft_dataplane::abi::front::PlaceSlot;
use weft_dataplane::abi::{
    Attachment, Counter, Flow, FlowKey, Node, OverlayAddress, V4, V6, front, jump, mapped, node, peer,
};
use weft_dataplane::packet::{
    Ethernet, Header, Ipv4, Ports, Tcp, TunnelIpv4, Udp, checksum, ethernet, hash, ipv4, transport, vxlan,
};

/// The first byte of an IPv4 header without options.
const WITHOUT_OPTIONS: [u8; 1] = [0x45];

/// What must be known of the packet. All words, because the verifier wants accesses to the stack aligned.
#[repr(C, align(8))]
struct Plain {
    /// As the key of its flow has it.
    key: FlowKey<V4>,
    protocol: u32,
    tos: u32,
    ttl: u32,
    /// TCP control bits; 0 if it is UDP.
    tcp_flags: u32,
    /// Length of the IPv4 and the transport header in bytes.
    headers: usize,
}

impl Plain {
    /// Nothing: all zeros.
    #[inline(always)]
    fn nothing() -> Plain {
        Plain {
            key: FlowKey {
                source: [0; 4],
                destination: [0; 4],
                source_port: [0; 2],
                destination_port: [0; 2],
                network: 0,
                reserved: flow::RESERVED,
            },
            protocol: 0,
            tos: 0,
            ttl: 0,
            tcp_flags: 0,
            headers: 0,
        }
    }

    /// Reads the IPv4 packet that starts `offset` bytes after the start of the frame, if it is plain.
    #[inline(always)]
    fn read(&mut self, packet: &mut Packet, offset: usize, vni: u32) -> Option<()> {
        let length = packet.len() as usize;
        let mut headers = packet.headers();
        headers.skip(offset);
        let ip = headers.next::<Ipv4>()?;
        let total_length = ip.total_length();
        if ip.version_ihl != WITHOUT_OPTIONS
            || ip.is_fragment()
            || total_length < Ipv4::LENGTH
            || offset + total_length > length
        {
            return None;
        }
        let [protocol] = ip.protocol;
        if protocol == ipv4::UDP {
            let udp = headers.next::<Udp>()?;
            self.key.source_port = udp.source;
            self.key.destination_port = udp.destination;
            self.headers = Ipv4::LENGTH + Udp::LENGTH;
        } else if protocol == ipv4::TCP {
            let tcp = headers.next::<Tcp>()?;
            if tcp.header_length() == 0 {
                return None;
            }
            self.key.source_port = tcp.source;
            self.key.destination_port = tcp.destination;
            self.tcp_flags = u32::from(tcp.flags[0]);
            self.headers = Ipv4::LENGTH + tcp.header_length();
        } else {
            return None;
        }
        self.key.source = ip.source;
        self.key.destination = ip.destination;
        self.key.network = flow::network(vni, protocol);
        self.protocol = u32::from(protocol);
        self.tos = u32::from(ip.tos[0]);
        self.ttl = u32::from(ip.ttl[0]);
        // What opens a connection may have to say what fits.
        (self.tcp_flags as u8 & transport::SYN == 0 || maps::clamp(&vni).is_none()).then_some(())
    }

    /// A hash of its flow.
    #[inline(always)]
    fn hash(&self) -> u32 {
        let ports = Ports {
            source: self.key.source_port,
            destination: self.key.destination_port,
        };
        hash::flow(self.key.source, self.key.destination, ports, self.protocol as u8)
    }

    /// Whether `flow` changes nothing but addresses.
    #[inline(always)]
    fn keeps_ports(&self, flow: &Flow<V4>) -> bool {
        flow.source_port == self.key.source_port && flow.destination_port == self.key.destination_port
    }

    /// What changes in sums over its addresses.
    #[inline(always)]
    fn difference(&self, flow: &Flow<V4>) -> u32 {
        checksum::fold(
            checksum::difference(&self.key.source, &flow.source)
                + checksum::difference(&self.key.destination, &flow.destination),
        )
    }

    /// Changes the transport's checksum, which covers the addresses, of the packet behind the Ethernet header.
    #[inline(always)]
    fn translate_transport(&self, packet: &mut Packet, difference: u32) -> Result<(), Refused> {
        let udp = self.protocol == u32::from(ipv4::UDP);
        let place = if udp {
            transport::UDP_CHECKSUM_OFFSET
        } else {
            transport::TCP_CHECKSUM_OFFSET
        };
        packet.replace_pseudo_header((Ethernet::LENGTH + Ipv4::LENGTH + place) as u32, difference, udp, 0)
    }

    /// Whether a balanced connection may have the same two ports, see [`balance::beside`](super::balance::beside).
    #[inline(always)]
    fn may_be_beside(&self, flags: u16) -> bool {
        flags & peer::BACKEND != 0
            && filter::may_know(&self.key)
            && (Inet::flow(&self.key).is_some()
                || (self.protocol == u32::from(ipv4::UDP) || transport::opens(self.tcp_flags as u8))
                    && Inet::flow(&self.key.opposite()).is_some())
    }
}

/// Sends a plain packet of a container to its peer, or to the peer that its balanced connection has for a backend.
#[inline(always)]
pub(super) fn to_peer(packet: &mut Packet, attachment: &Attachment) -> Option<Verdict> {
    if helper::encap_device().is_some() {
        return None;
    }
    let ethernet = packet.headers().next::<Ethernet>()?;
    if ethernet.ethertype != ethernet::IPV4
        || ethernet.source != attachment.mac
        || ethernet::is_group(ethernet.destination)
    {
        return None;
    }
    let mut plain = Plain::nothing();
    plain.read(packet, Ethernet::LENGTH, attachment.vni)?;
    if plain.key.source != attachment.ip || plain.key.destination[0] >= ipv4::FIRST_GROUP || plain.ttl == 0 {
        return None;
    }
    let destination = OverlayAddress::new(attachment.vni, plain.key.destination);
    let slot = maps::place(&destination);
    if slot.is_some_and(|slot| slot.kind() == front::SERVICE) {
        return to_backend(packet, attachment, &plain);
    }
    let target = Target::find(slot, &destination)?;
    if plain.may_be_beside(target.flags) || !target.has_room(packet, &plain) {
        return None;
    }
    send(packet, attachment, &plain, &target, None)
}

/// Sends a packet of a known connection to its backend, if that is a peer.
#[inline(always)]
fn to_backend(packet: &mut Packet, attachment: &Attachment, plain: &Plain) -> Option<Verdict> {
    let now = helper::now_ticks();
    let Some(found) = flows::find_alive::<Inet>(&plain.key, now) else {
        // All that the general way looks at before is right.
        return Some(handover::go_on_balancing::<Inet>(packet));
    };
    let flow = found.flow;
    if flow.flags & (DIRECT | REPLY) != 0
        || transport::opens(plain.tcp_flags as u8)
        || flow.destination == attachment.ip
        || !plain.keeps_ports(flow)
    {
        return None;
    }
    let backend = OverlayAddress::new(attachment.vni, flow.destination);
    let target = Target::find(maps::place(&backend), &backend)?;
    if !target.has_room(packet, plain) {
        return None;
    }
    flows::follow_bits::<Inet>(&plain.key, &found, plain.tcp_flags as u8, now);
    send(packet, attachment, plain, &target, Some(flow))
}

/// A peer, as much of it as is written into a packet.
struct Target {
    vtep: V6,
    mac: [u8; 6],
    flags: u16,
    /// The way to its VTEP.
    node: &'static Node,
}

impl Target {
    /// The peer with an address, whose slot is this.
    #[inline(always)]
    fn find(slot: Option<PlaceSlot>, address: &OverlayAddress<V4>) -> Option<Target> {
        let (vtep, mac, flags) = match slot {
            Some(slot) if slot.kind() != front::PEER => return None,
            Some(slot) => (mapped(slot.vtep()), front::mac_of(address.ip), slot.flags()),
            None => {
                let peer = Inet::peer(address)?;
                (peer.vtep, peer.mac, peer.flags)
            }
        };
        let node = maps::node_by_slot(&vtep)?;
        Some(Target { vtep, mac, flags, node })
    }

    /// Whether the way is over IPv4 and the packet fits it.
    #[inline(always)]
    fn has_room(&self, packet: &Packet, plain: &Plain) -> bool {
        let length = outer_length(packet);
        let largest = match packet.gso_size() {
            0 => length,
            segment => plain.headers + segment as usize + vxlan::OVERHEAD,
        };
        self.node.family == node::IPV4 && length <= usize::from(u16::MAX) && largest <= self.node.mtu as usize
    }
}

/// The index of the host-side veth and the MAC of the endpoint with an address.
#[inline(always)]
fn endpoint_at(address: &OverlayAddress<V4>) -> Option<(u32, [u8; 6])> {
    match maps::place(address) {
        Some(slot) => (slot.kind() == front::ENDPOINT).then_some((slot.ifindex(), front::mac_of(address.ip))),
        None => Inet::endpoint(address).map(|endpoint| (endpoint.ifindex, endpoint.mac)),
    }
}

/// Whether a peer with an address lives behind a VTEP.
#[inline(always)]
fn is_behind(address: &OverlayAddress<V4>, vtep: V4) -> bool {
    match maps::place(address) {
        Some(slot) => slot.kind() == front::PEER && slot.vtep() == vtep,
        None => Inet::peer(address).is_some_and(|peer| peer.vtep == mapped(vtep)),
    }
}

/// Length of the outer IPv4 packet.
#[inline(always)]
fn outer_length(packet: &Packet) -> usize {
    packet.len() as usize - Ethernet::LENGTH + vxlan::OVERHEAD
}

#[inline(always)]
fn send(
    packet: &mut Packet,
    attachment: &Attachment,
    plain: &Plain,
    target: &Target,
    flow: Option<&'static Flow<V4>>,
) -> Option<Verdict> {
    let node = target.node;
    let hash = match packet.hash() {
        0 => plain.hash(),
        known => known,
    };
    let length = outer_length(packet) as u16;
    let mut difference = 0;
    if let Some(flow) = flow {
        difference = plain.difference(flow);
        if plain.translate_transport(packet, difference).is_err() {
            return Some(Verdict::Drop(Counter::DropTruncated));
        }
    }
    if packet.grow(node::IPV4).is_err() {
        return Some(Verdict::Drop(Counter::DropAdjustRoom));
    }
    let neighbor = maps::neighbor(&target.vtep, node.ifindex, helper::now_ticks());
    let mut headers = packet.headers();
    let Some(ethernet) = headers.next::<Ethernet>() else {
        return Some(Verdict::Drop(Counter::DropTruncated));
    };
    if let Some(neighbor) = neighbor {
        ethernet.destination = neighbor.destination;
        ethernet.source = neighbor.source;
    }
    let Some(tunnel) = headers.next::<TunnelIpv4>() else {
        return Some(Verdict::Drop(Counter::DropTruncated));
    };
    tunnel.set_outer(
        plain.tos as u8 & ECN,
        length,
        encap::TTL,
        [node.source.last_four(), target.vtep.last_four()],
        [hash::source_port(hash), u16::from_be_bytes(maps::data_path_port())],
    );
    tunnel.set_vni(attachment.vni);
    tunnel.destination_mac = target.mac;
    tunnel.source_mac = attachment.mac;
    tunnel.ethertype = ethernet::IPV4;
    if let Some(flow) = flow {
        let Some(ip) = headers.next::<Ipv4>() else {
            return Some(Verdict::Drop(Counter::DropTruncated));
        };
        translate(ip, flow, difference);
    }
    let action = match neighbor {
        Some(_) => packet.redirect(node.ifindex),
        None => packet.redirect_neigh(node::IPV4, node.ifindex, &node.next_hop),
    };
    Some(Verdict::Redirect(Counter::Encapsulated, action))
}

/// Writes the addresses of `flow`, which differ by `difference`.
#[inline(always)]
fn translate(ip: &mut Ipv4, flow: &Flow<V4>, difference: u32) {
    ip.source = flow.source;
    ip.destination = flow.destination;
    ip.checksum = checksum::changed(ip.checksum, difference);
}

/// Delivers a plain packet of a peer to its endpoint, from the virtual IP if it answers a balanced connection.
#[inline(always)]
pub(super) fn from_peer(packet: &mut Packet) -> Option<Verdict> {
    if packet.vlan_present() != 0 || !packet.is_for_host() {
        return None;
    }
    let mut headers = packet.headers();
    if headers.next::<Ethernet>()?.ethertype != ethernet::IPV4 {
        return None;
    }
    if headers.next::<Ipv4>()?.protocol != [ipv4::UDP] {
        // The host's own traffic.
        return Some(Verdict::Pass);
    }
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let tunnel = headers.next::<TunnelIpv4>()?;
    if !tunnel.is_plain(u16::from_be_bytes(maps::data_path_port())) || tunnel.ethertype != ethernet::IPV4 {
        return None;
    }
    let (vni, source, source_mac) = (tunnel.vni(), tunnel.source, tunnel.source_mac);
    let mut plain = Plain::nothing();
    plain.read(packet, Ethernet::LENGTH + TunnelIpv4::LENGTH, vni)?;
    let (ifindex, mac) = endpoint_at(&OverlayAddress::new(vni, plain.key.destination))?;
    if !is_behind(&OverlayAddress::new(vni, plain.key.source), source) {
        return None;
    }
    let state = filter::state();
    let entry = if filter::may_know_by(state, &plain.key) {
        Inet::flow(&plain.key)
    } else {
        None
    };
    let flow = match entry {
        None => {
            if state == OFF {
                packet.leave_to(jump::OLD_INGRESS);
            }
            None
        }
        Some(entry) => {
            let now = helper::now_ticks();
            let found = flows::alive(&plain.key, entry, now)?;
            if found.flow.flags & REPLY == 0
                || transport::opens(plain.tcp_flags as u8)
                || !plain.keeps_ports(found.flow)
            {
                return None;
            }
            flows::follow_bits::<Inet>(&plain.key, &found, plain.tcp_flags as u8, now);
            Some(found.flow)
        }
    };
    if packet.shrink(vxlan::OVERHEAD, None).is_err() {
        return Some(Verdict::Drop(Counter::DropAdjustRoom));
    }
    let mut difference = 0;
    if let Some(flow) = flow {
        difference = plain.difference(flow);
        if plain.translate_transport(packet, difference).is_err() {
            return Some(Verdict::Drop(Counter::DropTruncated));
        }
    }
    let mut headers = packet.headers();
    let Some(ethernet) = headers.next::<Ethernet>() else {
        return Some(Verdict::Drop(Counter::DropTruncated));
    };
    ethernet.destination = mac;
    ethernet.source = source_mac;
    if let Some(flow) = flow {
        let Some(ip) = headers.next::<Ipv4>() else {
            return Some(Verdict::Drop(Counter::DropTruncated));
        };
        translate(ip, flow, difference);
    }
    Some(Verdict::Redirect(
        Counter::Delivered,
        packet.redirect_peer_for_host(ifindex),
    ))
}
