//! What is dropped for good is answered: resets and ICMP errors (RFC 792, RFC 1122, RFC 1191, RFC 9293).

use weft_core::reconcile::{EntryKey, Step};
use weft_dataplane::abi::Counter;
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{checksum, ipv4};
use weft_tests::expect::{CLIENT_PORT, SERVER_PORT, tcp_to_vip};
use weft_tests::packet::{Datagram, Ip, Payload};
use weft_tests::programs::{ALICE, CAROL, EMPTY_VIP, GATEWAY, VIP, VTEP, narrow, without_peer};
use weft_tests::table::{Case, From, case};

/// MTU of the way to Carol in the cases of big packets, and what of it an inner packet gets.
const PATH: u32 = 500;
const INNER: u16 = 450;

/// An IPv4 packet of the node's own, to Alice: with no identification.
fn own(from: Ip, tos: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Datagram::new((GATEWAY.0, from), ALICE, Payload::Raw(protocol, payload.to_vec())).bytes();
    bytes[15] = tos;
    bytes[18..20].fill(0);
    bytes[24..26].fill(0);
    let sum = checksum::of(0, &bytes[14..34]).to_be_bytes();
    bytes[24..26].copy_from_slice(&sum);
    bytes
}

/// "Destination unreachable" about `packet`, of which it quotes the first `quoted` bytes.
fn unreachable(from: Ip, code: u8, mtu: u16, packet: &[u8], quoted: usize) -> Vec<u8> {
    let mut icmp = vec![3, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&packet[14..14 + quoted]);
    let sum = checksum::of(0, &icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    own(from, 0xc0, ipv4::ICMP, &icmp)
}

/// The segment that resets a connection of Alice's.
fn reset(from: Ip, sequence: u32, acknowledgment: u32, flags: u8) -> Vec<u8> {
    let mut tcp = SERVER_PORT.to_be_bytes().to_vec();
    tcp.extend(CLIENT_PORT.to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledgment.to_be_bytes());
    tcp.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let sum = checksum::of(checksum::pseudo_header(from, ALICE.1, ipv4::TCP, 20), &tcp).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    own(from, 0, ipv4::TCP, &tcp)
}

fn segment(vip: Ip, flags: u8, data: usize) -> Datagram {
    Datagram::new(
        ALICE,
        (GATEWAY.0, vip),
        Payload::Tcp(CLIENT_PORT, SERVER_PORT, flags, vec![1; data]),
    )
}

/// The numbers that the builder writes into segments.
const SEQUENCE: u32 = 1;
const ACKNOWLEDGMENT: u32 = 2;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = resets();
    cases.extend(unreachables());
    cases.extend(echoes());
    cases.extend(too_big());
    cases
}

fn resets() -> Vec<Case> {
    let mut cases = Vec::new();
    for data in [0, 1, 1000] {
        for (flags, control) in [(SYN, 1), (SYN | FIN, 2), (0, 0), (FIN, 1)] {
            cases.push(
                case(format!(
                    "{flags:#04x} with {data} bytes to a VIP without backend is reset and acknowledged"
                ))
                .send(From::Alice, segment(EMPTY_VIP, flags, data))
                .redirected(reset(EMPTY_VIP, 0, SEQUENCE + data as u32 + control, RST | ACK))
                .counts(&[Counter::DropNoBackend, Counter::ResetSent]),
            );
        }
        for flags in [ACK, ACK | FIN, SYN | ACK] {
            cases.push(
                case(format!(
                    "{flags:#04x} with {data} bytes to a VIP without backend is reset where it expects"
                ))
                .send(From::Alice, segment(EMPTY_VIP, flags, data))
                .redirected(reset(EMPTY_VIP, ACKNOWLEDGMENT, 0, RST))
                .counts(&[Counter::DropNoBackend, Counter::ResetSent]),
            );
        }
    }
    for flags in [RST, RST | ACK, RST | SYN] {
        cases.push(
            case(format!("a reset is not reset: {flags:#04x}"))
                .send(From::Alice, segment(EMPTY_VIP, flags, 0))
                .dropped(Counter::DropNoBackend),
        );
    }
    for flags in [ACK, ACK | FIN] {
        cases.push(
            case(format!(
                "an opened connection whose backend is gone is reset: {flags:#04x}"
            ))
            .after(From::Alice, tcp_to_vip(VIP, SYN))
            .given([without_peer(CAROL.1)])
            .send(From::Alice, segment(VIP, flags, 5))
            .redirected(reset(VIP, ACKNOWLEDGMENT, 0, RST))
            .counts(&[Counter::DropBackendGone, Counter::ResetSent]),
        );
    }
    cases
}

