//! What is dropped for good is answered, as a table: packet in, answer out, counters.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::{Counter, Node, answer, mapped, node};
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{checksum, ipv4};
use weft_tests::expect::*;
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{
    ALICE, Action, CAROL, DAVE, EMPTY_VIP, GATEWAY, Lab, Outcome, UPLINK, VIP, VTEP, without_peer,
};

/// MTU of the way to Carol in the tests of big packets, and what of it an inner packet gets.
const PATH: u32 = 500;
const INNER: u16 = 450;

/// An IPv4 packet of the node's own, to Alice: what the programs write, with no identification.
fn own(from: [u8; 4], tos: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Datagram::new((GATEWAY.0, from), ALICE, Payload::Raw(protocol, payload.to_vec())).bytes();
    bytes[15] = tos;
    bytes[18..20].fill(0);
    bytes[24..26].fill(0);
    let sum = checksum::of(0, &bytes[14..34]).to_be_bytes();
    bytes[24..26].copy_from_slice(&sum);
    bytes
}

/// "Destination unreachable" about `packet`, of which it quotes the first `quoted` bytes.
fn unreachable(from: [u8; 4], code: u8, mtu: u16, packet: &[u8], quoted: usize) -> Vec<u8> {
    let mut icmp = vec![3, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&packet[14..14 + quoted]);
    let sum = checksum::of(0, &icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    own(from, 0xc0, ipv4::ICMP, &icmp)
}

/// The segment that resets the connection of [`tcp_to_vip`].
fn reset(from: [u8; 4], sequence: u32, acknowledgment: u32, flags: u8) -> Vec<u8> {
    let mut tcp = SERVER_PORT.to_be_bytes().to_vec();
    tcp.extend(CLIENT_PORT.to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgment.to_be_bytes());
    tcp.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let pseudo = checksum::pseudo_header(from, ALICE.1, ipv4::TCP, 20);
    let sum = checksum::of(pseudo, &tcp).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    own(from, 0, ipv4::TCP, &tcp)
}

/// The sequence and acknowledgment numbers in a segment.
fn numbers(packet: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
    (number(38), number(42))
}

#[track_caller]
fn told(outcome: Outcome, reason: Counter, expected: &[u8]) {
    outcome
        .is(Action::Redirect, &[reason, Counter::UnreachableSent])
        .packet_is(expected);
}

#[track_caller]
fn was_reset(outcome: Outcome, reason: Counter, expected: &[u8]) {
    outcome
        .is(Action::Redirect, &[reason, Counter::ResetSent])
        .packet_is(expected);
}

/// The way to Carol has the MTU [`PATH`].
fn narrow(lab: &mut Lab) {
    let node = Node {
        next_hop: mapped(VTEP.1),
        source: mapped(UPLINK.1),
        ifindex: lab.uplink,
        mtu: PATH,
        family: node::IPV4,
        padding: 0,
    };
    lab.apply(&[Step::Put(Entry::Node(mapped(VTEP.1), node))]);
}

#[test]
fn a_connection_to_a_vip_without_backend_is_refused() {
    let lab = Lab::new();
    for (flags, length) in [(SYN, 4), (SYN | FIN, 5), (0, 3)] {
        let packet = tcp_to_vip(EMPTY_VIP, flags).bytes();
        let (sequence, _) = numbers(&packet);
        let expected = reset(EMPTY_VIP, 0, sequence.wrapping_add(length), RST | ACK);
        was_reset(lab.from_alice(&packet), Counter::DropNoBackend, &expected);
    }
    for flags in [ACK, ACK | FIN, SYN | ACK] {
        let packet = tcp_to_vip(EMPTY_VIP, flags).bytes();
        let (_, acknowledgment) = numbers(&packet);
        let expected = reset(EMPTY_VIP, acknowledgment, 0, RST);
        was_reset(lab.from_alice(&packet), Counter::DropNoBackend, &expected);
    }
    assert_eq!(lab.flows(), BTreeMap::new());
}

#[test]
fn a_reset_is_not_reset() {
    let lab = Lab::new();
    for flags in [RST, RST | ACK] {
        let packet = tcp_to_vip(EMPTY_VIP, flags).bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropNoBackend);
    }
}

#[test]
fn an_opened_connection_whose_backend_is_gone_is_reset() {
    let mut lab = Lab::new();
    lab.from_alice(&tcp_to_vip(VIP, SYN).bytes())
        .is(Action::Redirect, &[Counter::FlowCreated, Counter::Encapsulated]);
    lab.apply(&[without_peer(CAROL.1)]);
    let packet = tcp_to_vip(VIP, ACK).bytes();
    let expected = reset(VIP, numbers(&packet).1, 0, RST);
    was_reset(lab.from_alice(&packet), Counter::DropBackendGone, &expected);
    // The same ports may be used for a new connection at once.
    let again = tcp_to_vip(VIP, SYN);
    let to_dave = again.clone().with_macs(ALICE.0, DAVE.0).with_ips(ALICE.1, DAVE.1);
    let created = [Counter::FlowCreated, Counter::Encapsulated];
    sent(lab.from_alice(&again.bytes()), to_dave, &created);
}

#[test]
fn a_datagram_to_a_vip_without_backend_is_told_that_nobody_listens() {
    let lab = Lab::new();
    let packet = udp_to_vip(EMPTY_VIP, 7).bytes();
    let expected = unreachable(EMPTY_VIP, 3, 0, &packet, 28);
    told(lab.from_alice(&packet), Counter::DropNoBackend, &expected);
    assert_eq!(lab.flows(), BTreeMap::new());
}

