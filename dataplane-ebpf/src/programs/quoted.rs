//! What an ICMP error quotes: read, and rewritten as the one who gets the error knows it.
//!
//! The quoted transport's own checksum stays: it covers data that is not quoted, so nobody can check it.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::helper::Refused;
use weft_dataplane::abi::{Flow, Ip, V4, V6};
use weft_dataplane::packet::{Ethernet, Header, Icmp, Icmpv6, Ipv4, Ipv6, Ports, checksum};

/// Offset of the checksum in an ICMP header of either family.
const CHECKSUM_OFFSET: usize = 2;

/// The packet that an error is about, as the sender of the error saw it.
pub(super) struct Quoted<A> {
    /// What it says.
    pub(super) datagram: Datagram<A>,
    /// Where the error's own header starts.
    icmp: usize,
    /// Where the quoted IP header starts.
    ip: usize,
}

/// What an ICMP error quotes, if the packet is one.
#[inline(always)]
pub(super) fn inet(packet: &mut Packet, datagram: &Datagram<V4>) -> Option<Quoted<V4>> {
    if !datagram.is_first() {
        return None;
    }
    let icmp = Ethernet::LENGTH + datagram.header_length;
    let ip = icmp + Icmp::LENGTH;
    packet.pull(ip + Ipv4::LENGTH);
    let mut headers = packet.headers();
    headers.skip(icmp);
    if headers.next::<Icmp>()?.is_query() {
        return None;
    }
    let header = *headers.next::<Ipv4>()?;
    let mut quoted = Datagram::new(header.source, header.destination);
    [quoted.protocol] = header.protocol;
    quoted.header_length = header.header_length()?;
    if header.is_fragment() && !header.is_first_fragment() {
        return None;
    }
    quoted.ports = ports(packet, &quoted, ip)?;
    Some(Quoted {
        datagram: quoted,
        icmp,
        ip,
    })
}

/// The same for ICMPv6.
#[inline(always)]
pub(super) fn inet6(packet: &mut Packet, datagram: &Datagram<V6>) -> Option<Quoted<V6>> {
    if !datagram.is_first() {
        return None;
    }
    let icmp = Ethernet::LENGTH + datagram.header_length;
    let ip = icmp + Icmpv6::LENGTH;
    packet.pull(ip + Ipv6::LENGTH);
    let mut headers = packet.headers();
    headers.skip(icmp);
    if headers.next::<Icmpv6>()?.is_query() {
        return None;
    }
    let header = headers.next::<Ipv6>()?;
    if !header.is_valid() {
        return None;
    }
    let mut quoted = Datagram::new(V6::new(header.source), V6::new(header.destination));
    [quoted.protocol] = header.next_header;
    quoted.header_length = Ipv6::LENGTH;
    quoted.ports = ports(packet, &quoted, ip)?;
    Some(Quoted {
        datagram: quoted,
        icmp,
        ip,
    })
}

#[inline(always)]
fn ports<A: Ip>(packet: &mut Packet, quoted: &Datagram<A>, ip: usize) -> Option<Ports> {
    if !quoted.is_balanced() {
        return None;
    }
    packet.pull(ip + quoted.header_length + Ports::LENGTH);
    let mut headers = packet.headers();
    headers.skip(ip + quoted.header_length);
    headers.next::<Ports>().map(|ports| *ports)
}

/// Rewrites the quoted packet into what the other side of `flow` sent or would have got: the flow's translation, turned round.
#[inline(always)]
pub(super) fn translate(packet: &mut Packet, quoted: &Quoted<V4>, flow: &Flow<V4>) -> Result<(), Refused> {
    let old = &quoted.datagram;
    packet.pull(quoted.ip + Ipv4::LENGTH);
    let mut headers = packet.headers();
    headers.skip(quoted.ip);
    let ip = headers.next::<Ipv4>().ok_or(Refused)?;
    let difference =
        checksum::difference(&old.source, &flow.destination) + checksum::difference(&old.destination, &flow.source);
    ip.source = flow.destination;
    ip.destination = flow.source;
    // The header's own checksum takes up what the addresses change, so the error's does not change for them.
    ip.checksum = checksum::changed(ip.checksum, checksum::fold(difference));
    translate_ports(packet, quoted, flow, 0)
}

/// The same for IPv6, whose header has no checksum.
#[inline(always)]
pub(super) fn translate6(packet: &mut Packet, quoted: &Quoted<V6>, flow: &Flow<V6>) -> Result<(), Refused> {
    let old = &quoted.datagram;
    packet.pull(quoted.ip + Ipv6::LENGTH);
    let mut headers = packet.headers();
    headers.skip(quoted.ip);
    let ip = headers.next::<Ipv6>().ok_or(Refused)?;
    let difference =
        checksum::difference(&old.source, &flow.destination) + checksum::difference(&old.destination, &flow.source);
    ip.source = flow.destination.octets();
    ip.destination = flow.source.octets();
    translate_ports(packet, quoted, flow, difference)
}

/// The ports, and the error's checksum, which `difference` is to go into as well.
#[inline(always)]
fn translate_ports<A: Ip>(
    packet: &mut Packet,
    quoted: &Quoted<A>,
    flow: &Flow<A>,
    difference: u64,
) -> Result<(), Refused> {
    let old = quoted.datagram.ports;
    let new = Ports {
        source: flow.destination_port,
        destination: flow.source_port,
    };
    let place = quoted.ip + quoted.datagram.header_length;
    packet.pull(place + Ports::LENGTH);
    let mut headers = packet.headers();
    headers.skip(place);
    *headers.next::<Ports>().ok_or(Refused)? = new;
    let word = |ports: &Ports| {
        [
            ports.source[0],
            ports.source[1],
            ports.destination[0],
            ports.destination[1],
        ]
    };
    let difference = checksum::fold(difference + checksum::difference(&word(&old), &word(&new)));
    packet.replace_sum((quoted.icmp + CHECKSUM_OFFSET) as u32, difference)
}
