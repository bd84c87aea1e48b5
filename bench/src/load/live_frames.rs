//! The data path alone: frames that no socket made and no socket reads.
//!
//! An XDP program runs on made-up frames (`BPF_PROG_TEST_RUN` with live frames) in the client's namespace and sends them out of
//! its interface. A TC program at the server's interface counts and drops them. What lies between is the two hosts' data path
//! and a constant for making and counting, which the ceiling shares.
//!
//! The kernel recycles the pages of such frames without writing them anew, so a frame may start its second trip as the first
//! one left it. The arrangements measured here leave addresses and ports as they were.

use super::{CLIENT_CPU, pin};
use crate::arrangement::{Container, Topology};
use crate::error::{Context, Error, Result};
use crate::object;
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray, xdp::DevMap};
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};
use weft_dataplane::abi::VXLAN_PORT;

/// Length of a frame, Ethernet header included and frame check sequence not.
pub const FRAME_LEN: usize = 64;
/// Frames a batch of the kernel's test run. The receiving veth's backlog holds far more.
const BATCH: u32 = 64;
/// How long the last frames may be under way.
const DRAIN: Duration = Duration::from_millis(200);

/// What came through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passage {
    /// Time for each frame that arrived, nanoseconds.
    pub nanoseconds: f64,
    /// Part of the frames that arrived, 0 to 1.
    pub delivered: f64,
}

/// Sends `frames` frames from the client to the first server.
pub fn run(topology: &Topology, object_path: &Path, frames: u32) -> Result<Passage> {
    let frame = frame(&topology.client, topology.server()?);
    pass(topology, object_path, object::program::GENERATE, &frame, frames, |_| {
        Ok(())
    })
}

/// Where the frames of [`run_spread`] go.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The first destination.
    pub first: Ipv4Addr,
    /// How many destinations there are.
    pub destinations: u32,
    /// The first source port.
    pub first_port: u16,
    /// How many source ports there are.
    pub ports: u32,
    /// One after the other, all destinations before the next port; otherwise at random.
    pub in_order: bool,
}

/// Sends `frames` frames from the client to many destinations, all of which must be behind the first server.
pub fn run_spread(topology: &Topology, object_path: &Path, frames: u32, spread: &Spread) -> Result<Passage> {
    let server = topology.server()?;
    let client = &topology.client;
    let frame = udp_frame((client.mac, client.address), (server.mac, Ipv4Addr::UNSPECIFIED));
    pass(
        topology,
        object_path,
        object::program::GENERATE_SPREAD,
        &frame,
        frames,
        |source| {
            let map = source
                .map_mut(object::map::SPREAD)
                .context(|| "no map \"spread\"".to_owned())?;
            let mut map: Array<_, [u8; 96]> = Array::try_from(map).context(|| "map \"spread\"".to_owned())?;
            map.set(0, spread.content(&frame), 0)
                .context(|| "map \"spread\"".to_owned())
        },
    )
}

