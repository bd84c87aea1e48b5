//! Out of a container as a table: packet in, packet out, verdict, counters.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use weft_core::reconcile::{EntryKey, Step};
use weft_dataplane::abi::Counter;
use weft_dataplane::packet::transport::ACK;
use weft_dataplane::packet::{Arp, Header, Ipv4, arp, ethernet, ipv4};
use weft_tests::packet::{Datagram, OVERHEAD, Payload, arp_bytes, ethernet_bytes};
use weft_tests::programs::{ALICE, Action, BOB, CAROL, DAVE, EVE, GATEWAY, Lab, MTU, NOBODY};

use weft_tests::expect::*;

#[test]
fn a_packet_to_a_peer_goes_in_vxlan() {
    let lab = Lab::new();
    for payload in [
        Payload::Echo(1),
        Payload::Tcp(1, 2, ACK, vec![9; 100]),
        Payload::Udp(1, 2, vec![9; 7]),
        Payload::UdpWithoutChecksum(1, 2, vec![]),
        Payload::Raw(132, vec![5; 40]),
    ] {
        let packet = Datagram::new(ALICE, CAROL, payload);
        sent(lab.from_alice(&packet.bytes()), packet, &[Counter::Encapsulated]);
    }
    assert_eq!(lab.flows(), BTreeMap::new());
}

#[test]
fn the_peers_mac_is_written_whatever_the_container_believed() {
    let lab = Lab::new();
    let packet = Datagram::new(ALICE, CAROL, Payload::Echo(1));
    let stale = packet.clone().with_macs(ALICE.0, DAVE.0);
    sent(lab.from_alice(&stale.bytes()), packet, &[Counter::Encapsulated]);
}

#[test]
fn options_and_fragments_travel_to_a_peer() {
    let lab = Lab::new();
    let options = Datagram::new(ALICE, CAROL, Payload::Tcp(1, 2, ACK, vec![1])).with_options(&[1; 40]);
    sent(lab.from_alice(&options.bytes()), options, &[Counter::Encapsulated]);
    for fragment in [ipv4::MORE_FRAGMENTS, ipv4::MORE_FRAGMENTS | 100, 200] {
        let packet = Datagram::new(ALICE, CAROL, Payload::Raw(ipv4::UDP, vec![3; 24])).with_fragment(fragment);
        sent(lab.from_alice(&packet.bytes()), packet, &[Counter::Encapsulated]);
    }
}

#[test]
fn one_flow_keeps_its_source_port_and_flows_spread() {
    let lab = Lab::new();
    let port = |source_port: u16| {
        let packet = Datagram::new(ALICE, CAROL, Payload::Udp(source_port, 2, vec![])).bytes();
        let out = lab.from_alice(&packet).packet;
        u16::from_be_bytes([out[34], out[35]])
    };
    let ports: std::collections::BTreeSet<u16> = (1..=200).map(port).collect();
    assert!(ports.len() > 150, "200 flows have {} ports", ports.len());
    assert_eq!(port(7), port(7));
}

#[test]
fn a_packet_to_a_neighbour_is_delivered_here() {
    let lab = Lab::new();
    let packet = Datagram::new(ALICE, BOB, Payload::Tcp(1, 2, ACK, vec![4]));
    let stale = packet.clone().with_macs(ALICE.0, CAROL.0);
    lab.from_alice(&stale.bytes())
        .is(Action::Redirect, &[Counter::DeliveredLocally])
        .packet_is(&packet.bytes());
}

#[test]
fn a_packet_to_nobody_is_dropped() {
    let lab = Lab::new();
    for to in [NOBODY.1, [8, 8, 8, 8], [10, 0, 1, 255]] {
        let packet = Datagram::new(ALICE, (GATEWAY.0, to), Payload::Echo(1)).bytes();
        lab.from_alice(&packet)
            .dropped(&packet, Counter::DropUnknownDestination);
    }
}

#[test]
fn the_gateway_answers_a_ping_and_nothing_else() {
    let lab = Lab::new();
    let to_gateway = |payload| Datagram::new(ALICE, GATEWAY, payload);
    lab.from_alice(&to_gateway(Payload::Echo(1)).bytes())
        .is(Action::Redirect, &[Counter::EchoAnswered]);
    let other = to_gateway(Payload::Udp(1, 53, vec![1])).bytes();
    lab.from_alice(&other).dropped(&other, Counter::DropUnknownDestination);
}

#[test]
fn a_first_fragment_without_its_transport_header_is_dropped() {
    let lab = Lab::new();
    // Nobody sends such a one but to get past a filter (RFC 1858 section 3).
    for (protocol, length) in [(ipv4::TCP, 8), (ipv4::TCP, 16), (ipv4::UDP, 0)] {
        let packet = Datagram::new(ALICE, CAROL, Payload::Raw(protocol, vec![3; length]))
            .with_fragment(ipv4::MORE_FRAGMENTS)
            .bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropTruncated);
    }
}

