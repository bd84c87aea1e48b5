//! Real traffic of every kind, every way that it can go, read as it passes: TCP, UDP and ICMP of both families, on one host and across,
//! to weft's programs and to a kernel vxlan device, directly and through virtual IPs, in packets of every size.

mod clamping;
mod hosts;
mod path;
mod wire;

use hosts::{Hosts, JUMBO_MTU, Station, UNDERLAY_MTU, VNI};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use weft_tests::traffic::{UdpEcho, ping, ping6, tcp_both_ways, udp_ask};
use wire::{Capture, Seen, TCP, UDP, conversations, tunnelled};

/// How much TCP carries each way: some dozens of the longest segments.
const BULK: usize = 400_000;

/// What travels in fragments: six of them, at the ordinary MTU.
const FRAGMENTED: usize = 8000;

/// Where UDP is answered.
const ECHO_PORT: u16 = 9000;

/// A failing cell may have waited long: so many are enough to see what is wrong.
const MAX_FAILURES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

/// Where the two of them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SameHost,
    Across,
}

/// What stands at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    Weft,
    KernelVxlan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Vip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Mtu,
    Jumbo,
    Fragments,
}

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Alice,
    TheOther,
}

/// Who computes checksums and cuts segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// Whatever is behind the container.
    Offloads,
    /// The container itself.
    Completes,
}

/// A cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    protocol: Protocol,
    family: Family,
    place: Place,
    other: Other,
    way: Way,
    size: Size,
    client: Client,
    sender: Sender,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell {
            protocol,
            family,
            place,
            other,
            way,
            size,
            client,
            sender,
        } = self;
        write!(
            f,
            "{protocol:?} {family:?}, {place:?}, {other:?}, {way:?}, {size:?}, client {client:?}, sender {sender:?}"
        )
    }
}

