//! Out of the overlay as a table: packet in, packet out, verdict, counters, flows.
#![allow(clippy::unwrap_used)]

use weft_dataplane::abi::Counter;
use weft_dataplane::abi::flow::BACKEND_FINISHED;
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{Arp, Header, Ipv4, Udp, Vxlan, arp, ethernet, ipv4, vxlan};
use weft_tests::packet::{Datagram, Payload, Tunnel, arp_bytes, ethernet_bytes};
use weft_tests::programs::{
    ALICE, Action, BOB, CAROL, DAVE, EVE, FOREIGN_VNI, GATEWAY, Lab, NOBODY, UPLINK, VIP, VTEP, from_vtep, service,
};

use weft_tests::expect::*;

/// A frame of Carol's to Alice.
fn from_carol(payload: Payload) -> Datagram {
    Datagram::new(CAROL, ALICE, payload)
}

#[test]
fn a_frame_is_delivered_to_its_endpoint() {
    let lab = Lab::new();
    for payload in [
        Payload::Echo(3),
        Payload::Tcp(80, 1, ACK, vec![2; 1000]),
        Payload::Udp(80, 1, vec![2; 10]),
        Payload::Raw(50, vec![]),
    ] {
        let frame = from_carol(payload);
        lab.from_underlay(&from_vtep().around(&frame.bytes()))
            .is(Action::Redirect, &[Counter::Delivered])
            .packet_is(&frame.bytes());
    }
}

#[test]
fn the_endpoints_mac_is_written_whatever_the_other_node_believed() {
    let lab = Lab::new();
    let frame = from_carol(Payload::Echo(3));
    let stale = frame.clone().with_macs(CAROL.0, BOB.0);
    lab.from_underlay(&from_vtep().around(&stale.bytes()))
        .is(Action::Redirect, &[Counter::Delivered])
        .packet_is(&frame.bytes());
}

#[test]
fn inner_options_and_fragments_are_delivered() {
    let lab = Lab::new();
    for frame in [
        from_carol(Payload::Udp(1, 2, vec![1])).with_options(&[1; 8]),
        from_carol(Payload::Raw(ipv4::UDP, vec![1; 8])).with_fragment(ipv4::MORE_FRAGMENTS),
        from_carol(Payload::Raw(ipv4::TCP, vec![1; 3])).with_fragment(99),
    ] {
        lab.from_underlay(&from_vtep().around(&frame.bytes()))
            .is(Action::Redirect, &[Counter::Delivered])
            .packet_is(&frame.bytes());
    }
}