impl Spread {
    /// As the program reads it.
    fn content(&self, frame: &[u8]) -> [u8; 96] {
        let mut bytes = [0; 96];
        bytes[..FRAME_LEN].copy_from_slice(&frame[..FRAME_LEN]);
        let words = [
            self.first.to_bits(),
            self.destinations,
            u32::from(self.first_port),
            self.ports,
            u32::from(self.in_order),
        ];
        for (place, word) in bytes[FRAME_LEN + 8..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// Sends the same frame again and again out of an interface, and tells how long that took.
pub(crate) fn send(from: &Container, object_path: &Path, frame: &[u8], frames: u32) -> Result<Duration> {
    from.netns.within(|| {
        pin(CLIENT_CPU)?;
        inject(from, object_path, object::program::GENERATE, frame, frames, |_| Ok(()))
    })
}

fn pass(
    topology: &Topology,
    object_path: &Path,
    generator: &str,
    frame: &[u8],
    frames: u32,
    prepare: impl FnOnce(&mut Ebpf) -> Result<()> + Send,
) -> Result<Passage> {
    let mut sink = sink(topology.server()?, object_path)?;
    let _gro = Gro::enable(topology)?;
    let elapsed = topology.client.netns.within(|| {
        pin(CLIENT_CPU)?;
        inject(&topology.client, object_path, generator, frame, frames, prepare)
    })?;
    let arrived = wait_arrived(&mut sink, u64::from(frames))?;
    if arrived == 0 {
        return Err(Error::new("live frames: none of them arrived"));
    }
    Ok(Passage {
        nanoseconds: elapsed.as_secs_f64() * 1e9 / arrived as f64,
        delivered: arrived as f64 / f64::from(frames),
    })
}

fn sink(server: &Container, object_path: &Path) -> Result<Ebpf> {
    server.netns.within(|| {
        let mut sink = object::load(object_path)?;
        object::attach(&mut sink, object::program::COUNT, &server.interface)?;
        Ok(sink)
    })
}

fn inject(
    client: &Container,
    object_path: &Path,
    generator: &str,
    frame: &[u8],
    frames: u32,
    prepare: impl FnOnce(&mut Ebpf) -> Result<()>,
) -> Result<Duration> {
    let mut source = object::load(object_path)?;
    prepare(&mut source)?;
    let link = client.netns.link(&client.interface)?;
    let outlet = source
        .map_mut(object::map::OUTLET)
        .context(|| "no map \"outlet\"".to_owned())?;
    let mut outlet = DevMap::try_from(outlet).context(|| "map \"outlet\"".to_owned())?;
    outlet
        .set(0, link.index, None, 0)
        .context(|| format!("cannot send frames out of {}", client.interface))?;
    let program = source
        .program_mut(generator)
        .context(|| format!("no program {generator:?}"))?;
    let program: &mut Xdp = program.try_into().context(|| format!("program {generator:?}"))?;
    program
        .load()
        .context(|| format!("the kernel refused program {generator:?}"))?;
    let start = Instant::now();
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat: frames,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::default()
    };
    program
        .test_run(options)
        .context(|| "live frames (Linux 5.18) are not accepted".to_owned())?;
    Ok(start.elapsed())
}

fn wait_arrived(sink: &mut Ebpf, expected: u64) -> Result<u64> {
    let map = sink
        .map(object::map::ARRIVED)
        .context(|| "no map \"arrived\"".to_owned())?;
    let counter: PerCpuArray<_, u64> = PerCpuArray::try_from(map).context(|| "map \"arrived\"".to_owned())?;
    let deadline = Instant::now() + DRAIN;
    loop {
        let values = counter.get(&0, 0).context(|| "map \"arrived\"".to_owned())?;
        let arrived = values.iter().sum();
        if arrived >= expected || Instant::now() > deadline {
            return Ok(arrived);
        }
        std::thread::yield_now();
    }
}

/// Generic receive offload on the client's host-side veth: only then does it take XDP frames. Off again on drop, because it
/// changes the path of ordinary packets.
struct Gro<'a>(&'a Topology);

impl<'a> Gro<'a> {
    fn enable(topology: &'a Topology) -> Result<Self> {
        set_gro(topology, "on")?;
        Ok(Gro(topology))
    }
}

impl Drop for Gro<'_> {
    fn drop(&mut self) {
        if let Err(error) = set_gro(self.0, "off") {
            eprintln!("weft-bench: {error}");
        }
    }
}

fn set_gro(topology: &Topology, state: &str) -> Result<()> {
    let side = &topology.client_host_side;
    side.netns.run("ethtool", &["-K", &side.interface, "gro", state])?;
    Ok(())
}

/// Ethernet, IPv4 and UDP without a checksum (RFC 768: zero means none), up to [`FRAME_LEN`].
fn frame(client: &Container, server: &Container) -> Vec<u8> {
    udp_frame((client.mac, client.address), (server.mac, server.address))
}

pub(crate) fn udp_frame(from: ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    const PORTS: (u16, u16) = (5555, 7001);
    let ip_len = (FRAME_LEN - 14) as u16;
    let mut frame = [to.0, from.0].concat();
    frame.extend(0x0800u16.to_be_bytes());
    frame.extend([0x45, 0]);
    frame.extend(ip_len.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.1.octets());
    frame.extend(to.1.octets());
    let checksum = internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(PORTS.0.to_be_bytes());
    frame.extend(PORTS.1.to_be_bytes());
    frame.extend((ip_len - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(FRAME_LEN, 0x55);
    frame
}

/// A frame in VXLAN (RFC 7348 section 5) over IPv4, without an outer UDP checksum.
pub(crate) fn vxlan_frame(from: ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr), vni: u32, inner: &[u8]) -> Vec<u8> {
    let udp_length = (8 + 8 + inner.len()) as u16;
    let mut frame = [to.0, from.0].concat();
    frame.extend(0x0800u16.to_be_bytes());
    frame.extend([0x45, 0]);
    frame.extend((20 + udp_length).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.1.octets());
    frame.extend(to.1.octets());
    let checksum = internet_checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(55_555u16.to_be_bytes());
    frame.extend(VXLAN_PORT.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0, 0x08, 0, 0, 0]);
    frame.extend((vni << 8).to_be_bytes());
    frame.extend(inner);
    frame
}

/// RFC 1071, of an even number of bytes.
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_and_its_header_sums_to_zero() {
        let from = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 1, 2));
        let to = ([2, 0, 0, 0, 0, 2], Ipv4Addr::new(10, 0, 1, 3));
        let frame = udp_frame(from, to);
        assert_eq!(frame.len(), FRAME_LEN);
        assert_eq!(internet_checksum(&frame[14..34]), 0);
        assert_eq!(frame[26..34], [10, 0, 1, 2, 10, 0, 1, 3]);
        assert_eq!(u16::from_be_bytes([frame[38], frame[39]]) as usize, FRAME_LEN - 34);
    }
}
