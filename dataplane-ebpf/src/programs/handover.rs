//! While connections are copied from the maps of another generation: who decides on one that these maps do not know yet.
//!
//! Links get their new programs one after the other, and the last connections that the old programs made are copied after that. Until
//! then a packet of an unknown connection is the old programs' affair, as it came: they know it, or find out as ever that there is
//! none. So no answer is taken for a packet of its own, whichever program its connection was opened by.
//!
//! Fragments and ICMP errors are not handed over: their connection is in their first one, or in what they quote.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Family, Inet, Inet6};
use super::verdict::Verdict;
use super::{filter, maps};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::filter::OFF;
use weft_dataplane::abi::{Counter, OverlayAddress, jump};
use weft_dataplane::packet::{Ethernet, Header, ipv4};

/// Where a container's packet goes on that would go on in [`overlay_balance`](super::overlay_egress::overlay_balance): there, unless it
/// is the old program's affair. A program of its own, as that one's stack is full.
#[classifier]
pub(super) fn overlay_handover(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle::<Inet>(&mut packet).action(&packet)
}

/// The same for IPv6.
#[classifier]
pub(super) fn overlay_handover6(context: TcContext) -> i32 {
    let mut packet = Packet::new(context);
    handle::<Inet6>(&mut packet).action(&packet)
}

#[inline(always)]
fn handle<F: Family>(packet: &mut Packet) -> Verdict {
    let Some(attachment) = maps::attachment(&packet.ifindex()) else {
        return Verdict::Drop(Counter::DropNotAttached);
    };
    let mut datagram = Datagram::default();
    if let Err(counter) = F::read(packet, Ethernet::LENGTH, &mut datagram) {
        return Verdict::Drop(counter);
    }
    of_connection::<F>(packet, attachment.vni, &datagram);
    packet.go_on(F::BALANCE)
}

/// Goes on with a packet of which more must be found out than of those that make up the load.
#[inline(always)]
pub(super) fn go_on_balancing<F: Family>(packet: &mut Packet) -> Verdict {
    packet.go_on(if may_be() { F::HANDOVER } else { F::BALANCE })
}

/// Whether connections may be on their way here: the filter is off then, as it may not have their bits. Else that is rare.
#[inline(always)]
pub(super) fn may_be() -> bool {
    filter::state() == OFF
}

/// Leaves a packet out of the overlay to the old program if it is of no known connection.
#[inline(always)]
pub(super) fn of_reply<F: Family>(packet: &mut Packet, vni: u32, datagram: &Datagram<F::Ip>) {
    if may_be() && is_unknown::<F>(vni, datagram) {
        packet.leave_to(jump::OLD_INGRESS);
    }
}

/// The same of a container's packet. Once all links have their new program, new connections are these maps' own.
#[inline(always)]
fn of_connection<F: Family>(packet: &mut Packet, vni: u32, datagram: &Datagram<F::Ip>) {
    if !is_unknown::<F>(vni, datagram) {
        return;
    }
    let opens = datagram.opens()
        || datagram.protocol != ipv4::TCP && F::service(&OverlayAddress::new(vni, datagram.destination)).is_some();
    packet.leave_to(if opens { jump::OLD_OPENING } else { jump::OLD_EGRESS });
}

#[inline(always)]
fn is_unknown<F: Family>(vni: u32, datagram: &Datagram<F::Ip>) -> bool {
    datagram.has_ports() && !datagram.fragment && F::flow(&datagram.flow_key(vni)).is_none()
}
