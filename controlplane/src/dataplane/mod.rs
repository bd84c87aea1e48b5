//! The kernel's half: loads the programs, attaches them, and is the only writer of their maps.
//!
//! Programs, maps and links are pinned, so traffic goes on while the daemon is away, and a restart takes over what it finds.

mod attach;
mod cleanup;
mod convert;
mod early;
mod environment;
mod expiry;
mod features;
mod filter;
mod front;
mod jumps;
mod log;
mod maps;
mod migrate;
mod neighbors;
mod object;
mod pins;
mod raw;
mod sockets;

#[cfg(test)]
mod tests;

pub use attach::{AttachError, AttachMode, Hook};
pub use cleanup::{CleanupError, Removed, clean_up};
pub use environment::{BPFFS, EnvironmentError, MINIMUM_KERNEL};
pub use expiry::{ExpiryError, OfVip};
pub use features::{Choice, Feature, FeatureError, Features, Forced, wants_encap_device};
pub use log::ProgramLog;
pub use maps::{ApplyError, MAX_DUMP_ENTRIES, MapsError};
pub use migrate::MigrateError;
pub use neighbors::{LinkAddresses, Neighborhood};
pub use object::{Object, ObjectError};

use crate::lock::{Lock, LockError};
use attach::Attacher;
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfError, EbpfLoader};
use expiry::Expiry;
use filter::Filter;
use jumps::Jumps;
use maps::Maps;
use migrate::Takeover;
use pins::Pins;
use raw::Reads;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use weft_core::reconcile::{self, Step};
use weft_core::wanted::{MapContents, sixteen_bytes};
use weft_dataplane::abi::flow::{self, Timeouts};
use weft_dataplane::abi::{Counter, NamespaceKey, Seat, Sizes, V4, V6, global, jump, program, socket};
use weft_diag::{MapDump, MapSummary};

/// How to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// The object's file; the embedded one if there is none.
    pub object: Option<PathBuf>,
    /// Where programs' maps and links are pinned: a directory of this daemon's own on a BPF filesystem.
    pub pin_directory: PathBuf,
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// Whether programs log each dropped packet, at trace. Without it they do not contain the code.
    pub log_drops: bool,
    /// What is not left to a trial of the kernel.
    pub features: Forced,
    /// The vxlan device in external mode that encapsulates, where [`wants_encap_device`].
    pub encap_device: Option<u32>,
    /// After how long without a packet a balanced connection is forgotten.
    pub timeouts: Timeouts,
    /// How large the maps are.
    pub sizes: Sizes,
    /// This node's VTEP; without it, or where drops are logged, nothing is dropped in the uplink's driver.
    pub vtep: Option<IpAddr>,
}

/// Why the data plane could not be loaded. Nothing is attached then.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The host cannot run it.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The kernel has not what the configuration asks for.
    #[error(transparent)]
    Feature(#[from] FeatureError),
    /// The programs cannot encapsulate, and nobody else is there to do it.
    #[error("features \"encap=collect_md\": there is no vxlan device that encapsulates")]
    NoEncapDevice,
    /// There is nothing to attach the programs to that see sockets.
    #[error(
        "features \"balance=connect\": no file system of type cgroup2 is mounted, so sockets cannot be seen: `mount -t cgroup2 none DIRECTORY`, or balance=packet"
    )]
    NoCgroups,
    /// The object is missing or not ours.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Another weftd uses the pin directory.
    #[error("bpf-pin-dir {0}: give each weftd of a host its own")]
    Lock(#[from] LockError),
    /// What is pinned cannot be taken over.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The converted maps could not be filled.
    #[error("the maps of an earlier version cannot be converted: {0}")]
    Fill(#[from] ApplyError),
    /// A pinned link could not get its new program.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The object could not be turned into maps and programs.
    #[error("eBPF object {origin} cannot be loaded: {source}")]
    Load {
        /// Which object.
        origin: String,
        /// Why.
        source: Box<EbpfError>,
    },
    /// The kernel's verifier refused a program; its whole log is at debug level.
    #[error(
        "the kernel's verifier refused program {program} of eBPF object {origin}: {line} ({source}); `--log-level debug` shows its whole log"
    )]
    Verifier {
        /// Which program.
        program: &'static str,
        /// Which object.
        origin: String,
        /// The line of its log that says why.
        line: String,
        /// The error of the system call.
        source: io::Error,
    },
    /// A program could not be loaded for another reason.
    #[error("program {program} of eBPF object {origin} cannot be loaded: {source}")]
    Program {
        /// Which program.
        program: &'static str,
        /// Which object.
        origin: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A map of the object is not as the contract has it.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The flow tables could not be opened.
    #[error(transparent)]
    Expiry(#[from] ExpiryError),
    /// The filter before the flow table could not be opened.
    #[error("the filter of the flow table cannot be used: {0}")]
    Filter(#[from] io::Error),
    /// The programs' log could not be opened.
    #[error("the log of the programs cannot be read: {0}")]
    Log(String),
}

/// Whether the kernel is new enough and this process may load programs. Changes nothing.
pub fn check_host() -> Result<(), EnvironmentError> {
    environment::check()
}

/// What a program did with a made-up packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunResult {
    /// The kernel's action: -1 next, 2 drop, 7 redirect.
    pub action: i32,
    /// The packet after the program.
    pub packet: Vec<u8>,
}

/// The loaded programs and their maps. One a daemon; dropping it leaves everything attached and pinned, see [`Dataplane::remove`].
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    maps: Maps,
    attacher: Attacher,
    features: Features,
    log: Option<ProgramLog>,
    expiry: Expiry,
    pin_directory: PathBuf,
    /// Where the maps are pinned.
    map_pins: PathBuf,
    _lock: Lock,
}

