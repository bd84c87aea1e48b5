//! Lowers the MSS that opens a TCP connection, so that what is sent in answer fits, on networks that ask for it.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::encap;
use super::family::{Family, Inet};
use super::maps::{self, FamilyMaps};
use weft_dataplane::abi::{Ip, V6};
use weft_dataplane::packet::{Ethernet, Header, Ipv4, Ipv6, Tcp, ipv4, transport};

/// Options of a TCP header are 40 bytes at most.
const MAX_OPTIONS: usize = 40;

/// Lowers the MSS of the packet behind an Ethernet header, if it opens a connection of the network `vni`, to what fits the network and
/// the path to `vtep`, if there is one.
#[inline(always)]
pub(super) fn clamp<F: Family>(packet: &mut Packet, datagram: &Datagram<F::Ip>, vni: u32, vtep: Option<&V6>) {
    if datagram.tcp_flags & transport::SYN != 0 && datagram.protocol == ipv4::TCP && datagram.has_ports() {
        let place = (Ethernet::LENGTH + datagram.header_length) as u32;
        lower(packet, place, datagram.transport_length as u32, most::<F>(vni, vtep));
    }
}

/// The greatest MSS that fits; 0 if the network does not ask for it.
#[inline(always)]
fn most<F: Family>(vni: u32, vtep: Option<&V6>) -> u32 {
    let headers = if <F::Ip as Ip>::V6 { Ipv6::LENGTH } else { Ipv4::LENGTH } + Tcp::LENGTH;
    let Some(clamp) = maps::clamp(&vni) else { return 0 };
    let mut mtu = clamp.mtu;
    if let Some(node) = vtep.and_then(maps::node) {
        let path = node.mtu.saturating_sub(encap::overhead(node) as u32);
        if path < mtu {
            mtu = path;
        }
    }
    mtu.saturating_sub(headers as u32)
}

/// Lowers the MSS in the TCP header at `place`, `length` bytes long. An option that is not whole ends the search.
#[inline(never)]
fn lower(packet: &mut Packet, place: u32, length: u32, most: u32) {
    if most == 0 {
        return;
    }
    let Some(scratch) = Inet::scratch() else { return };
    let mut at = Tcp::LENGTH as u32;
    for _ in 0..MAX_OPTIONS {
        let mut option = [0; 2];
        // Else the verifier would walk through every order of options.
        at = maps::unknown(&mut scratch.vni, at);
        if at + 2 > length || packet.read_bytes(place + at, &mut option).is_err() {
            return;
        }
        match option {
            [transport::OPTION_END, _] => return,
            [transport::OPTION_NONE, _] => at += 1,
            [transport::OPTION_MSS, transport::OPTION_MSS_LENGTH] => {
                if at + 4 <= length {
                    let _ = lower_value(packet, place, at + 2, most);
                }
                return;
            }
            [_, 0 | 1] => return,
            [_, length] => at += u32::from(length),
        }
    }
}

/// Lowers the value `at` bytes after the start of the TCP header at `place`.
#[inline(always)]
fn lower_value(packet: &mut Packet, place: u32, at: u32, most: u32) -> Option<()> {
    let mut announced = [0; 2];
    packet.read_bytes(place + at, &mut announced).ok()?;
    if u32::from(u16::from_be_bytes(announced)) <= most {
        return None;
    }
    let new = (most as u16).to_be_bytes();
    packet.write_bytes(place + at, &new).ok()?;
    // The checksum is one of words of two bytes; a value that lies across two of them counts as if its bytes were exchanged.
    let (from, to) = if at & 1 == 1 {
        ([announced[1], announced[0]], [new[1], new[0]])
    } else {
        (announced, new)
    };
    packet
        .replace_port(place + transport::TCP_CHECKSUM_OFFSET as u32, from, to, false)
        .ok()
}
