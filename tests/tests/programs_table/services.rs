//! Virtual IPs: whom a connection's packets reach, and in whose name the answers come.

use weft_core::reconcile::{EntryKey, Step};
use weft_dataplane::abi::Counter;
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};
use weft_dataplane::packet::{checksum, ipv4};
use weft_tests::expect::{CLIENT_PORT, SERVER_PORT, tcp_to_vip, udp_to_vip};
use weft_tests::packet::{Datagram, Ip, Mac, Payload};
use weft_tests::programs::{
    ALICE, BOB, CAROL, DAVE, EVE, GATEWAY, NOBODY, OWN_VIP, VIP, at, from_vtep, service, without_peer,
};
use weft_tests::table::{Case, From, case, tcp, udp};

/// A second virtual IP.
const OTHER_VIP: Ip = [10, 0, 1, 110];

type Station = (Mac, Ip);

const TCP_CLIENT: (Ip, u16) = (ALICE.1, CLIENT_PORT);
const TCP_SERVICE: (Ip, u16) = (VIP, SERVER_PORT);
const DNS: (Ip, u16) = (VIP, 53);

/// Alice's packet to a virtual IP as its backend sees it.
fn to(packet: &Datagram, backend: Station) -> Datagram {
    packet
        .clone()
        .with_macs(ALICE.0, backend.0)
        .with_ips(ALICE.1, backend.1)
}

/// A packet of a backend's, in VXLAN if it is a peer's.
fn answer_of(backend: Station, payload: Payload) -> (From, Vec<u8>) {
    let frame = Datagram::new(backend, ALICE, payload).bytes();
    if backend == BOB {
        (From::Bob, frame)
    } else {
        (From::Underlay, from_vtep().around(&frame))
    }
}

/// The same as Alice sees it: from the virtual IP.
fn seen_by_alice(backend: Station, vip: Ip, payload: Payload) -> Datagram {
    Datagram::new(backend, ALICE, payload).with_ips(vip, ALICE.1)
}

fn of_one(backend: Station) -> Vec<Step> {
    let mut steps = service(VIP, &[backend.1]);
    steps.extend((1..3).map(|slot| without_slot(VIP, slot)));
    steps
}

fn without_slot(vip: Ip, slot: u32) -> Step {
    let key = weft_dataplane::abi::BackendKey {
        vni: weft_tests::programs::VNI,
        vip,
        slot,
    };
    Step::Remove(EntryKey::Backend(key))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = new_connections();
    cases.extend(answers());
    cases.extend(hairpin());
    cases.extend(neighbors_in_ports());
    cases.extend(changes());
    cases
}

