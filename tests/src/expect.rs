//! What the packet tables expect: packets that several of them send, and what the programs shall make of them.

use crate::packet::{Datagram, Mac, Payload, Tunnel};
use crate::programs::{ALICE, Action, GATEWAY, Lab, Outcome, UPLINK, VNI, VTEP};
use weft_dataplane::abi::flow::{ANSWERED, Timeouts};
use weft_dataplane::abi::{Counter, Flow, FlowKey, VXLAN_PORT};
use weft_dataplane::packet::{Header, Ipv4, checksum};

/// The kernel refuses to run a program on an IPv4 frame that is shorter than the IP header.
pub const SHORTEST_IPV4: usize = 14 + 20;
/// The same for IPv6.
pub const SHORTEST_IPV6: usize = 14 + 40;

/// The broadcast MAC.
pub const BROADCAST: Mac = [0xff; 6];
/// The client's port of connections through a virtual IP.
pub const CLIENT_PORT: u16 = 40000;
/// Their server's port.
pub const SERVER_PORT: u16 = 80;

/// TCP from Alice to a virtual IP, as her container sends it.
pub fn tcp_to_vip(vip: [u8; 4], flags: u8) -> Datagram {
    Datagram::new(
        ALICE,
        (GATEWAY.0, vip),
        Payload::Tcp(CLIENT_PORT, SERVER_PORT, flags, vec![1, 2, 3]),
    )
}

/// UDP from Alice to a virtual IP.
pub fn udp_to_vip(vip: [u8; 4], source_port: u16) -> Datagram {
    Datagram::new(
        ALICE,
        (GATEWAY.0, vip),
        Payload::Udp(source_port, 53, b"question".to_vec()),
    )
}

/// What the node sends for Alice's packet to a peer: the frame to the peer's MAC, in VXLAN. The source port is any of the range and is
/// taken over from `got`.
#[track_caller]
pub fn encapsulated(inner: &Datagram, got: &Outcome, vtep: [u8; 4]) -> Vec<u8> {
    let at = 14 + Ipv4::LENGTH;
    let port = u16::from_be_bytes([got.packet[at], got.packet[at + 1]]);
    assert!(port >= 49152, "source port {port}");
    let outer = Tunnel {
        // The kernel writes the outer Ethernet header as it sends the packet; the program leaves the frame's own.
        macs: (inner.macs.0, outer_destination(got)),
        ips: (UPLINK.1, vtep),
        ports: (port, VXLAN_PORT),
        flags: 0x08,
        vni: VNI,
        options: Vec::new(),
        tos: inner.tos & 3,
    };
    let mut bytes = outer.around(&inner.bytes());
    // The builder's identification, which the program does not use.
    bytes[14 + 4..14 + 6].copy_from_slice(&[0, 0]);
    bytes[14 + 10..14 + 12].copy_from_slice(&[0, 0]);
    let sum = checksum::of(0, &bytes[14..34]).to_be_bytes();
    bytes[14 + 10..14 + 12].copy_from_slice(&sum);
    bytes
}

fn outer_destination(got: &Outcome) -> Mac {
    *got.packet.first_chunk().expect("an Ethernet header")
}

/// Checks that the packet went to a peer as `inner` says.
#[track_caller]
pub fn sent(outcome: Outcome, inner: Datagram, counted: &[Counter]) {
    let expected = encapsulated(&inner, &outcome, VTEP.1);
    outcome.is(Action::Redirect, counted).packet_is(&expected);
}

/// Makes all flows look as if their last packet had come longer ago than a UDP flow may be idle.
pub fn age_flows(lab: &Lab) {
    let map = aya::maps::MapData::from_pin(lab.dataplane.pin_of("flows")).expect("the pinned map");
    let mut map: aya::maps::HashMap<_, FlowKey, Flow> =
        aya::maps::Map::HashMap(map).try_into().expect("the pinned map");
    crate::policies::age(lab, crate::differential::SILENCE_SECONDS);
    for (key, mut flow) in lab.flows() {
        flow.last_seen = flow
            .last_seen
            .wrapping_sub(Timeouts::DEFAULT.udp_answered + Timeouts::DEFAULT.slack(false, ANSWERED) + 1);
        map.insert(key, flow, 0).expect("the pinned map");
    }
}
