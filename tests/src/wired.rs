//! Hosts and containers that are wired by hand.

use crate::namespace::{Namespace, run};
use crate::programs::{Loaded, config};
use crate::traffic::{UdpEcho, ping, tcp_both_ways, udp_ask};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use weft::dataplane::{Config, Forced, Hook, LinkAddresses, Neighborhood};
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::service::POLICY_ROUND_ROBIN;
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service, V6, VXLAN_PORT, mapped,
    node,
};

/// The network of all.
pub const VNI: u32 = 4242;
/// The link address and the address of its gateway.
pub const GATEWAY: ([u8; 6], [u8; 4]) = ([2, 0x42, 10, 9, 0, 1], [10, 9, 0, 1]);
/// The virtual IP of its service.
pub const VIP: [u8; 4] = [10, 9, 0, 100];
/// The MTU between the hosts.
pub const UNDERLAY_MTU: u32 = 1500;
/// What is left of it inside the containers.
pub const OVERLAY_MTU: u32 = UNDERLAY_MTU - 50;
/// Bytes, for a transfer where there are many.
pub const MEGABYTE: usize = 1_000_000;
/// Bytes, for a transfer of many segments.
pub const TEN_MEGABYTES: usize = 10 * MEGABYTE;

/// Features that are forced.
pub type Ways = &'static [(&'static str, &'static str)];
/// What the probe chooses.
pub const DEFAULT: Ways = &[];
/// Filters in place of tcx links.
pub const CLSACT: Ways = &[("attach", "clsact")];
/// The device `weft-gro` encapsulates.
pub const DEVICE: (&str, &str) = ("encap", "collect_md");

/// A station of the overlay: its namespace, its MAC and its address.
pub struct Container {
    /// Its own.
    pub namespace: Namespace,
    /// Of `eth0`.
    pub mac: [u8; 6],
    /// Of `eth0`; the one of IPv6 is [`ip6`] of it.
    pub ip: [u8; 4],
}

impl Container {
    /// Connected to `host` by a veth whose other end is `v<number>` there.
    pub fn new(host: &Namespace, number: u8) -> Self {
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

    /// A port of its IPv6 address.
    pub fn socket6(&self, port: u16) -> SocketAddr {
        (Ipv6Addr::from(ip6(self.ip).octets()), port).into()
    }

    /// Its IPv4 address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.ip)
    }

    /// A port of its IPv4 address.
    pub fn socket(&self, port: u16) -> SocketAddr {
        (self.address(), port).into()
    }
}

/// What the programs hand packets to that they do not encapsulate themselves, as the daemon makes it.
pub fn encap_device(host: &Namespace) -> u32 {
    host.ip(&format!(
        "link add weft-gro type vxlan external vnifilter nolearning dstport {VXLAN_PORT}"
    ));
    host.ip("link set weft-gro up");
    host.ifindex("weft-gro")
}

/// A node: its namespace, its underlay address and its programs. The programs go before the namespace.
pub struct Host {
    /// The programs, and their maps.
    pub dataplane: Loaded,
    /// Where the programs are attached.
    pub namespace: Namespace,
    /// Of its uplink.
    pub address: [u8; 4],
}

impl Host {
    /// Programs that know the network, at the device `uplink` of `namespace`.
    pub fn new(namespace: Namespace, address: [u8; 4], ways: Ways) -> Self {
        Host::with(namespace, address, ways, &mut |_| {})
    }

