//! What each program costs by test run, with warm caches: many runs in one system call, which keeps the packet between them.
//!
//! A program that encapsulates would see its own output from the second run on. So two programs take turns: weft's, and one of the
//! bench's that makes the packet what it was. What the latter costs is known from a third one, which runs it between two readings of the
//! clock, and is taken off, and so is what running any program costs. What remains is weft's part alone.
//!
//! The kernel marks a packet as encapsulated once only, so weft's programs are loaded here without the flags that ask for it
//! ([`dataplane::load_unmarked`]).

use crate::dataplane::{self, put};
use crate::error::{Context, Error, Result};
use crate::load::live_frames::{FRAME_LEN, internet_checksum, vxlan_frame};
use crate::load::{CLIENT_CPU, pin};
use crate::netns::Netns;
use crate::object;
use crate::options::Options;
use crate::statistics::Summary;
use aya::maps::{Array, PerCpuArray, ProgramArray};
use aya::programs::{TestRun, TestRunOptions};
use aya::{Ebpf, Pod};
use std::net::Ipv4Addr;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Endpoint, Node, OverlayAddress, Peer, Service, V6, mapped, peer, program,
};

/// Runs a system call; odd, so that weft's program is the last one, and its verdict and its packet are seen.
const RUNS: u32 = 400_001;
/// How often each case is measured.
const ROUNDS: usize = 7;
/// Verdict of a redirected packet (`linux/pkt_cls.h`).
const TC_ACT_REDIRECT: u32 = 7;
/// Index of the loopback device in every namespace; test runs happen on it.
const LOOPBACK: u32 = 1;
/// Its MAC: a frame to any other is not for this host.
const LOOPBACK_MAC: [u8; 6] = [0; 6];

const VNI: u32 = 4096;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const GATEWAY_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 1];
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const LOCAL_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 2];
/// Behind the other VTEP, and behind no virtual IP.
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);
const REMOTE_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 3];
/// Behind the other VTEP, and behind the virtual IP.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 4);
const SERVER_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 4];
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
const REMOTE_VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);

/// The client's port of the balanced connection, and of another one.
const PORTS: [u16; 2] = [40_000, 40_001];
const SERVICE_PORT: u16 = 80;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What a program costs, or what one costs more than another.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmCost {
    /// How the JSON names it.
    pub key: &'static str,
    /// What ran on what.
    pub case: &'static str,
    /// Nanoseconds a run, without what running any program costs.
    pub cost: Summary,
}

/// Who the packet is from and to, as a case has it.
type Party = ([u8; 6], Ipv4Addr, u16);

/// A program of weft's, on a packet.
struct Case {
    key: &'static str,
    case: &'static str,
    program: &'static str,
    from: Party,
    to: Party,
}

const CLIENT_BALANCED: Party = (LOCAL_MAC, LOCAL, PORTS[0]);
const CLIENT_DIRECT: Party = (LOCAL_MAC, LOCAL, PORTS[1]);

const CASES: [Case; 6] = [
    Case {
        key: "warm.encap",
        case: "encapsulation, to a peer",
        program: program::OVERLAY_EGRESS,
        from: CLIENT_DIRECT,
        to: (REMOTE_MAC, REMOTE, SERVICE_PORT),
    },
    Case {
        key: "warm.decap",
        case: "decapsulation, from a peer",
        program: program::OVERLAY_INGRESS,
        from: (REMOTE_MAC, REMOTE, SERVICE_PORT),
        to: CLIENT_DIRECT,
    },
    Case {
        key: "warm.encap_backend",
        case: "encapsulation, to a backend, not by its VIP",
        program: program::OVERLAY_EGRESS,
        from: CLIENT_DIRECT,
        to: (SERVER_MAC, SERVER, SERVICE_PORT),
    },
    Case {
        key: "warm.decap_backend",
        case: "decapsulation, from a backend, not by its VIP",
        program: program::OVERLAY_INGRESS,
        from: (SERVER_MAC, SERVER, SERVICE_PORT),
        to: CLIENT_DIRECT,
    },
    Case {
        key: "warm.encap_vip",
        case: "encapsulation, to a VIP, known connection",
        program: program::OVERLAY_EGRESS,
        from: CLIENT_BALANCED,
        to: (GATEWAY_MAC, VIRTUAL, SERVICE_PORT),
    },
    Case {
        key: "warm.decap_vip",
        case: "decapsulation, answer of a balanced connection",
        program: program::OVERLAY_INGRESS,
        from: (SERVER_MAC, SERVER, SERVICE_PORT),
        to: CLIENT_BALANCED,
    },
];

