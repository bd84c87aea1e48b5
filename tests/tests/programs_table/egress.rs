//! Packets of containers to peers and neighbours.

use weft_core::reconcile::{EntryKey, Step};
use weft_dataplane::abi::Counter;
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{Header, Ipv4, checksum, ethernet, ipv4};
use weft_tests::expect::BROADCAST;
use weft_tests::packet::{Datagram, OVERHEAD, Payload, ethernet_bytes};
use weft_tests::programs::{ALICE, BOB, CAROL, DAVE, EVE, GATEWAY, MTU, NOBODY, at, without_peer};
use weft_tests::table::{Case, From, case};

/// What a packet may carry, each with its name.
pub(crate) fn payloads() -> Vec<(String, Payload)> {
    let mut payloads = vec![
        ("a ping".to_owned(), Payload::Echo(1)),
        ("a datagram".to_owned(), Payload::Udp(40000, 53, b"question".to_vec())),
        ("an empty datagram".to_owned(), Payload::Udp(40000, 53, vec![])),
        (
            "a datagram without checksum".to_owned(),
            Payload::UdpWithoutChecksum(40000, 53, vec![7; 9]),
        ),
        (
            "a datagram to the VXLAN port".to_owned(),
            Payload::Udp(1, 4789, vec![8; 16]),
        ),
        ("SCTP".to_owned(), Payload::Raw(132, vec![5; 40])),
        ("ESP".to_owned(), Payload::Raw(50, vec![5; 40])),
        ("nothing at all".to_owned(), Payload::Raw(59, vec![])),
    ];
    for (name, flags) in [
        ("SYN", SYN),
        ("SYN ACK", SYN | ACK),
        ("ACK", ACK),
        ("FIN ACK", FIN | ACK),
        ("RST", RST),
        ("no control bit", 0),
    ] {
        let payload = Payload::Tcp(40000, 80, flags, vec![1; 11]);
        payloads.push((format!("a segment with {name}"), payload));
    }
    payloads
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, payload) in payloads() {
        let peer = Datagram::new(ALICE, CAROL, payload.clone());
        cases.push(
            case(format!("{name} to a peer goes in VXLAN"))
                .send(From::Alice, &peer)
                .to_peer(peer),
        );
        let neighbor = Datagram::new(ALICE, BOB, payload);
        cases.push(
            case(format!("{name} to a neighbour is delivered here"))
                .send(From::Alice, &neighbor)
                .to_neighbor(&neighbor),
        );
    }
    let ping = Datagram::new(ALICE, CAROL, Payload::Echo(1));
    for (whom, stale) in [
        ("another peer", DAVE.0),
        ("the gateway", GATEWAY.0),
        ("nobody", NOBODY.0),
    ] {
        cases.push(
            case(format!("a frame to the MAC of {whom} gets that of its destination"))
                .send(From::Alice, ping.clone().with_macs(ALICE.0, stale))
                .to_peer(ping.clone()),
        );
        let neighbor = Datagram::new(ALICE, BOB, Payload::Echo(1));
        cases.push(
            case(format!(
                "a frame to a neighbour with the MAC of {whom} gets the neighbour's"
            ))
            .send(From::Alice, neighbor.clone().with_macs(ALICE.0, stale))
            .to_neighbor(neighbor),
        );
    }
    for length in [4, 20, 40] {
        let options = Datagram::new(ALICE, CAROL, Payload::Tcp(1, 2, ACK, vec![1])).with_options(&vec![1; length]);
        cases.push(
            case(format!("{length} bytes of options travel to a peer"))
                .send(From::Alice, &options)
                .to_peer(options),
        );
    }
    for (name, fragment) in [
        ("a first fragment", ipv4::MORE_FRAGMENTS),
        ("a middle fragment", ipv4::MORE_FRAGMENTS | 100),
        ("a last fragment", 200),
        ("a packet that may be fragmented", 0),
    ] {
        for (to, place) in [(CAROL, "a peer"), (BOB, "a neighbour")] {
            let packet = Datagram::new(ALICE, to, Payload::Udp(1, 2, vec![3; 3])).with_fragment(fragment);
            let sent = case(format!("{name} travels to {place}")).send(From::Alice, &packet);
            cases.push(if to == BOB {
                sent.to_neighbor(&packet)
            } else {
                sent.to_peer(packet)
            });
        }
    }
    for (name, to) in [
        ("nobody", NOBODY.1),
        ("another network", [10, 0, 2, 4]),
        ("the world", [8, 8, 8, 8]),
        ("the own node's loopback", [127, 0, 0, 1]),
        ("no address", [0; 4]),
    ] {
        cases.push(
            case(format!("a packet to {name} is dropped"))
                .send(From::Alice, Datagram::new(ALICE, (GATEWAY.0, to), Payload::Echo(1)))
                .dropped(Counter::DropUnknownDestination),
        );
    }
    let to_gateway = |payload| Datagram::new(ALICE, GATEWAY, payload);
    cases.push(
        case("a datagram to the gateway is dropped")
            .send(From::Alice, to_gateway(Payload::Udp(1, 53, vec![1])))
            .dropped(Counter::DropUnknownDestination),
    );
    cases.push(
        case("the gateway answers a ping")
            .send(From::Alice, to_gateway(Payload::Echo(7)))
            .redirected(Datagram::new(GATEWAY, ALICE, Payload::Raw(ipv4::ICMP, echo_reply(7))))
            .counts(&[Counter::EchoAnswered]),
    );
    cases.extend(refused());
    cases.extend(lengths());
    cases
}

