//! Three hosts on one underlay, wired by hand: two with weft's programs, one with a kernel vxlan device as Docker makes it.

use crate::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weft::dataplane::Hook;
use weft_core::reconcile::{Entry, Step};
use weft_core::wanted::sixteen_bytes;
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Clamp, Endpoint, Network, Node, OverlayAddress, Peer, Service, V6, node, peer,
};
use weft_tests::namespace::{Namespace, run};
use weft_tests::programs::{Loaded, config};

pub(crate) const VNI: u32 = 4242;
const GATEWAY: ([u8; 6], [u8; 4]) = ([2, 0x42, 10, 9, 0, 1], [10, 9, 0, 1]);

/// The underlay's MTU for everything that is not jumbo.
pub(crate) const UNDERLAY_MTU: u32 = 1500;
/// The same with jumbo frames.
pub(crate) const JUMBO_MTU: u32 = 9000;

/// A container: its namespace, its MAC, and the last byte of its addresses.
pub(crate) struct Station {
    pub(crate) namespace: Namespace,
    mac: [u8; 6],
    number: u8,
}

impl Station {
    /// Connected to `host` by a veth whose other end is `v<number>` there.
    fn new(host: &Namespace, number: u8) -> Self {
        let namespace = Namespace::new("wmc");
        let mac = [2, 0x42, 10, 9, 0, number];
        let name = namespace.name();
        host.ip(&format!(
            "link add v{number} type veth peer name eth0 address {} netns {name}",
            text(mac)
        ));
        with_ipv6(&namespace, "eth0");
        for family in [Family::V4, Family::V6] {
            let (address, prefix) = (address(family, number), if family == Family::V4 { 24 } else { 64 });
            let nodad = if family == Family::V4 { "" } else { "nodad" };
            namespace.ip(&format!("addr add {address}/{prefix} dev eth0 {nodad}"));
        }
        namespace.ip("link set eth0 up");
        host.ip(&format!("link set v{number} up"));
        Station { namespace, mac, number }
    }

    pub(crate) fn address(&self, family: Family) -> IpAddr {
        address(family, self.number)
    }

    /// The virtual IP behind which it stands.
    pub(crate) fn vip(&self, family: Family) -> IpAddr {
        address(family, self.number + 100)
    }

    fn ipv4(&self) -> [u8; 4] {
        [10, 9, 0, self.number]
    }
}

