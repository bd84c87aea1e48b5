//! Packet in, packet out, verdict, counters: the programs as a table, through the kernel's own test run.

use std::collections::BTreeMap;
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_dataplane::abi::flow::{CLOSING, REPLY};
use weft_dataplane::abi::{Counter, FlowKey, Node, VXLAN_PORT};
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{Arp, Header, Ipv4, Udp, Vxlan, arp, ethernet, ipv4};
use weft_tests::packet::{Datagram, Mac, OVERHEAD, Payload, Tunnel, arp_bytes, ethernet_bytes};
use weft_tests::programs::{
    ALICE, Action, BOB, CAROL, DAVE, EMPTY_VIP, EVE, FOREIGN_VNI, GATEWAY, Lab, MTU, NOBODY, OWN_VIP, Outcome, UPLINK,
    VIP, VNI, VTEP, at, flow_key, from_vtep, service, without_peer,
};

/// The kernel refuses to run a program on an IPv4 or IPv6 frame that is shorter than the IP header.
const SHORTEST_IPV4: usize = 14 + 20;
const SHORTEST_IPV6: usize = 14 + 40;

const BROADCAST: Mac = [0xff; 6];
const CLIENT_PORT: u16 = 40000;
const SERVER_PORT: u16 = 80;

/// TCP from Alice to a virtual IP, as her container sends it.
fn tcp_to_vip(vip: [u8; 4], flags: u8) -> Datagram {
    Datagram::new(
        ALICE,
        (GATEWAY.0, vip),
        Payload::Tcp(CLIENT_PORT, SERVER_PORT, flags, vec![1, 2, 3]),
    )
}

/// UDP from Alice to a virtual IP.
fn udp_to_vip(vip: [u8; 4], source_port: u16) -> Datagram {
    Datagram::new(
        ALICE,
        (GATEWAY.0, vip),
        Payload::Udp(source_port, 53, b"question".to_vec()),
    )
}

/// What the node sends for Alice's packet to a peer: the frame to the peer's MAC, in VXLAN. The source port is any of the range and is
/// taken over from `got`.
#[track_caller]
fn encapsulated(inner: &Datagram, got: &Outcome, vtep: [u8; 4]) -> Vec<u8> {
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
    };
    let mut bytes = outer.around(&inner.bytes());
    // The builder's identification, which the program does not use.
    bytes[14 + 4..14 + 6].copy_from_slice(&[0, 0]);
    bytes[14 + 10..14 + 12].copy_from_slice(&[0, 0]);
    let sum = weft_dataplane::packet::checksum::of(0, &bytes[14..34]).to_be_bytes();
    bytes[14 + 10..14 + 12].copy_from_slice(&sum);
    bytes
}

fn outer_destination(got: &Outcome) -> Mac {
    *got.packet.first_chunk().expect("an Ethernet header")
}

/// Checks that the packet went to a peer as `inner` says.
#[track_caller]
fn sent(outcome: Outcome, inner: Datagram, counted: &[Counter]) {
    let expected = encapsulated(&inner, &outcome, VTEP.1);
    outcome.is(Action::Redirect, counted).packet_is(&expected);
}

mod arp_requests {
    use super::*;

    fn request(target: [u8; 4]) -> Vec<u8> {
        arp_bytes((ALICE.0, BROADCAST), &Arp::new(arp::REQUEST, ALICE, ([0; 6], target)))
    }

    #[test]
    fn are_answered_for_gateway_neighbour_peer_and_virtual_ip() {
        let lab = Lab::new();
        for (target, mac) in [
            (GATEWAY.1, GATEWAY.0),
            (BOB.1, BOB.0),
            (CAROL.1, CAROL.0),
            (EVE.1, EVE.0),
            (VIP, GATEWAY.0),
            (EMPTY_VIP, GATEWAY.0),
        ] {
            let answer = arp_bytes((mac, ALICE.0), &Arp::new(arp::REPLY, (mac, target), ALICE));
            lab.from_alice(&request(target))
                .is(Action::Redirect, &[Counter::ArpAnswered])
                .packet_is(&answer);
        }
    }