/// All cells, those in which the hosts stand alike beside each other.
fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for size in [Size::Mtu, Size::Fragments, Size::Jumbo] {
        for sender in [Sender::Offloads, Sender::Completes] {
            for (place, other) in [
                (Place::SameHost, Other::Weft),
                (Place::SameHost, Other::KernelVxlan),
                (Place::Across, Other::Weft),
                (Place::Across, Other::KernelVxlan),
            ] {
                for way in [Way::Direct, Way::Vip] {
                    for client in [Client::Alice, Client::TheOther] {
                        for family in [Family::V4, Family::V6] {
                            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                                cells.push(Cell {
                                    protocol,
                                    family,
                                    place,
                                    other,
                                    way,
                                    size,
                                    client,
                                    sender,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    cells
}

impl Cell {
    /// Why there is nothing to try.
    fn no_meaning(&self) -> Option<&'static str> {
        if self.place == Place::SameHost && self.other == Other::KernelVxlan {
            return Some("containers of one host meet its own programs only");
        }
        if self.way == Way::Vip && self.other == Other::KernelVxlan && self.client == Client::TheOther {
            return Some("a kernel vxlan device balances nothing");
        }
        match (self.protocol, self.way, self.size) {
            (Protocol::Tcp, _, Size::Fragments) => Some("TCP fits its segments to the path, so that nothing cuts them"),
            (Protocol::Icmp, Way::Vip, Size::Fragments) => {
                Some("programs answer pings of a virtual IP, and put no fragments together")
            }
            _ => None,
        }
    }

    fn underlay_mtu(&self) -> u32 {
        match self.size {
            Size::Mtu | Size::Fragments => UNDERLAY_MTU,
            Size::Jumbo => JUMBO_MTU,
        }
    }
}

/// The hosts with their captures, in the state that the last cell wanted.
struct Stage {
    hosts: Hosts,
    wire: Capture,
    /// Of each of [`Hosts::stations`].
    inside: [Capture; 4],
    _echoes: [UdpEcho; 4],
    mtu: u32,
    sender: Sender,
}

/// Client and server of a cell, by their place in [`Hosts::stations`].
struct Ends<'a> {
    client: &'a Station,
    server: &'a Station,
    captures: [&'a Capture; 2],
    /// Where the client sends to.
    target: IpAddr,
}

impl Stage {
    fn new(underlay: Family) -> Self {
        let hosts = Hosts::new(underlay);
        hosts.set_offload(true);
        let echo = |station: &Station| {
            let everywhere = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, ECHO_PORT));
            UdpEcho::start(&station.namespace, everywhere, b"")
        };
        Stage {
            wire: Capture::start(&hosts.near.namespace, "uplink"),
            inside: hosts
                .stations()
                .map(|station| Capture::start(&station.namespace, "eth0")),
            _echoes: hosts.stations().map(echo),
            mtu: UNDERLAY_MTU,
            sender: Sender::Offloads,
            hosts,
        }
    }

    fn set(&mut self, cell: &Cell) {
        if self.mtu != cell.underlay_mtu() {
            self.mtu = cell.underlay_mtu();
            self.hosts.set_mtu(self.mtu);
        }
        if self.sender != cell.sender {
            self.sender = cell.sender;
            self.hosts.set_offload(cell.sender == Sender::Offloads);
        }
    }

    fn ends(&self, cell: &Cell) -> Ends<'_> {
        let alice = 0;
        let other = match (cell.place, cell.other) {
            (Place::SameHost, _) => 1,
            (Place::Across, Other::Weft) => 2,
            (Place::Across, Other::KernelVxlan) => 3,
        };
        let (client, server) = match cell.client {
            Client::Alice => (alice, other),
            Client::TheOther => (other, alice),
        };
        let stations = self.hosts.stations();
        Ends {
            client: stations[client],
            server: stations[server],
            captures: [&self.inside[client], &self.inside[server]],
            target: match cell.way {
                Way::Direct => stations[server].address(cell.family),
                Way::Vip => stations[server].vip(cell.family),
            },
        }
    }

    /// Sends the cell's traffic there and back, and reads what passed.
    fn run(&mut self, cell: &Cell) -> Result<(), String> {
        self.set(cell);
        let ends = self.ends(cell);
        for capture in [&self.wire, ends.captures[0], ends.captures[1]] {
            // What is left of the cell before.
            drop(capture.frames());
        }
        let mtu = self.hosts.mtu(self.mtu);
        traffic(cell, &ends, mtu)?;
        let [at_client, at_server] = ends.captures.map(Capture::frames);
        let wire = self.wire.frames();
        let (client, server) = (ends.client.address(cell.family), ends.server.address(cell.family));
        let answered_by_programs = cell.protocol == Protocol::Icmp && cell.way == Way::Vip;
        self.read_wire(cell, &wire, &[client, server], answered_by_programs, mtu)
            .map_err(|error| format!("on the wire: {error}"))?;
        if cell.sender == Sender::Offloads {
            // A checksum that nobody needs is not computed, when nothing leaves the host.
            return Ok(());
        }
        let frames = at_client.iter().map(Vec::as_slice);
        passed(cell, frames, [client, ends.target], mtu).map_err(|error| format!("at the client: {error}"))?;
        if answered_by_programs {
            return Ok(());
        }
        let frames = at_server.iter().map(Vec::as_slice);
        passed(cell, frames, [client, server], mtu).map_err(|error| format!("at the server: {error}"))
    }

    /// Outer headers, and what is inside: between the two, translated already, or nothing at all.
    fn read_wire(
        &self,
        cell: &Cell,
        frames: &[Vec<u8>],
        between: &[IpAddr; 2],
        answered_by_programs: bool,
        mtu: usize,
    ) -> Result<(), String> {
        let ours = [self.hosts.near.underlay, self.hosts.far.underlay];
        let mut inner = Vec::new();
        for frame in frames {
            let Some(outer) = tunnelled(frame)? else { continue };
            let wrong = |what: String| Err(format!("{what}, outer {} to {}", outer.from, outer.to));
            if outer.vni != VNI {
                return wrong(format!("VNI {}", outer.vni));
            }
            if ours.contains(&outer.from) {
                // A kernel vxlan device sets no "don't fragment", and has ports of its own choice.
                if outer.fragment.is_some_and(|fragment| fragment != 0x4000) {
                    return wrong(format!("flags and offset {:#06x}", outer.fragment.unwrap_or_default()));
                }
                if outer.source_port < 49152 {
                    return wrong(format!("source port {}", outer.source_port));
                }
            }
            inner.push(outer.inner);
        }
        if cell.place == Place::SameHost || answered_by_programs {
            let seen = conversations(inner)?;
            return if seen.is_empty() {
                Ok(())
            } else {
                Err(format!("{seen:?} where nothing should leave the host"))
            };
        }
        passed(cell, inner, *between, mtu)
    }
}

fn traffic(cell: &Cell, ends: &Ends<'_>, mtu: usize) -> Result<(), String> {
    let (client, server, target) = (&ends.client.namespace, &ends.server.namespace, ends.target);
    // Behind the IP header, and in the transport's; TCP fills its segments by itself.
    let header = if cell.family == Family::V4 { 20 } else { 40 };
    let size = match cell.size {
        Size::Mtu | Size::Jumbo => mtu - header - 8,
        Size::Fragments => FRAGMENTED,
    };
    match cell.protocol {
        Protocol::Tcp => {
            let listen = SocketAddr::from((ends.server.address(cell.family), 8000));
            let seen = tcp_both_ways(server, listen, client, SocketAddr::from((target, 8000)), BULK)?;
            is(
                seen.ip(),
                ends.client.address(cell.family),
                "the server's view of its client",
            )
        }
        Protocol::Udp => is(
            udp_ask(client, SocketAddr::from((target, ECHO_PORT)), size)?,
            vec![],
            "the answer's tag",
        ),
        Protocol::Icmp => match target {
            IpAddr::V4(to) => is(ping(client, to, size)?, to, "who answered"),
            IpAddr::V6(to) => is(ping6(client, to, size)?, to, "who answered"),
        },
    }
}

fn is<T: PartialEq + fmt::Debug>(found: T, wanted: T, what: &str) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {found:?} in place of {wanted:?}"))
    }
}

/// Both ways, and nothing else: packets of the cell's protocol with right checksums, as long as they may be, or in fragments.
fn passed<'a>(
    cell: &Cell,
    frames: impl IntoIterator<Item = &'a [u8]>,
    [client, server]: [IpAddr; 2],
    mtu: usize,
) -> Result<(), String> {
    let protocol = match (cell.protocol, cell.family) {
        (Protocol::Tcp, _) => TCP,
        (Protocol::Udp, _) => UDP,
        (Protocol::Icmp, Family::V4) => 1,
        (Protocol::Icmp, Family::V6) => 58,
    };
    let mut seen = conversations(frames)?;
    for (from, to) in [(client, server), (server, client)] {
        let Seen {
            whole,
            fragments,
            put_together,
            longest,
        } = seen.remove(&(from, to, protocol)).unwrap_or_default();
        let right = match cell.size {
            Size::Mtu | Size::Jumbo => whole > 0 && fragments == 0 && longest == mtu,
            Size::Fragments => whole == 0 && put_together > 0 && longest <= mtu,
        };
        if !right {
            return Err(format!(
                "from {from} to {to}: {whole} whole, {fragments} fragments, {put_together} put together, the longest of {longest} bytes where {mtu} are possible"
            ));
        }
    }
    if seen.is_empty() {
        Ok(())
    } else {
        Err(format!("also {seen:?}"))
    }
}

