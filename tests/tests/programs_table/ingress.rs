//! Packets from the underlay: VXLAN of weft's, of others, and all else.

use crate::egress::payloads;
use weft_core::reconcile::{EntryKey, Step};
use weft_dataplane::abi::{Counter, VXLAN_PORT};
use weft_dataplane::packet::transport::{ACK, SYN};
use weft_dataplane::packet::{Arp, arp, ethernet, ipv4};
use weft_tests::expect::BROADCAST;
use weft_tests::packet::{Datagram, Payload, Tunnel, arp_bytes, ethernet_bytes};
use weft_tests::programs::{
    ALICE, BOB, CAROL, DAVE, EVE, FOREIGN_VNI, GATEWAY, LOST_VTEP, NOBODY, UPLINK, VIP, VTEP, at, from_vtep,
    without_peer,
};
use weft_tests::table::{Case, From, case};

fn ping() -> Datagram {
    Datagram::new(CAROL, ALICE, Payload::Echo(3))
}

fn vxlan(tunnel: &Tunnel, frame: &Datagram) -> Vec<u8> {
    tunnel.around(&frame.bytes())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, payload) in payloads() {
        let frame = Datagram::new(CAROL, ALICE, payload);
        cases.push(
            case(format!("{name} of a peer is delivered"))
                .send(From::Underlay, vxlan(&from_vtep(), &frame))
                .delivered(frame),
        );
    }
    for (whom, mac) in [("another", BOB.0), ("nobody", NOBODY.0), ("the gateway", GATEWAY.0)] {
        cases.push(
            case(format!("a frame to the MAC of {whom} gets the endpoint's"))
                .send(From::Underlay, vxlan(&from_vtep(), &ping().with_macs(CAROL.0, mac)))
                .delivered(ping()),
        );
    }
    for (name, fragment) in [
        ("a first fragment", ipv4::MORE_FRAGMENTS),
        ("a middle fragment", ipv4::MORE_FRAGMENTS | 9),
        ("a last fragment", 99),
    ] {
        let frame = Datagram::new(DAVE, BOB, Payload::Udp(1, 2, vec![1; 3])).with_fragment(fragment);
        cases.push(
            case(format!("{name} inside is delivered"))
                .send(From::Underlay, vxlan(&from_vtep(), &frame))
                .delivered(frame),
        );
    }
    let options = Datagram::new(CAROL, ALICE, Payload::Udp(1, 2, vec![1])).with_options(&[1; 8]);
    cases.push(
        case("options inside are delivered")
            .send(From::Underlay, vxlan(&from_vtep(), &options))
            .delivered(options),
    );
    for port in [1, 1023, 49151, 65535] {
        let tunnel = Tunnel {
            ports: (port, VXLAN_PORT),
            ..from_vtep()
        };
        cases.push(
            case(format!("any source port will do: {port}"))
                .send(From::Underlay, vxlan(&tunnel, &ping()))
                .delivered(ping()),
        );
    }
    for flags in [0x08, 0x0c, 0x88, 0xff] {
        let tunnel = Tunnel { flags, ..from_vtep() };
        cases.push(
            case(format!("flags {flags:#04x} have a VNI, reserved bits do not matter"))
                .send(From::Underlay, vxlan(&tunnel, &ping()))
                .delivered(ping()),
        );
    }
    for flags in [0x00, 0x01, 0x80, 0xf7] {
        let tunnel = Tunnel { flags, ..from_vtep() };
        cases.push(
            case(format!("flags {flags:#04x} have no VNI"))
                .send(From::Underlay, vxlan(&tunnel, &ping()))
                .dropped(Counter::DropBadVxlan),
        );
    }
    cases.extend(not_ours());
    cases.extend(refused());
    cases.extend(truncated());
    cases
}