    #[test]
    fn with_padding_are_answered_with_padding() {
        let lab = Lab::new();
        let mut question = request(CAROL.1);
        question.resize(60, 0);
        let mut answer = arp_bytes((CAROL.0, ALICE.0), &Arp::new(arp::REPLY, CAROL, ALICE));
        answer.resize(60, 0);
        lab.from_alice(&question)
            .is(Action::Redirect, &[Counter::ArpAnswered])
            .packet_is(&answer);
    }

    #[test]
    fn for_nobody_are_dropped() {
        let lab = Lab::new();
        for target in [NOBODY.1, [10, 0, 2, 1], [0; 4], [255; 4]] {
            let question = request(target);
            lab.from_alice(&question)
                .dropped(&question, Counter::DropUnknownArpTarget);
        }
    }

    #[test]
    fn for_the_own_address_are_not_answered() {
        let lab = Lab::new();
        let announcement = request(ALICE.1);
        lab.from_alice(&announcement)
            .dropped(&announcement, Counter::DropUnexpectedArp);
        let probe = arp_bytes(
            (ALICE.0, BROADCAST),
            &Arp::new(arp::REQUEST, (ALICE.0, [0; 4]), ([0; 6], ALICE.1)),
        );
        lab.from_alice(&probe).dropped(&probe, Counter::DropUnexpectedArp);
    }

    #[test]
    fn of_a_probe_for_another_address_are_answered() {
        let lab = Lab::new();
        let probe = arp_bytes(
            (ALICE.0, BROADCAST),
            &Arp::new(arp::REQUEST, (ALICE.0, [0; 4]), ([0; 6], CAROL.1)),
        );
        let answer = arp_bytes((CAROL.0, ALICE.0), &Arp::new(arp::REPLY, CAROL, (ALICE.0, [0; 4])));
        lab.from_alice(&probe)
            .is(Action::Redirect, &[Counter::ArpAnswered])
            .packet_is(&answer);
    }

    #[test]
    fn in_the_name_of_another_are_dropped() {
        let lab = Lab::new();
        let cases = [
            (BOB.0, ALICE.0, ALICE.1),
            (ALICE.0, BOB.0, ALICE.1),
            (ALICE.0, ALICE.0, BOB.1),
        ];
        for (frame_source, sender_mac, sender_ip) in cases {
            let question = arp_bytes(
                (frame_source, BROADCAST),
                &Arp::new(arp::REQUEST, (sender_mac, sender_ip), ([0; 6], CAROL.1)),
            );
            lab.from_alice(&question).dropped(&question, Counter::DropSpoofedSource);
        }
    }

    #[test]
    fn replies_and_other_protocols_are_dropped() {
        let lab = Lab::new();
        let reply = arp_bytes((ALICE.0, CAROL.0), &Arp::new(arp::REPLY, ALICE, CAROL));
        lab.from_alice(&reply).dropped(&reply, Counter::DropUnexpectedArp);
        for byte in 14..20 {
            let mut question = request(CAROL.1);
            question[byte] ^= 0x40;
            lab.from_alice(&question).dropped(&question, Counter::DropUnexpectedArp);
        }
    }

    #[test]
    fn cut_short_are_dropped() {
        let lab = Lab::new();
        let question = request(CAROL.1);
        for length in 14..question.len() {
            let question = &question[..length];
            lab.from_alice(question).dropped(question, Counter::DropTruncated);
        }
    }
}

