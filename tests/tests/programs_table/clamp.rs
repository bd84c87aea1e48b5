//! MSS clamping: what opens a TCP connection says what fits, on networks that ask for it.

use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::Clamp;
use weft_dataplane::abi::Counter::*;
use weft_dataplane::packet::transport::{ACK, SYN};
use weft_tests::packet::{Datagram, Ip, Mac, Payload};
use weft_tests::programs::{ALICE, BOB, CAROL, GATEWAY, VIP, VNI, from_vtep, narrow, service};
use weft_tests::table::From::*;
use weft_tests::table::{Case, case, tcp};

/// What the clamped network carries: the underlay's 1500 bytes less the encapsulation.
const NETWORK_MTU: u32 = 1450;

fn clamp(mtu: u32) -> Step {
    Step::Put(Entry::Clamp(VNI, Clamp { mtu }))
}

/// A segment with options, from port 40000 to port 80 or back.
fn segment(from: (Mac, Ip), to: (Mac, Ip), flags: u8, options: &[u8]) -> Datagram {
    let (source, destination) = if flags & ACK == 0 { (40000, 80) } else { (80, 40000) };
    Datagram::new(
        from,
        to,
        Payload::TcpOptions(source, destination, flags, options.to_vec()),
    )
}

fn mss(value: u16) -> Vec<u8> {
    let [high, low] = value.to_be_bytes();
    vec![2, 4, high, low]
}

/// Options of a Linux SYN: MSS, SACK permitted, time stamps, nothing, window scale.
fn of_linux(value: u16) -> Vec<u8> {
    [&mss(value)[..], &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    let to_carol = |flags, options: &[u8]| segment(ALICE, CAROL, flags, options);
    let from_carol = |flags, options: &[u8]| segment(CAROL, ALICE, flags, options);
    let to_vip = |options: &[u8]| segment(ALICE, (GATEWAY.0, VIP), SYN, options);
    let clamped = |name: &str| case(name).given([clamp(NETWORK_MTU)]);
    let mut cases = vec![
        case("a network that does not ask for it is left alone")
            .send(Alice, to_carol(SYN, &mss(8910)))
            .to_peer(to_carol(SYN, &mss(8910))),
        clamped("a SYN says no more than fits the network")
            .send(Alice, to_carol(SYN, &mss(8910)))
            .to_peer(to_carol(SYN, &mss(1410))),
        clamped("so does a SYN that answers one")
            .send(Alice, to_carol(SYN | ACK, &mss(8910)))
            .to_peer(to_carol(SYN | ACK, &mss(1410))),
        clamped("as much as fits stays")
            .send(Alice, to_carol(SYN, &mss(1410)))
            .to_peer(to_carol(SYN, &mss(1410))),
        clamped("less stays less")
            .send(Alice, to_carol(SYN, &mss(536)))
            .to_peer(to_carol(SYN, &mss(536))),
        clamped("a segment that opens nothing is left alone, whatever it says")
            .send(Alice, to_carol(ACK, &mss(8910)))
            .to_peer(to_carol(ACK, &mss(8910))),
        clamped("a SYN without the option gets none")
            .send(Alice, to_carol(SYN, &[]))
            .to_peer(to_carol(SYN, &[])),
        clamped("the other options stay as they are")
            .send(Alice, to_carol(SYN, &of_linux(1460)))
            .to_peer(to_carol(SYN, &of_linux(1410))),
        case("a path that carries less counts")
            .given([clamp(NETWORK_MTU), narrow(1000)])
            .send(Alice, to_carol(SYN, &mss(1410)))
            .to_peer(to_carol(SYN, &mss(910))),
        case("a path that carries more does not")
            .given([clamp(NETWORK_MTU), narrow(9000)])
            .send(Alice, to_carol(SYN, &mss(8910)))
            .to_peer(to_carol(SYN, &mss(1410))),
        case("a jumbo network on a jumbo underlay has what fits there")
            .given([clamp(8950), narrow(9000)])
            .send(Alice, to_carol(SYN, &mss(65000)))
            .to_peer(to_carol(SYN, &mss(8910))),
        clamped("a neighbour is told what fits the network")
            .send(Alice, segment(ALICE, BOB, SYN, &mss(8910)))
            .to_neighbor(segment(ALICE, BOB, SYN, &mss(1410)).with_macs(ALICE.0, BOB.0)),
        clamped("a virtual IP is no way around it")
            .given(service(VIP, &[CAROL.1]))
            .send(Alice, to_vip(&mss(8910)))
            .to_peer(
                to_vip(&mss(1410))
                    .with_macs(ALICE.0, CAROL.0)
                    .with_ips(ALICE.1, CAROL.1),
            )
            .counts(&[FlowCreated])
            .opens(tcp((ALICE.1, 40000), (VIP, 80), CAROL.1)),
        clamped("what comes from another node is told, too")
            .send(Underlay, from_vtep().around(&from_carol(SYN, &mss(8910)).bytes()))
            .delivered(from_carol(SYN, &mss(1410))),
        case("by the path back to it")
            .given([clamp(NETWORK_MTU), narrow(1000)])
            .send(Underlay, from_vtep().around(&from_carol(SYN | ACK, &mss(1410)).bytes()))
            .delivered(from_carol(SYN | ACK, &mss(910))),
        case("and by nothing where nobody asks for it")
            .given([narrow(1000)])
            .send(Underlay, from_vtep().around(&from_carol(SYN, &mss(1410)).bytes()))
            .delivered(from_carol(SYN, &mss(1410))),
    ];
    // Where the option stands; its value may lie across two words of the checksum.
    for (name, before) in [
        ("nothing", &[1_u8][..]),
        ("two of nothing", &[1, 1]),
        ("a window scale", &[3, 3, 7]),
        ("time stamps", &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("seventeen of nothing", &[1; 17]),
    ] {
        let with = |value| {
            let mut options = [before, &mss(value)].concat();
            options.resize(options.len().next_multiple_of(4), 0);
            options
        };
        cases.push(
            clamped(&format!("the option may stand behind {name}"))
                .send(Alice, to_carol(SYN, &with(0x1234)))
                .to_peer(to_carol(SYN, &with(1410))),
        );
    }
    for (name, options) in [
        ("an end", [0, 2, 4, 0xff, 0xff, 0, 0, 0]),
        ("an option without length", [3, 0, 2, 4, 0xff, 0xff, 0, 0]),
        ("an option of one byte's length", [3, 1, 2, 4, 0xff, 0xff, 0, 0]),
        ("an option beyond the header", [3, 200, 2, 4, 0xff, 0xff, 0, 0]),
        ("an MSS of another length", [2, 6, 0xff, 0xff, 0, 0, 0, 0]),
        ("an MSS that the header has no room for", [1, 1, 1, 1, 1, 1, 2, 4]),
    ] {
        cases.push(
            clamped(&format!("nothing is looked for behind {name}"))
                .send(Alice, to_carol(SYN, &options))
                .to_peer(to_carol(SYN, &options)),
        );
    }
    cases
}