/// Runs all cells of an underlay of this family.
fn matrix(underlay: Family) {
    let mut stage = Stage::new(underlay);
    let (mut tried, mut failures) = (0, Vec::new());
    let mut without_meaning = std::collections::BTreeMap::new();
    for cell in cells() {
        if let Some(reason) = cell.no_meaning() {
            *without_meaning.entry(reason).or_insert(0) += 1;
            continue;
        }
        tried += 1;
        if let Err(error) = stage.run(&cell) {
            let (near, far) = (stage.hosts.near.counters(), stage.hosts.far.counters());
            failures.push(format!("{cell}:\n    {error}\n    near: {near}\n    far: {far}"));
        }
        if failures.len() == MAX_FAILURES {
            break;
        }
    }
    for (reason, count) in &without_meaning {
        println!("{count:>4} cells have no meaning: {reason}");
    }
    println!("{tried:>4} cells tried over {underlay:?}");
    assert!(
        failures.is_empty(),
        "{} of {tried} cells failed over {underlay:?}, at least:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert_eq!(tried, TRIED, "cells are missing, or new ones have no count yet");
}

/// How many cells have a meaning.
const TRIED: usize = 332;

#[test]
fn every_kind_of_traffic_goes_every_way_over_an_ipv4_underlay() {
    matrix(Family::V4);
}

#[test]
fn every_kind_of_traffic_goes_every_way_over_an_ipv6_underlay() {
    matrix(Family::V6);
}