#[test]
fn what_is_not_vxlan_passes_untouched() {
    let lab = Lab::new();
    let to_us = |payload| Datagram::new(VTEP, UPLINK, payload);
    let good = from_vtep().around(&from_carol(Payload::Echo(1)).bytes());
    for packet in [
        to_us(Payload::Tcp(1, 4789, SYN, vec![])).bytes(),
        to_us(Payload::Udp(4789, 53, vec![1; 100])).bytes(),
        to_us(Payload::Udp(1, 4789, vec![])).bytes(),
        to_us(Payload::Udp(1, 4789, vec![8, 0, 0, 0, 0, 16, 1])).bytes(),
        to_us(Payload::Udp(1, 4789, vec![8; 100]))
            .with_fragment(ipv4::MORE_FRAGMENTS)
            .bytes(),
        to_us(Payload::Echo(1)).bytes(),
        arp_bytes((VTEP.0, BROADCAST), &Arp::new(arp::REQUEST, VTEP, ([0; 6], UPLINK.1))),
        [ethernet_bytes((VTEP.0, UPLINK.0), ethernet::IPV6), vec![0x60; 60]].concat(),
    ] {
        lab.from_underlay(&packet).passed(&packet);
    }
    let other_port = Tunnel {
        ports: (1, 4790),
        ..from_vtep()
    };
    let packet = other_port.around(&from_carol(Payload::Echo(1)).bytes());
    lab.from_underlay(&packet).passed(&packet);
    let mut other_host = good;
    other_host[0..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    lab.from_underlay(&other_host).passed(&other_host);
}

#[test]
fn a_vni_of_somebody_elses_passes_untouched() {
    let lab = Lab::new();
    let frames = [
        from_carol(Payload::Echo(1)).bytes(),
        ethernet_bytes((CAROL.0, BROADCAST), ethernet::IPV6),
        vec![],
        vec![0; 13],
    ];
    for (flags, options) in [(0x08, vec![]), (0x00, vec![]), (0x08, vec![1; 4])] {
        for frame in &frames {
            let tunnel = Tunnel {
                vni: FOREIGN_VNI,
                flags,
                options: options.clone(),
                ..from_vtep()
            };
            let packet = tunnel.around(frame);
            lab.from_underlay(&packet)
                .is(Action::Pass, &[Counter::PassedForeignVni])
                .packet_is(&packet);
        }
    }
}

#[test]
fn a_frame_for_nobody_here_is_dropped() {
    let lab = Lab::new();
    for to in [
        NOBODY,
        DAVE,
        (BROADCAST, [255; 4]),
        ([1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1]),
    ] {
        let packet = from_vtep().around(&Datagram::new(CAROL, to, Payload::Echo(1)).bytes());
        lab.from_underlay(&packet).dropped(&packet, Counter::DropNoEndpoint);
    }
}

#[test]
fn a_frame_from_where_its_source_does_not_live_is_dropped() {
    let lab = Lab::new();
    for from in [NOBODY, BOB, EVE, ALICE, GATEWAY] {
        let packet = from_vtep().around(&Datagram::new(from, ALICE, Payload::Echo(1)).bytes());
        lab.from_underlay(&packet).dropped(&packet, Counter::DropUnknownPeer);
    }
    let elsewhere = Tunnel {
        ips: ([192, 168, 50, 99], UPLINK.1),
        ..from_vtep()
    };
    let packet = elsewhere.around(&from_carol(Payload::Echo(1)).bytes());
    lab.from_underlay(&packet).dropped(&packet, Counter::DropUnknownPeer);
}

#[test]
fn a_header_without_valid_vni_is_dropped() {
    let lab = Lab::new();
    for flags in [0x00, 0xf7] {
        let packet = Tunnel { flags, ..from_vtep() }.around(&from_carol(Payload::Echo(1)).bytes());
        lab.from_underlay(&packet).dropped(&packet, Counter::DropBadVxlan);
    }
    // Reserved bits are ignored on receipt.
    let packet = Tunnel {
        flags: 0xff,
        ..from_vtep()
    }
    .around(&from_carol(Payload::Echo(1)).bytes());
    lab.from_underlay(&packet).is(Action::Redirect, &[Counter::Delivered]);
}

#[test]
fn outer_options_are_dropped() {
    let lab = Lab::new();
    for length in [4, 40] {
        let tunnel = Tunnel {
            options: vec![1; length],
            ..from_vtep()
        };
        let packet = tunnel.around(&from_carol(Payload::Echo(1)).bytes());
        lab.from_underlay(&packet).dropped(&packet, Counter::DropOuterOptions);
    }
}

#[test]
fn inner_arp_and_other_protocols_are_dropped() {
    let lab = Lab::new();
    let mut version_6 = from_carol(Payload::Echo(1)).bytes();
    version_6[14] = 0x65;
    for frame in [
        arp_bytes((CAROL.0, BROADCAST), &Arp::new(arp::REQUEST, CAROL, ([0; 6], ALICE.1))),
        ethernet_bytes((CAROL.0, ALICE.0), [0x81, 0x00]),
        version_6,
    ] {
        let packet = from_vtep().around(&frame);
        lab.from_underlay(&packet).dropped(&packet, Counter::DropInnerProtocol);
    }
}

#[test]
fn an_inner_frame_cut_short_at_any_length_is_dropped() {
    let lab = Lab::new();
    let whole = from_carol(Payload::Tcp(1, 2, ACK, vec![1; 20])).bytes();
    for length in 0..whole.len() {
        let packet = from_vtep().around(&whole[..length]);
        lab.from_underlay(&packet).dropped(&packet, Counter::DropTruncated);
    }
}

#[test]
fn an_outer_packet_cut_short_at_any_length_does_no_harm() {
    let lab = Lab::new();
    let whole = from_vtep().around(&from_carol(Payload::Echo(1)).bytes());
    for length in SHORTEST_IPV4..whole.len() {
        let packet = &whole[..length];
        let outcome = lab.from_underlay(packet);
        if length < 14 + Ipv4::LENGTH + Udp::LENGTH + Vxlan::LENGTH {
            outcome.passed(packet);
        } else {
            outcome.dropped(packet, Counter::DropTruncated);
        }
    }
}

#[test]
fn an_answer_of_a_backend_comes_from_the_virtual_ip() {
    let lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
    let answer = from_carol(Payload::Tcp(SERVER_PORT, CLIENT_PORT, SYN | ACK, vec![7; 11]));
    lab.from_underlay(&from_vtep().around(&answer.bytes()))
        .is(Action::Redirect, &[Counter::Delivered])
        .packet_is(&answer.with_ips(VIP, ALICE.1).bytes());
}

#[test]
fn an_answer_of_a_backend_on_this_node_comes_from_the_virtual_ip() {
    let mut lab = Lab::new();
    lab.apply(&service(VIP, &[BOB.1]));
    lab.from_alice(&udp_to_vip(VIP, 999).bytes());
    let answer = Datagram::new(BOB, ALICE, Payload::Udp(53, 999, b"answer".to_vec()));
    lab.from_bob(&answer.bytes())
        .is(Action::Redirect, &[Counter::DeliveredLocally])
        .packet_is(&answer.with_ips(VIP, ALICE.1).bytes());
}

#[test]
fn packets_of_a_backend_that_answer_nothing_stay_as_they_are() {
    let lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
    for payload in [
        Payload::Tcp(SERVER_PORT, CLIENT_PORT + 1, ACK, vec![]),
        Payload::Tcp(SERVER_PORT + 1, CLIENT_PORT, ACK, vec![]),
        Payload::Udp(SERVER_PORT, CLIENT_PORT, vec![]),
        Payload::Echo(1),
    ] {
        let packet = from_carol(payload);
        lab.from_underlay(&from_vtep().around(&packet.bytes()))
            .is(Action::Redirect, &[Counter::Delivered])
            .packet_is(&packet.bytes());
    }
}

#[test]
fn a_fin_of_the_backend_ends_the_connection_too() {
    let lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
    let end = from_carol(Payload::Tcp(SERVER_PORT, CLIENT_PORT, FIN | ACK, vec![]));
    lab.from_underlay(&from_vtep().around(&end.bytes()))
        .is(Action::Redirect, &[Counter::Delivered])
        .packet_is(&end.with_ips(VIP, ALICE.1).bytes());
    let flows = lab.flows();
    assert!(
        flows.values().all(|flow| flow.flags & BACKEND_FINISHED != 0),
        "{flows:?}"
    );
}

#[test]
fn a_late_fin_of_the_old_backend_does_not_bring_it_back() {
    let lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
    lab.from_alice(&tcp_to_vip(VIP, RST).bytes());
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes())
        .is(Action::Redirect, &[Counter::FlowCreated, Counter::Encapsulated]);
    let before = lab.flows();
    let late = from_carol(Payload::Tcp(SERVER_PORT, CLIENT_PORT, FIN | ACK, vec![]));
    lab.from_underlay(&from_vtep().around(&late.bytes()))
        .is(Action::Redirect, &[Counter::Delivered])
        .packet_is(&late.bytes());
    assert_eq!(lab.flows(), before);
}

