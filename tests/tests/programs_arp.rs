//! ARP requests as a table: packet in, packet out, verdict, counters.
#![allow(clippy::unwrap_used)]

use weft_dataplane::abi::Counter;
use weft_dataplane::packet::{Arp, arp};
use weft_tests::packet::arp_bytes;
use weft_tests::programs::{ALICE, Action, BOB, CAROL, EMPTY_VIP, EVE, GATEWAY, Lab, NOBODY, VIP};

use weft_tests::expect::*;

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