fn unreachables() -> Vec<Case> {
    let mut cases = Vec::new();
    for data in [0, 1, 7, 1400] {
        let packet = Datagram::new(ALICE, (GATEWAY.0, EMPTY_VIP), Payload::Udp(1, 53, vec![3; data]));
        cases.push(
            case(format!(
                "a datagram of {data} bytes to a VIP without backend is told that nobody listens"
            ))
            .send(From::Alice, &packet)
            .redirected(unreachable(EMPTY_VIP, 3, 0, &packet.bytes(), 28))
            .counts(&[Counter::DropNoBackend, Counter::UnreachableSent]),
        );
    }
    for protocol in [2, 47, 50, 132, 255] {
        for (vip, name) in [(VIP, "a VIP"), (EMPTY_VIP, "a VIP without backend")] {
            let packet = Datagram::new(ALICE, (GATEWAY.0, vip), Payload::Raw(protocol, (0..40).collect()));
            cases.push(
                case(format!("protocol {protocol} to {name} is told that it is not spoken"))
                    .send(From::Alice, &packet)
                    .redirected(unreachable(vip, 2, 0, &packet.bytes(), 28))
                    .counts(&[Counter::DropVipProtocol, Counter::UnreachableSent]),
            );
        }
    }
    cases
}

fn echoes() -> Vec<Case> {
    let mut cases = Vec::new();
    for sequence in [0, 7, u16::MAX] {
        let ping = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Echo(sequence));
        let mut answer = ping
            .clone()
            .with_macs(GATEWAY.0, ALICE.0)
            .with_ips(VIP, ALICE.1)
            .bytes();
        answer[34] = 0;
        answer[36..38].fill(0);
        let sum = checksum::of(0, &answer[34..]).to_be_bytes();
        answer[36..38].copy_from_slice(&sum);
        cases.push(
            case(format!("ping {sequence} of a VIP with a backend is answered"))
                .send(From::Alice, &ping)
                .redirected(answer)
                .counts(&[Counter::EchoAnswered]),
        );
    }
    cases.push(
        case("a ping of a VIP without backend is not answered")
            .send(
                From::Alice,
                Datagram::new(ALICE, (GATEWAY.0, EMPTY_VIP), Payload::Echo(7)),
            )
            .dropped(Counter::DropVipProtocol),
    );
    for kind in [0, 5, 13, 17] {
        cases.push(
            case(format!("ICMP type {kind} to a VIP is dropped"))
                .send(
                    From::Alice,
                    Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Raw(ipv4::ICMP, vec![kind; 20])),
                )
                .dropped(Counter::DropVipProtocol),
        );
    }
    cases
}

fn too_big() -> Vec<Case> {
    let mut cases = Vec::new();
    let fits = usize::from(INNER);
    for (name, payload, quoted) in [
        ("a datagram", Payload::Udp(1, 2, vec![1; fits - 27]), 28),
        (
            "a datagram without checksum",
            Payload::UdpWithoutChecksum(1, 2, vec![1; fits - 27]),
            28,
        ),
        ("a segment", Payload::Tcp(1, 2, ACK, vec![1; fits - 39]), 40),
        (
            "a ping",
            Payload::Raw(1, [&[8, 0, 1, 2][..], &vec![7; fits]].concat()),
            28,
        ),
        ("any other protocol", Payload::Raw(132, vec![7; fits]), 28),
    ] {
        for (kind, fragment) in [
            ("", ipv4::DONT_FRAGMENT),
            (" that may be cut", 0),
            (" that is a first fragment", ipv4::MORE_FRAGMENTS),
        ] {
            // Of a fragment the ports are not looked at, so as much as of any protocol is quoted of it.
            let packet = Datagram::new(ALICE, CAROL, payload.clone()).with_fragment(fragment);
            cases.push(
                case(format!("{name}{kind} that is too big for the path is told what fits"))
                    .given([narrow(PATH)])
                    .send(From::Alice, &packet)
                    .redirected(unreachable(GATEWAY.1, 4, INNER, &packet.bytes(), quoted))
                    .counts(&[Counter::DropTooBig, Counter::UnreachableSent]),
            );
        }
    }
    let exact = Datagram::new(ALICE, CAROL, Payload::Udp(1, 2, vec![1; fits - 28]));
    cases.push(
        case("what just fits a narrow path is sent")
            .given([narrow(PATH)])
            .send(From::Alice, &exact)
            .to_peer(exact),
    );
    let big = vec![1; fits];
    let error = Datagram::new(ALICE, CAROL, Payload::Raw(1, [&[3, 1, 0, 0][..], &big].concat()));
    let later = Datagram::new(ALICE, CAROL, Payload::Raw(17, big)).with_fragment(3);
    for (name, packet) in [("an ICMP error", error), ("a later fragment", later)] {
        cases.push(
            case(format!("nothing is told of {name}"))
                .given([narrow(PATH)])
                .send(From::Alice, packet)
                .dropped(Counter::DropTooBig),
        );
    }
    cases.push(
        case("a packet for a node that has no route is not told")
            .given([Step::Remove(EntryKey::Node(weft_dataplane::abi::mapped(VTEP.1)))])
            .send(From::Alice, Datagram::new(ALICE, CAROL, Payload::Udp(1, 2, vec![1])))
            .dropped(Counter::DropNoRoute),
    );
    cases
}
