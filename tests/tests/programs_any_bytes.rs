//! Any bytes through both programs: nothing crashes, nothing is lost from the count.
#![allow(clippy::unwrap_used)]

use weft_dataplane::abi::Counter;
use weft_dataplane::packet::transport::{ACK, SYN};
use weft_dataplane::packet::{Arp, arp, ethernet};
use weft_tests::packet::{Datagram, Payload, arp_bytes};
use weft_tests::programs::{ALICE, Action, BOB, CAROL, Lab, OWN_VIP, VIP, from_vtep};

use weft_tests::expect::*;

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
        Counter::EchoAnswered,
    ];
    // The packet itself was dropped, and its sender was told.
    let answers = sum(&|counter| [Counter::UnreachableSent, Counter::ResetSent].contains(&counter));
    assert_eq!(sum(&Counter::is_drop), dropped + answers);
    assert_eq!(sum(&|counter| forwards.contains(&counter)), redirected - answers);
    assert!(answers > 100, "{answers} answers");
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
