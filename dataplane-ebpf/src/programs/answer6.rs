//! What [`answer`](super::answer) does, for IPv6 (RFC 4443, RFC 9293). Packets with extension headers are not answered.

use super::answer::{TOS_CONTROL, TTL, back};
use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Refusal, Trouble};
use super::verdict::Verdict;
use super::{helper, maps};
use weft_dataplane::abi::{Attachment, Counter, V6};
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{Ethernet, Header, Icmpv6, Ipv6, Quote6, QuoteTcp6, Tcp, checksum, icmpv6, ipv4, ipv6};

/// Drops the packet and tells its sender why, unless it was told enough of late.
#[inline(never)]
pub(super) fn unreachable(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<V6>,
    refusal: &Refusal<V6>,
) -> Verdict {
    let reason = refusal.reason;
    if datagram.header_length != Ipv6::LENGTH || !may_be_told_of(packet, datagram) {
        return Verdict::Drop(reason);
    }
    if !maps::admit_answer(packet.ifindex(), helper::now_ns()) {
        maps::count(Counter::AnswerSuppressed);
        return Verdict::Drop(reason);
    }
    // As much as the kernel leaves while a checksum inside is still to be completed.
    let written = if datagram.protocol == ipv4::TCP {
        quote::<QuoteTcp6>(packet, attachment, refusal, |quote| &quote.bytes)
    } else {
        quote::<Quote6>(packet, attachment, refusal, |quote| &quote.bytes)
    };
    if written.is_none() {
        return Verdict::Drop(reason);
    }
    maps::count(reason);
    back(packet, attachment, Counter::UnreachableSent)
}

/// No error about an error (RFC 4443 section 2.4 (e)).
#[inline(always)]
fn may_be_told_of(packet: &mut Packet, datagram: &Datagram<V6>) -> bool {
    if datagram.protocol != ipv6::ICMP {
        return true;
    }
    packet.pull(Ethernet::LENGTH + Ipv6::LENGTH + Icmpv6::LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH + Ipv6::LENGTH);
    headers.next::<Icmpv6>().is_some_and(|icmp| icmp.is_query())
}

/// Makes the packet an error that quotes its own beginning.
#[inline(always)]
fn quote<Q: Header>(
    packet: &mut Packet,
    attachment: &Attachment,
    refusal: &Refusal<V6>,
    bytes: impl Fn(&Q) -> &[u8],
) -> Option<()> {
    let overhead = Ipv6::LENGTH + Icmpv6::LENGTH;
    packet.cut(Ethernet::LENGTH + Q::LENGTH).ok()?;
    packet.grow_plain(overhead).ok()?;
    packet.pull(Ethernet::LENGTH + overhead + Q::LENGTH);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let (ip, icmp, quoted) = (headers.next::<Ipv6>()?, headers.next::<Icmpv6>()?, headers.next::<Q>()?);
    let (kind, code, data) = match refusal.trouble {
        Trouble::Port => (icmpv6::UNREACHABLE, icmpv6::PORT, 0),
        // It points at the field "next header", the seventh byte.
        Trouble::Protocol => (icmpv6::PARAMETER_PROBLEM, icmpv6::NEXT_HEADER, 6),
        Trouble::TooBig(mtu) => (icmpv6::TOO_BIG, 0, mtu),
        Trouble::TimeExceeded => (icmpv6::TIME_EXCEEDED, 0, 0),
    };
    let length = (Icmpv6::LENGTH + Q::LENGTH) as u16;
    *ip = own_header(attachment, &refusal.from, TOS_CONTROL, ipv6::ICMP, length);
    let start = checksum::pseudo_header6(&refusal.from, &attachment.ip6, ipv6::ICMP, length)
        + (u32::from(kind) << 8 | u32::from(code))
        + (data >> 16)
        + (data & 0xffff);
    *icmp = Icmpv6 {
        kind: [kind],
        code: [code],
        checksum: checksum::of(start, bytes(quoted)).to_be_bytes(),
        data: data.to_be_bytes(),
    };
    Some(())
}

#[inline(always)]
fn own_header(attachment: &Attachment, from: &V6, class: u8, protocol: u8, length: u16) -> Ipv6 {
    Ipv6 {
        version_class_flow: (6 << 28 | u32::from(class) << 20).to_be_bytes(),
        payload_length: length.to_be_bytes(),
        next_header: [protocol],
        hop_limit: [TTL],
        source: from.octets(),
        destination: attachment.ip6.octets(),
    }
}

/// Drops the TCP segment and resets its connection, as a host would that has no such connection (RFC 9293 section 3.10.7.1).
#[inline(never)]
pub(super) fn reset(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V6>, reason: Counter) -> Verdict {
    if datagram.header_length != Ipv6::LENGTH || datagram.later || datagram.tcp_flags & RST != 0 {
        return Verdict::Drop(reason);
    }
    if write_reset(packet, attachment, datagram).is_none() {
        return Verdict::Drop(reason);
    }
    maps::count(reason);
    back(packet, attachment, Counter::ResetSent)
}

#[inline(always)]
fn write_reset(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V6>) -> Option<()> {
    let headers_length = Ethernet::LENGTH + Ipv6::LENGTH + Tcp::LENGTH;
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let payload_length = headers.next::<Ipv6>()?.payload_length();
    let tcp = *headers.next::<Tcp>()?;
    // A big segment has no payload length; it is a frame without padding.
    let length = match payload_length {
        0 => packet.len() as usize - Ethernet::LENGTH - Ipv6::LENGTH,
        length => length,
    };
    let data = length.wrapping_sub(datagram.transport_length) as u32;
    packet.cut(headers_length).ok()?;
    packet.pull(headers_length);
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    let (new_ip, new_tcp) = (headers.next::<Ipv6>()?, headers.next::<Tcp>()?);
    *new_ip = own_header(attachment, &datagram.destination, 0, ipv4::TCP, Tcp::LENGTH as u16);
    let flags = datagram.tcp_flags;
    let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let mut answer = tcp.reset(flags & ACK != 0, data.wrapping_add(controls));
    let length = Tcp::LENGTH as u16;
    let pseudo = checksum::pseudo_header6(&datagram.destination, &attachment.ip6, ipv4::TCP, length);
    answer.checksum = answer.computed_checksum(pseudo);
    *new_tcp = answer;
    Some(())
}

/// Answers an echo in the name of whom it was sent to.
#[inline(always)]
pub(super) fn echo(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V6>) -> Option<Verdict> {
    if !datagram.is_first() {
        return None;
    }
    let offset = Ethernet::LENGTH + datagram.header_length;
    packet.pull(offset + Icmpv6::LENGTH);
    let mut headers = packet.headers();
    headers.skip(offset);
    let icmp = headers.next::<Icmpv6>()?;
    if icmp.kind != [icmpv6::ECHO] {
        return None;
    }
    *icmp = icmp.echo_reply();
    let mut headers = packet.headers();
    headers.skip(Ethernet::LENGTH);
    // The sum over both addresses stays as it is.
    let ip = headers.next::<Ipv6>()?;
    ip.source = datagram.destination.octets();
    ip.destination = datagram.source.octets();
    Some(back(packet, attachment, Counter::EchoAnswered))
}
