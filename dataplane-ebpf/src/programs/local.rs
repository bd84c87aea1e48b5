//! Delivers a packet to an endpoint of this node.

use super::cursor::Packet;
use super::verdict::Verdict;
use weft_dataplane::abi::Counter;
use weft_dataplane::packet::Ethernet;

/// Addresses the frame to `destination`, from `source` if given, and hands it to the container behind `ifindex`.
#[inline(always)]
pub(super) fn deliver(
    packet: &mut Packet,
    ifindex: u32,
    destination: [u8; 6],
    source: Option<[u8; 6]>,
    counter: Counter,
) -> Verdict {
    let Some(ethernet) = packet.headers().next::<Ethernet>() else {
        return Verdict::Drop(Counter::DropTruncated);
    };
    ethernet.destination = destination;
    if let Some(source) = source {
        ethernet.source = source;
    }
    Verdict::Redirect(counter, packet.redirect_peer(ifindex))
}
