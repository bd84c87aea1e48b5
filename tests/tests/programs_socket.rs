//! Sockets that get their backend when they connect, in real containers on two hosts.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use weft::netns::cookie_of_caller;
use weft_core::reconcile::{EntryKey, Step};
use weft_dataplane::abi::service::POLICY_LEAST_CONNECTIONS;
use weft_dataplane::abi::{Counter, OverlayAddress, Seat, program};
use weft_tests::namespace::eventually;
use weft_tests::traffic::{DEADLINE, TcpEcho, UdpEcho, udp_ask};
use weft_tests::wired::*;

const ASKED: Ways = &[("balance", "connect")];
const PORT: u16 = 8000;

/// Alice's sockets are known on her host, on which Bob, on the other, and her neighbour stand behind the virtual IP.
fn scene(ways: Ways) -> Scene {
    let mut scene = Scene::new(ways);
    scene.first.add_service(VIP, &[scene.bob.ip, scene.neighbour.ip]);
    scene
        .first
        .dataplane
        .put_namespaces(&seats_of(&scene.alice))
        .unwrap_or_else(|error| panic!("{error}"));
    scene
}

fn seats_of(container: &Container) -> BTreeMap<u64, Vec<Seat>> {
    let cookie = container.namespace.enter(|| cookie_of_caller().unwrap());
    let seat = Seat {
        vni: VNI,
        ip: container.ip,
        ip6: ip6(container.ip),
    };
    BTreeMap::from([(cookie, vec![seat])])
}

fn serve(scene: &Scene) -> Vec<TcpEcho> {
    let servers = [&scene.bob, &scene.neighbour];
    let start = |server: &&Container| {
        [
            TcpEcho::start(&server.namespace, server.socket(PORT)),
            TcpEcho::start(&server.namespace, server.socket6(PORT)),
        ]
    };
    servers.iter().flat_map(start).collect()
}

fn vip() -> SocketAddr {
    (Ipv4Addr::from(VIP), PORT).into()
}

fn vip6() -> SocketAddr {
    (Ipv6Addr::from(ip6(VIP).octets()), PORT).into()
}

/// As a socket of IPv6 names the IPv4 address.
fn mapped_vip() -> SocketAddr {
    (Ipv4Addr::from(VIP).to_ipv6_mapped(), PORT).into()
}

fn open(from: &Container, to: SocketAddr) -> TcpStream {
    let stream = from
        .namespace
        .enter(|| TcpStream::connect_timeout(&to, DEADLINE))
        .unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn talk(stream: &mut TcpStream) {
    let mut answer = [0; 4];
    stream.write_all(b"weft").unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"weft");
}

/// How many were balanced by their socket, and how many packet by packet.
fn balanced(host: &Host) -> (u64, u64) {
    let counter = |counter| host.dataplane.counter(counter).unwrap();
    (counter(Counter::SocketBalanced), counter(Counter::FlowCreated))
}

/// How many backends the kernel's sockets of Alice's namespace are connected to.
fn other_ends(container: &Container) -> Vec<String> {
    let shown = container.namespace.enter(|| {
        ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap())
    });
    let established = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        let (other, state) = (words.next()?.to_owned(), words.next()?);
        (state == "01").then_some(other)
    };
    let mut ends: Vec<String> = shown
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(established)
        .collect();
    ends.sort();
    ends.dedup();
    ends
}

#[test]
fn a_socket_is_connected_to_a_backend_and_sees_the_virtual_ip() {
    let scene = scene(ASKED);
    let _servers = serve(&scene);
    for (index, to) in [vip(), vip6(), mapped_vip()].into_iter().enumerate() {
        let mut streams: Vec<TcpStream> = (0..2).map(|_| open(&scene.alice, to)).collect();
        for stream in &mut streams {
            talk(stream);
            assert_eq!(stream.peer_addr().unwrap(), to);
        }
        assert_eq!(balanced(&scene.first), (2 * (index as u64 + 1), 0), "{to}");
        assert_eq!(other_ends(&scene.alice).len(), 2, "{to}: both backends in turn");
        let entries = || scene.first.dataplane.dump("sockets").unwrap().entries.len();
        assert_eq!(entries(), 2);
        drop(streams);
        eventually("the sockets are forgotten when they are closed", || entries() == 0);
    }
}

