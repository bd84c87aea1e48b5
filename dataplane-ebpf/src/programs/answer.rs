//! What the overlay says in its own name where silence would leave a sender waiting: as a router or a host would (RFC 792, RFC 9293).
//!
//! The packet itself becomes the answer and goes back to the container that it came from. Packets with IPv4 options are not
//! answered: they are rare, and a header of one length keeps this short.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Refusal, Trouble};
use super::verdict::Verdict;
use super::{helper, local, maps};
use weft_dataplane::abi::{Attachment, Counter, V4};
use weft_dataplane::packet::icmp::{self, Icmp};
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Quote, QuoteTcp, Tcp, checksum, ipv4};

/// Time to live of an answer, the kernel's default.
pub(super) const TTL: u8 = 64;

/// Precedence "internetwork control", as routers send errors (RFC 1812 section 4.3.2.5).
pub(super) const TOS_CONTROL: u8 = 0xc0;

/// Drops the packet and tells its sender why, unless it was told enough of late.
#[inline(never)]
pub(super) fn unreachable(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<V4>,
    refusal: &Refusal<V4>,
) -> Verdict {
    let reason = refusal.reason;
    if datagram.header_length != Ipv4::LENGTH || !may_be_told_of(packet, datagram) {
        return Verdict::Drop(reason);
    }
    if !maps::admit_answer(packet.ifindex(), helper::now_ns()) {
        maps::count(Counter::AnswerSuppressed);
        return Verdict::Drop(reason);
    }
    // As much as the kernel leaves while a checksum inside is still to be completed.
    let written = if datagram.protocol == ipv4::TCP {
        quote::<QuoteTcp>(packet, attachment, refusal, |quote| &quote.bytes)
    } else {
        quote::<Quote>(packet, attachment, refusal, |quote| &quote.bytes)
    };
    if written.is_none() {
        return Verdict::Drop(reason);
    }
    maps::count(reason);
    back(packet, attachment, Counter::UnreachableSent)
}

/// No error about an error, nor about any fragment but the first (RFC 1122 section 3.2.2).
#[inline(always)]
fn may_be_told_of(packet: &mut Packet, datagram: &Datagram<V4>) -> bool {
    if !datagram.is_first() {
        return false;
    }
    if datagram.protocol != ipv4::ICMP {
        return true;
    }
    packet.pull(Ethernet::LENGTH + Ipv4::LENGTH + Icmp::LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH + Ipv4::LENGTH);
    headers.next::<Icmp>().is_some_and(|icmp| icmp.is_query())
}

/// Makes the packet an error that quotes its own beginning.
#[inline(always)]
fn quote<Q: Header>(
    packet: &mut Packet,
    attachment: &Attachment,
    refusal: &Refusal<V4>,
    bytes: impl Fn(&Q) -> &[u8],
) -> Option<()> {
    let overhead = Ipv4::LENGTH + Icmp::LENGTH;
    packet.cut(Ethernet::LENGTH + Q::LENGTH).ok()?;
    packet.grow_plain(overhead).ok()?;
    packet.pull(Ethernet::LENGTH + overhead + Q::LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let (ip, icmp, quoted) = (headers.next::<Ipv4>()?, headers.next::<Icmp>()?, headers.next::<Q>()?);
    let (kind, code, mtu) = match refusal.trouble {
        Trouble::Port => (icmp::UNREACHABLE, icmp::PORT, 0),
        Trouble::Protocol => (icmp::UNREACHABLE, icmp::PROTOCOL, 0),
        Trouble::TooBig(mtu) => (
            icmp::UNREACHABLE,
            icmp::FRAGMENTATION_NEEDED,
            mtu.min(u32::from(u16::MAX)) as u16,
        ),
        Trouble::TimeExceeded => (icmp::TIME_EXCEEDED, 0, 0),
    };
    *icmp = Icmp::error(kind, code, mtu, bytes(quoted));
    let length = overhead + Q::LENGTH;
    *ip = own_header(attachment, refusal.from, TOS_CONTROL, ipv4::ICMP, length as u16);
    Some(())
}

#[inline(always)]
fn own_header(attachment: &Attachment, from: V4, tos: u8, protocol: u8, length: u16) -> Ipv4 {
    let mut header = Ipv4 {
        version_ihl: [0x45],
        tos: [tos],
        total_length: length.to_be_bytes(),
        identification: [0; 2],
        fragment: ipv4::DONT_FRAGMENT.to_be_bytes(),
        ttl: [TTL],
        protocol: [protocol],
        checksum: [0; 2],
        source: from,
        destination: attachment.ip,
    };
    header.checksum = header.computed_checksum();
    header
}

/// Drops the TCP segment and resets its connection, as a host would that has no such connection (RFC 9293 section 3.10.7.1).
#[inline(never)]
pub(super) fn reset(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V4>, reason: Counter) -> Verdict {
    if datagram.header_length != Ipv4::LENGTH || datagram.later || datagram.tcp_flags & RST != 0 {
        return Verdict::Drop(reason);
    }
    if write_reset(packet, attachment, datagram).is_none() {
        return Verdict::Drop(reason);
    }
    maps::count(reason);
    back(packet, attachment, Counter::ResetSent)
}

#[inline(always)]
fn write_reset(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V4>) -> Option<()> {
    let headers_length = Ethernet::LENGTH + Ipv4::LENGTH + Tcp::LENGTH;
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let (ip, tcp) = (*headers.next::<Ipv4>()?, *headers.next::<Tcp>()?);
    // A big segment has no total length; it is a frame without padding.
    let length = match ip.total_length() {
        0 => packet.len() as usize - Ethernet::LENGTH,
        length => length,
    };
    let data = length.wrapping_sub(Ipv4::LENGTH + datagram.transport_length) as u32;
    let flags = datagram.tcp_flags;
    let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    packet.cut(headers_length).ok()?;
    packet.pull(headers_length);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let (new_ip, new_tcp) = (headers.next::<Ipv4>()?, headers.next::<Tcp>()?);
    let length = (Ipv4::LENGTH + Tcp::LENGTH) as u16;
    *new_ip = own_header(attachment, datagram.destination, 0, ipv4::TCP, length);
    let mut answer = tcp.reset(flags & ACK != 0, data.wrapping_add(controls));
    let pseudo = checksum::pseudo_header(datagram.destination, attachment.ip, ipv4::TCP, Tcp::LENGTH as u16);
    answer.checksum = answer.computed_checksum(pseudo);
    *new_tcp = answer;
    Some(())
}

/// Answers an echo in the name of whom it was sent to.
#[inline(always)]
pub(super) fn echo(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V4>) -> Option<Verdict> {
    if !datagram.is_first() {
        return None;
    }
    let offset = Ethernet::LENGTH + datagram.header_length;
    packet.pull(offset + Icmp::LENGTH);
    let mut headers = packet.headers();
    headers.skip(offset);
    let icmp = headers.next::<Icmp>()?;
    if icmp.kind != [icmp::ECHO] {
        return None;
    }
    *icmp = icmp.echo_reply();
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    // The sum over both addresses stays as it is.
    let ip = headers.next::<Ipv4>()?;
    ip.source = datagram.destination;
    ip.destination = datagram.source;
    Some(back(packet, attachment, Counter::EchoAnswered))
}

/// Hands the packet, which has become an answer, to the container that it came from.
#[inline(always)]
pub(super) fn back(packet: &mut Packet, attachment: &Attachment, counter: Counter) -> Verdict {
    local::deliver(
        packet,
        packet.ifindex(),
        attachment.mac,
        Some(attachment.gateway_mac),
        counter,
    )
}
