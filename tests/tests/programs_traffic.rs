//! Real traffic through the programs, on hosts and containers that are wired by hand.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use weft_dataplane::abi::{VXLAN_PORT, node};
use weft_tests::namespace::run;
use weft_tests::traffic::{UdpEcho, tcp_both_ways, udp_ask};
use weft_tests::wired::*;

#[test]
fn two_nodes_carry_all_kinds_of_traffic() {
    for ways in [DEFAULT, CLSACT] {
        let Scene {
            first,
            second,
            alice,
            neighbour,
            bob,
        } = Scene::new(ways);
        all_kinds_of_traffic(&[&first, &second], &alice, &bob, TEN_MEGABYTES);
        all_kinds_of_traffic(&[&first, &second], &alice, &neighbour, TEN_MEGABYTES);
    }
}

fn all_kinds_of_ipv6_traffic(hosts: &[&Host], from: &Container, to: &Container, address: [u8; 4], bytes: usize) {
    let socket = |port| SocketAddr::from((Ipv6Addr::from(ip6(address).octets()), port));
    let seen = check(
        tcp_both_ways(&to.namespace, to.socket6(8006), &from.namespace, socket(8006), bytes),
        hosts,
    );
    assert_eq!(seen.ip(), from.socket6(0).ip());
    let _echo = UdpEcho::start(&to.namespace, to.socket6(9006), b"echo6");
    for size in [1, 1200, 8000] {
        assert_eq!(
            check(udp_ask(&from.namespace, socket(9006), size), hosts),
            b"echo6",
            "{size} bytes"
        );
    }
}

#[test]
fn two_nodes_carry_ipv6_inside_also_through_a_virtual_ip() {
    for ways in [DEFAULT, CLSACT] {
        let Scene {
            mut first,
            second,
            alice,
            neighbour,
            bob,
        } = Scene::new(ways);
        let (remote_vip, local_vip) = ([10, 9, 0, 100], [10, 9, 0, 101]);
        first.add_service(remote_vip, &[bob.ip]);
        first.add_service(local_vip, &[neighbour.ip]);
        let hosts = [&first, &second];
        all_kinds_of_ipv6_traffic(&hosts, &alice, &bob, bob.ip, TEN_MEGABYTES);
        all_kinds_of_ipv6_traffic(&hosts, &bob, &alice, alice.ip, TEN_MEGABYTES);
        all_kinds_of_ipv6_traffic(&hosts, &alice, &neighbour, neighbour.ip, TEN_MEGABYTES);
        all_kinds_of_ipv6_traffic(&hosts, &alice, &bob, remote_vip, TEN_MEGABYTES);
        all_kinds_of_ipv6_traffic(&hosts, &alice, &neighbour, local_vip, TEN_MEGABYTES);
    }
}

/// Whatever an operator forces, by itself and all together.
#[test]
fn every_way_that_can_be_forced_carries_traffic() {
    const ALL: Ways = &[
        ("attach", "clsact"),
        ("handover", "redirect"),
        DEVICE,
        ("decap-l3", "change_proto"),
        ("csum-ipv6", "plain"),
        ("map-reads", "single"),
    ];
    const REDIRECT: Ways = &[("handover", "redirect")];
    for ways in [
        REDIRECT,
        &[DEVICE],
        &[("decap-l3", "change_proto")],
        &[("csum-ipv6", "plain")],
        ALL,
    ] {
        println!("{ways:?}");
        let Scene {
            mut first,
            second,
            alice,
            neighbour,
            bob,
        } = Scene::new(ways);
        first.add_service(VIP, &[bob.ip]);
        let hosts = [&first, &second];
        for other in [&bob, &neighbour] {
            all_kinds_of_traffic(&hosts, &alice, other, MEGABYTE);
            all_kinds_of_ipv6_traffic(&hosts, &alice, other, other.ip, MEGABYTE);
        }
        all_kinds_of_ipv6_traffic(&hosts, &alice, &bob, VIP, MEGABYTE);
    }
}

#[test]
fn a_device_encapsulates_over_ipv6_too() {
    /// The overlay's, and what IPv6, UDP, VXLAN and Ethernet add.
    const MTU: u32 = OVERLAY_MTU + 70;
    const WITH_DEVICE: Ways = &[DEVICE];
    // One of the two may encapsulate itself.
    for second_ways in [WITH_DEVICE, DEFAULT] {
        let (first, second) = two_hosts();
        for (host, address) in [(&first, UNDERLAY[0]), (&second, UNDERLAY[1])] {
            host.ip(&format!("link set uplink mtu {MTU}"));
            host.enter(|| {
                std::fs::write("/proc/sys/net/ipv6/conf/uplink/disable_ipv6", "0").expect("a kernel with IPv6");
            });
            let address = Ipv6Addr::from(ip6(address).octets());
            host.ip(&format!("addr add {address}/64 dev uplink nodad"));
        }
        let mut first = Host::new(first, UNDERLAY[0], WITH_DEVICE);
        let mut second = Host::new(second, UNDERLAY[1], second_ways);
        let (alice, bob) = (
            Container::new(&first.namespace, 2),
            Container::new(&second.namespace, 3),
        );
        first.add_endpoint(&alice);
        second.add_endpoint(&bob);
        let [one, other] = UNDERLAY.map(ip6);
        first.add_peer_over(&bob, (one, other), MTU, node::IPV6);
        second.add_peer_over(&alice, (other, one), MTU, node::IPV6);
        let hosts = [&first, &second];
        all_kinds_of_traffic(&hosts, &alice, &bob, TEN_MEGABYTES);
        all_kinds_of_ipv6_traffic(&hosts, &alice, &bob, bob.ip, TEN_MEGABYTES);
        all_kinds_of_ipv6_traffic(&hosts, &bob, &alice, alice.ip, TEN_MEGABYTES);
    }
}