/// Cases whose difference is told: key, title, the dearer, the cheaper.
const DIFFERENCES: [(&str, &str, &str, &str); 2] = [
    (
        "warm.vip",
        "VIP: look-up and translation",
        "warm.encap_vip",
        "warm.encap",
    ),
    (
        "warm.vip_answer",
        "VIP: translation of an answer",
        "warm.decap_vip",
        "warm.decap",
    ),
];

/// The keys that targets may name.
pub const KEYS: &[&str] = &["warm.encap", "warm.decap", "warm.vip", "warm.vip_answer"];

/// Runs weft's programs on made-up packets; in a namespace of its own, so that nothing else is touched.
pub fn costs(options: &Options) -> Result<Vec<WarmCost>> {
    Netns::create("programs")?.within(|| {
        pin(CLIENT_CPU)?;
        let mut bench = Instruments::load(options)?;
        let mut dataplane = load(options)?;
        open_connection(&mut dataplane)?;
        let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); CASES.len()];
        for _ in 0..if options.quick { 1 } else { ROUNDS } {
            for (case, costs) in CASES.iter().zip(&mut rounds) {
                costs.push(bench.measure(&mut dataplane, case).context(|| case.case.to_owned())?);
            }
        }
        let (grown, shrunk): (Vec<f64>, Vec<f64>) = bench.floors.drain(..).unzip();
        let of = |key: &str| {
            CASES
                .iter()
                .position(|case| case.key == key)
                .map(|index| &rounds[index])
        };
        let mut costs = Vec::new();
        costs.extend(cost(
            "warm.grow",
            "the least: 50 bytes of room, headers copied in",
            &grown,
        ));
        costs.extend(cost(
            "warm.shrink",
            "the least: 50 bytes away, headers copied in",
            &shrunk,
        ));
        for (case, round) in CASES.iter().zip(&rounds) {
            costs.extend(cost(case.key, case.case, round));
        }
        for (key, title, dearer, cheaper) in DIFFERENCES {
            if let (Some(dearer), Some(cheaper)) = (of(dearer), of(cheaper)) {
                let more: Vec<f64> = dearer.iter().zip(cheaper).map(|(a, b)| a - b).collect();
                costs.extend(cost(key, title, &more));
            }
        }
        Ok(costs)
    })
}

fn cost(key: &'static str, case: &'static str, rounds: &[f64]) -> Option<WarmCost> {
    let cost = Summary::of(rounds)?;
    Some(WarmCost { key, case, cost })
}

/// The bench's own programs.
struct Instruments {
    object: Ebpf,
    /// What each look at the clock told: making a packet encapsulated, and plain again.
    floors: Vec<(f64, f64)>,
}

impl Instruments {
    fn load(options: &Options) -> Result<Self> {
        let mut object = object::load(&options.bench_object)?;
        for name in [
            object::program::TAKE_TURNS,
            object::program::MAKE_PLAIN,
            object::program::MAKE_ENCAPSULATED,
            object::program::CLOCK,
            object::program::NOOP,
        ] {
            object::classifier(&mut object, name)?;
        }
        Ok(Instruments {
            object,
            floors: Vec::new(),
        })
    }

    /// Nanoseconds that a program takes on a case's packet.
    fn measure(&mut self, dataplane: &mut Ebpf, case: &Case) -> Result<f64> {
        let plain = tcp_frame(case.from, case.to, ACK);
        let encapsulated = vxlan(&plain);
        let encapsulates = case.program == program::OVERLAY_EGRESS;
        // What the packet is made again is what it was, addresses, checksums and all.
        self.set_head(object::map::PLAIN_HEAD, first::<8>(&plain))?;
        self.set_head(object::map::ENCAPSULATED_HEAD, first::<13>(&encapsulated))?;
        let (start, end, back, at) = if encapsulates {
            (&plain, encapsulated.len(), object::program::MAKE_PLAIN, [0, 1])
        } else {
            (&encapsulated, plain.len(), object::program::MAKE_ENCAPSULATED, [1, 0])
        };
        self.turn(at[0], None, object::program::NOOP)?;
        let nothing = self.run(start, start.len(), 0)?;
        self.turn(at[0], Some(dataplane), case.program)?;
        self.turn(at[1], None, back)?;
        let both = 2.0 * (self.run(start, end, TC_ACT_REDIRECT)? - nothing);
        let (to_encapsulated, to_plain) = self.clock(&plain)?;
        self.floors.push((to_encapsulated, to_plain));
        Ok(both - if encapsulates { to_plain } else { to_encapsulated })
    }