fn new_connections() -> Vec<Case> {
    let mut cases = Vec::new();
    for (turn, backend, name) in [(0, CAROL, "first"), (1, DAVE, "second"), (3, CAROL, "first again")] {
        let packet = udp_to_vip(VIP, 7000);
        let mut start = case(format!("connection {turn} goes to the {name} backend"));
        for port in 0..turn {
            start = start.after(From::Alice, udp_to_vip(VIP, 6000 + port));
        }
        cases.push(
            start
                .send(From::Alice, &packet)
                .to_peer(to(&packet, backend))
                .counts(&[Counter::FlowCreated])
                .opens(udp((ALICE.1, 7000), DNS, backend.1)),
        );
    }
    for (name, options) in [("", &[][..]), (" with options", &[1; 12])] {
        let packet = tcp_to_vip(VIP, SYN).with_options(options);
        cases.push(
            case(format!("a SYN{name} opens a connection to a peer"))
                .send(From::Alice, &packet)
                .to_peer(to(&packet, CAROL))
                .counts(&[Counter::FlowCreated])
                .opens(tcp(TCP_CLIENT, TCP_SERVICE, CAROL.1)),
        );
        cases.push(
            case(format!("a SYN{name} opens a connection to a neighbour"))
                .given(of_one(BOB))
                .send(From::Alice, &packet)
                .to_neighbor(to(&packet, BOB))
                .counts(&[Counter::FlowCreated])
                .opens(tcp(TCP_CLIENT, TCP_SERVICE, BOB.1)),
        );
    }
    for (name, payload) in [
        ("an empty datagram", Payload::Udp(9, 53, vec![])),
        ("an odd datagram", Payload::Udp(9, 53, vec![0xff; 7])),
        (
            "a datagram without checksum",
            Payload::UdpWithoutChecksum(9, 53, vec![8; 9]),
        ),
        ("a large datagram", Payload::Udp(9, 53, vec![0xab; 1400])),
    ] {
        let packet = Datagram::new(ALICE, (GATEWAY.0, VIP), payload);
        for backend in [CAROL, BOB] {
            let place = if backend == BOB { "a neighbour" } else { "a peer" };
            let sent = case(format!("{name} opens a connection to {place}"))
                .given(of_one(backend))
                .send(From::Alice, &packet);
            let sent = if backend == BOB {
                sent.to_neighbor(to(&packet, backend))
            } else {
                sent.to_peer(to(&packet, backend))
            };
            cases.push(
                sent.counts(&[Counter::FlowCreated])
                    .opens(udp((ALICE.1, 9), DNS, backend.1)),
            );
        }
    }
    // A sum of zero is sent as all ones, because zero means that there is none (RFC 768).
    for data in 0..4_u16 {
        let sum = u16::MAX - data;
        let packet = Datagram::new(
            ALICE,
            (GATEWAY.0, VIP),
            Payload::Udp(sum, 53, data.to_be_bytes().to_vec()),
        );
        cases.push(
            case(format!("checksums stay right: client's port {sum}"))
                .send(From::Alice, &packet)
                .to_peer(to(&packet, CAROL))
                .counts(&[Counter::FlowCreated])
                .opens(udp((ALICE.1, sum), DNS, CAROL.1)),
        );
    }
    for flags in [ACK, ACK | FIN, SYN, RST, ACK | RST, 0x3f] {
        let packet = tcp_to_vip(VIP, flags);
        cases.push(
            case(format!("control bits {flags:#04x} of a connection go to its backend"))
                .after(From::Alice, tcp_to_vip(VIP, SYN))
                .after(From::Alice, udp_to_vip(VIP, 1))
                .send(From::Alice, &packet)
                .to_peer(to(&packet, CAROL)),
        );
    }
    let more = udp_to_vip(VIP, 1);
    cases.push(
        case("datagrams of a connection go to its backend")
            .after(From::Alice, udp_to_vip(VIP, 1))
            .after(From::Alice, udp_to_vip(VIP, 2))
            .send(From::Alice, &more)
            .to_peer(to(&more, CAROL)),
    );
    let other = Datagram::new(BOB, (GATEWAY.0, VIP), Payload::Udp(1, 53, vec![5]));
    cases.push(
        case("two clients with one port are two connections")
            .after(From::Alice, udp_to_vip(VIP, 1))
            .send(From::Bob, &other)
            .to_peer(other.clone().with_macs(BOB.0, DAVE.0).with_ips(BOB.1, DAVE.1))
            .counts(&[Counter::FlowCreated])
            .opens(udp((BOB.1, 1), DNS, DAVE.1)),
    );
    for (name, payload) in [
        ("TCP", Payload::Tcp(1, 53, SYN, vec![])),
        ("UDP", Payload::Udp(1, 54, vec![])),
    ] {
        let packet = Datagram::new(ALICE, (GATEWAY.0, VIP), payload);
        let connection = match name {
            "TCP" => tcp((ALICE.1, 1), DNS, DAVE.1),
            _ => udp((ALICE.1, 1), (VIP, 54), DAVE.1),
        };
        cases.push(
            case(format!("another port or protocol is another connection: {name}"))
                .after(From::Alice, udp_to_vip(VIP, 1))
                .send(From::Alice, &packet)
                .to_peer(to(&packet, DAVE))
                .counts(&[Counter::FlowCreated])
                .opens(connection),
        );
    }
    cases
}

