//! A node without traffic: loaded programs, real interfaces, and made-up packets through the kernel's own test run.

use crate::namespace::{Namespace, unique};
use crate::packet::{Ip, Mac, Tunnel, difference};
use std::collections::BTreeMap;
use std::path::PathBuf;
use weft::dataplane::{Config, Dataplane, Forced, Hook};
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_dataplane::abi::flow::Timeouts;
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Counter, Endpoint, Flow, FlowKey, MapType, Network, Node, OverlayAddress, Peer,
    Service, Sizes, V6, VXLAN_PORT, flow, mapped, node, peer,
};

/// The object that `cargo xtask build-ebpf` leaves.
pub fn object() -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/weft-dataplane.bpf.o"));
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask build-ebpf` first",
        path.display()
    );
    path
}

/// A configuration with a pin directory of its own.
pub fn config() -> Config {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests load eBPF programs: run them as root"
    );
    Config {
        object: Some(object()),
        pin_directory: PathBuf::from(weft::dataplane::BPFFS).join(unique("weft-test")),
        data_path_port: VXLAN_PORT,
        log_drops: false,
        features: Forced::default(),
        encap_device: None,
        timeouts: Timeouts::DEFAULT,
        sizes: Sizes::DEFAULT,
        vtep: None,
    }
}

/// A loaded data plane that is removed, pins and all, when dropped.
#[derive(Debug)]
pub struct Loaded {
    dataplane: Option<Dataplane>,
}

impl Loaded {
    /// Loads it.
    pub fn new(config: &Config) -> Self {
        Loaded {
            dataplane: Some(Dataplane::load(config).unwrap_or_else(|error| panic!("{error}"))),
        }
    }

    /// As when its daemon stops, and another one starts.
    pub fn restart(&mut self, config: &Config) {
        self.dataplane = None;
        self.dataplane = Some(Dataplane::load(config).unwrap_or_else(|error| panic!("{error}")));
    }

    /// Lets go of it as a daemon that stops does: what is attached and pinned stays. Someone must load it again to remove it.
    pub fn leave(mut self) {
        self.dataplane = None;
    }
}

impl std::ops::Deref for Loaded {
    type Target = Dataplane;

    fn deref(&self) -> &Dataplane {
        self.dataplane.as_ref().expect("only drop takes it")
    }
}

impl std::ops::DerefMut for Loaded {
    fn deref_mut(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().expect("only drop takes it")
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Some(dataplane) = self.dataplane.take() {
            let removed = dataplane.remove();
            if !std::thread::panicking() {
                removed.unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}

/// The network's VNI.
pub const VNI: u32 = 4097;
/// A VNI that weft does not know.
pub const FOREIGN_VNI: u32 = 7777;
/// The network's gateway, and what stands for it and for all virtual IPs.
pub const GATEWAY: (Mac, Ip) = ([2, 0x42, 10, 0, 1, 1], [10, 0, 1, 1]);
/// A local endpoint.
pub const ALICE: (Mac, Ip) = ([2, 0x42, 10, 0, 1, 2], [10, 0, 1, 2]);
/// Another local endpoint.
pub const BOB: (Mac, Ip) = ([2, 0x42, 10, 0, 1, 3], [10, 0, 1, 3]);
/// A peer behind [`VTEP`].
pub const CAROL: (Mac, Ip) = ([2, 0x42, 10, 0, 1, 4], [10, 0, 1, 4]);
/// Another peer behind [`VTEP`].
pub const DAVE: (Mac, Ip) = ([2, 0x42, 10, 0, 1, 5], [10, 0, 1, 5]);
/// A peer behind a VTEP without a route.
pub const EVE: (Mac, Ip) = ([2, 0x42, 10, 0, 1, 6], [10, 0, 1, 6]);
/// An address that nobody has.
pub const NOBODY: (Mac, Ip) = ([2, 0x42, 10, 0, 1, 77], [10, 0, 1, 77]);
/// A virtual IP with the backends Carol, Dave and Bob.
pub const VIP: Ip = [10, 0, 1, 100];
/// A virtual IP without backends.
pub const EMPTY_VIP: Ip = [10, 0, 1, 101];
/// A virtual IP whose only backend is Alice.
pub const OWN_VIP: Ip = [10, 0, 1, 102];
/// This node on the underlay.
pub const UPLINK: (Mac, Ip) = ([2, 0, 0, 0, 0, 0xa], [192, 168, 50, 1]);
/// The other node on the underlay.
pub const VTEP: (Mac, Ip) = ([2, 0, 0, 0, 0, 0xb], [192, 168, 50, 2]);
/// The VTEP without a route.
pub const LOST_VTEP: Ip = [192, 168, 50, 3];
/// MTU of the way to [`VTEP`].
pub const MTU: u32 = 1500;

/// The kernel's action for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Other programs and the kernel's stack go on with it.
    Pass,
    /// Dropped.
    Drop,
    /// Handed to a device.
    Redirect,
}

impl Action {
    /// The action of a number that a program returned; panics on any that programs may not return.
    pub fn of(number: i32) -> Self {
        match number {
            -1 => Action::Pass,
            2 => Action::Drop,
            7 => Action::Redirect,
            other => panic!("a program returned {other}"),
        }
    }
}

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The kernel's action.
    pub action: Action,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// The counters that changed, and by how much.
    pub counted: BTreeMap<Counter, u64>,
}

/// A node with two local endpoints, peers and virtual IPs.
#[derive(Debug)]
pub struct Lab {
    /// Its programs and maps.
    pub dataplane: Loaded,
    pin_directory: PathBuf,
    namespace: Namespace,
    /// Interface indexes.
    pub alice: u32,
    /// Interface indexes.
    pub bob: u32,
    /// Interface indexes.
    pub uplink: u32,
}

impl Default for Lab {
    fn default() -> Self {
        Lab::new()
    }
}

impl Lab {
    /// Sets it up.
    pub fn new() -> Self {
        Lab::with(&config())
    }

    /// Sets it up with a configuration of one's own.
    pub fn with(config: &Config) -> Self {
        let namespace = Namespace::new("wp");
        for interface in ["alice", "bob", "uplink"] {
            namespace.ip(&format!("link add {interface} type veth peer name {interface}-peer"));
            namespace.ip(&format!("link set {interface} up"));
        }
        namespace.ip("link set uplink address 02:00:00:00:00:0a");
        let mut lab = Lab {
            alice: namespace.ifindex("alice"),
            bob: namespace.ifindex("bob"),
            uplink: namespace.ifindex("uplink"),
            dataplane: Loaded::new(config),
            pin_directory: config.pin_directory.clone(),
            namespace,
        };
        let steps = lab.contents();
        lab.apply(&steps);
        lab
    }

    /// Lets go of it as a daemon that stops does: what is attached and pinned stays, and its interfaces as long as the namespace.
    pub fn leave(self) -> Namespace {
        self.dataplane.leave();
        self.namespace
    }

    fn contents(&self) -> Vec<Step> {
        let mut entries = vec![Entry::Network(
            VNI,
            Network {
                gateway: GATEWAY.1,
                gateway_mac: GATEWAY.0,
                prefix_len: 24,
                padding: 0,
            },
        )];
        for ((mac, ip), ifindex) in [(ALICE, self.alice), (BOB, self.bob)] {
            entries.push(Entry::Endpoint(
                at(ip),
                Endpoint {
                    ifindex,
                    mac,
                    flags: backend_flag(ip),
                },
            ));
            entries.push(Entry::Attachment(
                ifindex,
                Attachment {
                    vni: VNI,
                    ip,
                    gateway: GATEWAY.1,
                    mac,
                    gateway_mac: GATEWAY.0,
                    ip6: V6::UNSPECIFIED,
                    gateway6: V6::UNSPECIFIED,
                },
            ));
        }
        for ((mac, ip), vtep) in [(CAROL, VTEP.1), (DAVE, VTEP.1), (EVE, LOST_VTEP)] {
            entries.push(Entry::Peer(
                at(ip),
                Peer {
                    vtep: mapped(vtep),
                    mac,
                    flags: backend_flag(ip),
                },
            ));
        }
        entries.push(Entry::Node(
            mapped(VTEP.1),
            Node {
                next_hop: mapped(VTEP.1),
                source: mapped(UPLINK.1),
                ifindex: self.uplink,
                mtu: MTU,
                family: node::IPV4,
                padding: 0,
            },
        ));
        let mut steps: Vec<Step> = entries.into_iter().map(Step::Put).collect();
        steps.extend(service(VIP, &[CAROL.1, DAVE.1, BOB.1]));
        steps.extend(service(EMPTY_VIP, &[]));
        steps.extend(service(OWN_VIP, &[ALICE.1]));
        steps
    }

    /// Changes the maps.
    pub fn apply(&mut self, steps: &[Step]) {
        self.dataplane.apply(steps).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Attaches a program to one of its interfaces, for real packets.
    pub fn attach(&mut self, hook: Hook, ifindex: u32) {
        let dataplane = &mut self.dataplane;
        let attached = self.namespace.enter(|| dataplane.attach(hook, ifindex));
        attached.unwrap_or_else(|error| panic!("{error}"));
    }

    /// A packet that Alice's container sends.
    pub fn from_alice(&self, packet: &[u8]) -> Outcome {
        self.run(Hook::Endpoint, self.alice, packet)
    }

    /// A packet that Bob's container sends.
    pub fn from_bob(&self, packet: &[u8]) -> Outcome {
        self.run(Hook::Endpoint, self.bob, packet)
    }

    /// A packet that comes in by the uplink.
    pub fn from_underlay(&self, packet: &[u8]) -> Outcome {
        self.run(Hook::Uplink, self.uplink, packet)
    }

    /// Runs a program and sees what changed.
    pub fn run(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> Outcome {
        let before = self.counters();
        let result = self.namespace.enter(|| self.dataplane.test_run(hook, ifindex, packet));
        let result = result.unwrap_or_else(|error| panic!("the kernel refused the test run: {error:?}"));
        let counted = self
            .counters()
            .into_iter()
            .filter_map(|(counter, after)| {
                let delta = after - before.get(&counter).copied().unwrap_or(0);
                (delta != 0).then_some((counter, delta))
            })
            .collect();
        Outcome {
            action: Action::of(result.action),
            packet: result.packet,
            counted,
        }
    }

    /// Does something inside the node's namespace.
    pub fn enter<T: Send>(&self, action: impl FnOnce(&Dataplane) -> T + Send) -> T {
        let dataplane: &Dataplane = &self.dataplane;
        self.namespace.enter(|| action(dataplane))
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where the maps are pinned.
    pub fn pin_directory(&self) -> &std::path::Path {
        &self.pin_directory
    }

    /// All counters.
    pub fn counters(&self) -> BTreeMap<Counter, u64> {
        self.dataplane
            .counters()
            .unwrap_or_else(|error| panic!("{error}"))
            .into_iter()
            .collect()
    }

    /// The remembered connections.
    pub fn flows(&self) -> BTreeMap<FlowKey, Flow> {
        let dump = self
            .dataplane
            .dump(flow::NAME)
            .unwrap_or_else(|error| panic!("{error}"));
        let entry = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let key = FlowKey::from_bytes(key).expect("a key of the map");
            (key, Flow::from_bytes(value).expect("a value of the map"))
        };
        dump.entries.iter().map(entry).collect()
    }
}

/// The key of an address in the network.
pub const fn at(ip: Ip) -> OverlayAddress {
    OverlayAddress { vni: VNI, ip }
}

/// The steps that make a virtual IP.
pub fn service(vip: Ip, backends: &[Ip]) -> Vec<Step> {
    let slot = |(slot, ip): (usize, &Ip)| {
        let key = BackendKey {
            vni: VNI,
            vip,
            slot: slot as u32,
        };
        Step::Put(Entry::Backend(key, Backend { ip: *ip }))
    };
    let mut steps: Vec<Step> = backends.iter().enumerate().map(slot).collect();
    steps.push(Step::Put(Entry::Service(
        at(vip),
        Service {
            backend_count: backends.len() as u32,
            policy: 0,
            affinity_seconds: 0,
        },
    )));
    steps
}

/// The step that gives the way to [`VTEP`] another MTU. The interface is of any node: the program only hands the packet to it.
pub fn narrow(mtu: u32) -> Step {
    Step::Put(Entry::Node(
        mapped(VTEP.1),
        Node {
            next_hop: mapped(VTEP.1),
            source: mapped(UPLINK.1),
            ifindex: 1,
            mtu,
            family: node::IPV4,
            padding: 0,
        },
    ))
}

/// The mark of those that stand behind one of the virtual IPs.
fn backend_flag(ip: Ip) -> u16 {
    if [ALICE.1, BOB.1, CAROL.1, DAVE.1].contains(&ip) {
        peer::BACKEND
    } else {
        0
    }
}

/// The step that takes a peer away.
pub fn without_peer(ip: Ip) -> Step {
    Step::Remove(EntryKey::Peer(at(ip)))
}

/// VXLAN from [`VTEP`] to this node.
pub fn from_vtep() -> Tunnel {
    Tunnel {
        macs: (VTEP.0, UPLINK.0),
        ips: (VTEP.1, UPLINK.1),
        ports: (50000, VXLAN_PORT),
        flags: 0x08,
        vni: VNI,
        options: Vec::new(),
        tos: 0,
    }
}

/// The key of a connection's packets in one direction.
pub fn flow_key(protocol: u8, source: (Ip, u16), destination: (Ip, u16)) -> FlowKey {
    FlowKey {
        network: flow::network(VNI, protocol),
        source: source.0,
        destination: destination.0,
        source_port: source.1.to_be_bytes(),
        destination_port: destination.1.to_be_bytes(),
        reserved: flow::RESERVED,
    }
}

impl Outcome {
    /// Checks action and counters, exactly.
    #[track_caller]
    pub fn is(self, action: Action, counted: &[Counter]) -> Self {
        let mut expected = BTreeMap::new();
        for counter in counted {
            *expected.entry(*counter).or_insert(0) += 1;
        }
        assert_eq!(
            (self.action, &self.counted),
            (action, &expected),
            "packet after the program: {:#?}",
            crate::packet::fields(&self.packet)
        );
        self
    }

    /// Checks the packet, exactly.
    #[track_caller]
    pub fn packet_is(self, expected: &[u8]) -> Self {
        let difference = difference(expected, &self.packet);
        assert!(difference.is_empty(), "the packet differs:\n{difference}");
        self
    }

    /// Checks that the packet was dropped for a reason, and left as it was.
    #[track_caller]
    pub fn dropped(self, input: &[u8], reason: Counter) -> Self {
        self.is(Action::Drop, &[reason]).packet_is(input)
    }

    /// Checks that the packet was passed on untouched and not counted.
    #[track_caller]
    pub fn passed(self, input: &[u8]) -> Self {
        self.is(Action::Pass, &[]).packet_is(input)
    }
}