mod out_of_a_container {
    use super::*;

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
            let packet = Datagram::new(ALICE, CAROL, Payload::Raw(ipv4::UDP, vec![3; 3])).with_fragment(fragment);
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
        for to in [NOBODY.1, GATEWAY.1, [8, 8, 8, 8], [10, 0, 1, 255]] {
            let packet = Datagram::new(ALICE, (GATEWAY.0, to), Payload::Echo(1)).bytes();
            lab.from_alice(&packet)
                .dropped(&packet, Counter::DropUnknownDestination);
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
        for ethertype in [ethernet::IPV6, [0x88, 0xcc], [0x81, 0x00], [0, 38]] {
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
    fn what_fits_the_path_is_sent_and_one_byte_more_is_dropped() {
        let lab = Lab::new();
        let of_length = |length: usize| Datagram::new(ALICE, CAROL, Payload::Raw(99, vec![7; length - Ipv4::LENGTH]));
        let largest = of_length(MTU as usize - OVERHEAD);
        sent(lab.from_alice(&largest.bytes()), largest, &[Counter::Encapsulated]);
        let larger = of_length(MTU as usize - OVERHEAD + 1).bytes();
        lab.from_alice(&larger).dropped(&larger, Counter::DropTooBig);
    }

    #[test]
    fn a_smaller_path_mtu_counts() {
        let mut lab = Lab::new();
        let node = Node {
            next_hop: VTEP.1,
            source: UPLINK.1,
            ifindex: lab.uplink,
            mtu: 500,
        };
        lab.apply(&[Step::Put(Entry::Node(VTEP.1, node))]);
        let packet = Datagram::new(ALICE, CAROL, Payload::Udp(1, 2, vec![1; 500 - OVERHEAD - 27])).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropTooBig);
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
}

mod a_virtual_ip {
    use super::*;

    const NEW_FLOW: [Counter; 2] = [Counter::FlowCreated, Counter::Encapsulated];

    /// The packet to a virtual IP as its backend shall see it.
    fn to(packet: &Datagram, backend: (Mac, [u8; 4])) -> Datagram {
        packet
            .clone()
            .with_macs(ALICE.0, backend.0)
            .with_ips(ALICE.1, backend.1)
    }

    #[test]
    fn sends_all_packets_of_a_connection_to_one_backend() {
        let lab = Lab::new();
        let packet = |flags| tcp_to_vip(VIP, flags);
        sent(lab.from_alice(&packet(SYN).bytes()), to(&packet(SYN), CAROL), &NEW_FLOW);
        for flags in [ACK, SYN, ACK | FIN, ACK, RST] {
            sent(
                lab.from_alice(&packet(flags).bytes()),
                to(&packet(flags), CAROL),
                &[Counter::Encapsulated],
            );
        }
    }

    #[test]
    fn remembers_both_directions() {
        let lab = Lab::new();
        lab.from_alice(&tcp_to_vip(VIP, SYN).bytes())
            .is(Action::Redirect, &NEW_FLOW);
        let flows = lab.flows();
        let forward = flow_key(6, (ALICE.1, CLIENT_PORT), (VIP, SERVER_PORT));
        let reply = flow_key(6, (CAROL.1, SERVER_PORT), (ALICE.1, CLIENT_PORT));
        assert_eq!(flows.keys().copied().collect::<Vec<_>>(), sorted([forward, reply]));
        let (forward, reply) = (flows[&forward], flows[&reply]);
        assert_eq!(
            (forward.source, forward.destination, forward.flags),
            (ALICE.1, CAROL.1, 0)
        );
        assert_eq!((reply.source, reply.destination, reply.flags), (VIP, ALICE.1, REPLY));
        assert_eq!(forward.last_seen_ns, reply.last_seen_ns);
        assert_ne!(forward.last_seen_ns, 0);
    }

    fn sorted(mut keys: [FlowKey; 2]) -> Vec<FlowKey> {
        keys.sort_unstable();
        keys.to_vec()
    }

    #[test]
    fn takes_its_backends_in_turn() {
        let lab = Lab::new();
        for turn in 0..7 {
            let packet = udp_to_vip(VIP, 5000 + turn);
            let outcome = lab.from_alice(&packet.bytes());
            match turn % 3 {
                0 => sent(outcome, to(&packet, CAROL), &NEW_FLOW),
                1 => sent(outcome, to(&packet, DAVE), &NEW_FLOW),
                _ => {
                    outcome
                        .is(Action::Redirect, &[Counter::FlowCreated, Counter::DeliveredLocally])
                        .packet_is(&to(&packet, BOB).bytes());
                }
            }
        }
    }

    #[test]
    fn keeps_its_turn_when_its_backends_change() {
        let mut lab = Lab::new();
        let backend = |lab: &Lab, port| {
            let out = lab.from_alice(&udp_to_vip(VIP, port).bytes()).packet;
            // The inner destination address, or the frame's own when it was delivered here.
            let offset = if out[14 + 9] == ipv4::UDP && out[36..38] == VXLAN_PORT.to_be_bytes() {
                50
            } else {
                0
            };
            [out[offset + 30], out[offset + 31], out[offset + 32], out[offset + 33]]
        };
        assert_eq!([backend(&lab, 1), backend(&lab, 2)], [CAROL.1, DAVE.1]);
        lab.apply(&service(VIP, &[CAROL.1, DAVE.1]));
        assert_eq!([backend(&lab, 3), backend(&lab, 4)], [CAROL.1, DAVE.1]);
    }

    #[test]
    fn leaves_udp_without_checksum_without() {
        let lab = Lab::new();
        let packet = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::UdpWithoutChecksum(1, 2, vec![8; 9]));
        sent(lab.from_alice(&packet.bytes()), to(&packet, CAROL), &NEW_FLOW);
    }

    #[test]
    fn serves_packets_with_options() {
        let lab = Lab::new();
        let packet = tcp_to_vip(VIP, SYN).with_options(&[1; 12]);
        sent(lab.from_alice(&packet.bytes()), to(&packet, CAROL), &NEW_FLOW);
    }

    #[test]
    fn drops_fragments_and_other_protocols() {
        let lab = Lab::new();
        for fragment in [ipv4::MORE_FRAGMENTS, ipv4::MORE_FRAGMENTS | 7, 7] {
            let packet = udp_to_vip(VIP, 1).with_fragment(fragment).bytes();
            lab.from_alice(&packet).dropped(&packet, Counter::DropVipFragment);
        }
        for payload in [Payload::Echo(1), Payload::Raw(132, vec![0; 20])] {
            let packet = Datagram::new(ALICE, (GATEWAY.0, VIP), payload).bytes();
            lab.from_alice(&packet).dropped(&packet, Counter::DropVipProtocol);
        }
        assert_eq!(lab.flows(), BTreeMap::new());
    }

    #[test]
    fn without_backend_drops() {
        let lab = Lab::new();
        let packet = tcp_to_vip(EMPTY_VIP, SYN).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropNoBackend);
        assert_eq!(lab.flows(), BTreeMap::new());
    }