impl Dataplane {
    /// Checks the host, loads the object, takes over the maps that are pinned, with what is in them, and gives every link that is
    /// pinned its new program. Maps whose layout changed are converted first; an error before the first link changes leaves the
    /// earlier programs and maps as they were.
    pub fn load(config: &Config) -> Result<Self, LoadError> {
        environment::check()?;
        let features = Features::choose(&config.features)?;
        if !features.has(Feature::Encap) && config.encap_device.is_none() {
            return Err(LoadError::NoEncapDevice);
        }
        if features.has(Feature::Balance) && sockets::root()?.is_none() {
            return Err(LoadError::NoCgroups);
        }
        let reads = reads(&features);
        let object = match &config.object {
            Some(path) => Object::from_file(path)?,
            None => Object::embedded()?,
        };
        let directory = environment::prepare_pin_directory(&config.pin_directory)?;
        let lock = Lock::take(&config.pin_directory)?;
        let pins = Pins::new(&config.pin_directory, &maps::NAMES);
        let unfinished = Unfinished(pins.clone());
        let mut takeover = Takeover::plan(pins, reads)?;
        let mut ebpf = takeover.prepare(&maps::NAMES, |pins| load_object(&object, config, &features, pins))?;
        for hook in Hook::ALL {
            load_program(&mut ebpf, &object, hook.program())?;
        }
        load_program(&mut ebpf, &object, program::FLOW_SWEEP)?;
        let mut jumps = connect_programs(&mut ebpf, &object)?;
        if features.has(Feature::Balance) {
            for name in program::OF_CGROUP {
                load_program(&mut ebpf, &object, name)?;
            }
        }
        if features.has(Feature::EarlyDrop) {
            load_program(&mut ebpf, &object, program::OVERLAY_FILTER)?;
        }
        let log = if config.log_drops {
            Some(ProgramLog::open(&mut ebpf).map_err(LoadError::Log)?)
        } else {
            None
        };
        let mut maps = Maps::take(&mut ebpf, &config.sizes)?;
        if let Some(contents) = takeover.control()? {
            maps.apply(&reconcile::steps(&contents, &MapContents::default(), &config.sizes))?;
        }
        if takeover.front_is_new() {
            front::enter_all(&mut maps)?;
        }
        takeover.commit()?;
        drop(unfinished);
        let attacher = Attacher::new(&config.pin_directory, features.attach_mode());
        let map_pins = takeover.directory();
        let filter = Filter::open(&map_pins, reads)?;
        if let Some(old) = takeover.copies_connections_beside(jump::NAME) {
            jumps.consult(&old, reads);
        }
        attacher.replace_all(&mut ebpf)?;
        jumps.open_ourselves();
        if features.has(Feature::EarlyDrop) {
            early::replace_all(&mut ebpf, &config.pin_directory)?;
        } else {
            early::detach_all(&config.pin_directory)?;
        }
        if features.has(Feature::Balance) {
            sockets::attach(&mut ebpf, &config.pin_directory)?;
        } else if sockets::detach(&config.pin_directory)? {
            // Nobody would hear of it when they are closed.
            maps.forget_sockets()?;
        }
        takeover.catch_up(&maps::NAMES);
        jumps.end();
        takeover.finish();
        let expiry = Expiry::open(&map_pins, config.timeouts, reads, filter)?;
        directory.keep();
        Ok(Dataplane {
            ebpf,
            maps,
            attacher,
            features,
            log,
            expiry,
            pin_directory: config.pin_directory.clone(),
            map_pins,
            _lock: lock,
        })
    }

