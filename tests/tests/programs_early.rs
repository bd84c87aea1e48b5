//! What the uplink's driver drops before the kernel has made a packet of it, and that nothing else goes.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use weft::dataplane::{Config, Dataplane, Forced, Hook};
use weft_dataplane::abi::{Counter, VXLAN_PORT};
use weft_tests::namespace::{Namespace, eventually};
use weft_tests::packet::{Datagram, Payload};
use weft_tests::traffic::DEADLINE;
use weft_tests::wired::*;

/// Another address of the first host.
const OTHER: [u8; 4] = [192, 168, 77, 9];
const NOBODY: ([u8; 6], [u8; 4]) = ([2, 0x42, 10, 9, 0, 99], [10, 9, 0, 99]);
const FOREIGN_VNI: u32 = 7777;

fn asked(config: &mut Config) {
    config.features = Forced::only(&[("early-drop", "xdp")]).unwrap();
    config.vtep = Some(IpAddr::from(UNDERLAY[0]));
}

/// Frames that XDP dropped on the first host, as its driver counts them.
fn dropped_by_driver(host: &Host) -> u64 {
    let shown = host
        .namespace
        .enter(|| weft_tests::namespace::run("ethtool", &["-S", "uplink"]));
    let drops = shown.lines().filter(|line| line.contains("xdp_drops"));
    drops
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn counted(host: &Host, counter: Counter) -> u64 {
    host.dataplane.counter(counter).unwrap()
}

/// Sends VXLAN of that network from the second host, with a datagram inside.
fn send(scene: &Scene, to: [u8; 4], vni: u32, source: ([u8; 6], [u8; 4]), destination: ([u8; 6], [u8; 4])) {
    let inner = Datagram::new(source, destination, Payload::Udp(1, 2, b"forged".to_vec())).bytes();
    let header = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes()].concat();
    let bytes = [header, inner].concat();
    let sent = scene.second.namespace.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::from(UNDERLAY[1]), 0))?;
        socket.send_to(&bytes, SocketAddr::from((to, VXLAN_PORT)))
    });
    assert_eq!(sent.unwrap(), bytes.len());
}

#[test]
fn what_is_forged_is_dropped_in_the_driver_and_all_else_goes_on() {
    let scene = Scene::with(DEFAULT, asked);
    let (first, alice) = (&scene.first, (scene.alice.mac, scene.alice.ip));
    let bob = (scene.bob.mac, scene.bob.ip);
    for (source, destination, reason) in [
        (NOBODY, alice, Counter::DropUnknownPeer),
        // Of this host itself, and so behind no VTEP.
        (alice, alice, Counter::DropUnknownPeer),
        (bob, NOBODY, Counter::DropNoEndpoint),
    ] {
        let (drops, count) = (dropped_by_driver(first), counted(first, reason));
        for _ in 0..3 {
            send(&scene, UNDERLAY[0], VNI, source, destination);
        }
        eventually("they are dropped", || counted(first, reason) == count + 3);
        assert_eq!(dropped_by_driver(first), drops + 3, "{}", reason.name());
    }
    // What is right, what is of another network, and what is for another address of the host.
    let drops = dropped_by_driver(first);
    let delivered = counted(first, Counter::Delivered);
    send(&scene, UNDERLAY[0], VNI, bob, alice);
    eventually("it is delivered", || {
        counted(first, Counter::Delivered) == delivered + 1
    });
    let other = first
        .namespace
        .enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, VXLAN_PORT)).unwrap());
    other.set_read_timeout(Some(DEADLINE)).unwrap();
    send(&scene, UNDERLAY[0], FOREIGN_VNI, NOBODY, NOBODY);
    assert!(other.recv(&mut [0; 200]).unwrap() > 8);
    first
        .namespace
        .ip(&format!("addr add {}/24 dev uplink", Ipv4Addr::from(OTHER)));
    let unknown = counted(first, Counter::DropUnknownPeer);
    send(&scene, OTHER, VNI, NOBODY, alice);
    eventually("the other program drops it", || {
        counted(first, Counter::DropUnknownPeer) == unknown + 1
    });
    assert_eq!(dropped_by_driver(first), drops);
    all_kinds_of_traffic(&[&scene.first, &scene.second], &scene.alice, &scene.bob, MEGABYTE);
    assert_eq!(dropped_by_driver(first), drops);
}

fn has_xdp(host: &Host) -> bool {
    host.namespace.ip("link show dev uplink").contains("xdp")
}

fn ensure(host: &mut Host, ifindex: u32) -> bool {
    let dataplane = &mut host.dataplane;
    host.namespace
        .enter(|| dataplane.ensure(Hook::Uplink, ifindex))
        .unwrap()
}

#[test]
fn it_stays_over_a_restart_comes_back_and_goes_when_not_asked_for_any_more() {
    let mut config = weft_tests::programs::config();
    let mut scene = Scene::with(DEFAULT, |made| {
        asked(made);
        config = made.clone();
    });
    let ifindex = scene.first.namespace.ifindex("uplink");
    assert!(has_xdp(&scene.first));
    scene.first.dataplane.restart(&config);
    let forge = |scene: &Scene| send(scene, UNDERLAY[0], VNI, NOBODY, (scene.alice.mac, scene.alice.ip));
    let drops = dropped_by_driver(&scene.first);
    forge(&scene);
    eventually("it is dropped", || dropped_by_driver(&scene.first) == drops + 1);
    assert!(
        counted(&scene.first, Counter::DropUnknownPeer) > 0,
        "the new one counts in the same map"
    );
    // As if another tool had detached it.
    std::fs::remove_file(config.pin_directory.join(format!("overlay_filter-{ifindex}"))).unwrap();
    eventually("it is detached", || !has_xdp(&scene.first));
    assert!(ensure(&mut scene.first, ifindex));
    assert!(has_xdp(&scene.first));
    assert!(!ensure(&mut scene.first, ifindex));

    config.features = Forced::default();
    scene.first.dataplane.restart(&config);
    assert!(!has_xdp(&scene.first));
    let (drops, unknown) = (
        dropped_by_driver(&scene.first),
        counted(&scene.first, Counter::DropUnknownPeer),
    );
    forge(&scene);
    eventually("it is dropped", || {
        counted(&scene.first, Counter::DropUnknownPeer) == unknown + 1
    });
    assert_eq!(dropped_by_driver(&scene.first), drops);
}

#[test]
fn a_driver_without_xdp_is_refused_in_one_line() {
    let namespace = Namespace::new("wte");
    namespace.ip("link add uplink type bridge");
    namespace.ip("link set uplink up");
    let ifindex = namespace.ifindex("uplink");
    let mut config = weft_tests::programs::config();
    asked(&mut config);
    let mut dataplane = Dataplane::load(&config).unwrap();
    let refused = namespace.enter(|| dataplane.attach(Hook::Uplink, ifindex)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "overlay_filter cannot be attached to uplink: `bpf_link_create` failed: Operation not supported (os error 95); its driver must have native XDP, else features early-drop=tc is possible"
    );
    assert_eq!(dataplane.attached().unwrap(), []);
    dataplane.remove().unwrap();
    assert!(!config.pin_directory.exists());
}