    #[test]
    fn drops_while_a_slot_is_missing() {
        let mut lab = Lab::new();
        let key = weft_dataplane::abi::BackendKey {
            vni: VNI,
            vip: VIP,
            slot: 0,
        };
        lab.apply(&[Step::Remove(EntryKey::Backend(key))]);
        let packet = tcp_to_vip(VIP, SYN).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropNoBackend);
    }

    #[test]
    fn whose_backend_is_not_known_yet_drops_and_goes_on_with_the_next() {
        let mut lab = Lab::new();
        lab.apply(&service(VIP, &[NOBODY.1, CAROL.1]));
        let packet = tcp_to_vip(VIP, SYN);
        lab.from_alice(&packet.bytes())
            .dropped(&packet.bytes(), Counter::DropBackendGone);
        sent(lab.from_alice(&packet.bytes()), to(&packet, CAROL), &NEW_FLOW);
    }

    #[test]
    fn gives_a_new_connection_on_old_ports_a_new_backend() {
        for end in [FIN | ACK, RST] {
            let lab = Lab::new();
            lab.from_alice(&tcp_to_vip(VIP, SYN).bytes())
                .is(Action::Redirect, &NEW_FLOW);
            lab.from_alice(&tcp_to_vip(VIP, end).bytes())
                .is(Action::Redirect, &[Counter::Encapsulated]);
            let flows = lab.flows();
            assert!(flows.values().all(|flow| flow.flags & CLOSING != 0), "{flows:?}");
            // What still comes of the old one goes to the old backend.
            let late = tcp_to_vip(VIP, ACK);
            sent(
                lab.from_alice(&late.bytes()),
                to(&late, CAROL),
                &[Counter::Encapsulated],
            );
            let again = tcp_to_vip(VIP, SYN);
            sent(lab.from_alice(&again.bytes()), to(&again, DAVE), &NEW_FLOW);
            let flows = lab.flows();
            assert_eq!(flows.len(), 2, "{flows:?}");
            assert!(flows.values().all(|flow| flow.flags & CLOSING == 0), "{flows:?}");
        }
    }

    #[test]
    fn drops_packets_for_a_backend_that_is_gone_until_a_new_connection() {
        let mut lab = Lab::new();
        lab.from_alice(&tcp_to_vip(VIP, SYN).bytes())
            .is(Action::Redirect, &NEW_FLOW);
        lab.apply(&[without_peer(CAROL.1)]);
        let packet = tcp_to_vip(VIP, ACK).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropBackendGone);
        let again = tcp_to_vip(VIP, SYN);
        sent(lab.from_alice(&again.bytes()), to(&again, DAVE), &NEW_FLOW);
        sent(
            lab.from_alice(&tcp_to_vip(VIP, ACK).bytes()),
            to(&tcp_to_vip(VIP, ACK), DAVE),
            &[Counter::Encapsulated],
        );
    }

    #[test]
    fn moves_udp_to_another_backend_when_its_own_is_gone() {
        let mut lab = Lab::new();
        lab.from_alice(&udp_to_vip(VIP, 1).bytes())
            .is(Action::Redirect, &NEW_FLOW);
        lab.apply(&[without_peer(CAROL.1)]);
        let packet = udp_to_vip(VIP, 1);
        sent(lab.from_alice(&packet.bytes()), to(&packet, DAVE), &NEW_FLOW);
    }

    #[test]
    fn forgets_the_flows_of_a_backend_on_request() {
        let mut lab = Lab::new();
        for port in 1..=6 {
            lab.from_alice(&udp_to_vip(VIP, port).bytes());
        }
        assert_eq!(lab.flows().len(), 12);
        assert_eq!(lab.dataplane.forget_flows(at(CAROL.1)).unwrap(), 4);
        let flows = lab.flows();
        assert_eq!(flows.len(), 8);
        assert!(
            flows
                .iter()
                .all(|(key, flow)| key.source != CAROL.1 && flow.destination != CAROL.1)
        );
    }

    #[test]
    fn shows_a_client_that_is_its_own_backend_the_virtual_ip_as_the_other_end() {
        let lab = Lab::new();
        let back = |packet: &Datagram| packet.clone().with_macs(GATEWAY.0, ALICE.0).with_ips(OWN_VIP, ALICE.1);
        let delivered = [Counter::DeliveredLocally];
        let created = [Counter::FlowCreated, Counter::DeliveredLocally];
        let question = tcp_to_vip(OWN_VIP, SYN);
        lab.from_alice(&question.bytes())
            .is(Action::Redirect, &created)
            .packet_is(&back(&question).bytes());
        // The server in the same container answers to the virtual IP, and its client sees the virtual IP answer.
        let answer = Datagram::new(
            ALICE,
            (GATEWAY.0, OWN_VIP),
            Payload::Tcp(SERVER_PORT, CLIENT_PORT, SYN | ACK, vec![]),
        );
        lab.from_alice(&answer.bytes())
            .is(Action::Redirect, &delivered)
            .packet_is(&back(&answer).bytes());
        let more = tcp_to_vip(OWN_VIP, ACK);
        lab.from_alice(&more.bytes())
            .is(Action::Redirect, &delivered)
            .packet_is(&back(&more).bytes());
        assert_eq!(lab.flows().len(), 2);
    }

    #[test]
    fn serves_a_client_that_talks_to_itself_from_a_port_to_the_same_port() {
        let lab = Lab::new();
        let packet = Datagram::new(ALICE, (GATEWAY.0, OWN_VIP), Payload::Udp(53, 53, vec![1]));
        let back = packet
            .clone()
            .with_macs(GATEWAY.0, ALICE.0)
            .with_ips(OWN_VIP, ALICE.1)
            .bytes();
        for counted in [
            vec![Counter::FlowCreated, Counter::DeliveredLocally],
            vec![Counter::DeliveredLocally],
        ] {
            lab.from_alice(&packet.bytes())
                .is(Action::Redirect, &counted)
                .packet_is(&back);
        }
        assert_eq!(lab.flows().len(), 1);
    }

    #[test]
    fn of_an_idle_udp_flow_chooses_anew() {
        let lab = Lab::new();
        lab.from_alice(&udp_to_vip(VIP, 1).bytes())
            .is(Action::Redirect, &NEW_FLOW);
        age_flows(&lab);
        let packet = udp_to_vip(VIP, 1);
        sent(lab.from_alice(&packet.bytes()), to(&packet, DAVE), &NEW_FLOW);
        assert_eq!(lab.flows().len(), 2);
    }
}