#[test]
fn what_is_not_asked_for_or_not_known_is_balanced_packet_by_packet() {
    // Not asked for.
    let unasked = scene(DEFAULT);
    {
        let _servers = serve(&unasked);
        talk(&mut open(&unasked.alice, vip()));
        assert_eq!(balanced(&unasked.first), (0, 1));
    }
    drop(unasked);

    let mut scene = scene(ASKED);
    let _servers = serve(&scene);
    // UDP.
    {
        let _echo = UdpEcho::start(&scene.bob.namespace, scene.bob.socket(9000), b"echo");
        let _other = UdpEcho::start(&scene.neighbour.namespace, scene.neighbour.socket(9000), b"echo");
        let answer = udp_ask(&scene.alice.namespace, (Ipv4Addr::from(VIP), 9000).into(), 8);
        assert_eq!(answer.unwrap(), b"echo");
    }
    assert_eq!(balanced(&scene.first), (0, 1));
    // By open connections, which are counted where packets pass.
    scene
        .first
        .add_service_of(VIP, &[scene.bob.ip], POLICY_LEAST_CONNECTIONS);
    talk(&mut open(&scene.alice, vip()));
    assert_eq!(balanced(&scene.first), (0, 2));
    scene.first.add_service(VIP, &[scene.bob.ip]);
    talk(&mut open(&scene.alice, vip()));
    assert_eq!(balanced(&scene.first), (1, 2));
    // Of a namespace that nobody told of, or no longer.
    scene.first.dataplane.put_namespaces(&BTreeMap::new()).unwrap();
    talk(&mut open(&scene.alice, vip()));
    assert_eq!(balanced(&scene.first), (1, 3));
    // Not for a virtual IP at all.
    scene.first.dataplane.put_namespaces(&seats_of(&scene.alice)).unwrap();
    let mut direct = open(&scene.alice, scene.bob.socket(PORT));
    talk(&mut direct);
    assert_eq!(direct.peer_addr().unwrap(), scene.bob.socket(PORT));
    assert_eq!(balanced(&scene.first), (1, 3));
    // Without a backend the socket is refused by the first packet's answer.
    scene.first.add_service(VIP, &[]);
    let refused = scene
        .alice
        .namespace
        .enter(|| TcpStream::connect_timeout(&vip(), DEADLINE))
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_full_map_leaves_sockets_to_their_packets() {
    let mut scene = Scene::with(DEFAULT, |config| {
        config.features = weft::dataplane::Forced::only(ASKED).unwrap();
        config.sizes.sockets = 2;
    });
    scene.first.add_service(VIP, &[scene.bob.ip]);
    scene.first.dataplane.put_namespaces(&seats_of(&scene.alice)).unwrap();
    let _servers = serve(&scene);
    let mut streams: Vec<TcpStream> = (0..3).map(|_| open(&scene.alice, vip())).collect();
    streams.iter_mut().for_each(talk);
    assert_eq!(balanced(&scene.first), (2, 1));
}

#[test]
fn a_client_whose_backend_has_gone_is_reset_at_its_next_segment() {
    let mut scene = scene(ASKED);
    let _servers = serve(&scene);
    for to in [vip(), vip6()] {
        scene.first.add_service(VIP, &[scene.bob.ip]);
        let mut stream = open(&scene.alice, to);
        let mut direct = open(
            &scene.alice,
            if to.is_ipv4() {
                scene.bob.socket(PORT)
            } else {
                scene.bob.socket6(PORT)
            },
        );
        talk(&mut stream);
        talk(&mut direct);
        let before = scene.first.dataplane.counter(Counter::DropBackendGone).unwrap();
        scene.first.add_service(VIP, &[]);
        let gone = [
            Step::Remove(EntryKey::Peer(at(scene.bob.ip))),
            Step::Remove(EntryKey::Peer6(OverlayAddress::new(VNI, ip6(scene.bob.ip)))),
        ];
        scene.first.dataplane.apply(&gone).unwrap();
        stream.write_all(b"lost").unwrap();
        let lost = stream.read(&mut [0; 4]).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::ConnectionReset, "{to}");
        let after = scene.first.dataplane.counter(Counter::DropBackendGone).unwrap();
        assert_eq!(after - before, 1);
        // Who never asked for a virtual IP waits, as on any network: the peer may come back.
        direct.write_all(b"wait").unwrap();
        scene.first.add_peer(&scene.bob, UNDERLAY[1]);
        let mut answer = [0; 4];
        direct.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"wait");
    }
}