/// What a container must not send.
fn refused() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, from) in [
        ("a neighbour's MAC", (BOB.0, ALICE.1)),
        ("a neighbour's address", (ALICE.0, BOB.1)),
        ("a peer's MAC and address", CAROL),
        ("the gateway's MAC", (GATEWAY.0, ALICE.1)),
        ("the gateway's address", (ALICE.0, GATEWAY.1)),
        ("no address", (ALICE.0, [0; 4])),
        ("another network's address", (ALICE.0, [10, 0, 2, 2])),
    ] {
        for (to, place) in [(CAROL, "a peer"), (BOB, "a neighbour"), (NOBODY, "nobody")] {
            cases.push(
                case(format!("a packet to {place} with {what} is dropped"))
                    .send(From::Alice, Datagram::new(from, to, Payload::Echo(1)))
                    .dropped(Counter::DropSpoofedSource),
            );
        }
    }
    for (name, to) in [
        ("multicast", ([1, 0, 0x5e, 0, 0, 251], [224, 0, 0, 251])),
        ("multicast to a peer's MAC", (CAROL.0, [239, 1, 2, 3])),
        ("broadcast", (BROADCAST, [255; 4])),
        ("the network's broadcast", (BROADCAST, [10, 0, 1, 255])),
        ("a broadcast frame to a peer", (BROADCAST, CAROL.1)),
        ("a multicast frame to a peer", ([3, 0, 0, 0, 0, 1], CAROL.1)),
    ] {
        cases.push(
            case(format!("{name} is dropped"))
                .send(From::Alice, Datagram::new(ALICE, to, Payload::Udp(1, 2, vec![])))
                .dropped(Counter::DropMulticast),
        );
    }
    for (name, ethertype) in [
        ("LLDP", [0x88, 0xcc]),
        ("a VLAN tag", [0x81, 0x00]),
        ("an IEEE 802.3 length", [0, 38]),
    ] {
        let mut frame = ethernet_bytes((ALICE.0, CAROL.0), ethertype);
        frame.resize(80, 0x60);
        cases.push(
            case(format!("{name} is dropped"))
                .send(From::Alice, frame)
                .dropped(Counter::DropUnknownProtocol),
        );
    }
    for (name, byte) in [("version 6", 0x65), ("version 0", 0x05), ("a header of 16 bytes", 0x44)] {
        let mut packet = Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes();
        packet[14] = byte;
        cases.push(
            case(format!("IPv4 with {name} is dropped"))
                .send(From::Alice, packet)
                .dropped(Counter::DropUnknownProtocol),
        );
    }
    let attached = |name: &str, packet: Vec<u8>, ifindex_of: From| (name.to_owned(), packet, ifindex_of);
    for (name, packet, from) in [
        attached(
            "IPv4",
            Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes(),
            From::Underlay,
        ),
        attached(
            "any frame",
            ethernet_bytes((ALICE.0, CAROL.0), ethernet::IPV6),
            From::Underlay,
        ),
    ] {
        // The uplink's program sees it and lets it pass: only containers' interfaces are of the overlay.
        let mut long = packet;
        long.resize(80, 0x60);
        cases.push(
            case(format!("{name} by the uplink that is not VXLAN passes"))
                .send(from, long)
                .passed(),
        );
    }
    let packet = Datagram::new(ALICE, EVE, Payload::Echo(1));
    cases.push(
        case("a packet to a peer whose node has no route is dropped")
            .send(From::Alice, packet)
            .dropped(Counter::DropNoRoute),
    );
    cases.push(
        case("a packet to a peer that has gone is dropped")
            .given([without_peer(CAROL.1)])
            .send(From::Alice, Datagram::new(ALICE, CAROL, Payload::Echo(1)))
            .dropped(Counter::DropUnknownDestination),
    );
    cases.push(
        case("a packet to a neighbour that has gone is dropped")
            .given([Step::Remove(EntryKey::Endpoint(at(BOB.1)))])
            .send(From::Alice, Datagram::new(ALICE, BOB, Payload::Echo(1)))
            .dropped(Counter::DropUnknownDestination),
    );
    cases
}