    /// The same, with whatever `change` makes of its configuration.
    pub fn with(namespace: Namespace, address: [u8; 4], ways: Ways, change: &mut dyn FnMut(&mut Config)) -> Self {
        let mut config = config();
        config.features = Forced::only(ways).expect("features that there are");
        config.encap_device = ways.contains(&DEVICE).then(|| encap_device(&namespace));
        change(&mut config);
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

    /// Puts a program at one of its devices.
    pub fn attach(&mut self, hook: Hook, interface: &str) {
        let ifindex = self.namespace.ifindex(interface);
        let dataplane = &mut self.dataplane;
        self.namespace
            .enter(|| dataplane.attach(hook, ifindex))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Writes entries of maps.
    pub fn put(&mut self, entries: &[Entry]) {
        let steps: Vec<Step> = entries.iter().copied().map(Step::Put).collect();
        self.dataplane.apply(&steps).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Makes it the host of `container`, which stands in its namespace.
    pub fn add_endpoint(&mut self, container: &Container) {
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

    /// Tells that `container` is behind `vtep`.
    pub fn add_peer(&mut self, container: &Container, vtep: [u8; 4]) {
        self.add_peer_over(
            container,
            (mapped(self.address), mapped(vtep)),
            UNDERLAY_MTU,
            node::IPV4,
        );
    }

    /// The same with the addresses of the tunnel, the MTU of the way and its family.
    pub fn add_peer_over(&mut self, container: &Container, (source, vtep): (V6, V6), mtu: u32, family: u32) {
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
    pub fn add_service(&mut self, vip: [u8; 4], backends: &[[u8; 4]]) {
        self.add_service_of(vip, backends, POLICY_ROUND_ROBIN);
    }

    /// The same with a policy.
    pub fn add_service_of(&mut self, vip: [u8; 4], backends: &[[u8; 4]], policy: u32) {
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
            policy,
            affinity_seconds: 0,
        };
        entries.push(Entry::Service(at(vip), service));
        entries.push(Entry::Service6(OverlayAddress::new(VNI, ip6(vip)), service));
        self.put(&entries);
    }

    /// The link address of its uplink.
    pub fn mac(&self) -> [u8; 6] {
        let shown = self.namespace.ip("-o link show dev uplink");
        let (_, address) = shown.split_once("link/ether ").expect("an Ethernet device");
        let bytes: Vec<u8> = address[..17]
            .split(':')
            .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
            .collect();
        bytes.try_into().expect("six bytes")
    }

    /// From now on it need not look for the other's link address.
    pub fn know(&mut self, other: &Host) {
        let addresses = LinkAddresses {
            destination: other.mac(),
            source: self.mac(),
        };
        let neighbor = (self.namespace.ifindex("uplink"), other.address.into());
        self.dataplane
            .refresh_neighbors(&Neighborhood::from([(neighbor, addresses)]))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// What its counters say, for a failure's message.
    pub fn counters(&self) -> String {
        let counters = self.dataplane.counters().unwrap_or_default();
        let line = |(counter, packets): (weft_dataplane::abi::Counter, u64)| {
            (packets > 0).then(|| format!("{}={packets}", counter.name()))
        };
        counters.into_iter().filter_map(line).collect::<Vec<_>>().join(" ")
    }
}

/// The key of an address of the network.
pub const fn at(ip: [u8; 4]) -> OverlayAddress {
    OverlayAddress { vni: VNI, ip }
}

/// The IPv6 address that a station has beside its IPv4 address.
pub fn ip6([a, b, c, d]: [u8; 4]) -> V6 {
    V6::new([0xfd, a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, c, d])
}

/// The addresses of the hosts.
pub const UNDERLAY: [[u8; 4]; 2] = [[192, 168, 77, 1], [192, 168, 77, 2]];

/// Two namespaces that an underlay connects.
pub fn two_hosts() -> (Namespace, Namespace) {
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

/// Two containers on one host and one on another, of which all know.
pub struct Scene {
    /// The host of `alice` and `neighbour`.
    pub first: Host,
    /// The host of `bob`.
    pub second: Host,
    /// On the first host.
    pub alice: Container,
    /// Beside her.
    pub neighbour: Container,
    /// On the second host.
    pub bob: Container,
}

impl Scene {
    /// On hosts with a wire between them.
    pub fn new(ways: Ways) -> Scene {
        Scene::on(two_hosts(), ways)
    }

    /// The same, with whatever `change` makes of the first host's configuration.
    pub fn with(ways: Ways, mut change: impl FnMut(&mut Config)) -> Scene {
        let (first, second) = two_hosts();
        let first = Host::with(first, UNDERLAY[0], ways, &mut change);
        Scene::of(first, Host::new(second, UNDERLAY[1], ways))
    }

    /// On `first` and `second`, which reach each other over their devices `uplink`.
    pub fn on((first, second): (Namespace, Namespace), ways: Ways) -> Scene {
        Scene::of(
            Host::new(first, UNDERLAY[0], ways),
            Host::new(second, UNDERLAY[1], ways),
        )
    }

    fn of(mut first: Host, mut second: Host) -> Scene {
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

/// Gives what came, or fails with the counters of `hosts`.
#[track_caller]
pub fn check<T>(result: Result<T, String>, hosts: &[&Host]) -> T {
    result.unwrap_or_else(|error| {
        let counters: Vec<String> = hosts.iter().map(|host| host.counters()).collect();
        panic!("{error}\n{}", counters.join("\n"))
    })
}

/// Ping, TCP and UDP over IPv4, both ways, in packets that fit and in fragments.
pub fn all_kinds_of_traffic(hosts: &[&Host], one: &Container, other: &Container, bytes: usize) {
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
