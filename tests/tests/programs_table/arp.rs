//! ARP requests of containers (RFC 826, RFC 5227).

use weft_dataplane::abi::Counter;
use weft_dataplane::packet::{Arp, arp};
use weft_tests::expect::BROADCAST;
use weft_tests::packet::{Ip, Mac, arp_bytes};
use weft_tests::programs::{ALICE, BOB, CAROL, DAVE, EMPTY_VIP, EVE, GATEWAY, NOBODY, OWN_VIP, VIP};
use weft_tests::table::{Case, From, case};

fn request(sender: (Mac, Ip), target: Ip) -> Vec<u8> {
    arp_bytes((ALICE.0, BROADCAST), &Arp::new(arp::REQUEST, sender, ([0; 6], target)))
}

fn reply(mac: Mac, target: Ip, to: (Mac, Ip)) -> Vec<u8> {
    arp_bytes((mac, ALICE.0), &Arp::new(arp::REPLY, (mac, target), to))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (who, target, mac) in [
        ("the gateway", GATEWAY.1, GATEWAY.0),
        ("an endpoint of this node", BOB.1, BOB.0),
        ("a peer", CAROL.1, CAROL.0),
        ("another peer", DAVE.1, DAVE.0),
        ("a peer whose node has no route", EVE.1, EVE.0),
        ("a virtual IP", VIP, GATEWAY.0),
        ("a virtual IP without backends", EMPTY_VIP, GATEWAY.0),
        ("a virtual IP of the asker", OWN_VIP, GATEWAY.0),
    ] {
        cases.push(
            case(format!("a request for {who} is answered"))
                .send(From::Alice, request(ALICE, target))
                .redirected(reply(mac, target, ALICE))
                .counts(&[Counter::ArpAnswered]),
        );
        let probe = (ALICE.0, [0; 4]);
        cases.push(
            case(format!("a probe for {who} is answered"))
                .send(From::Alice, request(probe, target))
                .redirected(reply(mac, target, probe))
                .counts(&[Counter::ArpAnswered]),
        );
    }
    let padded = |mut bytes: Vec<u8>| {
        bytes.resize(60, 0);
        bytes
    };
    cases.push(
        case("a padded request is answered with its padding")
            .send(From::Alice, padded(request(ALICE, CAROL.1)))
            .redirected(padded(reply(CAROL.0, CAROL.1, ALICE)))
            .counts(&[Counter::ArpAnswered]),
    );
    for (who, target) in [
        ("nobody", NOBODY.1),
        ("another network", [10, 0, 2, 1]),
        ("no address", [0; 4]),
        ("broadcast", [255; 4]),
        ("multicast", [224, 0, 0, 1]),
    ] {
        cases.push(
            case(format!("a request for {who} is dropped"))
                .send(From::Alice, request(ALICE, target))
                .dropped(Counter::DropUnknownArpTarget),
        );
    }
    cases.push(
        case("an announcement is dropped")
            .send(From::Alice, request(ALICE, ALICE.1))
            .dropped(Counter::DropUnexpectedArp),
    );
    cases.push(
        case("a probe for the own address is not answered, so the address is taken to be free")
            .send(From::Alice, request((ALICE.0, [0; 4]), ALICE.1))
            .dropped(Counter::DropUnexpectedArp),
    );
    for (what, frame, sender) in [
        ("frame", BOB.0, ALICE),
        ("sender's MAC", ALICE.0, (BOB.0, ALICE.1)),
        ("sender's address", ALICE.0, (ALICE.0, BOB.1)),
        ("sender, a peer", ALICE.0, CAROL),
    ] {
        cases.push(
            case(format!("a request with another's {what} is dropped"))
                .send(
                    From::Alice,
                    arp_bytes((frame, BROADCAST), &Arp::new(arp::REQUEST, sender, ([0; 6], CAROL.1))),
                )
                .dropped(Counter::DropSpoofedSource),
        );
    }
    cases.push(
        case("an answer is dropped")
            .send(
                From::Alice,
                arp_bytes((ALICE.0, CAROL.0), &Arp::new(arp::REPLY, ALICE, CAROL)),
            )
            .dropped(Counter::DropUnexpectedArp),
    );
    for (field, offset) in [
        ("hardware", 15),
        ("protocol", 16),
        ("hardware address length", 18),
        ("protocol address length", 19),
        ("operation", 21),
    ] {
        let mut changed = request(ALICE, CAROL.1);
        changed[offset] ^= 0x40;
        cases.push(
            case(format!("a request of another {field} is dropped"))
                .send(From::Alice, changed)
                .dropped(Counter::DropUnexpectedArp),
        );
    }
    let whole = request(ALICE, CAROL.1);
    for length in [14, 15, 20, 27, 41] {
        cases.push(
            case(format!("a request of {length} bytes is dropped"))
                .send(From::Alice, &whole[..length])
                .dropped(Counter::DropTruncated),
        );
    }
    cases
}
