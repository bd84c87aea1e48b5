//! Virtual IPs as a table: packet in, packet out, verdict, counters, flows.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use weft_core::reconcile::{EntryKey, Step};
use weft_dataplane::abi::flow::{CLIENT_FINISHED, REPLY, RESET};
use weft_dataplane::abi::{Counter, FlowKey, VXLAN_PORT};
use weft_dataplane::packet::ipv4;
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_tests::packet::{Datagram, Mac, Payload};
use weft_tests::programs::{
    ALICE, Action, BOB, CAROL, DAVE, GATEWAY, Lab, NOBODY, OWN_VIP, VIP, VNI, at, flow_key, service, without_peer,
};

use weft_tests::expect::*;

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
    assert_eq!(forward.last_seen, reply.last_seen);
    assert_ne!(forward.last_seen, 0);
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
fn fragments_follow_their_first_one() {
    let lab = Lab::new();
    let fragment = |offset, payload| Datagram::new(ALICE, (GATEWAY.0, VIP), payload).with_fragment(offset);
    let later = fragment(ipv4::MORE_FRAGMENTS | 3, Payload::Raw(ipv4::UDP, vec![7; 16]));
    lab.from_alice(&later.bytes())
        .dropped(&later.bytes(), Counter::DropVipFragment);
    assert_eq!(lab.flows(), BTreeMap::new());
    let first = fragment(ipv4::MORE_FRAGMENTS, Payload::UdpWithoutChecksum(9, 53, vec![8; 16]));
    sent(lab.from_alice(&first.bytes()), to(&first, CAROL), &NEW_FLOW);
    for offset in [ipv4::MORE_FRAGMENTS | 3, 5] {
        let later = fragment(offset, Payload::Raw(ipv4::UDP, vec![7; 16]));
        sent(
            lab.from_alice(&later.bytes()),
            to(&later, CAROL),
            &[Counter::Encapsulated],
        );
    }
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
    for (end, ended) in [(FIN | ACK, CLIENT_FINISHED), (RST, RESET)] {
        let lab = Lab::new();
        lab.from_alice(&tcp_to_vip(VIP, SYN).bytes())
            .is(Action::Redirect, &NEW_FLOW);
        lab.from_alice(&tcp_to_vip(VIP, end).bytes())
            .is(Action::Redirect, &[Counter::Encapsulated]);
        let flows = lab.flows();
        assert!(flows.values().all(|flow| flow.flags & ended != 0), "{flows:?}");
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
        assert!(flows.values().all(|flow| flow.flags & ended == 0), "{flows:?}");
    }
}

#[test]
fn a_connection_that_lost_its_backend_gives_way_to_a_new_one() {
    let mut lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes())
        .is(Action::Redirect, &NEW_FLOW);
    lab.apply(&[without_peer(CAROL.1)]);
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
fn forgets_the_flows_of_a_backend_that_is_gone() {
    let mut lab = Lab::new();
    for port in 1..=6 {
        lab.from_alice(&udp_to_vip(VIP, port).bytes());
    }
    assert_eq!(lab.flows().len(), 12);
    let stay = BTreeMap::from([(at(VIP), BTreeMap::from([(DAVE.1, true), (BOB.1, false)]))]);
    assert_eq!(lab.dataplane.keep_members(&stay, &BTreeMap::new()).unwrap(), 2);
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
    let counted = [Counter::FlowExpired, Counter::FlowCreated, Counter::Encapsulated];
    sent(lab.from_alice(&packet.bytes()), to(&packet, DAVE), &counted);
    assert_eq!(lab.flows().len(), 2);
}
