//! MSS clamping of real connections: what is said on the way, and what both ends then believe.

use crate::Family;
use crate::hosts::{Hosts, Station, UNDERLAY_MTU};
use crate::wire::Capture;
use nix::sys::socket::{getsockopt, sockopt};
use std::net::{SocketAddr, TcpListener, TcpStream};
use weft_tests::traffic::tcp_both_ways;

const PORT: u16 = 9002;

/// What the containers' links carry, and the network does not.
const INSIDE: usize = 8950;

/// What the clamped network carries.
const NETWORK_MTU: usize = 1450;

/// Time stamps take so much of every segment (RFC 7323 section 3.2).
const TIME_STAMPS: usize = 12;

/// How much TCP carries each way.
const BULK: usize = 400_000;

/// Headers of IP and TCP.
const fn headers(family: Family) -> usize {
    if matches!(family, Family::V4) { 40 } else { 60 }
}

/// Opens a connection. What the SYN says at the server, what its answer says at the client, and what client and server believe.
fn opened(family: Family, client: &Station, server: &Station) -> [usize; 4] {
    let captures = [server, client].map(|station| Capture::start(&station.namespace, "eth0"));
    let address = SocketAddr::from((server.address(family), PORT));
    let listener = server.namespace.enter(|| TcpListener::bind(address)).expect("a port");
    let stream = client
        .namespace
        .enter(|| TcpStream::connect(address))
        .expect("a server");
    let (accepted, _) = listener.accept().expect("a client");
    let believed = [&stream, &accepted].map(|stream| getsockopt(stream, sockopt::TcpMaxSeg).expect("TCP") as usize);
    let said = captures.map(|capture| {
        let frames = capture.frames();
        // Those that came in, of which the last is meant; that which was sent says more.
        frames.iter().filter_map(|frame| said(frame)).min().expect("a SYN")
    });
    [said[0], said[1], believed[0], believed[1]]
}

/// The MSS that a SYN says.
fn said(frame: &[u8]) -> Option<usize> {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).ok()?;
    let Some(etherparse::TransportHeader::Tcp(tcp)) = packet.transport else {
        return None;
    };
    let mss = tcp.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(usize::from(mss)),
        _ => None,
    });
    mss.filter(|_| tcp.syn)
}

#[test]
fn both_ends_are_told_what_fits_network_and_path() {
    for underlay in [Family::V4, Family::V6] {
        let mut hosts = Hosts::new(underlay);
        hosts.set_mtu_inside(INSIDE);
        // What a kernel vxlan device has behind it says what it is told to.
        let path = hosts.mtu(UNDERLAY_MTU).min(NETWORK_MTU);
        for family in [Family::V4, Family::V6] {
            let open = INSIDE - headers(family);
            let found = opened(family, &hosts.alice, &hosts.bob);
            assert_eq!(
                found[..2],
                [open; 2],
                "{family:?} over {underlay:?}, nobody asks for it"
            );
        }
        hosts.clamp(NETWORK_MTU as u32);
        for family in [Family::V4, Family::V6] {
            let (alice, bob) = (&hosts.alice, &hosts.bob);
            for (client, server, mtu) in [
                (alice, bob, path),
                (bob, alice, path),
                (alice, &hosts.carol, path),
                (&hosts.carol, alice, path),
                (alice, &hosts.neighbour, NETWORK_MTU),
            ] {
                let fits = mtu - headers(family);
                assert_eq!(
                    opened(family, client, server),
                    [fits, fits, fits - TIME_STAMPS, fits - TIME_STAMPS],
                    "{family:?} over {underlay:?}, from {} to {}",
                    client.address(family),
                    server.address(family)
                );
            }
            let address = SocketAddr::from((bob.address(family), PORT));
            tcp_both_ways(&bob.namespace, address, &alice.namespace, address, BULK)
                .unwrap_or_else(|error| panic!("{family:?} over {underlay:?}: {error}"));
        }
        for counters in [hosts.near.counters(), hosts.far.counters()] {
            assert!(!counters.contains("drop_too_big"), "{counters}");
        }
    }
}