    /// What making the packet encapsulated, and plain again, costs.
    fn clock(&mut self, plain: &[u8]) -> Result<(f64, f64)> {
        let before = self.clocked()?;
        let clock = object::classifier(&mut self.object, object::program::CLOCK)?;
        let options = TestRunOptions {
            data_in: Some(plain),
            repeat: RUNS,
            ..TestRunOptions::default()
        };
        clock.test_run(options).context(|| "test run of the clock".to_owned())?;
        let after = self.clocked()?;
        let [encapsulated, plain, nothing] = [0, 1, 2].map(|slot| (after[slot] - before[slot]) / f64::from(RUNS));
        Ok((encapsulated - nothing, plain - nothing))
    }

    fn clocked(&self) -> Result<[f64; 3]> {
        let name = || "map \"clocked\"".to_owned();
        let map: PerCpuArray<_, u64> =
            PerCpuArray::try_from(self.object.map(object::map::CLOCKED).context(name)?).context(name)?;
        let mut sums = [0.0; 3];
        for (slot, sum) in (0..).zip(&mut sums) {
            *sum = map.get(&slot, 0).context(name)?.iter().sum::<u64>() as f64;
        }
        Ok(sums)
    }

    fn set_head<V: Pod>(&mut self, name: &str, head: V) -> Result<()> {
        let map = self.object.map_mut(name).context(|| format!("no map {name:?}"))?;
        let mut map: Array<_, V> = Array::try_from(map).context(|| format!("map {name:?}"))?;
        map.set(0, head, 0).context(|| format!("map {name:?}"))
    }

    /// Whose turn it is on packets of a kind.
    fn turn(&mut self, slot: u32, dataplane: Option<&mut Ebpf>, name: &str) -> Result<()> {
        let program = object::classifier(dataplane.unwrap_or(&mut self.object), name)?;
        let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?));
        let fd = fd.context(|| format!("program {name:?}"))?;
        let turns = self
            .object
            .map_mut(object::map::TURNS)
            .context(|| "no map \"turns\"".to_owned())?;
        let mut turns = ProgramArray::try_from(turns).context(|| "map \"turns\"".to_owned())?;
        turns.set(slot, &fd, 0).context(|| format!("program {name:?}"))
    }

    /// Nanoseconds a run; the last run must end with this verdict and leave a packet of this length.
    fn run(&mut self, packet: &[u8], length: usize, verdict: u32) -> Result<f64> {
        let mut out = [0; 256];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            repeat: RUNS,
            ..TestRunOptions::default()
        };
        let program = object::classifier(&mut self.object, object::program::TAKE_TURNS)?;
        let result = program.test_run(options).context(|| "test run".to_owned())?;
        let got = (result.return_value, result.data_size_out as usize);
        if got != (verdict, length) {
            return Err(Error::new(format!(
                "test run: verdict and length {got:?} where {:?} was expected",
                (verdict, length)
            )));
        }
        Ok(result.duration.as_nanos() as f64)
    }
}

/// The first words of a frame.
fn first<const WORDS: usize>(frame: &[u8]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.chunks_exact(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
    }
    words
}

/// Opens the balanced connection: the client's SYN and the backend's answer.
fn open_connection(dataplane: &mut Ebpf) -> Result<()> {
    let vip = (GATEWAY_MAC, VIRTUAL, SERVICE_PORT);
    let server = (SERVER_MAC, SERVER, SERVICE_PORT);
    let steps = [
        (program::OVERLAY_EGRESS, tcp_frame(CLIENT_BALANCED, vip, SYN)),
        (
            program::OVERLAY_INGRESS,
            vxlan(&tcp_frame(server, CLIENT_BALANCED, SYN | ACK)),
        ),
    ];
    for (name, packet) in steps {
        let options = TestRunOptions {
            data_in: Some(&packet),
            ..TestRunOptions::default()
        };
        let result = object::classifier(dataplane, name)?
            .test_run(options)
            .context(|| name.to_owned())?;
        if result.return_value != TC_ACT_REDIRECT {
            return Err(Error::new(format!("{name}: verdict {}", result.return_value)));
        }
    }
    Ok(())
}

