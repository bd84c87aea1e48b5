//! What a host pays for VXLAN of its networks that somebody forged: dropped by the program that sees all packets, or in the uplink's driver
//! (`features` `early-drop=xdp`).
//!
//! One pair of hosts; frames from the first, which pretend an inner source that does not live there, are dropped by the second. The link
//! hands over the frames as a card's driver does, so that the driver's program sees them before the kernel has made packets of them.

use crate::arrangement::{Container, HOST_A, HOST_B, Hosts, UPLINK_A, UPLINK_B};
use crate::dataplane::{self, put};
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::load::live_frames::{send, udp_frame, vxlan_frame};
use crate::object;
use crate::options::Options;
use crate::statistics::{Summary, paired_ratios};
use aya::Ebpf;
use aya::maps::PerCpuArray;
use aya::programs::{Xdp, XdpMode};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use weft_dataplane::abi::{self, Counter, Endpoint, Network, OverlayAddress, Peer, mapped, program};

const VNI: u32 = 4096;
const HERE: ([u8; 6], Ipv4Addr) = ([2, 0x42, 10, 16, 0, 2], Ipv4Addr::new(10, 16, 0, 2));
const THERE: ([u8; 6], Ipv4Addr) = ([2, 0x42, 10, 16, 0, 3], Ipv4Addr::new(10, 16, 0, 3));
const NOBODY: ([u8; 6], Ipv4Addr) = ([2, 0x42, 10, 16, 0, 9], Ipv4Addr::new(10, 16, 0, 9));

const FRAMES: u32 = 400_000;
const QUICK_FRAMES: u32 = 20_000;
/// Part of the frames that must have been dropped by weft.
const DROPPED: f64 = 0.99;
/// How long the last frames may be under way.
const DRAIN: Duration = Duration::from_millis(200);

/// Frames a second that a CPU gets rid of, thousands, making them included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forged {
    /// By the program on TC.
    pub tc: Summary,
    /// In the driver.
    pub xdp: Summary,
    /// The latter over the former, in the same round.
    pub ratio: Summary,
}

/// Measures both in turn.
pub fn measure(options: &Options) -> Result<Forged> {
    let frames = if options.quick { QUICK_FRAMES } else { FRAMES };
    let hosts = Hosts::create("forg", options)?;
    let source = Container::inspect(std::sync::Arc::clone(&hosts.a), UPLINK_A)?;
    hosts.b.run("ethtool", &["-K", UPLINK_B, "gro", "on"])?;
    let mut near = dataplane::load_for(options, mapped(HOST_B.octets()))?;
    fill(&mut near)?;
    hosts
        .b
        .within(|| object::attach(&mut near, program::OVERLAY_INGRESS, UPLINK_B).map(drop))?;
    let frame = frame(source.mac, hosts.b.link(UPLINK_B)?.mac);
    let rate = |near: &mut Ebpf| {
        interrupt::check()?;
        let before = dropped(near)?;
        let elapsed = send(&source, &options.bench_object, &frame, frames)?;
        let dropped = wait_dropped(near, before, u64::from(frames))?;
        if (dropped as f64) < DROPPED * f64::from(frames) {
            return Err(Error::new(format!("{dropped} of {frames} forged frames were dropped")));
        }
        Ok(dropped as f64 / elapsed.as_secs_f64() / 1e3)
    };
    let mut pairs = Vec::new();
    for _ in 0..options.rounds {
        let tc = rate(&mut near)?;
        let link = hosts.b.within(|| attach_filter(&mut near))?;
        let xdp = rate(&mut near)?;
        filter(&mut near)?
            .detach(link)
            .context(|| format!("cannot detach {}", program::OVERLAY_FILTER))?;
        pairs.push((Some(xdp), Some(tc)));
    }
    let of = |figures: Vec<f64>| Summary::of(&figures).context(|| "no rounds".to_owned());
    Ok(Forged {
        tc: of(pairs.iter().filter_map(|pair| pair.1).collect())?,
        xdp: of(pairs.iter().filter_map(|pair| pair.0).collect())?,
        ratio: of(paired_ratios(pairs.iter().copied()))?,
    })
}

fn filter(object: &mut Ebpf) -> Result<&mut Xdp> {
    let program = object
        .program_mut(program::OVERLAY_FILTER)
        .context(|| format!("no program {}", program::OVERLAY_FILTER))?;
    program.try_into().context(|| program::OVERLAY_FILTER.to_owned())
}

fn attach_filter(object: &mut Ebpf) -> Result<aya::programs::xdp::XdpLinkId> {
    let filter = filter(object)?;
    let refused = || format!("{} on {UPLINK_B}", program::OVERLAY_FILTER);
    if filter.fd().is_err() {
        filter.load().context(refused)?;
    }
    filter.attach(UPLINK_B, XdpMode::Driver).context(refused)
}

fn fill(object: &mut Ebpf) -> Result<()> {
    let network = Network {
        gateway: [10, 0, 0, 1],
        gateway_mac: [2, 0x42, 10, 0, 0, 1],
        prefix_len: 8,
        padding: 0,
    };
    put(object, abi::network::NAME, VNI, network)?;
    let endpoint = Endpoint {
        ifindex: 1,
        mac: HERE.0,
        flags: 0,
    };
    dataplane::put_endpoint(object, OverlayAddress::new(VNI, HERE.1.octets()), endpoint)?;
    let peer = Peer {
        vtep: mapped(HOST_A.octets()),
        mac: THERE.0,
        flags: 0,
    };
    dataplane::put_peer(object, OverlayAddress::new(VNI, THERE.1.octets()), peer)
}

/// VXLAN from the first host with a source inside that nobody has.
fn frame(from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    let inner = udp_frame(NOBODY, HERE);
    vxlan_frame((from, HOST_A), (to, HOST_B), VNI, &inner)
}

fn dropped(object: &Ebpf) -> Result<u64> {
    let map = object
        .map(abi::counter::NAME)
        .context(|| format!("no map {}", abi::counter::NAME))?;
    let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map).context(|| abi::counter::NAME.to_owned())?;
    let values = counters
        .get(&(Counter::DropUnknownPeer as u32), 0)
        .context(|| abi::counter::NAME.to_owned())?;
    Ok(values.iter().sum())
}

fn wait_dropped(object: &Ebpf, before: u64, expected: u64) -> Result<u64> {
    let deadline = Instant::now() + DRAIN;
    loop {
        let dropped = dropped(object)? - before;
        if dropped >= expected || Instant::now() > deadline {
            return Ok(dropped);
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::live_frames::internet_checksum;

    #[test]
    fn a_forged_frame_has_consistent_lengths() {
        let frame = frame([2; 6], [4; 6]);
        assert_eq!(internet_checksum(&frame[14..34]), 0);
        assert_eq!(u16::from_be_bytes([frame[16], frame[17]]) as usize, frame.len() - 14);
        assert_eq!(u16::from_be_bytes([frame[38], frame[39]]) as usize, frame.len() - 34);
        assert_eq!(frame[50..56], HERE.0);
    }
}