/// Makes all flows look as if their last packet had come when the machine started. It must have been up for longer than a UDP flow may
/// be idle.
fn age_flows(lab: &Lab) {
    let map = aya::maps::MapData::from_pin(lab.pin_directory().join("flows")).unwrap();
    let mut map: aya::maps::HashMap<_, FlowKey, weft_dataplane::abi::Flow> =
        aya::maps::Map::LruHashMap(map).try_into().unwrap();
    for (key, mut flow) in lab.flows() {
        assert!(
            flow.last_seen_ns > weft_dataplane::abi::flow::UDP_IDLE_NS,
            "this machine started less than five minutes ago"
        );
        flow.last_seen_ns = 0;
        map.insert(key, flow, 0).unwrap();
    }
}

mod out_of_the_overlay {
    use super::*;

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
            from_carol(Payload::Raw(ipv4::UDP, vec![1; 3])).with_fragment(ipv4::MORE_FRAGMENTS),
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
    fn inner_arp_and_ipv6_are_dropped() {
        let lab = Lab::new();
        let mut version_6 = from_carol(Payload::Echo(1)).bytes();
        version_6[14] = 0x65;
        for frame in [
            arp_bytes((CAROL.0, BROADCAST), &Arp::new(arp::REQUEST, CAROL, ([0; 6], ALICE.1))),
            [ethernet_bytes((CAROL.0, ALICE.0), ethernet::IPV6), vec![0x60; 60]].concat(),
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
        assert!(flows.values().all(|flow| flow.flags & CLOSING != 0), "{flows:?}");
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
    fn a_direct_connection_from_the_same_port_is_not_translated() {
        let lab = Lab::new();
        lab.from_alice(&tcp_to_vip(VIP, SYN).bytes());
        let direct = Datagram::new(ALICE, CAROL, Payload::Tcp(CLIENT_PORT, SERVER_PORT, SYN, vec![]));
        sent(lab.from_alice(&direct.bytes()), direct, &[Counter::Encapsulated]);
        let answer = from_carol(Payload::Tcp(SERVER_PORT, CLIENT_PORT, SYN | ACK, vec![]));
        lab.from_underlay(&from_vtep().around(&answer.bytes()))
            .is(Action::Redirect, &[Counter::Delivered])
            .packet_is(&answer.bytes());
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
            .is(Action::Redirect, &[Counter::Delivered])
            .packet_is(&answer.bytes());
    }
}

mod any_bytes {
    use super::*;

    const FRAMES: usize = 100_000;

    /// A small generator of numbers, the same in every run.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next() % limit as u64) as usize
        }
    }

