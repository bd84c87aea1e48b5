//! The measures: what each does to an arrangement, and the figures that it yields.

use crate::arrangement::{Arrangement, Topology};
use crate::awake::Awake;
use crate::error::{Context, Result};
use crate::load::request_response::RoundTrips;
use crate::load::{connections, live_frames, request_response, tcp_stream, udp_flood};
use crate::netns::Netns;
use crate::options::Options;
use crate::program_cost;
use std::time::{Duration, Instant};

/// Frames of a `live` measure: about a quarter of a second in Docker's arrangement.
const LIVE_FRAMES: u32 = 100_000;
/// UDP payload of the small packets, bytes.
const SMALL: usize = 64;

/// One figure that is compared between arrangements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// How the JSON names it: measure, point, figure.
    pub key: &'static str,
    /// How the table names it.
    pub title: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
}

macro_rules! metrics {
    ($($key:literal, $title:literal, $unit:literal, $higher:literal;)+) => {
        /// All figures, in the order of the table.
        pub const METRICS: &[Metric] = &[$(Metric { key: $key, title: $title, unit: $unit, higher_is_better: $higher }),+];
    };
}

metrics! {
    "tcp1.throughput", "TCP 1 stream", "Gbit/s", true;
    "tcp1.cpu", "TCP 1 stream, CPU", "s/GB", false;
    "tcp4.throughput", "TCP 4 streams", "Gbit/s", true;
    "nic.one", "TCP 1 stream, segmented in software", "Gbit/s", true;
    "nic.four", "TCP 4 streams, segmented in software", "Gbit/s", true;
    "udp.received", "UDP 64 bytes, received", "kpps", true;
    "udp.sent", "UDP 64 bytes, sent", "kpps", true;
    "tcprr.rate", "TCP round trips", "k/s", true;
    "tcprr.p50", "TCP round trip p50", "us", false;
    "tcprr.p99", "TCP round trip p99", "us", false;
    "udprr.rate", "UDP round trips", "k/s", true;
    "udprr.p50", "UDP round trip p50", "us", false;
    "udprr.p99", "UDP round trip p99", "us", false;
    "conn.rate", "new connections, direct", "k/s", true;
    "vip.rate", "new connections, VIP", "k/s", true;
    "vip.p99", "new connection p99, VIP", "us", false;
    "vip.against_direct", "VIP against direct", "x", true;
    "vipbulk.throughput", "TCP 1 stream, VIP", "Gbit/s", true;
    "vipbulk.stream", "TCP 1 stream, VIP against direct", "x", true;
    "vipbulk.rate", "TCP round trips, VIP", "k/s", true;
    "vipbulk.trips", "TCP round trips, VIP against direct", "x", true;
    "live.rate", "data path alone, 64 bytes", "kpps", true;
    "live.cost", "data path alone, 64 bytes", "ns", false;
    "live.delivered", "data path alone, delivered", "part", true;
    "prog.egress", "egress program, live", "ns", false;
    "prog.ingress", "ingress program, live", "ns", false;
}

/// A measure, as `--only` names it.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    run: fn(&dyn Arrangement, &Options) -> Result<Figures>,
}

/// Metric key and value.
pub type Figures = Vec<(&'static str, f64)>;

/// All measures, in the order in which a round runs them.
pub const MEASURES: &[Measure] = &[
    Measure {
        name: "tcp1",
        run: tcp1,
    },
    Measure {
        name: "tcp4",
        run: tcp4,
    },
    Measure {
        name: "nic",
        run: segmented_in_software,
    },
    Measure { name: "udp", run: udp },
    Measure {
        name: "tcprr",
        run: tcp_round_trips,
    },
    Measure {
        name: "udprr",
        run: udp_round_trips,
    },
    Measure {
        name: "conn",
        run: direct_connections,
    },
    Measure {
        name: "vip",
        run: vip_connections,
    },
    Measure {
        name: "vipbulk",
        run: vip_stream_and_round_trips,
    },
    Measure {
        name: "live",
        run: live,
    },
    Measure {
        name: "prog",
        run: programs,
    },
];

/// What is measured once, with maps of its own, and not in rounds.
pub const GROWTH: &str = "growth";

/// The same, of forged frames.
pub const FORGED: &str = "forged";

/// All names that `--only` takes.
pub fn names() -> Vec<&'static str> {
    let rounds = MEASURES.iter().map(|measure| measure.name);
    rounds.chain([GROWTH, FORGED]).collect()
}