fn address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 9, 0, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd0a, 9, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn ip6(number: u8) -> V6 {
    sixteen_bytes(address(Family::V6, number))
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Namespaces begin without it.
fn with_ipv6(namespace: &Namespace, interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    namespace.enter(|| std::fs::write(path, "0").expect("a kernel with IPv6"));
}

/// A host with weft's programs. These go before its namespace.
pub(crate) struct Ours {
    dataplane: Loaded,
    pub(crate) namespace: Namespace,
    pub(crate) underlay: IpAddr,
}

impl Ours {
    fn new(namespace: Namespace, underlay: IpAddr) -> Self {
        let mut host = Ours {
            dataplane: Loaded::new(&config()),
            namespace,
            underlay,
        };
        host.attach(Hook::Uplink, "uplink");
        let network = Network {
            gateway: GATEWAY.1,
            gateway_mac: GATEWAY.0,
            prefix_len: 24,
            padding: 0,
        };
        host.put(&[Entry::Network(VNI, network)]);
        host
    }

    fn attach(&mut self, hook: Hook, interface: &str) {
        let ifindex = self.namespace.ifindex(interface);
        let dataplane = &mut self.dataplane;
        let attached = self.namespace.enter(|| dataplane.attach(hook, ifindex));
        attached.unwrap_or_else(|error| panic!("{error}"));
    }

    fn put(&mut self, entries: &[Entry]) {
        let steps: Vec<Step> = entries.iter().copied().map(Step::Put).collect();
        self.dataplane.apply(&steps).unwrap_or_else(|error| panic!("{error}"));
    }

    fn add_endpoint(&mut self, station: &Station) {
        let interface = format!("v{}", station.number);
        let ifindex = self.namespace.ifindex(&interface);
        let endpoint = Endpoint {
            ifindex,
            mac: station.mac,
            flags: peer::BACKEND,
        };
        let attachment = Attachment {
            vni: VNI,
            ip: station.ipv4(),
            gateway: GATEWAY.1,
            mac: station.mac,
            gateway_mac: GATEWAY.0,
            ip6: ip6(station.number),
            gateway6: ip6(1),
        };
        self.put(&[
            Entry::Endpoint(OverlayAddress::new(VNI, station.ipv4()), endpoint),
            Entry::Endpoint6(OverlayAddress::new(VNI, ip6(station.number)), endpoint),
            Entry::Attachment(ifindex, attachment),
        ]);
        self.attach(Hook::Endpoint, &interface);
    }

    fn add_peer(&mut self, station: &Station, vtep: IpAddr) {
        let peer = Peer {
            vtep: sixteen_bytes(vtep),
            mac: station.mac,
            flags: peer::BACKEND,
        };
        self.put(&[
            Entry::Peer(OverlayAddress::new(VNI, station.ipv4()), peer),
            Entry::Peer6(OverlayAddress::new(VNI, ip6(station.number)), peer),
        ]);
    }

    /// The way to another host.
    fn add_way(&mut self, vtep: IpAddr, mtu: u32) {
        let way = Node {
            next_hop: sixteen_bytes(vtep),
            source: sixteen_bytes(self.underlay),
            ifindex: self.namespace.ifindex("uplink"),
            mtu,
            family: if vtep.is_ipv4() { node::IPV4 } else { node::IPV6 },
            padding: 0,
        };
        self.put(&[Entry::Node(sixteen_bytes(vtep), way)]);
    }

    /// A virtual IP of each family, with this one behind it.
    fn add_service(&mut self, station: &Station) {
        let vip = [10, 9, 0, station.number + 100];
        let vip6 = ip6(station.number + 100);
        let service = Service {
            backend_count: 1,
            policy: 0,
            affinity_seconds: 0,
        };
        let (vni, slot) = (VNI, 0);
        self.put(&[
            Entry::Backend(BackendKey { vip, vni, slot }, Backend { ip: station.ipv4() }),
            Entry::Backend6(
                BackendKey { vip: vip6, vni, slot },
                Backend {
                    ip: ip6(station.number),
                },
            ),
            Entry::Service(OverlayAddress::new(VNI, vip), service),
            Entry::Service6(OverlayAddress::new(VNI, vip6), service),
        ]);
    }

    /// What its counters say, for a failure's message.
    pub(crate) fn counters(&self) -> String {
        let counters = self.dataplane.counters().unwrap_or_default();
        let line = |(counter, packets): (weft_dataplane::abi::Counter, u64)| {
            (packets > 0).then(|| format!("{}={packets}", counter.name()))
        };
        counters.into_iter().filter_map(line).collect::<Vec<_>>().join(" ")
    }
}

/// The hosts, and who lives on them.
pub(crate) struct Hosts {
    pub(crate) near: Ours,
    pub(crate) far: Ours,
    pub(crate) alice: Station,
    /// On the host of Alice.
    pub(crate) neighbour: Station,
    /// On the other host of weft's.
    pub(crate) bob: Station,
    /// Behind the kernel's vxlan device.
    pub(crate) carol: Station,
    kernel: Namespace,
    underlay: Namespace,
    family: Family,
}

impl Hosts {
    /// On an underlay of this family.
    pub(crate) fn new(family: Family) -> Self {
        let underlay = Namespace::new("wmu");
        underlay.ip("link add br0 type bridge forward_delay 0");
        underlay.ip("link set br0 up");
        let host = |number: u8| {
            let host = Namespace::new("wmh");
            let name = host.name();
            underlay.ip(&format!("link add h{number} type veth peer name uplink netns {name}"));
            underlay.ip(&format!("link set h{number} master br0 up"));
            with_ipv6(&host, "uplink");
            let (prefix, nodad) = if family == Family::V4 { (24, "") } else { (64, "nodad") };
            host.ip(&format!(
                "addr add {}/{prefix} dev uplink {nodad}",
                vtep(family, number)
            ));
            host.ip("link set uplink up");
            // What leaves it is complete: segments are cut and checksums computed before.
            let features = [
                "tx",
                "tso",
                "gro",
                "tx-udp_tnl-segmentation",
                "tx-udp_tnl-csum-segmentation",
            ];
            host.enter(|| {
                for feature in features {
                    run("ethtool", &["-K", "uplink", feature, "off"]);
                }
            });
            host
        };
        let mut near = Ours::new(host(1), vtep(family, 1));
        let mut far = Ours::new(host(2), vtep(family, 2));
        let kernel = host(3);
        let alice = Station::new(&near.namespace, 2);
        let neighbour = Station::new(&near.namespace, 3);
        let bob = Station::new(&far.namespace, 4);
        let carol = Station::new(&kernel, 5);
        for station in [&alice, &neighbour] {
            near.add_endpoint(station);
            far.add_peer(station, vtep(family, 1));
            near.add_service(station);
            far.add_service(station);
        }
        far.add_endpoint(&bob);
        near.add_peer(&bob, vtep(family, 2));
        near.add_peer(&carol, vtep(family, 3));
        near.add_service(&bob);
        near.add_service(&carol);
        let mut hosts = Hosts {
            near,
            far,
            alice,
            neighbour,
            bob,
            carol,
            kernel,
            underlay,
            family,
        };
        hosts.make_vxlan_device();
        hosts.set_mtu(UNDERLAY_MTU);
        hosts
    }

    /// A bridge with the container's veth and a vxlan device, and static entries for Alice.
    fn make_vxlan_device(&self) {
        let (kernel, near, own) = (&self.kernel, vtep(self.family, 1), vtep(self.family, 3));
        // weft's outer packets have no UDP checksum, which a device takes over IPv6 only when told so (RFC 6935).
        let zero = if self.family == Family::V4 {
            ""
        } else {
            "udp6zerocsumrx"
        };
        kernel.ip(&format!(
            "link add vx0 type vxlan id {VNI} dstport 4789 local {own} nolearning {zero}"
        ));
        kernel.ip("link add br0 type bridge");
        for interface in ["vx0", "v5"] {
            kernel.ip(&format!("link set {interface} master br0"));
        }
        for interface in ["vx0", "br0"] {
            kernel.ip(&format!("link set {interface} up"));
        }
        kernel.enter(|| run("ethtool", &["-K", "vx0", "gro", "off"]));
        let mac = text(self.alice.mac);
        let near = near.to_string();
        let entry = ["fdb", "replace", &mac, "dev", "vx0", "dst", &near, "self", "permanent"];
        run("bridge", &[&["-n", kernel.name()], &entry[..]].concat());
        for family in [Family::V4, Family::V6] {
            let alice = self.alice.address(family);
            let carol = &self.carol.namespace;
            carol.ip(&format!("neigh replace {alice} lladdr {mac} dev eth0 nud permanent"));
        }
    }

    /// What a packet between containers may have, header and all.
    pub(crate) fn mtu(&self, underlay: u32) -> usize {
        let overhead = if self.family == Family::V4 { 50 } else { 70 };
        underlay as usize - overhead
    }

    /// Gives every link another MTU, and the programs their ways anew.
    pub(crate) fn set_mtu(&mut self, underlay: u32) {
        for interface in ["h1", "h2", "h3", "br0"] {
            self.underlay.ip(&format!("link set {interface} mtu {underlay}"));
        }
        for host in [&self.near.namespace, &self.far.namespace, &self.kernel] {
            host.ip(&format!("link set uplink mtu {underlay}"));
        }
        self.set_mtu_inside(self.mtu(underlay));
        self.near.add_way(self.far.underlay, underlay);
        self.near.add_way(vtep(self.family, 3), underlay);
        self.far.add_way(self.near.underlay, underlay);
    }

    /// Gives the containers' links another MTU, whatever the underlay carries.
    pub(crate) fn set_mtu_inside(&self, inside: usize) {
        for (host, interfaces) in [
            (&self.near.namespace, &["v2", "v3"][..]),
            (&self.far.namespace, &["v4"]),
            (&self.kernel, &["vx0", "v5", "br0"]),
        ] {
            for interface in interfaces {
                host.ip(&format!("link set {interface} mtu {inside}"));
            }
        }
        for station in self.stations() {
            station.namespace.ip(&format!("link set eth0 mtu {inside}"));
        }
    }

    /// New TCP connections are told what fits this.
    pub(crate) fn clamp(&mut self, mtu: u32) {
        for host in [&mut self.near, &mut self.far] {
            host.put(&[Entry::Clamp(VNI, Clamp { mtu })]);
        }
    }

    /// Whether containers leave checksums and segments to whoever is behind them.
    pub(crate) fn set_offload(&self, on: bool) {
        let state = if on { "on" } else { "off" };
        for station in self.stations() {
            station.namespace.enter(|| {
                for feature in ["tx", "tso"] {
                    run("ethtool", &["-K", "eth0", feature, state]);
                }
            });
        }
    }

    pub(crate) fn stations(&self) -> [&Station; 4] {
        [&self.alice, &self.neighbour, &self.bob, &self.carol]
    }
}

fn vtep(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 168, 77, number).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, number.into()).into(),
    }
}