#[test]
fn a_ping_of_a_vip_is_answered_exactly_when_it_has_a_backend() {
    let lab = Lab::new();
    for options in [&[][..], &[1; 8]] {
        let ping = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Echo(7)).with_options(options);
        let mut expected = ping
            .clone()
            .with_macs(GATEWAY.0, ALICE.0)
            .with_ips(VIP, ALICE.1)
            .bytes();
        let icmp = 34 + options.len();
        expected[icmp] = 0;
        expected[icmp + 2..icmp + 4].fill(0);
        let sum = checksum::of(0, &expected[icmp..]).to_be_bytes();
        expected[icmp + 2..icmp + 4].copy_from_slice(&sum);
        lab.from_alice(&ping.bytes())
            .is(Action::Redirect, &[Counter::EchoAnswered])
            .packet_is(&expected);
    }
    let ping = Datagram::new(ALICE, (GATEWAY.0, EMPTY_VIP), Payload::Echo(7)).bytes();
    lab.from_alice(&ping).dropped(&ping, Counter::DropVipProtocol);
    let other = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Raw(1, vec![13; 20])).bytes();
    lab.from_alice(&other).dropped(&other, Counter::DropVipProtocol);
}

#[test]
fn a_vip_speaks_no_other_protocol_and_says_so() {
    let lab = Lab::new();
    for vip in [VIP, EMPTY_VIP] {
        let packet = Datagram::new(ALICE, (GATEWAY.0, vip), Payload::Raw(132, (0..40).collect())).bytes();
        let expected = unreachable(vip, 2, 0, &packet, 28);
        told(lab.from_alice(&packet), Counter::DropVipProtocol, &expected);
    }
    let short = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Raw(132, vec![1; 7])).bytes();
    lab.from_alice(&short).dropped(&short, Counter::DropVipProtocol);
}

#[test]
fn what_is_too_big_for_the_path_is_told_what_fits() {
    let mut lab = Lab::new();
    narrow(&mut lab);
    let direct = Datagram::new(ALICE, CAROL, Payload::Udp(1, 2, vec![1; INNER as usize - 27]));
    let tcp = Datagram::new(ALICE, CAROL, Payload::Tcp(1, 2, ACK, vec![1; INNER as usize - 39]));
    let ping = Datagram::new(
        ALICE,
        CAROL,
        Payload::Raw(1, [&[8, 0, 1, 2][..], &[7; INNER as usize]].concat()),
    );
    let may_be_cut = direct.clone().with_fragment(0);
    let first_fragment = direct.clone().with_fragment(ipv4::MORE_FRAGMENTS);
    for (packet, quoted) in [
        (&direct, 28),
        (&tcp, 40),
        (&ping, 28),
        (&may_be_cut, 28),
        (&first_fragment, 28),
    ] {
        let packet = packet.bytes();
        let expected = unreachable(GATEWAY.1, 4, INNER, &packet, quoted);
        told(lab.from_alice(&packet), Counter::DropTooBig, &expected);
    }
}

#[test]
fn of_a_packet_to_a_vip_the_sender_is_told_as_it_knows_it() {
    let mut lab = Lab::new();
    narrow(&mut lab);
    let payload = Payload::Udp(1, 2, vec![1; INNER as usize]);
    let packet = Datagram::new(ALICE, (GATEWAY.0, VIP), payload).bytes();
    let expected = unreachable(GATEWAY.1, 4, INNER, &packet, 28);
    lab.from_alice(&packet)
        .is(
            Action::Redirect,
            &[Counter::FlowCreated, Counter::DropTooBig, Counter::UnreachableSent],
        )
        .packet_is(&expected);
}

#[test]
fn nothing_is_told_of_errors_later_fragments_and_options() {
    let mut lab = Lab::new();
    narrow(&mut lab);
    let big = vec![1; INNER as usize];
    let error = Datagram::new(ALICE, CAROL, Payload::Raw(1, [&[3, 1, 0, 0][..], &big].concat()));
    let later = Datagram::new(ALICE, CAROL, Payload::Raw(17, big.clone())).with_fragment(3);
    let options = Datagram::new(ALICE, CAROL, Payload::Udp(1, 2, big)).with_options(&[1; 4]);
    for packet in [error, later, options] {
        let packet = packet.bytes();
        lab.from_alice(&packet).dropped(&packet, Counter::DropTooBig);
    }
    let options = tcp_to_vip(EMPTY_VIP, SYN).with_options(&[1; 4]).bytes();
    lab.from_alice(&options).dropped(&options, Counter::DropNoBackend);
}

#[test]
fn a_container_is_told_a_burst_at_once_and_no_more() {
    let lab = Lab::new();
    let packet = udp_to_vip(EMPTY_VIP, 7).bytes();
    let before = lab.counters();
    let attempts = 3 * answer::BURST;
    let start = std::time::Instant::now();
    for _ in 0..attempts {
        lab.from_alice(&packet);
    }
    let paid = start.elapsed().as_nanos() as u64 / answer::COST_NS + 1;
    let counted = |counter| lab.counters()[&counter] - before[&counter];
    let (sent, suppressed) = (counted(Counter::UnreachableSent), counted(Counter::AnswerSuppressed));
    assert_eq!(sent + suppressed, attempts);
    assert_eq!(counted(Counter::DropNoBackend), attempts);
    assert!(
        (answer::BURST..=answer::BURST + paid).contains(&sent),
        "{sent} of {attempts}"
    );
    // Another container has an account of its own.
    let before = lab.counters()[&Counter::AnswerSuppressed];
    let other = Datagram::new(
        weft_tests::programs::BOB,
        (GATEWAY.0, EMPTY_VIP),
        Payload::Udp(1, 2, vec![]),
    );
    assert_eq!(lab.from_bob(&other.bytes()).action, Action::Redirect);
    assert_eq!(lab.counters()[&Counter::AnswerSuppressed], before);
}
