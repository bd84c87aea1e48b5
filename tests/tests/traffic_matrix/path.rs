//! Packets at the limit of the path: what fits arrives in one piece, and of one byte more the sender is told what would fit.

use crate::Family;
use crate::hosts::{Hosts, JUMBO_MTU, Station, UNDERLAY_MTU};
use crate::wire::{Capture, TCP, UDP, conversations, tunnelled};
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use weft_tests::namespace::eventually;
use weft_tests::traffic::{UdpEcho, tcp_both_ways, udp_ask};

const PORT: u16 = 9001;

/// More than the path carries: a container's link leaves finding out to the path.
const BEYOND: usize = 9216;

/// How much TCP carries each way.
const BULK: usize = 400_000;

/// Two stations on an underlay, with captures where the client meets its programs and where packets leave its host.
struct Path {
    hosts: Hosts,
    inside: Capture,
    wire: Capture,
}

impl Path {
    /// On an underlay that carries so much, between containers whose links carry more.
    fn new(family: Family, underlay: u32, inside: usize) -> Self {
        let mut hosts = Hosts::new(family);
        hosts.set_mtu(underlay);
        hosts.set_mtu_inside(inside);
        Path {
            inside: Capture::start(&hosts.alice.namespace, "eth0"),
            wire: Capture::start(&hosts.near.namespace, "uplink"),
            hosts,
        }
    }

    /// What passed meanwhile is of no interest, nor what was learnt of paths.
    fn forget(&self) {
        drop((self.inside.frames(), self.wire.frames()));
        for station in [&self.hosts.alice, &self.hosts.bob] {
            for family in ["-4", "-6"] {
                station.namespace.ip(&format!("{family} route flush cache"));
            }
        }
    }

    /// The longest packet of a protocol that left in VXLAN; all must be whole.
    fn longest(&self, protocol: u8) -> usize {
        let frames = self.wire.frames();
        let tunnelled = frames
            .iter()
            .filter_map(|frame| tunnelled(frame).expect("right headers"));
        let seen = conversations(tunnelled.map(|outer| outer.inner)).expect("right packets");
        let of_protocol = seen.iter().filter(|((_, _, found), _)| *found == protocol);
        let longest = of_protocol.map(|(_, seen)| {
            assert_eq!((seen.fragments, seen.put_together), (0, 0), "{seen:?}");
            seen.longest
        });
        longest.max().unwrap_or(0)
    }

    /// A packet of `size` bytes from Alice to Bob arrives in one piece, and its answer does.
    fn arrives(&self, family: Family, size: usize) {
        self.forget();
        let bob = self.hosts.bob.address(family);
        udp_ask(&self.hosts.alice.namespace, (bob, PORT).into(), payload(family, size))
            .unwrap_or_else(|error| panic!("{family:?}, {size} bytes: {error}\n{}", self.hosts.near.counters()));
        assert_eq!(self.longest(UDP), size, "{family:?}");
    }

    /// A packet of `size` bytes from Alice to Bob does not leave, and she is told that `fits` would.
    fn is_refused(&self, family: Family, size: usize, fits: usize) {
        self.forget();
        let bob = self.hosts.bob.address(family);
        let socket = connected(&self.hosts.alice, bob);
        let mut told = Vec::new();
        eventually("the sender is told what fits", || {
            // Once it knows, the kernel refuses it by itself.
            let _ = socket.send(&vec![0; payload(family, size)]);
            told.extend(self.inside.frames().iter().filter_map(|frame| too_big(frame)));
            !told.is_empty()
        });
        told.dedup();
        assert_eq!(told, [fits], "{family:?}");
        eventually("the kernel believes it", || match family {
            Family::V4 => getsockopt(&socket, sockopt::IpMtu).expect("a path") as usize == fits,
            Family::V6 => {
                let refused = socket.send(&vec![0; payload(family, fits + 1)]);
                let refused = refused.is_err_and(|error| error.raw_os_error() == Some(Errno::EMSGSIZE as i32));
                refused && socket.send(&vec![0; payload(family, fits)]).is_ok()
            }
        });
        assert!(self.longest(UDP) <= fits, "{family:?}");
    }

    /// TCP from the first to the second goes there and back in segments of `fits` bytes.
    fn carries_tcp(&self, family: Family, [client, server]: [&Station; 2], fits: usize) {
        self.forget();
        let address = SocketAddr::from((server.address(family), PORT));
        tcp_both_ways(&server.namespace, address, &client.namespace, address, BULK)
            .unwrap_or_else(|error| panic!("{family:?}: {error}\n{}", self.hosts.near.counters()));
        assert_eq!(self.longest(TCP), fits, "{family:?}");
    }
}

/// What UDP carries in an IP packet of so many bytes.
const fn payload(family: Family, packet: usize) -> usize {
    packet - if matches!(family, Family::V4) { 28 } else { 48 }
}

/// A socket to there whose packets are whole as long as the path is believed to carry them.
fn connected(from: &Station, to: IpAddr) -> UdpSocket {
    from.namespace.enter(|| {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).expect("a port");
        if to.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6DontFrag, &true).expect("no fragments");
        }
        socket.connect(SocketAddr::from((to, PORT))).expect("a route");
        socket
    })
}

/// What would fit, if the frame is the error that says so (RFC 1191 section 4, RFC 4443 section 3.2).
fn too_big(frame: &[u8]) -> Option<usize> {
    let number = |at: usize| {
        frame
            .get(at..at + 2)
            .map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])))
    };
    match (number(12)?, frame.get(14)?) {
        (0x0800, 0x45) if frame.get(23) == Some(&1) && frame.get(34..36) == Some(&[3, 4]) => number(40),
        (0x86dd, _) if frame.get(20) == Some(&58) && frame.get(54..56) == Some(&[2, 0]) => number(60),
        _ => None,
    }
}

/// An underlay with jumbo frames: 8950 bytes go through an IPv4 one in one piece, 8951 do not.
#[test]
fn jumbo_packets_fill_a_jumbo_underlay_to_the_last_byte() {
    for underlay in [Family::V4, Family::V6] {
        let path = Path::new(underlay, JUMBO_MTU, BEYOND);
        let fits = path.hosts.mtu(JUMBO_MTU);
        let _echo = echo(&path.hosts.bob);
        for family in [Family::V4, Family::V6] {
            path.arrives(family, fits);
            path.is_refused(family, fits + 1, fits);
        }
    }
}

/// Containers with jumbo frames on an underlay without: they are told, and TCP goes through.
#[test]
fn jumbo_containers_find_out_what_a_small_underlay_carries() {
    for underlay in [Family::V4, Family::V6] {
        let inside = 8950;
        let path = Path::new(underlay, UNDERLAY_MTU, inside);
        let fits = path.hosts.mtu(UNDERLAY_MTU);
        let _echo = echo(&path.hosts.bob);
        for family in [Family::V4, Family::V6] {
            path.is_refused(family, inside, fits);
            path.arrives(family, fits);
            for offload in [true, false] {
                path.hosts.set_offload(offload);
                let (alice, bob) = (&path.hosts.alice, &path.hosts.bob);
                path.carries_tcp(family, [alice, bob], fits);
                path.carries_tcp(family, [bob, alice], fits);
            }
        }
    }
}

fn echo(station: &Station) -> UdpEcho {
    let everywhere = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, PORT));
    UdpEcho::start(&station.namespace, everywhere, b"")
}