impl Measure {
    /// Measures an arrangement once. No figures: it has nothing to measure.
    pub fn run(&self, arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
        (self.run)(arrangement, options)
    }
}

fn tcp1(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let before = busy_time()?;
    let throughput = tcp(arrangement.topology(), options, 1)?;
    let busy = busy_time()?.saturating_sub(before);
    let gigabytes = throughput.bytes as f64 / 1e9;
    Ok(vec![
        ("tcp1.throughput", throughput.gigabits_per_second()),
        ("tcp1.cpu", busy.as_secs_f64() / gigabytes),
    ])
}

fn tcp4(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let throughput = tcp(arrangement.topology(), options, 4)?;
    Ok(vec![("tcp4.throughput", throughput.gigabits_per_second())])
}

fn tcp(topology: &Topology, options: &Options, streams: usize) -> Result<tcp_stream::Throughput> {
    let server = topology.server()?;
    tcp_stream::run(
        &topology.client.netns,
        &[&server.netns],
        server.address,
        streams,
        options.duration(),
    )
}

/// Bulk data in frames of real size between the hosts, and aggregated on receive, as with a card that does not know VXLAN.
fn segmented_in_software(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let topology = arrangement.topology();
    let _segmented = Segmented::start(topology, options)?;
    let (one, four) = (tcp(topology, options, 1)?, tcp(topology, options, 4)?);
    Ok(vec![
        ("nic.one", one.gigabits_per_second()),
        ("nic.four", four.gigabits_per_second()),
    ])
}

/// Segmentation in software as long as it lives, and after it as the options want it.
struct Segmented<'a>(&'a Topology, bool);

impl<'a> Segmented<'a> {
    fn start(topology: &'a Topology, options: &Options) -> Result<Self> {
        let segmented = Segmented(topology, options.nic_like);
        topology
            .uplinks
            .iter()
            .try_for_each(|uplink| uplink.set_nic_like(true))?;
        Ok(segmented)
    }
}

impl Drop for Segmented<'_> {
    fn drop(&mut self) {
        for uplink in &self.0.uplinks {
            if let Err(error) = uplink.set_nic_like(self.1) {
                eprintln!("weft-bench: {error}");
            }
        }
    }
}

fn udp(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let topology = arrangement.topology();
    let server = topology.server()?;
    let rate = udp_flood::run(
        &topology.client.netns,
        &server.netns,
        server.address,
        SMALL,
        options.duration(),
    )?;
    Ok(vec![
        ("udp.received", rate.received_per_second / 1e3),
        ("udp.sent", rate.sent_per_second / 1e3),
    ])
}

fn tcp_round_trips(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let topology = arrangement.topology();
    let server = topology.server()?;
    let _awake = Awake::hold();
    let trips = request_response::tcp(
        &topology.client.netns,
        &[&server.netns],
        server.address,
        options.duration(),
    )?;
    Ok(figures(["tcprr.rate", "tcprr.p50", "tcprr.p99"], trips))
}

fn udp_round_trips(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let topology = arrangement.topology();
    let server = topology.server()?;
    let _awake = Awake::hold();
    let trips = request_response::udp(
        &topology.client.netns,
        &server.netns,
        server.address,
        options.duration(),
    )?;
    Ok(figures(["udprr.rate", "udprr.p50", "udprr.p99"], trips))
}