    /// Where a map is pinned.
    pub fn pin_of(&self, map: &str) -> PathBuf {
        self.map_pins.join(map)
    }

    /// What of the kernel is used, and why.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Attaches a program to an interface of the calling thread's network namespace. If a pinned link of an earlier daemon is there,
    /// the link gets the new program without a gap. Attaching twice is harmless.
    pub fn attach(&mut self, hook: Hook, ifindex: u32) -> Result<(), AttachError> {
        if hook == Hook::Uplink && self.features.has(Feature::EarlyDrop) {
            early::attach(&mut self.ebpf, &self.pin_directory, ifindex)?;
        }
        self.attacher.attach(&mut self.ebpf, hook, ifindex)
    }

    /// Puts a program back that somebody else detached from an interface; whether that was needed.
    pub fn ensure(&mut self, hook: Hook, ifindex: u32) -> Result<bool, AttachError> {
        let missing = self.attacher.ensure(&mut self.ebpf, hook, ifindex)?;
        let early = hook == Hook::Uplink
            && self.features.has(Feature::EarlyDrop)
            && early::attach(&mut self.ebpf, &self.pin_directory, ifindex)?;
        Ok(missing || early)
    }

    /// Whether sockets get their backend when they connect: [`Feature::Balance`].
    pub fn balances_sockets(&self) -> bool {
        self.features.has(Feature::Balance)
    }

    /// Puts the programs that see sockets back, if somebody else detached them; whether that was needed.
    pub fn ensure_sockets(&mut self) -> Result<bool, AttachError> {
        if !self.balances_sockets() {
            return Ok(false);
        }
        sockets::attach(&mut self.ebpf, &self.pin_directory)
    }

    /// The namespaces of this node's endpoints, by their cookies: whose sockets are balanced when they connect. More than
    /// [`SEATS`](weft_dataplane::abi::socket::SEATS) networks of one namespace are left out; its packets to them are balanced.
    pub fn put_namespaces(&mut self, wanted: &BTreeMap<u64, Vec<Seat>>) -> Result<(), MapsError> {
        let mut entries = BTreeMap::new();
        for (&cookie, seats) in wanted {
            for (slot, seat) in (0..socket::SEATS).zip(seats) {
                let padding = 0;
                entries.insert(NamespaceKey { cookie, slot, padding }, *seat);
            }
        }
        self.maps.put_namespaces(&entries)
    }

    /// Detaches a program from an interface; nothing happens if it is not attached, or if the interface is gone. The kernel may run the
    /// program for a moment longer.
    pub fn detach(&mut self, hook: Hook, ifindex: u32) -> Result<(), AttachError> {
        if hook == Hook::Uplink {
            early::detach(&self.pin_directory, ifindex)?;
        }
        self.attacher.detach(hook, ifindex)
    }

    /// What is attached, also by earlier daemons with the same pin directory.
    pub fn attached(&self) -> Result<Vec<(Hook, u32)>, AttachError> {
        self.attacher.attached()
    }

    /// Reads the control maps back from the kernel.
    pub fn present(&self) -> Result<MapContents, MapsError> {
        self.maps.present()
    }

