//! ICMP errors about balanced connections: whoever sends one quotes the packet as it saw it, and whoever gets it must know it again
//! (RFC 5508 section 4, which says so of address translation).

use super::balance::{self, Choice};
use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::Family;
use super::{flows, helper};
use weft_dataplane::abi::flow::REPLY;
use weft_dataplane::abi::{Attachment, Counter, Flow};

/// The packet, an ICMP error that a client sent to a virtual IP, is about an answer from there: it goes to the backend that gave it.
#[inline(never)]
pub(super) fn from_client<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
) -> Result<Choice<F::Ip>, Counter> {
    let Some(quoted) = F::quoted(packet, datagram) else {
        return Err(Counter::DropVipProtocol);
    };
    // The quoted packet went the other way.
    let key = quoted.datagram.flow_key(attachment.vni).opposite();
    let Some(found) = flows::find_alive::<F>(&key, helper::now_ticks()) else {
        return Err(Counter::DropVipProtocol);
    };
    let flow = found.flow;
    if flow.flags & REPLY != 0 || datagram.destination != key.destination {
        return Err(Counter::DropVipProtocol);
    }
    let Some(place) = balance::locate::<F>(attachment, flow.destination) else {
        return Err(Counter::DropBackendGone);
    };
    if place.is_client() {
        return Err(Counter::DropVipProtocol);
    }
    let outer = F::new_flow().ok_or(Counter::DropTruncated)?;
    *outer = *flow;
    outer.source = datagram.source;
    F::translate_quoted(packet, &quoted, flow).map_err(|_| Counter::DropTruncated)?;
    Ok(Choice { flow: outer, place })
}

/// The packet, which is about to be delivered on this node, may be an ICMP error about a packet of a balanced connection: then it
/// comes from the virtual IP, and is about what the client sent there.
#[inline(never)]
pub(super) fn from_backend<F: Family>(
    packet: &mut Packet,
    vni: u32,
    datagram: &Datagram<F::Ip>,
) -> Result<(), Counter> {
    let Some(quoted) = F::quoted(packet, datagram) else {
        return Ok(());
    };
    let key = quoted.datagram.flow_key(vni).opposite();
    let Some(found) = flows::find_alive::<F>(&key, helper::now_ticks()) else {
        return Ok(());
    };
    let flow = found.flow;
    if flow.flags & REPLY == 0 {
        return Ok(());
    }
    F::translate_quoted(packet, &quoted, flow).map_err(|_| Counter::DropTruncated)?;
    let outer = F::new_flow().ok_or(Counter::DropTruncated)?;
    *outer = Flow {
        // A router on the way speaks in its own name.
        source: if datagram.source == key.source {
            flow.source
        } else {
            datagram.source
        },
        destination: flow.destination,
        ..*flow
    };
    F::translate(packet, datagram, outer).map_err(|_| Counter::DropTruncated)?;
    super::maps::count(Counter::ErrorTranslated);
    Ok(())
}
