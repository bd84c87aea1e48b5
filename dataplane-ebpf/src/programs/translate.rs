//! Rewrites addresses and ports of a balanced connection's packets, and keeps the checksums right.
//!
//! The transport's checksum is the kernel's to change: only it knows whether it is complete, partial or summed up by a card.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::helper::Refused;
use weft_dataplane::abi::{Flow, Ip, V4, V6};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ipv6, Ports, checksum, ipv4, ipv6, transport};

/// Offset of the checksum in an ICMPv6 header.
const ICMP_CHECKSUM_OFFSET: usize = 2;

/// Writes what `flow` says into an IPv4 packet that follows the Ethernet header.
#[inline(always)]
pub(super) fn inet(packet: &mut Packet, datagram: &Datagram<V4>, flow: &Flow<V4>) -> Result<(), Refused> {
    let difference = checksum::difference(&datagram.source, &flow.source)
        + checksum::difference(&datagram.destination, &flow.destination);
    let difference = checksum::fold(difference);
    transport(packet, datagram, flow, difference, 0)?;
    packet.pull(Ethernet::LENGTH + Ipv4::LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let ip = headers.next::<Ipv4>().ok_or(Refused)?;
    ip.source = flow.source;
    ip.destination = flow.destination;
    ip.checksum = checksum::changed(ip.checksum, difference);
    Ok(())
}

/// Writes what `flow` says into an IPv6 packet that follows the Ethernet header.
#[inline(always)]
pub(super) fn inet6(packet: &mut Packet, datagram: &Datagram<V6>, flow: &Flow<V6>) -> Result<(), Refused> {
    let difference = checksum::difference(&datagram.source, &flow.source)
        + checksum::difference(&datagram.destination, &flow.destination);
    let (difference, flag) = (checksum::fold(difference), Packet::ipv6_checksum_flag());
    if datagram.protocol == ipv6::ICMP && datagram.is_first() {
        // It covers the pseudo-header, too (RFC 4443 section 2.3).
        let place = Ethernet::LENGTH + datagram.header_length + ICMP_CHECKSUM_OFFSET;
        packet.replace_pseudo_header(place as u32, difference, false, flag)?;
    } else {
        transport(packet, datagram, flow, difference, flag)?;
    }
    packet.pull(Ethernet::LENGTH + Ipv6::LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let ip = headers.next::<Ipv6>().ok_or(Refused)?;
    ip.source = flow.source.octets();
    ip.destination = flow.destination.octets();
    Ok(())
}

/// The transport's checksum and ports, if the packet carries them.
#[inline(always)]
fn transport<A: Ip>(
    packet: &mut Packet,
    datagram: &Datagram<A>,
    flow: &Flow<A>,
    difference: u32,
    flag: u64,
) -> Result<(), Refused> {
    if !datagram.has_ports() {
        return Ok(());
    }
    let udp = datagram.protocol == ipv4::UDP;
    let start = Ethernet::LENGTH + datagram.header_length;
    let place = start
        + if udp {
            transport::UDP_CHECKSUM_OFFSET
        } else {
            transport::TCP_CHECKSUM_OFFSET
        };
    packet.replace_pseudo_header(place as u32, difference, udp, flag)?;
    let ports = Ports {
        source: flow.source_port,
        destination: flow.destination_port,
    };
    if ports == datagram.ports {
        return Ok(());
    }
    packet.replace_port(place as u32, datagram.ports.source, ports.source, udp)?;
    packet.replace_port(place as u32, datagram.ports.destination, ports.destination, udp)?;
    packet.pull(start + Ports::LENGTH);
    let mut headers = packet.headers();
    headers.skip(start);
    *headers.next::<Ports>().ok_or(Refused)? = ports;
    Ok(())
}