fn figures(keys: [&'static str; 3], trips: RoundTrips) -> Figures {
    keys.into_iter()
        .zip([trips.per_second / 1e3, trips.p50_us, trips.p99_us])
        .collect()
}

fn direct_connections(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let topology = arrangement.topology();
    // To both in turn, as a virtual IP would: two servers that take turns on one CPU are woken more often than one.
    let servers: Vec<_> = topology.servers.iter().map(|server| &*server.netns).collect();
    let addresses: Vec<_> = topology.servers.iter().map(|server| server.address).collect();
    let trips = connections::run(&topology.client.netns, &servers, &addresses, options.duration())?;
    Ok(vec![("conn.rate", trips.per_second / 1e3)])
}

fn vip_connections(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let topology = arrangement.topology();
    let Some(vip) = &topology.vip else {
        return Ok(Vec::new());
    };
    let servers: Vec<_> = topology.servers.iter().map(|server| &*server.netns).collect();
    let trips = connections::run(&vip.client, &servers, &[vip.address], options.duration())?;
    Ok(vec![("vip.rate", trips.per_second / 1e3), ("vip.p99", trips.p99_us)])
}

fn vip_stream_and_round_trips(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let topology = arrangement.topology();
    let Some(vip) = &topology.vip else {
        return Ok(Vec::new());
    };
    let servers: Vec<_> = topology.servers.iter().map(|server| &*server.netns).collect();
    let server = topology.server()?;
    // Straight and through the virtual IP in turn, so that what the machine does meanwhile meets both.
    let stream = |servers: &[&Netns], address| tcp_stream::run(&vip.client, servers, address, 1, options.duration());
    let direct = stream(&[&server.netns], server.address)?.gigabits_per_second();
    let balanced = stream(&servers, vip.address)?.gigabits_per_second();
    let _awake = Awake::hold();
    let trips = |servers: &[&Netns], address| request_response::tcp(&vip.client, servers, address, options.duration());
    let straight = trips(&[&server.netns], server.address)?.per_second;
    let turned = trips(&servers, vip.address)?.per_second;
    Ok(vec![
        ("vipbulk.throughput", balanced),
        ("vipbulk.stream", balanced / direct),
        ("vipbulk.rate", turned / 1e3),
        ("vipbulk.trips", turned / straight),
    ])
}

fn live(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let passage = live_frames::run(arrangement.topology(), &options.bench_object, LIVE_FRAMES)?;
    Ok(vec![
        ("live.rate", 1e6 / passage.nanoseconds),
        ("live.cost", passage.nanoseconds),
        ("live.delivered", passage.delivered),
    ])
}

fn programs(arrangement: &dyn Arrangement, options: &Options) -> Result<Figures> {
    let Some((egress, ingress)) = program_cost::names(arrangement.id()) else {
        return Ok(Vec::new());
    };
    let (_, costs) = program_cost::while_running(&[egress, ingress], || {
        live_frames::run(arrangement.topology(), &options.bench_object, LIVE_FRAMES)
    })?;
    let cost = |name| {
        costs
            .get(name)
            .copied()
            .context(|| format!("program {name} did not run"))
    };
    Ok(vec![("prog.egress", cost(egress)?), ("prog.ingress", cost(ingress)?)])
}

/// Part of all CPUs' time that was used during `span`, 0 to 1.
pub fn busy_share(span: Duration) -> Result<f64> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let (start, before) = (Instant::now(), busy_time()?);
    std::thread::sleep(span);
    let busy = busy_time()?.saturating_sub(before);
    // Ticks are coarse: a full second may count as a little more.
    Ok((busy.as_secs_f64() / start.elapsed().as_secs_f64() / cpus as f64).min(1.0))
}

/// Time that all CPUs spent on work so far: everything but idle and waiting for disks.
fn busy_time() -> Result<Duration> {
    let unexpected = || "/proc/stat: no line \"cpu\"".to_owned();
    let text = std::fs::read_to_string("/proc/stat").context(unexpected)?;
    parse_busy(&text).context(unexpected)
}

/// user nice system idle iowait irq softirq steal, in hundredths of a second (`proc_stat(5)`).
fn parse_busy(text: &str) -> Option<Duration> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .take(8)
        .map(|t| t.parse().ok())
        .collect::<Option<_>>()?;
    let busy: u64 = ticks.get(..3)?.iter().chain(ticks.get(5..8)?).sum();
    Some(Duration::from_millis(busy * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idle_and_iowait() {
        let busy = parse_busy("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 0").unwrap();
        assert_eq!(busy, Duration::from_millis(630));
        for wrong in ["", "cpu", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu  1 2 x 4 5 6 7 8"] {
            assert_eq!(parse_busy(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_metric_belongs_to_a_measure() {
        for metric in METRICS {
            let measure = metric.key.split('.').next().unwrap();
            assert!(names().contains(&measure), "{}", metric.key);
        }
    }
}