fn answers() -> Vec<Case> {
    let mut cases = Vec::new();
    for backend in [CAROL, BOB] {
        let place = if backend == BOB { "a neighbour" } else { "a peer" };
        for (name, flags, data) in [
            ("SYN ACK", SYN | ACK, 0),
            ("ACK", ACK, 100),
            ("FIN ACK", FIN | ACK, 1),
            ("RST", RST, 0),
        ] {
            let payload = Payload::Tcp(SERVER_PORT, CLIENT_PORT, flags, vec![7; data]);
            let (from, packet) = answer_of(backend, payload.clone());
            let sent = case(format!("{name} of a backend, {place}, comes from the virtual IP"))
                .given(of_one(backend))
                .after(From::Alice, tcp_to_vip(VIP, SYN))
                .send(from, packet);
            let seen = seen_by_alice(backend, VIP, payload);
            cases.push(if backend == BOB {
                sent.to_neighbor(seen)
            } else {
                sent.delivered(seen)
            });
        }
        for payload in [
            Payload::Udp(53, 7, b"answer".to_vec()),
            Payload::UdpWithoutChecksum(53, 7, vec![1]),
            Payload::Udp(53, 7, vec![0; 1400]),
        ] {
            let (from, packet) = answer_of(backend, payload.clone());
            let sent = case(format!(
                "{} bytes of {} of a backend, {place}, come from the virtual IP",
                packet.len(),
                match payload {
                    Payload::Udp(..) => "UDP",
                    _ => "UDP without checksum",
                }
            ))
            .given(of_one(backend))
            .after(From::Alice, udp_to_vip(VIP, 7))
            .send(from, packet);
            let seen = seen_by_alice(backend, VIP, payload);
            cases.push(if backend == BOB {
                sent.to_neighbor(seen)
            } else {
                sent.delivered(seen)
            });
        }
        for (name, payload) in [
            (
                "another client's port",
                Payload::Tcp(SERVER_PORT, CLIENT_PORT + 1, ACK, vec![]),
            ),
            (
                "another server's port",
                Payload::Tcp(SERVER_PORT + 1, CLIENT_PORT, ACK, vec![]),
            ),
            ("another protocol", Payload::Udp(SERVER_PORT, CLIENT_PORT, vec![])),
            ("no port", Payload::Echo(1)),
        ] {
            let (from, packet) = answer_of(backend, payload.clone());
            let sent = case(format!("a packet of a backend, {place}, with {name} stays as it is"))
                .given(of_one(backend))
                .after(From::Alice, tcp_to_vip(VIP, SYN))
                .send(from, packet);
            let frame = Datagram::new(backend, ALICE, payload);
            cases.push(if backend == BOB {
                sent.to_neighbor(frame)
            } else {
                sent.delivered(frame)
            });
        }
    }
    cases
}

fn hairpin() -> Vec<Case> {
    let mut cases = Vec::new();
    let back = |packet: &Datagram| packet.clone().with_macs(GATEWAY.0, ALICE.0).with_ips(OWN_VIP, ALICE.1);
    let question = tcp_to_vip(OWN_VIP, SYN);
    cases.push(
        case("a client that is its own backend sees the virtual IP as the other end")
            .send(From::Alice, &question)
            .to_neighbor(back(&question))
            .counts(&[Counter::FlowCreated])
            .opens(tcp(TCP_CLIENT, (OWN_VIP, SERVER_PORT), ALICE.1)),
    );
    for flags in [SYN | ACK, ACK, FIN | ACK, RST] {
        let answer = Datagram::new(
            ALICE,
            (GATEWAY.0, OWN_VIP),
            Payload::Tcp(SERVER_PORT, CLIENT_PORT, flags, vec![2; 3]),
        );
        cases.push(
            case(format!("its server answers to the virtual IP: {flags:#04x}"))
                .after(From::Alice, tcp_to_vip(OWN_VIP, SYN))
                .send(From::Alice, &answer)
                .to_neighbor(back(&answer)),
        );
    }
    let same = Datagram::new(ALICE, (GATEWAY.0, OWN_VIP), Payload::Udp(53, 53, vec![1]));
    cases.push(
        case("a client may talk to itself from a port to the same port")
            .send(From::Alice, &same)
            .to_neighbor(back(&same))
            .counts(&[Counter::FlowCreated])
            .opens(udp((ALICE.1, 53), (OWN_VIP, 53), ALICE.1)),
    );
    cases.push(
        case("and goes on with it")
            .after(From::Alice, &same)
            .send(From::Alice, &same)
            .to_neighbor(back(&same)),
    );
    let bob = Datagram::new(BOB, (GATEWAY.0, OWN_VIP), Payload::Udp(5, 6, vec![1]));
    cases.push(
        case("a neighbour that uses the same virtual IP is seen as itself")
            .send(From::Bob, &bob)
            .to_neighbor(bob.clone().with_macs(BOB.0, ALICE.0).with_ips(BOB.1, ALICE.1))
            .counts(&[Counter::FlowCreated])
            .opens(udp((BOB.1, 5), (OWN_VIP, 6), ALICE.1)),
    );
    cases
}

