//! ICMP errors about balanced connections: the packet that one quotes is translated with it (RFC 792, RFC 5508 section 4).

use super::read::{Ipv4, TCP, UDP, array, update, word};
use super::service::{self, Place, alive, locate};
use super::{Attachment, Change, End, Way, World, error};
use weft_dataplane::abi::Counter;

/// What an error quotes: where, and the way of the packet that it is about.
struct Quoted {
    ip: usize,
    transport: usize,
    way: Way,
}

fn read(frame: &[u8], vni: u32, packet: &Ipv4) -> Option<Quoted> {
    let ip = packet.transport + 8;
    if packet.fragment_offset != 0 || frame.len() < ip + 20 || error::is_query(frame[packet.transport]) {
        return None;
    }
    let header = usize::from(frame[ip] & 0x0f) * 4;
    let transport = ip + header;
    let protocol = frame[ip + 9];
    let first = word(frame, ip + 6) & 0x1fff == 0;
    if frame[ip] >> 4 != 4 || header < 20 || !first || protocol != TCP && protocol != UDP || frame.len() < transport + 4
    {
        return None;
    }
    let way = Way {
        vni,
        protocol,
        source: (array(frame, ip + 12), word(frame, transport)),
        destination: (array(frame, ip + 16), word(frame, transport + 2)),
    };
    Some(Quoted { ip, transport, way })
}

impl Quoted {
    /// The way of the packets in the other direction, which the one who sent the error has got.
    fn opposite(&self) -> Way {
        Way {
            source: self.way.destination,
            destination: self.way.source,
            ..self.way
        }
    }

    /// Makes the quoted packet what the other side knows of it.
    fn rewrite(&self, frame: &mut [u8], packet: &Ipv4, change: &Change) {
        let (ip, transport) = (self.ip, self.transport);
        let old: [u8; 8] = array(frame, ip + 12);
        let new = [change.destination.0, change.source.0].concat();
        frame[ip + 12..ip + 20].copy_from_slice(&new);
        update(frame, ip + 10, &old, &new);
        let old: [u8; 4] = array(frame, transport);
        let new = [change.destination.1.to_be_bytes(), change.source.1.to_be_bytes()].concat();
        frame[transport..transport + 4].copy_from_slice(&new);
        // The addresses and the header's checksum change by opposite sums.
        update(frame, packet.transport + 2, &old, &new);
    }
}

/// A client's error about an answer from a virtual IP goes to the backend that gave it.
pub(super) fn from_client(world: &mut World, attachment: &Attachment, frame: &[u8], packet: &Ipv4) -> End {
    let dropped = |reason| End::dropped(frame, reason);
    let Some(quoted) = read(frame, attachment.vni, packet) else {
        return dropped(Counter::DropVipProtocol);
    };
    let way = quoted.opposite();
    let Some(change) = alive(world, way) else {
        return dropped(Counter::DropVipProtocol);
    };
    if change.reply || packet.destination != way.destination.0 {
        return dropped(Counter::DropVipProtocol);
    }
    let place = match locate(world, attachment, change.destination.0) {
        None => return dropped(Counter::DropBackendGone),
        Some(Place::Client) => return dropped(Counter::DropVipProtocol),
        Some(place) => place,
    };
    let mut frame = frame.to_vec();
    quoted.rewrite(&mut frame, packet, &change);
    let outer = Change {
        source: (packet.source, 0),
        ..change
    };
    service::go(world, attachment, &frame, packet, &outer, place)
}

/// An error about what a client sent to a virtual IP comes from there, if it comes from the backend.
pub(super) fn from_backend(world: &mut World, vni: u32, frame: &[u8], packet: &Ipv4) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(quoted) = read(&frame, vni, packet) else {
        return frame;
    };
    let way = quoted.opposite();
    let Some(change) = alive(world, way).filter(|change| change.reply) else {
        return frame;
    };
    quoted.rewrite(&mut frame, packet, &change);
    let source = if packet.source == way.source.0 {
        change.source
    } else {
        (packet.source, 0)
    };
    packet.rewrite(&mut frame, &Change { source, ..change });
    world.counted.push(Counter::ErrorTranslated);
    frame
}