#[test]
fn a_direct_connection_from_the_port_of_a_balanced_one_gets_another() {
    let lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
    let direct = Datagram::new(ALICE, CAROL, Payload::Tcp(CLIENT_PORT, SERVER_PORT, SYN, vec![]));
    let outcome = lab.from_alice(&direct.bytes());
    let inner_port = 14 + vxlan::OVERHEAD + Ipv4::LENGTH;
    let port = u16::from_be_bytes([outcome.packet[inner_port], outcome.packet[inner_port + 1]]);
    assert_ne!(port, CLIENT_PORT, "two connections between the same ports");
    let as_seen = Datagram::new(ALICE, CAROL, Payload::Tcp(port, SERVER_PORT, SYN, vec![]));
    sent(outcome, as_seen, &[Counter::Encapsulated]);
    let delivered = |port| {
        let answer = from_carol(Payload::Tcp(SERVER_PORT, port, SYN | ACK, vec![]));
        lab.from_underlay(&from_vtep().around(&answer.bytes()))
            .is(Action::Redirect, &[Counter::Delivered])
    };
    let answer = from_carol(Payload::Tcp(SERVER_PORT, CLIENT_PORT, SYN | ACK, vec![]));
    delivered(port).packet_is(&answer.bytes());
    delivered(CLIENT_PORT).packet_is(&answer.with_ips(VIP, ALICE.1).bytes());
    // What follows goes the same way.
    let more = Datagram::new(ALICE, CAROL, Payload::Tcp(CLIENT_PORT, SERVER_PORT, ACK, vec![1]));
    let as_seen = Datagram::new(ALICE, CAROL, Payload::Tcp(port, SERVER_PORT, ACK, vec![1]));
    sent(lab.from_alice(&more.bytes()), as_seen, &[Counter::Encapsulated]);
}

#[test]
fn a_connection_that_the_backend_opens_is_not_translated() {
    let lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
    for flags in [SYN, ACK] {
        let packet = from_carol(Payload::Tcp(SERVER_PORT, CLIENT_PORT, flags, vec![]));
        lab.from_underlay(&from_vtep().around(&packet.bytes()))
            .is(Action::Redirect, &[Counter::Delivered])
            .packet_is(&packet.bytes());
    }
}

#[test]
fn an_answer_after_a_long_silence_is_not_translated() {
    let lab = Lab::new();
    lab.from_alice(&udp_to_vip(VIP, 1).bytes());
    age_flows(&lab);
    let answer = from_carol(Payload::Udp(53, 1, vec![1]));
    lab.from_underlay(&from_vtep().around(&answer.bytes()))
        .is(Action::Redirect, &[Counter::FlowExpired, Counter::Delivered])
        .packet_is(&answer.bytes());
}