#[test]
fn a_packet_in_the_name_of_another_is_dropped() {
    let lab = Lab::new();
    for from in [
        (BOB.0, ALICE.1),
        (ALICE.0, BOB.1),
        (CAROL.0, CAROL.1),
        (ALICE.0, [0; 4]),
    ] {
        let packet = Datagram::new(from, CAROL, Payload::Echo(1)).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropSpoofedSource);
    }
}

#[test]
fn multicast_and_broadcast_are_dropped() {
    let lab = Lab::new();
    for to in [
        ([1, 0, 0x5e, 0, 0, 251], [224, 0, 0, 251]),
        (BROADCAST, [255; 4]),
        (BROADCAST, [10, 0, 1, 255]),
        (CAROL.0, [239, 1, 2, 3]),
        (BROADCAST, CAROL.1),
    ] {
        let packet = Datagram::new(ALICE, to, Payload::Udp(1, 2, vec![])).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropMulticast);
    }
}

#[test]
fn other_protocols_are_dropped() {
    let lab = Lab::new();
    for ethertype in [[0x88, 0xcc], [0x81, 0x00], [0, 38]] {
        let mut frame = ethernet_bytes((ALICE.0, CAROL.0), ethertype);
        frame.resize(80, 0x60);
        lab.from_alice(&frame).dropped(&frame, Counter::DropUnknownProtocol);
    }
    let mut version_6 = Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes();
    version_6[14] = 0x65;
    lab.from_alice(&version_6)
        .dropped(&version_6, Counter::DropUnknownProtocol);
    version_6[14] = 0x44;
    lab.from_alice(&version_6)
        .dropped(&version_6, Counter::DropUnknownProtocol);
}

#[test]
fn a_packet_cut_short_at_any_length_is_dropped() {
    let lab = Lab::new();
    for payload in [Payload::Tcp(1, 2, ACK, vec![1; 20]), Payload::Udp(1, 2, vec![1; 20])] {
        let whole = Datagram::new(ALICE, CAROL, payload).bytes();
        for length in SHORTEST_IPV4..whole.len() {
            let packet = &whole[..length];
            lab.from_alice(packet).dropped(packet, Counter::DropTruncated);
        }
    }
}

#[test]
fn a_header_that_claims_too_little_or_too_much_is_dropped() {
    let lab = Lab::new();
    for total_length in [19_u16, 29, 60000] {
        let mut packet = Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes();
        packet[16..18].copy_from_slice(&total_length.to_be_bytes());
        // 29 bytes are claimed of a packet of 28.
        lab.from_alice(&packet).dropped(&packet, Counter::DropTruncated);
    }
    // A transport header that is not there although the packet is whole.
    for (protocol, length) in [(ipv4::TCP, 19), (ipv4::UDP, 7), (ipv4::TCP, 0)] {
        let packet = Datagram::new(ALICE, CAROL, Payload::Raw(protocol, vec![0; length])).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropTruncated);
    }
}

#[test]
fn a_padded_frame_is_carried_whole() {
    let lab = Lab::new();
    let mut packet = Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes();
    packet.resize(60, 0);
    let out = lab.from_alice(&packet).is(Action::Redirect, &[Counter::Encapsulated]);
    assert_eq!(out.packet.len(), 60 + OVERHEAD);
    assert_eq!(out.packet[OVERHEAD + 14..], packet[14..]);
}

#[test]
fn what_fits_the_path_is_sent_and_one_byte_more_is_not() {
    let lab = Lab::new();
    let of_length = |length: usize| Datagram::new(ALICE, CAROL, Payload::Raw(99, vec![7; length - Ipv4::LENGTH]));
    let largest = of_length(MTU as usize - OVERHEAD);
    sent(lab.from_alice(&largest.bytes()), largest, &[Counter::Encapsulated]);
    let larger = of_length(MTU as usize - OVERHEAD + 1).bytes();
    lab.from_alice(&larger)
        .is(Action::Redirect, &[Counter::DropTooBig, Counter::UnreachableSent]);
}

#[test]
fn a_peer_without_a_route_is_dropped() {
    let lab = Lab::new();
    let packet = Datagram::new(ALICE, EVE, Payload::Echo(1)).bytes();
    lab.from_alice(&packet).dropped(&packet, Counter::DropNoRoute);
}

#[test]
fn an_interface_without_attachment_leaks_nothing() {
    let mut lab = Lab::new();
    let key = EntryKey::Attachment(lab.alice);
    lab.apply(&[Step::Remove(key)]);
    for packet in [
        Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes(),
        arp_bytes((ALICE.0, BROADCAST), &Arp::new(arp::REQUEST, ALICE, ([0; 6], CAROL.1))),
        [ethernet_bytes((ALICE.0, CAROL.0), ethernet::IPV6), vec![0x60; 40]].concat(),
    ] {
        lab.from_alice(&packet).dropped(&packet, Counter::DropNotAttached);
    }
}