/// What passes to whoever else is on the host.
fn not_ours() -> Vec<Case> {
    let mut cases = Vec::new();
    let to_us = |payload| Datagram::new(VTEP, UPLINK, payload);
    for (name, packet) in [
        (
            "TCP to the port",
            to_us(Payload::Tcp(1, VXLAN_PORT, SYN, vec![])).bytes(),
        ),
        (
            "a datagram from the port",
            to_us(Payload::Udp(VXLAN_PORT, 53, vec![1; 100])).bytes(),
        ),
        (
            "a datagram to the next port",
            to_us(Payload::Udp(1, VXLAN_PORT + 1, vec![8; 100])).bytes(),
        ),
        ("an empty datagram", to_us(Payload::Udp(1, VXLAN_PORT, vec![])).bytes()),
        (
            "7 bytes",
            to_us(Payload::Udp(1, VXLAN_PORT, vec![8, 0, 0, 0, 0, 16, 1])).bytes(),
        ),
        (
            "a first fragment",
            to_us(Payload::Udp(1, VXLAN_PORT, vec![8; 100]))
                .with_fragment(ipv4::MORE_FRAGMENTS)
                .bytes(),
        ),
        (
            "a later fragment",
            to_us(Payload::Udp(1, VXLAN_PORT, vec![8; 100]))
                .with_fragment(7)
                .bytes(),
        ),
        ("a ping", to_us(Payload::Echo(1)).bytes()),
        (
            "ARP",
            arp_bytes((VTEP.0, BROADCAST), &Arp::new(arp::REQUEST, VTEP, ([0; 6], UPLINK.1))),
        ),
        (
            "a VLAN tag",
            [ethernet_bytes((VTEP.0, UPLINK.0), [0x81, 0]), vec![0; 60]].concat(),
        ),
    ] {
        cases.push(case(format!("{name} passes")).send(From::Underlay, packet).passed());
    }
    let mut other_host = vxlan(&from_vtep(), &ping());
    other_host[0..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    cases.push(
        case("a frame for another host passes")
            .send(From::Underlay, other_host)
            .passed(),
    );
    for (name, flags, options) in [
        ("", 0x08, vec![]),
        (" without its flag", 0x00, vec![]),
        (" behind options", 0x08, vec![1; 4]),
    ] {
        for (what, frame) in [
            ("a ping", ping().bytes()),
            ("IPv6", ethernet_bytes((CAROL.0, BROADCAST), ethernet::IPV6)),
            ("nothing", vec![]),
            ("13 bytes", vec![0; 13]),
        ] {
            let tunnel = Tunnel {
                vni: FOREIGN_VNI,
                flags,
                options: options.clone(),
                ..from_vtep()
            };
            cases.push(
                case(format!("{what} of a foreign VNI{name} passes"))
                    .send(From::Underlay, tunnel.around(&frame))
                    .passed()
                    .counts(&[Counter::PassedForeignVni]),
            );
        }
    }
    for vni in [0, 1, 4096, 4098, 0x00ff_ffff] {
        let tunnel = Tunnel { vni, ..from_vtep() };
        cases.push(
            case(format!("VNI {vni} passes"))
                .send(From::Underlay, vxlan(&tunnel, &ping()))
                .passed()
                .counts(&[Counter::PassedForeignVni]),
        );
    }
    cases
}

/// VXLAN of weft's that is not let in.
fn refused() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, to) in [
        ("nobody", NOBODY),
        ("a peer", DAVE),
        ("a virtual IP", (GATEWAY.0, VIP)),
        ("the gateway", GATEWAY),
        ("broadcast", (BROADCAST, [255; 4])),
        ("multicast", ([1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1])),
    ] {
        cases.push(
            case(format!("a frame to {name} is dropped"))
                .send(
                    From::Underlay,
                    vxlan(&from_vtep(), &Datagram::new(CAROL, to, Payload::Echo(1))),
                )
                .dropped(Counter::DropNoEndpoint),
        );
    }
    for (name, from) in [
        ("nobody", NOBODY),
        ("an endpoint of this node", BOB),
        ("the receiver itself", ALICE),
        ("a peer of another node", EVE),
        ("the gateway", GATEWAY),
        ("a virtual IP", (GATEWAY.0, VIP)),
        ("no address", (CAROL.0, [0; 4])),
    ] {
        cases.push(
            case(format!("a frame in the name of {name} is dropped"))
                .send(
                    From::Underlay,
                    vxlan(&from_vtep(), &Datagram::new(from, ALICE, Payload::Echo(1))),
                )
                .dropped(Counter::DropUnknownPeer),
        );
    }
    for (name, vtep) in [
        ("a stranger", [192, 168, 50, 99]),
        ("another node", LOST_VTEP),
        ("this node itself", UPLINK.1),
    ] {
        let tunnel = Tunnel {
            ips: (vtep, UPLINK.1),
            ..from_vtep()
        };
        cases.push(
            case(format!("a frame from {name} is dropped"))
                .send(From::Underlay, vxlan(&tunnel, &ping()))
                .dropped(Counter::DropUnknownPeer),
        );
    }
    cases.push(
        case("a frame of a peer that has gone is dropped")
            .given([without_peer(CAROL.1)])
            .send(From::Underlay, vxlan(&from_vtep(), &ping()))
            .dropped(Counter::DropUnknownPeer),
    );
    cases.push(
        case("a frame for an endpoint that has gone is dropped")
            .given([Step::Remove(EntryKey::Endpoint(at(ALICE.1)))])
            .send(From::Underlay, vxlan(&from_vtep(), &ping()))
            .dropped(Counter::DropNoEndpoint),
    );
    for length in [4, 20, 40] {
        let tunnel = Tunnel {
            options: vec![1; length],
            ..from_vtep()
        };
        cases.push(
            case(format!("{length} bytes of outer options are dropped"))
                .send(From::Underlay, vxlan(&tunnel, &ping()))
                .dropped(Counter::DropOuterOptions),
        );
    }
    let mut version_6 = ping().bytes();
    version_6[14] = 0x65;
    for (name, frame) in [
        (
            "ARP",
            arp_bytes((CAROL.0, BROADCAST), &Arp::new(arp::REQUEST, CAROL, ([0; 6], ALICE.1))),
        ),
        ("a VLAN tag", ethernet_bytes((CAROL.0, ALICE.0), [0x81, 0x00])),
        (
            "LLDP",
            [ethernet_bytes((CAROL.0, ALICE.0), [0x88, 0xcc]), vec![0; 60]].concat(),
        ),
        ("IPv4 of version 6", version_6),
    ] {
        cases.push(
            case(format!("{name} inside is dropped"))
                .send(From::Underlay, from_vtep().around(&frame))
                .dropped(Counter::DropInnerProtocol),
        );
    }
    cases
}

/// Packets cut off, inside and outside.
fn truncated() -> Vec<Case> {
    let mut cases = Vec::new();
    let inner = Datagram::new(CAROL, ALICE, Payload::Tcp(1, 2, ACK, vec![1; 4])).bytes();
    for length in (0..inner.len()).step_by(4) {
        cases.push(
            case(format!("an inner frame of {length} bytes is dropped"))
                .send(From::Underlay, from_vtep().around(&inner[..length]))
                .dropped(Counter::DropTruncated),
        );
    }
    let outer = vxlan(&from_vtep(), &ping());
    for length in [34, 40, 42, 45, 49] {
        cases.push(
            case(format!("an outer packet of {length} bytes passes"))
                .send(From::Underlay, &outer[..length])
                .passed(),
        );
    }
    for length in [50, 55, 63, 64, 70, 83, 91] {
        cases.push(
            case(format!("an outer packet cut after {length} bytes is dropped"))
                .send(From::Underlay, &outer[..length])
                .dropped(Counter::DropTruncated),
        );
    }
    cases
}