/// One port of a client, or one backend, used twice.
fn neighbors_in_ports() -> Vec<Case> {
    let mut cases = Vec::new();
    let syn = Datagram::new(
        ALICE,
        (GATEWAY.0, OTHER_VIP),
        Payload::Tcp(CLIENT_PORT + 1, SERVER_PORT, SYN, vec![]),
    );
    let both = || {
        let mut steps = of_one(CAROL);
        steps.extend(service(OTHER_VIP, &[CAROL.1]));
        steps
    };
    cases.push(
        case("two virtual IPs may have one backend")
            .given(both())
            .after(From::Alice, tcp_to_vip(VIP, SYN))
            .send(From::Alice, &syn)
            .to_peer(to(&syn, CAROL))
            .counts(&[Counter::FlowCreated])
            .opens(tcp((ALICE.1, CLIENT_PORT + 1), (OTHER_VIP, SERVER_PORT), CAROL.1)),
    );
    for (port, vip) in [(CLIENT_PORT, VIP), (CLIENT_PORT + 1, OTHER_VIP)] {
        let payload = Payload::Tcp(SERVER_PORT, port, SYN | ACK, vec![]);
        let (from, packet) = answer_of(CAROL, payload.clone());
        cases.push(
            case(format!(
                "and answers come from the one that was asked: client's port {port}"
            ))
            .given(both())
            .after(From::Alice, tcp_to_vip(VIP, SYN))
            .after(From::Alice, &syn)
            .send(from, packet)
            .delivered(seen_by_alice(CAROL, vip, payload)),
        );
    }
    let second = Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Tcp(CLIENT_PORT, 443, SYN, vec![]));
    cases.push(
        case("a backend serves several ports")
            .given(of_one(CAROL))
            .after(From::Alice, tcp_to_vip(VIP, SYN))
            .send(From::Alice, &second)
            .to_peer(to(&second, CAROL))
            .counts(&[Counter::FlowCreated])
            .opens(tcp(TCP_CLIENT, (VIP, 443), CAROL.1)),
    );
    let vip_to_vip = udp_to_vip(VIP, 5);
    let mut chain = service(VIP, &[OTHER_VIP]);
    chain.extend(service(OTHER_VIP, &[CAROL.1]));
    cases.push(
        case("a virtual IP is no backend of another")
            .given(chain)
            .send(From::Alice, vip_to_vip)
            .dropped(Counter::DropBackendGone),
    );
    cases
}

/// What changes while connections are open.
fn changes() -> Vec<Case> {
    let mut cases = Vec::new();
    let packet = udp_to_vip(VIP, 1);
    cases.push(
        case("a datagram chooses anew when its backend is gone")
            .after(From::Alice, &packet)
            .given([without_peer(CAROL.1)])
            .send(From::Alice, &packet)
            .to_peer(to(&packet, DAVE))
            .counts(&[Counter::FlowCreated])
            .moves(udp((ALICE.1, 1), DNS, CAROL.1), udp((ALICE.1, 1), DNS, DAVE.1)),
    );
    let syn = tcp_to_vip(VIP, SYN);
    cases.push(
        case("a SYN chooses anew when its backend is gone")
            .after(From::Alice, &syn)
            .given([without_peer(CAROL.1)])
            .send(From::Alice, &syn)
            .to_peer(to(&syn, DAVE))
            .counts(&[Counter::FlowCreated])
            .moves(
                tcp(TCP_CLIENT, TCP_SERVICE, CAROL.1),
                tcp(TCP_CLIENT, TCP_SERVICE, DAVE.1),
            ),
    );
    for backends in [&[DAVE.1][..], &[DAVE.1, CAROL.1], &[EVE.1, DAVE.1, BOB.1]] {
        cases.push(
            case(format!(
                "a connection stays while its service gets other backends, {} of them",
                backends.len()
            ))
            .after(From::Alice, &packet)
            .given(service(VIP, backends))
            .send(From::Alice, &packet)
            .to_peer(to(&packet, CAROL)),
        );
    }
    cases.push(
        case("a connection stays while its service has no backend")
            .after(From::Alice, &packet)
            .given(service(VIP, &[]))
            .send(From::Alice, &packet)
            .to_peer(to(&packet, CAROL)),
    );
    cases.push(
        case("what was a virtual IP and no longer is has no packets")
            .after(From::Alice, &packet)
            .given([Step::Remove(EntryKey::Service(at(VIP)))])
            .send(From::Alice, &packet)
            .dropped(Counter::DropUnknownDestination),
    );
    cases.push(
        case("a backend of which nothing is known yet gets nothing")
            .given(service(VIP, &[NOBODY.1]))
            .send(From::Alice, &packet)
            .dropped(Counter::DropBackendGone),
    );
    cases.push(
        case("a missing slot is no backend")
            .given([without_slot(VIP, 0)])
            .send(From::Alice, &packet)
            .dropped(Counter::DropNoBackend),
    );
    cases
}

