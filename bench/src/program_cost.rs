//! What each program costs, in two ways, because neither alone is honest.
//!
//! - **Live** ([`while_running`]): the kernel's own statistics (`BPF_ENABLE_STATS`) while frames pass. Real caches and real
//!   redirects, but each run also pays for reading the clock twice.
//! - **Test run** ([`test_runs`]): `BPF_PROG_TEST_RUN` on one packet. A repeated test run does not put the packet back, so the
//!   second run of a program that changes it would see another packet. Here every run is a system call of its own with a fresh
//!   packet; the median of many runs is taken, and the median of a program that does nothing, measured the same way, is
//!   subtracted. Caches are as a system call leaves them, so the figure is above that of a tight loop.

use crate::dataplane::{self, put};
use crate::error::{Context, Error, Result};
use crate::load::live_frames::udp_frame;
use crate::load::{CLIENT_CPU, pin};
use crate::netns::Netns;
use crate::object;
use crate::options::Options;
use crate::statistics::Summary;
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, loaded_programs};
use aya::sys::{Stats, enable_stats};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service, V6, mapped, program,
};

/// Test runs of each case.
const RUNS: usize = 10_000;
/// Verdict of a redirected packet (`linux/pkt_cls.h`).
const TC_ACT_REDIRECT: u32 = 7;
/// Index of the loopback device in every namespace; test runs happen on it.
const LOOPBACK: u32 = 1;
/// Its MAC: a frame to any other is not for this host.
const LOOPBACK_MAC: [u8; 6] = [0; 6];

const VNI: u32 = 4096;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 3);
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const GATEWAY_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 1];
const LOCAL_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 2];
const REMOTE_MAC: [u8; 6] = [0x02, 0x42, 10, 0, 1, 3];
const VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
const REMOTE_VTEP: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);

/// The programs on the two hooks of an arrangement that has any: out of a container, and from the uplink.
pub fn names(arrangement: &str) -> Option<(&'static str, &'static str)> {
    match arrangement {
        "e2" => Some((object::program::EGRESS, object::program::INGRESS)),
        "maps" | "weft" => Some((program::OVERLAY_EGRESS, program::OVERLAY_INGRESS)),
        _ => None,
    }
}

/// Nanoseconds a run of each named program while `work` goes on; programs that did not run are missing.
pub fn while_running<T>(names: &[&str], work: impl FnOnce() -> Result<T>) -> Result<(T, BTreeMap<String, f64>)> {
    let _enabled =
        enable_stats(Stats::RunTime).context(|| "BPF statistics (Linux 5.8) are not available".to_owned())?;
    let before = run_times()?;
    let done = work()?;
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (id, (name, time, count)) in run_times()? {
        let (_, time_before, count_before) = before.get(&id).cloned().unwrap_or_default();
        let sum = sums.entry(name).or_default();
        sum.0 += time.saturating_sub(time_before);
        sum.1 += count.saturating_sub(count_before);
    }
    let ran = sums
        .into_iter()
        .filter(|(name, (_, count))| names.contains(&name.as_str()) && *count > 0);
    Ok((
        done,
        ran.map(|(name, (time, count))| (name, time as f64 / count as f64))
            .collect(),
    ))
}

/// By program id: name, nanoseconds, runs.
fn run_times() -> Result<BTreeMap<u32, (String, u64, u64)>> {
    let mut times = BTreeMap::new();
    // A program may vanish between listing and asking.
    for info in loaded_programs().flatten() {
        let name = info.name_as_str().unwrap_or_default().to_owned();
        let nanoseconds = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
        times.insert(info.id(), (name, nanoseconds, info.run_count()));
    }
    Ok(times)
}

/// A test-run figure.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgramCost {
    /// What ran on what.
    pub case: &'static str,
    /// Nanoseconds a run, as the kernel reports them.
    pub gross: Summary,
    /// The median less that of the program that does nothing.
    pub net: f64,
}

/// Runs weft's programs on made-up packets; in a namespace of its own, so that nothing else is touched.
pub fn test_runs(options: &Options) -> Result<Vec<ProgramCost>> {
    Netns::create("programs")?.within(|| {
        pin(CLIENT_CPU)?;
        let mut bench = object::load(&options.bench_object)?;
        let to_peer = udp_frame((LOCAL_MAC, LOCAL), (REMOTE_MAC, REMOTE));
        let to_vip = udp_frame((LOCAL_MAC, LOCAL), (GATEWAY_MAC, VIRTUAL));
        let from_peer = vxlan(&udp_frame((REMOTE_MAC, REMOTE), (LOCAL_MAC, LOCAL)));
        let noop = time(object::classifier(&mut bench, object::program::NOOP)?, &to_peer, 0)?;
        let mut dataplane = load(options)?;
        let cases = [
            ("egress, to a peer", program::OVERLAY_EGRESS, &to_peer),
            ("egress, to a VIP, known flow", program::OVERLAY_EGRESS, &to_vip),
            ("ingress, to an endpoint", program::OVERLAY_INGRESS, &from_peer),
        ];
        cases
            .into_iter()
            .map(|(case, name, packet)| {
                let gross = time(object::classifier(&mut dataplane, name)?, packet, TC_ACT_REDIRECT);
                let gross = gross.context(|| case.to_owned())?;
                Ok(ProgramCost {
                    case,
                    gross,
                    net: gross.median - noop.median,
                })
            })
            .collect()
    })
}

