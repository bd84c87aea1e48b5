//! The two families of addresses inside an overlay. What differs between them is here, in their maps and in how a packet is read,
//! translated and answered; all decisions exist once.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::helper::Refused;
use super::maps::FamilyMaps;
use super::members::MemberMaps;
use super::quoted::{self, Quoted};
use super::verdict::Verdict;
use super::{answer, answer6, filter, translate};
use weft_dataplane::abi::{Attachment, Counter, Flow, FlowKey, Ip, Seat, V4, V6, jump};
use weft_dataplane::packet::{Header, Ipv4, Ipv6, Ports, ethernet, hash, ipv4, ipv6};

/// IPv4.
#[derive(Clone, Copy)]
pub(super) struct Inet;

/// IPv6.
#[derive(Clone, Copy)]
pub(super) struct Inet6;

/// Of an ICMP error that the overlay sends: what it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody listens on the port.
    Port,
    /// The protocol is not spoken.
    Protocol,
    /// Too big: the MTU that fits.
    TooBig(u32),
    /// The time to live is over.
    TimeExceeded,
}

/// An ICMP error to be sent to a container.
pub(super) struct Refusal<A> {
    /// In whose name.
    pub(super) from: A,
    /// What it is about.
    pub(super) trouble: Trouble,
    /// Why the packet itself goes no further.
    pub(super) reason: Counter,
}

/// A family of addresses.
pub(super) trait Family: FamilyMaps<Ip: Ip> + MemberMaps + Copy + 'static {
    /// Its EtherType.
    const ETHERTYPE: [u8; 2];
    /// Protocol number of its ICMP.
    const ICMP: u8;
    /// The program that knows all of balanced connections.
    const BALANCE: u32;
    /// The same, while connections are on their way from another generation's maps.
    const HANDOVER: u32;

    /// The endpoint's own address.
    fn own(attachment: &Attachment) -> Self::Ip;
    /// The network's gateway.
    fn gateway(attachment: &Attachment) -> Self::Ip;
    /// The address of an endpoint of a namespace.
    fn of_seat(seat: &Seat) -> Self::Ip;
    /// Whether it is a multicast group or the limited broadcast.
    fn is_group(ip: &Self::Ip) -> bool;
    /// A hash of the flow.
    fn hash_of(source: Self::Ip, destination: Self::Ip, ports: Ports, protocol: u8) -> u32;
    /// The same of a packet.
    #[inline(always)]
    fn hash(datagram: &Datagram<Self::Ip>) -> u32 {
        Self::hash_of(datagram.source, datagram.destination, datagram.ports, datagram.protocol)
    }
    /// A connection with this key is in the table now: whoever asks the filter before the table must be told so.
    fn know(key: &FlowKey<Self::Ip>);
    /// Reads the packet that starts `offset` bytes after the start of the frame and reaches to its end into a new `datagram`: in its place,
    /// because the verifier refuses some of the ways in which the compiler copies one.
    fn read(packet: &mut Packet, offset: usize, datagram: &mut Datagram<Self::Ip>) -> Result<(), Counter>;
    /// Writes the addresses and ports of `flow` into the packet, whose header follows the Ethernet header, and keeps its checksums right.
    fn translate(packet: &mut Packet, datagram: &Datagram<Self::Ip>, flow: &Flow<Self::Ip>) -> Result<(), Refused>;
    /// What an ICMP error quotes, if the packet is one.
    fn quoted(packet: &mut Packet, datagram: &Datagram<Self::Ip>) -> Option<Quoted<Self::Ip>>;
    /// Rewrites what an ICMP error quotes into what the other side of `flow` knows.
    fn translate_quoted(packet: &mut Packet, quoted: &Quoted<Self::Ip>, flow: &Flow<Self::Ip>) -> Result<(), Refused>;
    /// Answers an echo in the name of whom it was sent to.
    fn echo(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<Self::Ip>) -> Option<Verdict>;
    /// Drops the packet and tells its sender why, unless it was told enough of late.
    fn unreachable(
        packet: &mut Packet,
        attachment: &Attachment,
        datagram: &Datagram<Self::Ip>,
        refusal: &Refusal<Self::Ip>,
    ) -> Verdict;
    /// Drops the TCP segment and resets its connection.
    fn reset(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<Self::Ip>, reason: Counter) -> Verdict;
}

impl Family for Inet {
    const ETHERTYPE: [u8; 2] = ethernet::IPV4;
    const ICMP: u8 = ipv4::ICMP;
    const BALANCE: u32 = jump::BALANCE;
    const HANDOVER: u32 = jump::HANDOVER;

    #[inline(always)]
    fn own(attachment: &Attachment) -> V4 {
        attachment.ip
    }

    #[inline(always)]
    fn gateway(attachment: &Attachment) -> V4 {
        attachment.gateway
    }

    #[inline(always)]
    fn of_seat(seat: &Seat) -> V4 {
        seat.ip
    }

    #[inline(always)]
    fn is_group(ip: &V4) -> bool {
        ip[0] >= 224
    }

    #[inline(always)]
    fn know(key: &FlowKey<V4>) {
        filter::know(key);
    }

    #[inline(always)]
    fn hash_of(source: V4, destination: V4, ports: Ports, protocol: u8) -> u32 {
        hash::flow(source, destination, ports, protocol)
    }