    /// Performs the steps in their order. A step that fails does not keep the others from being done; the next reconcile will find
    /// what is missing.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        self.maps.apply(steps)
    }

    /// What the kernel's neighbour table says now of the ways to other nodes: packets are sent with it for as long as that is fresh.
    pub fn refresh_neighbors(&mut self, known: &Neighborhood) -> Result<(), MapsError> {
        neighbors::refresh(&mut self.maps, known)
    }

    /// The raw content of a map; the error names the maps there are.
    pub fn dump(&self, name: &str) -> Result<MapDump, MapsError> {
        self.maps.dump(name)
    }

    /// Name, size and limit of each map.
    pub fn summaries(&self) -> Result<Vec<MapSummary>, MapsError> {
        self.maps.summaries(&self.map_pins, reads(&self.features))
    }

    /// What became of all packets so far, summed over the CPUs.
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, MapsError> {
        self.maps.counters()
    }

    /// How many packets one counter has, summed over the CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64, MapsError> {
        self.maps.counter(counter)
    }

    /// Forgets what was balanced to backends that have gone, and says how many connections that were: their next packet chooses anew, and
    /// what does not open a connection is reset by whom it comes to. Clients whose backend takes nothing new any more forget it.
    pub fn keep_members(&mut self, stay: &OfVip<V4>, stay6: &OfVip<V6>) -> Result<usize, ExpiryError> {
        self.maps.keep_members(stay, stay6)?;
        let program = self.ebpf.program(program::FLOW_SWEEP);
        let program: &SchedClassifier = program.ok_or(ProgramError::NotLoaded)?.try_into()?;
        let lost = self.expiry.forget_departed(program, stay, stay6)?;
        self.maps.keep_loads(stay, stay6)?;
        Ok(lost)
    }

    /// Takes a part of the balanced connections that have expired out of the table. New connections do so as well, as they come; this is
    /// for when none come, and for those that the ring has lost sight of.
    pub fn sweep_flows(&mut self) -> Result<(), ExpiryError> {
        let program = self.ebpf.program(program::FLOW_SWEEP);
        let program: &SchedClassifier = program.ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.test_run(TestRunOptions {
            data_in: Some(&[0; SWEEP_FRAME]),
            repeat: SWEEP_RUNS,
            ..TestRunOptions::default()
        })?;
        self.expiry.step(program)
    }

    /// The log of the programs, once, if the configuration asked for it. Whoever takes it must read it.
    pub fn take_log(&mut self) -> Option<ProgramLog> {
        self.log.take()
    }

    /// Runs a program on a made-up packet that came in by `ifindex`, an interface of the calling thread's network namespace. Nothing is
    /// sent, but maps change as they would: it is counted, and a connection may be remembered.
    pub fn test_run(&self, hook: Hook, ifindex: u32, packet: &[u8]) -> Result<TestRunResult, ProgramError> {
        let program: &SchedClassifier = self
            .ebpf
            .program(hook.program())
            .ok_or(ProgramError::NotLoaded)?
            .try_into()?;
        let context = test_run_context(ifindex);
        let mut out = vec![0; packet.len() + TEST_RUN_GROWTH];
        let result = program.test_run(TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok(TestRunResult {
            action: result.return_value.cast_signed(),
            packet: out,
        })
    }

    /// Detaches all programs and unpins everything. Connections through virtual IPs are forgotten.
    pub fn remove(self) -> Result<(), AttachError> {
        sockets::detach(&self.pin_directory)?;
        early::detach_all(&self.pin_directory)?;
        self.attacher.remove_all()
    }
}

/// The kernel wants a frame for a test run, even if the program looks at none: an Ethernet header.
const SWEEP_FRAME: usize = flow::SWEEP_HEADER;
/// How often `flow_sweep` runs in one sweep: 8192 slots of the ring, about a millisecond.
const SWEEP_RUNS: u32 = 256;

/// How much longer than its input a program may make a packet: the encapsulation, rounded up.
const TEST_RUN_GROWTH: usize = 64;

/// A `struct __sk_buff` (Linux `include/uapi/linux/bpf.h`) that names the interface; the kernel refuses other fields.
fn test_run_context(ifindex: u32) -> [u8; 192] {
    const INGRESS_IFINDEX: usize = 36;
    const IFINDEX: usize = 40;
    let mut context = [0; 192];
    context[INGRESS_IFINDEX..INGRESS_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

fn reads(features: &Features) -> Reads {
    if features.has(Feature::MapReads) {
        Reads::Batch
    } else {
        Reads::Single
    }
}

/// The verifier gives up with EAGAIN when a signal waits for the process, which says nothing about the program.
const LOAD_ATTEMPTS: usize = 16;

/// Removes what a failed start made beside the maps that are there.
struct Unfinished(Pins);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = self.0.discard_unfinished() {
            tracing::warn!(directory = %self.0.unfinished().display(), %error, "the maps of a failed start stay");
        }
    }
}