/// An uplink that neither cuts segments itself nor passes whole ones on, as most real ones.
#[test]
fn segments_are_cut_before_an_uplink_that_cannot() {
    let (first, second) = two_hosts();
    for host in [&first, &second] {
        host.enter(|| {
            let features = ["tso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
            for feature in features {
                run("ethtool", &["-K", "uplink", feature, "off"]);
            }
            run("ethtool", &["-K", "uplink", "gro", "on"]);
        });
    }
    let mut first = Host::new(first, UNDERLAY[0], DEFAULT);
    let mut second = Host::new(second, UNDERLAY[1], DEFAULT);
    let (alice, bob) = (
        Container::new(&first.namespace, 2),
        Container::new(&second.namespace, 3),
    );
    first.add_endpoint(&alice);
    second.add_endpoint(&bob);
    first.add_peer(&bob, UNDERLAY[1]);
    second.add_peer(&alice, UNDERLAY[0]);
    all_kinds_of_traffic(&[&first, &second], &alice, &bob, TEN_MEGABYTES);
}

#[test]
fn a_kernel_vxlan_device_is_a_good_neighbour() {
    let (first, second) = two_hosts();
    let mut first = Host::new(first, UNDERLAY[0], DEFAULT);
    let alice = Container::new(&first.namespace, 2);
    first.add_endpoint(&alice);

    // The other node is what Docker makes: a bridge with the container's veth and a vxlan device with static entries.
    let carol = Container::new(&second, 5);
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    second.ip(&format!(
        "link add vx0 mtu {OVERLAY_MTU} type vxlan id {VNI} dstport {VXLAN_PORT} local {} nolearning proxy",
        Ipv4Addr::from(UNDERLAY[1])
    ));
    second.ip(&format!("link add br0 mtu {OVERLAY_MTU} type bridge"));
    for interface in ["vx0", "v5"] {
        second.ip(&format!("link set {interface} master br0"));
    }
    for interface in ["vx0", "br0"] {
        second.ip(&format!("link set {interface} up"));
    }
    let vtep = Ipv4Addr::from(UNDERLAY[0]).to_string();
    run(
        "bridge",
        &[
            "-n",
            second.name(),
            "fdb",
            "replace",
            &text(alice.mac),
            "dev",
            "vx0",
            "dst",
            &vtep,
            "self",
            "permanent",
        ],
    );
    second.ip(&format!(
        "neigh replace {} lladdr {} dev vx0 nud permanent",
        alice.address(),
        text(alice.mac)
    ));

    first.add_peer(&carol, UNDERLAY[1]);
    all_kinds_of_traffic(&[&first], &alice, &carol, TEN_MEGABYTES);
}

#[test]
fn a_virtual_ip_reaches_every_backend_and_answers_come_from_it() {
    let (first, second) = two_hosts();
    let mut first = Host::new(first, UNDERLAY[0], DEFAULT);
    let mut second = Host::new(second, UNDERLAY[1], DEFAULT);
    let (client, neighbour) = (Container::new(&first.namespace, 2), Container::new(&first.namespace, 4));
    let remote = Container::new(&second.namespace, 3);
    first.add_endpoint(&client);
    first.add_endpoint(&neighbour);
    second.add_endpoint(&remote);
    first.add_peer(&remote, UNDERLAY[1]);
    second.add_peer(&client, UNDERLAY[0]);
    first.add_service(VIP, &[remote.ip, neighbour.ip, client.ip]);

    let _echoes = [
        (&remote, b"remote" as &[u8]),
        (&neighbour, b"neighbour"),
        (&client, b"client"),
    ]
    .map(|(container, tag)| UdpEcho::start(&container.namespace, (Ipv4Addr::UNSPECIFIED, 9000).into(), tag));
    let vip = Ipv4Addr::from(VIP);
    let mut answers: Vec<Vec<u8>> = (0..6)
        .map(|_| check(udp_ask(&client.namespace, (vip, 9000).into(), 100), &[&first, &second]))
        .collect();
    answers.sort();
    answers.dedup();
    assert_eq!(answers, [&b"client"[..], b"neighbour", b"remote"]);

    for (backend, seen) in [(&remote, client.ip), (&neighbour, client.ip), (&client, VIP)] {
        first.add_service(VIP, &[backend.ip]);
        let listen = (Ipv4Addr::UNSPECIFIED, 8000).into();
        let from = check(
            tcp_both_ways(
                &backend.namespace,
                listen,
                &client.namespace,
                (vip, 8000).into(),
                TEN_MEGABYTES,
            ),
            &[&first, &second],
        );
        assert_eq!(from.ip(), Ipv4Addr::from(seen), "the server's view of its client");
    }
}