/// What a long time without packets ends.
pub(crate) fn after_silence() -> Vec<Case> {
    let packet = udp_to_vip(VIP, 1);
    let payload = Payload::Udp(53, 1, vec![1]);
    let (from, late) = answer_of(CAROL, payload.clone());
    vec![
        case("after a long silence a datagram chooses anew")
            .after(From::Alice, &packet)
            .after_silence()
            .send(From::Alice, &packet)
            .to_peer(to(&packet, DAVE))
            .counts(&[Counter::FlowExpired, Counter::FlowCreated])
            .moves(udp((ALICE.1, 1), DNS, CAROL.1), udp((ALICE.1, 1), DNS, DAVE.1)),
        case("after a long silence an answer is none")
            .after(From::Alice, &packet)
            .after_silence()
            .send(from, late)
            .delivered(Datagram::new(CAROL, ALICE, payload))
            .counts(&[Counter::FlowExpired])
            .closes(udp((ALICE.1, 1), DNS, CAROL.1)),
    ]
}

/// ICMP errors about connections through a virtual IP: whoever gets one knows the packet that it is about (RFC 5508 section 4).
pub(crate) fn errors() -> Vec<Case> {
    let question = Datagram::new(
        ALICE,
        (GATEWAY.0, DNS.0),
        Payload::UdpWithoutChecksum(7, 53, vec![1; 9]),
    );
    let error = |from, to: (Mac, Ip), quoted: &Datagram| {
        let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
        icmp.extend(&quoted.bytes()[14..14 + 28]);
        let sum = checksum::of(0, &icmp).to_be_bytes();
        icmp[2..4].copy_from_slice(&sum);
        Datagram::new(from, to, Payload::Raw(ipv4::ICMP, icmp))
    };
    let seen = to(&question, CAROL);
    let arriving = |packet: &Datagram| from_vtep().around(&packet.bytes());
    let refused = arriving(&error(CAROL, ALICE, &seen));
    let router = (CAROL.0, DAVE.1);
    let by_router = arriving(&error(router, ALICE, &seen));
    let unrelated = to(&Datagram::new(ALICE, CAROL, Payload::Udp(8, 53, vec![])), CAROL);
    let other = arriving(&error(CAROL, ALICE, &unrelated));
    let answer = Datagram::new((CAROL.0, DNS.0), ALICE, Payload::UdpWithoutChecksum(53, 7, vec![2; 9]));
    let sent = Datagram::new(CAROL, ALICE, Payload::UdpWithoutChecksum(53, 7, vec![2; 9]));
    vec![
        case("a backend's error comes from the virtual IP and quotes the question")
            .after(From::Alice, &question)
            .send(From::Underlay, refused)
            .delivered(error((CAROL.0, DNS.0), ALICE, &question))
            .counts(&[Counter::ErrorTranslated]),
        case("another's error about it keeps its sender and quotes the question")
            .after(From::Alice, &question)
            .send(From::Underlay, by_router)
            .delivered(error(router, ALICE, &question))
            .counts(&[Counter::ErrorTranslated]),
        case("an error about something else stays as it is")
            .after(From::Alice, &question)
            .send(From::Underlay, other)
            .delivered(error(CAROL, ALICE, &unrelated)),
        case("a client's error about an answer goes to the backend and quotes what that sent")
            .after(From::Alice, &question)
            .send(From::Alice, error(ALICE, (GATEWAY.0, DNS.0), &answer))
            .to_peer(error(ALICE, CAROL, &sent)),
        case("a client's error about nothing is dropped")
            .send(From::Alice, error(ALICE, (GATEWAY.0, DNS.0), &answer))
            .dropped(Counter::DropVipProtocol),
    ]
}