    fn seeds() -> Vec<Vec<u8>> {
        let carol = |payload| from_vtep().around(&Datagram::new(CAROL, ALICE, payload).bytes());
        vec![
            Datagram::new(ALICE, CAROL, Payload::Tcp(1, 2, ACK, vec![1; 50])).bytes(),
            Datagram::new(ALICE, BOB, Payload::Udp(1, 2, vec![1; 50])).bytes(),
            tcp_to_vip(VIP, SYN).bytes(),
            tcp_to_vip(OWN_VIP, SYN).with_options(&[1; 20]).bytes(),
            udp_to_vip(VIP, 77).bytes(),
            arp_bytes((ALICE.0, BROADCAST), &Arp::new(arp::REQUEST, ALICE, ([0; 6], CAROL.1))),
            carol(Payload::Echo(1)),
            carol(Payload::Tcp(SERVER_PORT, CLIENT_PORT, ACK, vec![1; 30])),
            carol(Payload::Udp(53, 77, vec![1; 30])),
        ]
    }

    fn frame(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
        loop {
            let frame = any_frame(numbers, seeds);
            let shortest = match [frame[12], frame[13]] {
                ethernet::IPV4 => SHORTEST_IPV4,
                ethernet::IPV6 => SHORTEST_IPV6,
                _ => 15,
            };
            if frame.len() >= shortest {
                return frame;
            }
        }
    }