fn time(program: &SchedClassifier, packet: &[u8], verdict: u32) -> Result<Summary> {
    let mut nanoseconds = Vec::with_capacity(RUNS);
    // The first run fills caches, and makes the flow that later runs find.
    for run in 0..=RUNS {
        let options = TestRunOptions {
            data_in: Some(packet),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).context(|| "test run".to_owned())?;
        if result.return_value != verdict {
            let got = result.return_value;
            return Err(Error::new(format!(
                "test run {run}: verdict {got} where {verdict} was expected"
            )));
        }
        if run > 0 {
            nanoseconds.push(result.duration.as_nanos() as f64);
        }
    }
    Summary::of(&nanoseconds).context(|| "test run: no runs".to_owned())
}

/// weft's object with maps as the node of [`LOCAL`] would have them.
fn load(options: &Options) -> Result<Ebpf> {
    let mut dataplane = dataplane::load(options)?;
    let at = |ip: Ipv4Addr| OverlayAddress {
        vni: VNI,
        ip: ip.octets(),
    };
    let vip = BackendKey {
        vni: VNI,
        vip: VIRTUAL.octets(),
        slot: 0,
    };
    let object = &mut dataplane;
    put(object, abi::attachment::NAME, LOOPBACK, attachment())?;
    put(object, abi::network::NAME, VNI, network())?;
    put(
        object,
        abi::endpoint::NAME,
        at(LOCAL),
        Endpoint {
            ifindex: LOOPBACK,
            mac: LOCAL_MAC,
            flags: 0,
        },
    )?;
    let peer = Peer {
        vtep: mapped(REMOTE_VTEP.octets()),
        mac: REMOTE_MAC,
        flags: 0,
    };
    put(object, abi::peer::NAME, at(REMOTE), peer)?;
    put(object, abi::node::NAME, mapped(REMOTE_VTEP.octets()), node())?;
    let service = Service {
        backend_count: 1,
        policy: abi::service::POLICY_ROUND_ROBIN,
        affinity_seconds: 0,
    };
    put(object, abi::service::NAME, at(VIRTUAL), service)?;
    put(object, abi::backend::NAME, vip, Backend { ip: REMOTE.octets() })?;
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

fn network() -> Network {
    Network {
        gateway: GATEWAY.octets(),
        gateway_mac: GATEWAY_MAC,
        prefix_len: 24,
        padding: 0,
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

/// A frame inside VXLAN from the remote VTEP (RFC 7348 section 5), without an outer UDP checksum.
fn vxlan(inner: &[u8]) -> Vec<u8> {
    let mut outer = udp_frame((REMOTE_MAC, REMOTE_VTEP), (LOOPBACK_MAC, VTEP));
    outer.truncate(14 + 20 + 8);
    let payload = 8 + inner.len() as u16;
    outer[16..18].copy_from_slice(&(20 + 8 + payload).to_be_bytes());
    outer[24..26].fill(0);
    let checksum = crate::load::live_frames::internet_checksum(&outer[14..34]);
    outer[24..26].copy_from_slice(&checksum.to_be_bytes());
    outer[36..38].copy_from_slice(&abi::VXLAN_PORT.to_be_bytes());
    outer[38..40].copy_from_slice(&(8 + payload).to_be_bytes());
    outer.extend([0x08, 0, 0, 0]);
    outer.extend((VNI << 8).to_be_bytes());
    outer.extend(inner);
    outer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::live_frames::internet_checksum;

    #[test]
    fn an_encapsulated_frame_has_consistent_lengths() {
        let inner = udp_frame((REMOTE_MAC, REMOTE), (LOCAL_MAC, LOCAL));
        let outer = vxlan(&inner);
        assert_eq!(outer.len(), inner.len() + 50);
        assert_eq!(internet_checksum(&outer[14..34]), 0);
        assert_eq!(u16::from_be_bytes([outer[16], outer[17]]) as usize, outer.len() - 14);
        assert_eq!(u16::from_be_bytes([outer[38], outer[39]]) as usize, outer.len() - 34);
        assert_eq!(outer[36..38], 4789u16.to_be_bytes());
        assert_eq!(outer[42..50], [8, 0, 0, 0, 0, 0x10, 0, 0]);
        assert_eq!(&outer[50..], inner);
    }
}
