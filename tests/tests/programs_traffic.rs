//! Real traffic through the programs, on hosts and containers that are wired by hand.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use weft::dataplane::{Forced, Hook};
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service, V6, VXLAN_PORT, mapped,
    node,
};
use weft_tests::namespace::{Namespace, run};
use weft_tests::programs::{Loaded, config};
use weft_tests::traffic::{UdpEcho, ping, tcp_both_ways, udp_ask};

const VNI: u32 = 4242;
const GATEWAY: ([u8; 6], [u8; 4]) = ([2, 0x42, 10, 9, 0, 1], [10, 9, 0, 1]);
const VIP: [u8; 4] = [10, 9, 0, 100];
const UNDERLAY_MTU: u32 = 1500;
const OVERLAY_MTU: u32 = UNDERLAY_MTU - 50;
const MEGABYTE: usize = 1_000_000;
const TEN_MEGABYTES: usize = 10 * MEGABYTE;

/// Features that are forced.
type Ways = &'static [(&'static str, &'static str)];
const DEFAULT: Ways = &[];
const CLSACT: Ways = &[("attach", "clsact")];
const DEVICE: (&str, &str) = ("encap", "collect_md");

/// A station of the overlay: its namespace, its MAC and its address.
struct Container {
    namespace: Namespace,
    mac: [u8; 6],
    ip: [u8; 4],
}

impl Container {
    /// Connected to `host` by a veth whose other end is `v<number>` there.
    fn new(host: &Namespace, number: u8) -> Self {
        let namespace = Namespace::new("wtc");
        let (mac, ip) = ([2, 0x42, 10, 9, 0, number], [10, 9, 0, number]);
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        run(
            "ip",
            &[
                "-n",
                host.name(),
                "link",
                "add",
                &format!("v{number}"),
                "mtu",
                &OVERLAY_MTU.to_string(),
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "mtu",
                &OVERLAY_MTU.to_string(),
                "address",
                &text,
                "netns",
                namespace.name(),
            ],
        );
        host.ip(&format!("link set v{number} up"));
        namespace.ip(&format!("addr add {}/24 dev eth0", Ipv4Addr::from(ip)));
        namespace.enter(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").expect("a kernel with IPv6");
        });
        namespace.ip(&format!(
            "addr add {}/64 dev eth0 nodad",
            Ipv6Addr::from(ip6(ip).octets())
        ));
        namespace.ip("link set eth0 up");
        Container { namespace, mac, ip }
    }

    fn socket6(&self, port: u16) -> SocketAddr {
        (Ipv6Addr::from(ip6(self.ip).octets()), port).into()
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.ip)
    }

    fn socket(&self, port: u16) -> SocketAddr {
        (self.address(), port).into()
    }
}

/// What the programs hand packets to that they do not encapsulate themselves, as the daemon makes it.
fn encap_device(host: &Namespace) -> u32 {
    host.ip(&format!(
        "link add weft-gro type vxlan external vnifilter nolearning dstport {VXLAN_PORT}"
    ));
    host.ip("link set weft-gro up");
    host.ifindex("weft-gro")
}

/// A node: its namespace, its underlay address and its programs. The programs go before the namespace.
struct Host {
    dataplane: Loaded,
    namespace: Namespace,
    address: [u8; 4],
}

impl Host {
    fn new(namespace: Namespace, address: [u8; 4], ways: Ways) -> Self {
        let mut config = config();
        config.features = Forced::only(ways).unwrap();
        config.encap_device = ways.contains(&DEVICE).then(|| encap_device(&namespace));
        let mut host = Host {
            dataplane: Loaded::new(&config),
            namespace,
            address,
        };
        host.attach(Hook::Uplink, "uplink");
        host.put(&[Entry::Network(
            VNI,
            Network {
                gateway: GATEWAY.1,
                gateway_mac: GATEWAY.0,
                prefix_len: 24,
                padding: 0,
            },
        )]);
        host
    }