    fn any_frame(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
        if numbers.below(4) == 0 {
            let length = 14 + numbers.below(200);
            return (0..length).map(|_| numbers.next() as u8).collect();
        }
        let mut frame = seeds[numbers.below(seeds.len())].clone();
        for _ in 0..numbers.below(4) {
            let at = numbers.below(frame.len());
            frame[at] = numbers.next() as u8;
        }
        match numbers.below(8) {
            0 => frame.truncate(14 + numbers.below(frame.len() - 14)),
            1 => frame.resize(frame.len() + numbers.below(1400), 0xee),
            _ => {}
        }
        frame
    }

    #[test]
    fn have_exactly_one_end_that_is_counted() {
        let lab = Lab::new();
        let seeds = seeds();
        let mut numbers = Numbers(0x5eed_0fda_7a91);
        let before = lab.counters();
        let (mut passed, mut dropped, mut redirected) = (0_u64, 0_u64, 0_u64);
        lab.enter(|dataplane| {
            for index in 0..FRAMES {
                let frame = frame(&mut numbers, &seeds);
                let (hook, ifindex) = if index % 2 == 0 {
                    (weft::dataplane::Hook::Endpoint, lab.alice)
                } else {
                    (weft::dataplane::Hook::Uplink, lab.uplink)
                };
                let result = dataplane
                    .test_run(hook, ifindex, &frame)
                    .unwrap_or_else(|error| panic!("frame {index}: {error:?}: {frame:02x?}"));
                match Action::of(result.action) {
                    Action::Pass => {
                        assert_eq!(
                            hook,
                            weft::dataplane::Hook::Uplink,
                            "frame {index} of a container passed: {frame:02x?}"
                        );
                        assert_eq!(result.packet, frame, "frame {index} passed, but not untouched");
                        passed += 1;
                    }
                    Action::Drop => dropped += 1,
                    Action::Redirect => redirected += 1,
                }
            }
        });
        let after = lab.counters();
        let sum = |wanted: &dyn Fn(Counter) -> bool| -> u64 {
            let delta = |counter: &Counter| after[counter] - before[counter];
            Counter::ALL.iter().filter(|counter| wanted(**counter)).map(delta).sum()
        };
        let forwards = [
            Counter::Encapsulated,
            Counter::Delivered,
            Counter::DeliveredLocally,
            Counter::ArpAnswered,
        ];
        assert_eq!(sum(&Counter::is_drop), dropped);
        assert_eq!(sum(&|counter| forwards.contains(&counter)), redirected);
        assert!(sum(&|counter| counter == Counter::PassedForeignVni) <= passed);
        assert_eq!(passed + dropped + redirected, FRAMES as u64);
        // The frames are of all kinds: each way out was taken many times.
        for count in [passed, dropped, redirected] {
            assert!(
                count > 1000,
                "passed {passed}, dropped {dropped}, redirected {redirected}"
            );
        }
    }
}