/// weft's object with maps as the node of [`LOCAL`] would have them.
fn load(options: &Options) -> Result<Ebpf> {
    let mut dataplane = dataplane::load_unmarked(options)?;
    let at = |ip: Ipv4Addr| OverlayAddress {
        vni: VNI,
        ip: ip.octets(),
    };
    let object = &mut dataplane;
    dataplane::put_attachment(object, LOOPBACK, attachment())?;
    let network = abi::Network {
        gateway: GATEWAY.octets(),
        gateway_mac: GATEWAY_MAC,
        prefix_len: 24,
        padding: 0,
    };
    put(object, abi::network::NAME, VNI, network)?;
    let endpoint = Endpoint {
        ifindex: LOOPBACK,
        mac: LOCAL_MAC,
        flags: 0,
    };
    dataplane::put_endpoint(object, at(LOCAL), endpoint)?;
    for (ip, mac, flags) in [(REMOTE, REMOTE_MAC, 0), (SERVER, SERVER_MAC, peer::BACKEND)] {
        let vtep = mapped(REMOTE_VTEP.octets());
        dataplane::put_peer(object, at(ip), Peer { vtep, mac, flags })?;
    }
    dataplane::put_node(object, mapped(REMOTE_VTEP.octets()), node())?;
    let service = Service {
        backend_count: 1,
        policy: abi::service::POLICY_ROUND_ROBIN,
        affinity_seconds: 0,
    };
    dataplane::put_service(object, at(VIRTUAL), service)?;
    let slot = BackendKey {
        vni: VNI,
        vip: VIRTUAL.octets(),
        slot: 0,
    };
    put(object, abi::backend::NAME, slot, Backend { ip: SERVER.octets() })?;
    Ok(dataplane)
}

fn attachment() -> Attachment {
    Attachment {
        vni: VNI,
        ip: LOCAL.octets(),
        gateway: GATEWAY.octets(),
        mac: LOCAL_MAC,
        gateway_mac: GATEWAY_MAC,
        ip6: V6::UNSPECIFIED,
        gateway6: V6::UNSPECIFIED,
    }
}

fn node() -> Node {
    Node {
        next_hop: mapped(REMOTE_VTEP.octets()),
        source: mapped(VTEP.octets()),
        ifindex: LOOPBACK,
        mtu: 1500,
        family: abi::node::IPV4,
        padding: 0,
    }
}

/// A TCP segment with some data (RFC 9293 section 3.1), without a right checksum, at which nobody looks here.
fn tcp_frame(from: Party, to: Party, flags: u8) -> Vec<u8> {
    let length = (FRAME_LEN - 14) as u16;
    let mut frame = [to.0, from.0].concat();
    frame.extend(0x0800u16.to_be_bytes());
    frame.extend([0x45, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from.1.octets());
    frame.extend(to.1.octets());
    let checksum = internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(from.2.to_be_bytes());
    frame.extend(to.2.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0x12, 0x34, 0, 0]);
    frame.resize(FRAME_LEN, 0x55);
    frame
}

/// A frame inside VXLAN from the remote VTEP.
fn vxlan(inner: &[u8]) -> Vec<u8> {
    vxlan_frame((REMOTE_MAC, REMOTE_VTEP), (LOOPBACK_MAC, VTEP), VNI, inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encapsulated_frame_has_consistent_lengths() {
        let inner = tcp_frame((REMOTE_MAC, REMOTE, 80), CLIENT_DIRECT, ACK);
        let outer = vxlan(&inner);
        assert_eq!((inner.len(), outer.len()), (FRAME_LEN, FRAME_LEN + 50));
        assert_eq!(internet_checksum(&inner[14..34]), 0);
        assert_eq!(internet_checksum(&outer[14..34]), 0);
        assert_eq!(u16::from_be_bytes([outer[16], outer[17]]) as usize, outer.len() - 14);
        assert_eq!(u16::from_be_bytes([outer[38], outer[39]]) as usize, outer.len() - 34);
        assert_eq!(outer[36..38], 4789u16.to_be_bytes());
        assert_eq!(outer[42..50], [8, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(&outer[50..], inner);
    }

    #[test]
    fn the_first_words_are_those_of_the_frame() {
        let frame: Vec<u8> = (0..64).collect();
        let words = first::<8>(&frame);
        assert_eq!(words.map(u64::to_ne_bytes).concat(), frame);
    }

    #[test]
    fn differences_are_of_cases_that_are_there() {
        for (_, _, dearer, cheaper) in DIFFERENCES {
            for key in [dearer, cheaper] {
                assert!(CASES.iter().any(|case| case.key == key), "{key}");
            }
        }
    }
}