fn load_object(object: &Object, config: &Config, features: &Features, map_pins: &Path) -> Result<Ebpf, LoadError> {
    let level = log::level(config.log_drops);
    let [has_redirect_peer, has_decap_l3, has_csum_ipv6] =
        [Feature::Handover, Feature::DecapL3, Feature::CsumIpv6].map(|feature| u8::from(features.has(feature)));
    let encap_device = match config.encap_device {
        Some(device) if !features.has(Feature::Encap) => device,
        _ => 0,
    };
    let timeouts = &config.timeouts;
    // Drops are logged where all packets are seen.
    let vtep = config.vtep.filter(|_| !config.log_drops);
    let [vtep_high, vtep_low] = vtep.map_or(V6::UNSPECIFIED, sixteen_bytes).halves();
    if config.sizes.preallocate_flows {
        maps::preallocate_flows(&config.sizes, map_pins)?;
    }
    let mut loader = EbpfLoader::new();
    loader
        .override_global(global::DATA_PATH_PORT, &config.data_path_port, true)
        .override_global(global::ENCAP_DEVICE, &encap_device, true)
        .override_global(global::HAS_REDIRECT_PEER, &has_redirect_peer, true)
        .override_global(global::HAS_DECAP_L3, &has_decap_l3, true)
        .override_global(global::HAS_CSUM_IPV6, &has_csum_ipv6, true)
        .override_global(global::TCP_OPENING_TICKS, &timeouts.tcp_opening, true)
        .override_global(global::TCP_ESTABLISHED_TICKS, &timeouts.tcp_established, true)
        .override_global(global::TCP_FINISHED_TICKS, &timeouts.tcp_finished, true)
        .override_global(global::TCP_RESET_TICKS, &timeouts.tcp_reset, true)
        .override_global(global::UDP_TICKS, &timeouts.udp, true)
        .override_global(global::UDP_ANSWERED_TICKS, &timeouts.udp_answered, true)
        .override_global(global::RING_SIZE, &config.sizes.flows, true)
        .override_global(global::RING_SIZE6, &config.sizes.flows6, true)
        .override_global(global::OWN_VTEP_HIGH, &vtep_high, true)
        .override_global(global::OWN_VTEP_LOW, &vtep_low, true)
        .override_global(log::LEVEL_GLOBAL, &level, true);
    for (name, entries) in config.sizes.maps() {
        loader.map_max_entries(name, entries);
    }
    for name in maps::NAMES {
        loader.map_pin_path(name, map_pins.join(name));
    }
    loader.load(object.bytes()).map_err(|source| LoadError::Load {
        origin: object.origin().to_owned(),
        source: Box::new(source),
    })
}

/// Loads the programs that others go on in, and puts them where those look for them.
fn connect_programs(ebpf: &mut Ebpf, object: &Object) -> Result<Jumps, LoadError> {
    for (_, name) in jump::PROGRAMS {
        load_program(ebpf, object, name)?;
    }
    Ok(Jumps::put(ebpf)?)
}

fn load_program(ebpf: &mut Ebpf, object: &Object, name: &'static str) -> Result<(), LoadError> {
    let failed = |source| match source {
        ProgramError::LoadError { io_error, verifier_log } => {
            tracing::debug!(program = name, "verifier log:\n{verifier_log}");
            LoadError::Verifier {
                program: name,
                origin: object.origin().to_owned(),
                line: object::decisive_line(&verifier_log.to_string()),
                source: io_error,
            }
        }
        other => LoadError::Program {
            program: name,
            origin: object.origin().to_owned(),
            source: Box::new(other),
        },
    };
    let program = ebpf.program_mut(name).ok_or_else(|| ObjectError::NoProgram {
        origin: object.origin().to_owned(),
        program: name,
    })?;
    for _ in 1..LOAD_ATTEMPTS {
        match load_once(program) {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map_err(failed),
        }
    }
    load_once(program).map_err(failed)
}

fn load_once(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::Xdp(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