fn pins(directory: &Path) -> usize {
    let is = |name: &str| program::OF_CGROUP.iter().any(|program| name.starts_with(program));
    let names = std::fs::read_dir(directory).unwrap();
    names
        .filter(|entry| is(&entry.as_ref().unwrap().file_name().to_string_lossy()))
        .count()
}

#[test]
fn sockets_are_kept_over_a_restart_and_let_go_of_when_not_asked_for_any_more() {
    let mut config = weft_tests::programs::config();
    let mut scene = Scene::with(DEFAULT, |made| {
        made.features = weft::dataplane::Forced::only(ASKED).unwrap();
        config = made.clone();
    });
    scene.first.add_service(VIP, &[scene.bob.ip]);
    scene.first.dataplane.put_namespaces(&seats_of(&scene.alice)).unwrap();
    let _servers = serve(&scene);
    let mut stream = open(&scene.alice, vip());
    talk(&mut stream);

    scene.first.dataplane.restart(&config);
    assert_eq!(stream.peer_addr().unwrap(), vip());
    talk(&mut stream);
    talk(&mut open(&scene.alice, vip()));
    assert_eq!(balanced(&scene.first), (2, 0));
    assert!(!scene.first.dataplane.ensure_sockets().unwrap());
    assert_eq!(pins(&config.pin_directory), program::OF_CGROUP.len());
    // As if another tool had detached them.
    for program in program::OF_CGROUP {
        std::fs::remove_file(config.pin_directory.join(format!("{program}-cgroup"))).unwrap();
    }
    // The kernel lets go of a link a moment after its last pin is gone.
    eventually("packets are balanced", || {
        let (_, packets) = balanced(&scene.first);
        talk(&mut open(&scene.alice, vip()));
        balanced(&scene.first).1 > packets
    });
    assert!(scene.first.dataplane.ensure_sockets().unwrap());
    let (sockets, packets) = balanced(&scene.first);
    talk(&mut open(&scene.alice, vip()));
    assert_eq!(balanced(&scene.first), (sockets + 1, packets));

    config.features = weft::dataplane::Forced::default();
    scene.first.dataplane.restart(&config);
    assert_eq!(pins(&config.pin_directory), 0);
    talk(&mut stream);
    assert_eq!(
        stream.peer_addr().unwrap(),
        scene.bob.socket(PORT),
        "nobody translates it"
    );
    let (sockets, packets) = balanced(&scene.first);
    talk(&mut open(&scene.alice, vip()));
    assert_eq!(balanced(&scene.first), (sockets, packets + 1));
    assert_eq!(scene.first.dataplane.dump("sockets").unwrap().entries.len(), 0);
}

/// Programs of this kind that the kernel has, whosever they are.
fn loaded() -> usize {
    // The kernel keeps 15 characters of a name.
    let is = |name: &str| {
        program::OF_CGROUP
            .iter()
            .any(|program| program.starts_with(name) && name.len() >= 15)
    };
    let programs = aya::programs::loaded_programs();
    programs
        .filter(|info| info.as_ref().is_ok_and(|info| info.name_as_str().is_some_and(is)))
        .count()
}

#[test]
fn removing_leaves_no_program_that_sees_sockets() {
    let before = loaded();
    let mut config = weft_tests::programs::config();
    config.features = weft::dataplane::Forced::only(ASKED).unwrap();
    let dataplane = weft::dataplane::Dataplane::load(&config).unwrap();
    assert_eq!(loaded(), before + program::OF_CGROUP.len());
    drop(dataplane);
    assert_eq!(pins(&config.pin_directory), program::OF_CGROUP.len());
    let removed = weft::dataplane::clean_up(&config.pin_directory).unwrap();
    assert!(removed.pins && removed.sockets);
    assert!(!config.pin_directory.exists());
    eventually("the programs are gone", || loaded() == before);
}