    fn attach(&mut self, hook: Hook, interface: &str) {
        let ifindex = self.namespace.ifindex(interface);
        let dataplane = &mut self.dataplane;
        self.namespace
            .enter(|| dataplane.attach(hook, ifindex))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn put(&mut self, entries: &[Entry]) {
        let steps: Vec<Step> = entries.iter().copied().map(Step::Put).collect();
        self.dataplane.apply(&steps).unwrap_or_else(|error| panic!("{error}"));
    }

    fn add_endpoint(&mut self, container: &Container) {
        let interface = format!("v{}", container.ip[3]);
        let ifindex = self.namespace.ifindex(&interface);
        self.put(&[
            Entry::Endpoint(
                at(container.ip),
                Endpoint {
                    ifindex,
                    mac: container.mac,
                    flags: 0,
                },
            ),
            Entry::Attachment(
                ifindex,
                Attachment {
                    vni: VNI,
                    ip: container.ip,
                    gateway: GATEWAY.1,
                    mac: container.mac,
                    gateway_mac: GATEWAY.0,
                    ip6: ip6(container.ip),
                    gateway6: ip6(GATEWAY.1),
                },
            ),
            Entry::Endpoint6(
                OverlayAddress::new(VNI, ip6(container.ip)),
                Endpoint {
                    ifindex,
                    mac: container.mac,
                    flags: 0,
                },
            ),
        ]);
        self.attach(Hook::Endpoint, &interface);
    }

    fn add_peer(&mut self, container: &Container, vtep: [u8; 4]) {
        self.add_peer_over(
            container,
            (mapped(self.address), mapped(vtep)),
            UNDERLAY_MTU,
            node::IPV4,
        );
    }

    fn add_peer_over(&mut self, container: &Container, (source, vtep): (V6, V6), mtu: u32, family: u32) {
        let ifindex = self.namespace.ifindex("uplink");
        let peer = Peer {
            vtep,
            mac: container.mac,
            flags: 0,
        };
        self.put(&[
            Entry::Node(
                vtep,
                Node {
                    next_hop: vtep,
                    source,
                    ifindex,
                    mtu,
                    family,
                    padding: 0,
                },
            ),
            Entry::Peer(at(container.ip), peer),
            Entry::Peer6(OverlayAddress::new(VNI, ip6(container.ip)), peer),
        ]);
    }

    /// A virtual IP of each family.
    fn add_service(&mut self, vip: [u8; 4], backends: &[[u8; 4]]) {
        let mut entries = Vec::new();
        for (slot, ip) in (0..).zip(backends) {
            let key = BackendKey { vip, vni: VNI, slot };
            let key6 = BackendKey {
                vip: ip6(vip),
                vni: VNI,
                slot,
            };
            entries.push(Entry::Backend(key, Backend { ip: *ip }));
            entries.push(Entry::Backend6(key6, Backend { ip: ip6(*ip) }));
        }
        let service = Service {
            backend_count: backends.len() as u32,
            policy: 0,
            affinity_seconds: 0,
        };
        entries.push(Entry::Service(at(vip), service));
        entries.push(Entry::Service6(OverlayAddress::new(VNI, ip6(vip)), service));
        self.put(&entries);
    }

    /// What its counters say, for a failure's message.
    fn counters(&self) -> String {
        let counters = self.dataplane.counters().unwrap_or_default();
        let line = |(counter, packets): (weft_dataplane::abi::Counter, u64)| {
            (packets > 0).then(|| format!("{}={packets}", counter.name()))
        };
        counters.into_iter().filter_map(line).collect::<Vec<_>>().join(" ")
    }
}

const fn at(ip: [u8; 4]) -> OverlayAddress {
    OverlayAddress { vni: VNI, ip }
}

/// The IPv6 address that a station has beside its IPv4 address.
fn ip6([a, b, c, d]: [u8; 4]) -> V6 {
    V6::new([0xfd, a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, c, d])
}

const UNDERLAY: [[u8; 4]; 2] = [[192, 168, 77, 1], [192, 168, 77, 2]];

/// Two namespaces that an underlay connects.
fn two_hosts() -> (Namespace, Namespace) {
    let (first, second) = (Namespace::new("wth"), Namespace::new("wth"));
    run(
        "ip",
        &[
            "-n",
            first.name(),
            "link",
            "add",
            "uplink",
            "type",
            "veth",
            "peer",
            "name",
            "uplink",
            "netns",
            second.name(),
        ],
    );
    for (host, address) in [(&first, UNDERLAY[0]), (&second, UNDERLAY[1])] {
        host.ip(&format!("addr add {}/24 dev uplink", Ipv4Addr::from(address)));
        host.ip("link set uplink up");
    }
    (first, second)
}

#[track_caller]
fn check<T>(result: Result<T, String>, hosts: &[&Host]) -> T {
    result.unwrap_or_else(|error| {
        let counters: Vec<String> = hosts.iter().map(|host| host.counters()).collect();
        panic!("{error}\n{}", counters.join("\n"))
    })
}

fn all_kinds_of_traffic(hosts: &[&Host], one: &Container, other: &Container, bytes: usize) {
    for (from, to) in [(one, other), (other, one)] {
        for size in [0, 56, OVERLAY_MTU as usize - 28, 8000] {
            let answer = check(ping(&from.namespace, to.address(), size), hosts);
            assert_eq!(answer, to.address());
        }
        let seen = check(
            tcp_both_ways(&to.namespace, to.socket(8000), &from.namespace, to.socket(8000), bytes),
            hosts,
        );
        assert_eq!(seen.ip(), from.address());
        let _echo = UdpEcho::start(&to.namespace, to.socket(9000), b"echo");
        // The last one travels as six fragments.
        for size in [1, 1200, 8000] {
            assert_eq!(
                check(udp_ask(&from.namespace, to.socket(9000), size), hosts),
                b"echo",
                "{size} bytes"
            );
        }
    }
}

/// Two containers on one host and one on another, of which all know.
struct Scene {
    first: Host,
    second: Host,
    alice: Container,
    neighbour: Container,
    bob: Container,
}

impl Scene {
    fn new(ways: Ways) -> Scene {
        let (first, second) = two_hosts();
        let mut first = Host::new(first, UNDERLAY[0], ways);
        let mut second = Host::new(second, UNDERLAY[1], ways);
        let (alice, bob) = (
            Container::new(&first.namespace, 2),
            Container::new(&second.namespace, 3),
        );
        let neighbour = Container::new(&first.namespace, 4);
        first.add_endpoint(&alice);
        first.add_endpoint(&neighbour);
        second.add_endpoint(&bob);
        first.add_peer(&bob, UNDERLAY[1]);
        second.add_peer(&alice, UNDERLAY[0]);
        second.add_peer(&neighbour, UNDERLAY[0]);
        Scene {
            first,
            second,
            alice,
            neighbour,
            bob,
        }
    }
}

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