    #[inline(always)]
    fn read(packet: &mut Packet, offset: usize, datagram: &mut Datagram<V4>) -> Result<(), Counter> {
        packet.pull(offset + Ipv4::LENGTH);
        let mut headers = packet.headers();
        headers.skip(offset);
        let ip = *headers.next::<Ipv4>().ok_or(Counter::DropTruncated)?;
        let header_length = ip.header_length().ok_or(Counter::DropUnknownProtocol)?;
        // A big TCP segment has no total length (it would not fit): zero, and the frame's end counts.
        if ip.total_length() < header_length && ip.total_length() != 0
            || offset + ip.total_length() > packet.len() as usize
        {
            return Err(Counter::DropTruncated);
        }
        datagram.source = ip.source;
        datagram.destination = ip.destination;
        [datagram.protocol] = ip.protocol;
        [datagram.traffic_class] = ip.tos;
        [datagram.ttl] = ip.ttl;
        datagram.header_length = header_length;
        if ip.is_fragment() {
            datagram.fragment = true;
            datagram.later = !ip.is_first_fragment();
            datagram.identification = u32::from(u16::from_ne_bytes(ip.identification));
        }
        datagram.read_transport(packet, offset + header_length)
    }

    #[inline(always)]
    fn translate(packet: &mut Packet, datagram: &Datagram<V4>, flow: &Flow<V4>) -> Result<(), Refused> {
        translate::inet(packet, datagram, flow)
    }

    #[inline(always)]
    fn quoted(packet: &mut Packet, datagram: &Datagram<V4>) -> Option<Quoted<V4>> {
        quoted::inet(packet, datagram)
    }

    #[inline(always)]
    fn translate_quoted(packet: &mut Packet, quoted: &Quoted<V4>, flow: &Flow<V4>) -> Result<(), Refused> {
        quoted::translate(packet, quoted, flow)
    }

    #[inline(always)]
    fn echo(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V4>) -> Option<Verdict> {
        answer::echo(packet, attachment, datagram)
    }

    #[inline(always)]
    fn unreachable(
        packet: &mut Packet,
        attachment: &Attachment,
        datagram: &Datagram<V4>,
        refusal: &Refusal<V4>,
    ) -> Verdict {
        answer::unreachable(packet, attachment, datagram, refusal)
    }

    #[inline(always)]
    fn reset(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V4>, reason: Counter) -> Verdict {
        answer::reset(packet, attachment, datagram, reason)
    }
}

impl Family for Inet6 {
    const ETHERTYPE: [u8; 2] = ethernet::IPV6;
    const ICMP: u8 = ipv6::ICMP;
    const BALANCE: u32 = jump::BALANCE6;
    const HANDOVER: u32 = jump::HANDOVER6;

    #[inline(always)]
    fn own(attachment: &Attachment) -> V6 {
        attachment.ip6
    }

    #[inline(always)]
    fn gateway(attachment: &Attachment) -> V6 {
        attachment.gateway6
    }

    #[inline(always)]
    fn of_seat(seat: &Seat) -> V6 {
        seat.ip6
    }

    #[inline(always)]
    fn is_group(ip: &V6) -> bool {
        ip.is_multicast()
    }

    #[inline(always)]
    fn know(_key: &FlowKey<V6>) {}

    #[inline(always)]
    fn hash_of(source: V6, destination: V6, ports: Ports, protocol: u8) -> u32 {
        hash::flow6(source, destination, ports, protocol)
    }

    #[inline(always)]
    fn read(packet: &mut Packet, offset: usize, datagram: &mut Datagram<V6>) -> Result<(), Counter> {
        read_inet6(packet, offset, datagram)
    }

    #[inline(always)]
    fn translate(packet: &mut Packet, datagram: &Datagram<V6>, flow: &Flow<V6>) -> Result<(), Refused> {
        translate::inet6(packet, datagram, flow)
    }

    #[inline(always)]
    fn quoted(packet: &mut Packet, datagram: &Datagram<V6>) -> Option<Quoted<V6>> {
        quoted::inet6(packet, datagram)
    }

    #[inline(always)]
    fn translate_quoted(packet: &mut Packet, quoted: &Quoted<V6>, flow: &Flow<V6>) -> Result<(), Refused> {
        quoted::translate6(packet, quoted, flow)
    }

    #[inline(always)]
    fn echo(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V6>) -> Option<Verdict> {
        answer6::echo(packet, attachment, datagram)
    }

    #[inline(always)]
    fn unreachable(
        packet: &mut Packet,
        attachment: &Attachment,
        datagram: &Datagram<V6>,
        refusal: &Refusal<V6>,
    ) -> Verdict {
        answer6::unreachable(packet, attachment, datagram, refusal)
    }

    #[inline(always)]
    fn reset(packet: &mut Packet, attachment: &Attachment, datagram: &Datagram<V6>, reason: Counter) -> Verdict {
        answer6::reset(packet, attachment, datagram, reason)
    }
}

/// Reads an IPv6 packet; on a stack of its own, because extension headers take much of it.
#[inline(never)]
fn read_inet6(packet: &mut Packet, offset: usize, datagram: &mut Datagram<V6>) -> Result<(), Counter> {
    packet.pull(offset + Ipv6::LENGTH);
    let mut headers = packet.headers();
    headers.skip(offset);
    let ip = headers.next::<Ipv6>().ok_or(Counter::DropTruncated)?;
    if !ip.is_valid() {
        return Err(Counter::DropUnknownProtocol);
    }
    let payload_length = ip.payload_length();
    datagram.source = V6::new(ip.source);
    datagram.destination = V6::new(ip.destination);
    [datagram.protocol] = ip.next_header;
    datagram.traffic_class = ip.traffic_class();
    [datagram.ttl] = ip.hop_limit;
    datagram.header_length = Ipv6::LENGTH;
    // A segment too big for the field has no length: zero, and the frame's end counts.
    if offset + Ipv6::LENGTH + payload_length > packet.len() as usize {
        return Err(Counter::DropTruncated);
    }
    datagram.skip_extensions(packet, offset)?;
    let transport = offset + datagram.header_length;
    datagram.read_transport(packet, transport)
}