/// Packets shorter or longer than they say or than fits.
fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, payload) in [
        ("TCP", Payload::Tcp(1, 2, ACK, vec![1; 4])),
        ("UDP", Payload::Udp(1, 2, vec![1; 4])),
    ] {
        let whole = Datagram::new(ALICE, CAROL, payload).bytes();
        for length in (34..whole.len()).step_by(3) {
            cases.push(
                case(format!("{name} cut after {length} bytes is dropped"))
                    .send(From::Alice, &whole[..length])
                    .dropped(Counter::DropTruncated),
            );
        }
    }
    for claimed in [1_u16, 19, 29, 1500, u16::MAX] {
        let mut packet = Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes();
        packet[16..18].copy_from_slice(&claimed.to_be_bytes());
        cases.push(
            case(format!("28 bytes that claim to be {claimed} are dropped"))
                .send(From::Alice, packet)
                .dropped(Counter::DropTruncated),
        );
    }
    for (name, protocol, length) in [
        ("no TCP header", ipv4::TCP, 0),
        ("19 bytes of TCP header", ipv4::TCP, 19),
        ("no UDP header", ipv4::UDP, 0),
        ("7 bytes of UDP header", ipv4::UDP, 7),
    ] {
        cases.push(
            case(format!("a whole packet with {name} is dropped"))
                .send(
                    From::Alice,
                    Datagram::new(ALICE, CAROL, Payload::Raw(protocol, vec![0; length])),
                )
                .dropped(Counter::DropTruncated),
        );
    }
    let room = MTU as usize - OVERHEAD;
    for length in [21, 576, 1280, room - 1, room] {
        let packet = Datagram::new(ALICE, CAROL, Payload::Raw(99, vec![7; length - Ipv4::LENGTH]));
        cases.push(
            case(format!("a packet of {length} bytes fits the path"))
                .send(From::Alice, &packet)
                .to_peer(packet),
        );
    }
    let large = Datagram::new(ALICE, BOB, Payload::Raw(99, vec![7; 3000]));
    cases.push(
        case("a packet to a neighbour may be of any size")
            .send(From::Alice, &large)
            .to_neighbor(large),
    );
    cases
}

/// An echo's answer (RFC 792).
fn echo_reply(sequence: u16) -> Vec<u8> {
    let echo = Datagram::new(ALICE, GATEWAY, Payload::Echo(sequence)).bytes();
    let mut reply = echo[34..].to_vec();
    reply[0] = 0;
    reply[2..4].fill(0);
    let sum = checksum::of(0, &reply).to_be_bytes();
    reply[2..4].copy_from_slice(&sum);
    reply
}
