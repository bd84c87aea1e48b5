//! Echo requests and replies, of both families.

use super::{DEADLINE, Place, RETRY};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;
use weft_dataplane::packet::checksum;

/// Sends echo requests with `size` bytes of data until one is answered; says whose answer it was, or that none came.
pub fn ping(from: &impl Place, to: Ipv4Addr, size: usize) -> Result<Ipv4Addr, String> {
    match from.enter(|| ask(to.into(), size))? {
        IpAddr::V4(source) => Ok(source),
        IpAddr::V6(source) => Err(format!("ping {to}: answered by {source}")),
    }
}

/// The same of IPv6.
pub fn ping6(from: &impl Place, to: Ipv6Addr, size: usize) -> Result<Ipv6Addr, String> {
    match from.enter(|| ask(to.into(), size))? {
        IpAddr::V6(source) => Ok(source),
        IpAddr::V4(source) => Err(format!("ping {to}: answered by {source}")),
    }
}

fn ask(to: IpAddr, size: usize) -> Result<IpAddr, String> {
    let text = |error: io::Error| format!("ping {to}: {error}");
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).map_err(text)?;
    socket.set_read_timeout(Some(RETRY)).map_err(text)?;
    let target = SocketAddr::from((to, 0)).into();
    if to.is_ipv6() {
        // Such a socket gives no header to read the source from: only who was asked is heard.
        socket.connect(&target).map_err(text)?;
    }
    let start = Instant::now();
    let mut sequence: u16 = 0;
    while start.elapsed() < DEADLINE {
        sequence += 1;
        // A neighbour that is not known yet, or a full queue, are reasons to try again.
        let _ = socket.send_to(&echo_request(to, sequence, size), &target);
        let mut buffer = vec![0; 65536];
        while let Ok(length) = (&socket).read(&mut buffer) {
            let source = match to {
                IpAddr::V4(_) => echo_reply(&buffer[..length], sequence, size),
                IpAddr::V6(_) => is_reply(&buffer[..length], 129, sequence, size).then_some(to),
            };
            if let Some(source) = source {
                return Ok(source);
            }
        }
    }
    Err(format!("ping {to}: no answer in {DEADLINE:?}"))
}

const IDENTIFIER: [u8; 2] = [0x77, 0x65];

/// The kernel fills in the checksum of ICMPv6, which covers the addresses.
fn echo_request(to: IpAddr, sequence: u16, size: usize) -> Vec<u8> {
    let [high, low] = sequence.to_be_bytes();
    let kind = if to.is_ipv6() { 128 } else { 8 };
    let mut bytes = vec![kind, 0, 0, 0, IDENTIFIER[0], IDENTIFIER[1], high, low];
    bytes.resize(8 + size, 0x5a);
    if to.is_ipv4() {
        let sum = checksum::of(0, &bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
    }
    bytes
}

/// The source of an IPv4 packet that answers the request.
fn echo_reply(packet: &[u8], sequence: u16, size: usize) -> Option<IpAddr> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source = packet.get(12..16)?.first_chunk::<4>()?;
    let message = packet.get(header..)?;
    let ours = is_reply(message, 0, sequence, size) && checksum::of(0, message) == 0;
    ours.then(|| Ipv4Addr::from(*source).into())
}

fn is_reply(message: &[u8], kind: u8, sequence: u16, size: usize) -> bool {
    message.len() == 8 + size
        && message[0] == kind
        && message[4..6] == IDENTIFIER
        && message[6..8] == sequence.to_be_bytes()
}
