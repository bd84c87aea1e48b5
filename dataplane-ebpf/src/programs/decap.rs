//! Takes a frame out of VXLAN and delivers it.

use super::balance;
use super::cursor::Packet;
use super::datagram::Datagram;
use super::local;
use super::verdict::Verdict;
use weft_dataplane::abi::{Counter, Endpoint};
use weft_dataplane::packet::vxlan;

/// Removes the outer headers, translates what answers a balanced connection, and delivers to `endpoint`.
#[inline(always)]
pub(super) fn receive(
    packet: &mut Packet,
    vni: u32,
    datagram: &Datagram,
    source_mac: [u8; 6],
    endpoint: &Endpoint,
) -> Verdict {
    if packet.shrink(vxlan::OVERHEAD).is_err() {
        return Verdict::Drop(Counter::DropAdjustRoom);
    }
    if let Err(counter) = balance::translate_reply(packet, vni, datagram) {
        return Verdict::Drop(counter);
    }
    local::deliver(
        packet,
        endpoint.ifindex,
        endpoint.mac,
        Some(source_mac),
        Counter::Delivered,
    )
}
