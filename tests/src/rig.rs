//! Several hosts on one machine: network namespaces on an underlay of their own, each able to run `weftd`.
//!
//! ```text
//!   underlay (a bridge, 192.168.50.254)
//!   ├── node1 eth0 192.168.50.1   weftd, its own config, socket, data folder, pin folder, log
//!   │   ├── container               a further namespace, connected by `weft network connect`
//!   │   └── container
//!   └── node2 eth0 192.168.50.2
//! ```
//!
//! The underlay may be one of IPv6 instead, fd00:50::/64, without a single IPv4 address.
//!
//! Everything is removed when the [`Rig`] is dropped, also when a test panics; what a killed run left is removed at the next
//! [`Rig::new`].

mod command;
mod container;
mod host;
mod leftovers;
mod netns;
mod process;
#[cfg(test)]
mod tests;
mod wait;

pub use command::{inside, run};
pub use container::Container;
pub use host::Host;
pub use leftovers::{remove_kept, sweep};
pub use netns::Netns;
pub use process::Process;
pub use wait::wait_until;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Why the rig, or a command in it, failed: one line or more, for a reader of a test's output.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Error(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text as it is: tests print errors through `unwrap`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// What the rig gives back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The first three bytes of every underlay address.
const UNDERLAY: [u8; 3] = [192, 168, 50];

/// The underlay's own address, the hosts' default route.
const UNDERLAY_ROUTER: u8 = 254;

/// As many as addresses below the router's.
pub const MAX_HOSTS: usize = 253;

/// Where bpffs is mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// How a rig is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many hosts, at most [`MAX_HOSTS`].
    pub hosts: usize,
    /// MTU of the underlay, bytes.
    pub mtu: u32,
    /// Hosts reach each other by IPv6, and by nothing else.
    pub ipv6: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            hosts: 2,
            mtu: 1500,
            ipv6: false,
        }
    }
}

/// Several hosts on an underlay. One owner; removes everything when dropped.
///
/// Containers are dropped before their rig: declare them after it.
#[derive(Debug)]
pub struct Rig {
    /// The hosts, `node1` first.
    pub hosts: Vec<Host>,
    /// The namespace of the bridge.
    underlay: Netns,
    ipv6: bool,
    id: Id,
}

/// What all names of a rig begin with, and what it keeps on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Id {
    prefix: String,
}

impl Id {
    /// Unique in this machine: the process, and a number within it. No dot: bpffs reserves it.
    fn next() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Id {
            prefix: format!("weft{}_{number}", std::process::id()),
        }
    }

    /// Configs, sockets, data and logs.
    fn folder(&self) -> PathBuf {
        leftovers::folder(&self.prefix)
    }
}

impl Rig {
    /// Hosts `node1` to `nodeN` at 192.168.50.1 and up, no daemon started. First removes what dead runs left.
    pub fn new(options: Options) -> Result<Rig> {
        check_options(options)?;
        mount_bpffs()?;
        sweep()?;
        let id = Id::next();
        let folder = id.folder();
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::new(format!("cannot make {}: {error}", folder.display())))?;
        let underlay = Netns::create(&format!("{}-underlay", id.prefix))?;
        underlay.ip(&format!("link add br0 mtu {} type bridge forward_delay 0", options.mtu))?;
        underlay.ip(&format!(
            "addr add {} dev br0",
            with_prefix(UNDERLAY_ROUTER, options.ipv6)
        ))?;
        underlay.ip("link set br0 up")?;
        let mut rig = Rig {
            hosts: Vec::new(),
            underlay,
            ipv6: options.ipv6,
            id,
        };
        for number in 1..=options.hosts {
            let host = rig.add_host(number, options.mtu)?;
            rig.hosts.push(host);
        }
        Ok(rig)
    }

    fn add_host(&self, number: usize, mtu: u32) -> Result<Host> {
        let name = format!("node{number}");
        let netns = Netns::create(&format!("{}-{name}", self.id.prefix))?;
        let last = u8::try_from(number).map_err(|_| Error::new(format!("host {number}: at most {MAX_HOSTS}")))?;
        self.make_uplink(number, &netns, last, mtu)?;
        let advertised = if self.ipv6 {
            underlay_address6(last).into()
        } else {
            underlay_address(last).into()
        };
        Host::new(
            netns,
            name,
            (underlay_address(last), advertised),
            self.id.folder(),
            &self.id.prefix,
        )
    }

    fn make_uplink(&self, number: usize, netns: &Netns, last: u8, mtu: u32) -> Result<()> {
        let port = format!("h{number}");
        let other = netns.name();
        self.underlay.ip(&format!(
            "link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {other}"
        ))?;
        self.underlay.ip(&format!("link set {port} master br0 up"))?;
        netns.ip(&format!("addr add {} dev eth0", with_prefix(last, self.ipv6)))?;
        netns.ip("link set eth0 up")?;
        let router: IpAddr = if self.ipv6 {
            underlay_address6(UNDERLAY_ROUTER).into()
        } else {
            underlay_address(UNDERLAY_ROUTER).into()
        };
        netns.ip(&format!("route add default via {router}"))?;
        Ok(())
    }

    /// Gives a host whose `eth0` was removed another one, with its address.
    pub fn new_uplink(&self, host: usize) -> Result<()> {
        let at = &self.hosts[host];
        self.make_uplink(host + 1, at.netns(), at.address().octets()[3], 1500)
    }

    /// A new container on the host with this index, not connected to anything yet.
    pub fn container(&self, host: usize, name: &str) -> Result<Container> {
        let count = self.hosts.len();
        let host = self
            .hosts
            .get(host)
            .ok_or_else(|| Error::new(format!("host {host}: there are {count}")))?;
        Container::new(host, name)
    }

    /// Unplugs a host from the underlay: nothing reaches it, it reaches nobody.
    pub fn unplug(&self, host: usize) -> Result<()> {
        self.underlay.ip(&format!("link set h{} down", host + 1)).map(drop)
    }

    /// Plugs a host in again.
    pub fn plug(&self, host: usize) -> Result<()> {
        self.underlay.ip(&format!("link set h{} up", host + 1)).map(drop)
    }

    /// Starts `weftd` on every host, makes the first a manager and lets the others join.
    pub fn start_cluster(&mut self) -> Result<()> {
        for host in &mut self.hosts {
            host.start()?;
        }
        let Some((manager, workers)) = self.hosts.split_first() else {
            return Ok(());
        };
        let token = manager.weft(&["cluster", "init", "-q"])?.trim().to_owned();
        for worker in workers {
            worker.weft(&["cluster", "join", "--token", &token, &manager.advertised().to_string()])?;
        }
        Ok(())
    }

    /// Leaves everything up when this process ends; [`remove_kept`] removes it later.
    pub fn keep(self, containers: Vec<Container>) -> Result<()> {
        leftovers::mark_kept(&self.id.prefix)?;
        containers.into_iter().for_each(std::mem::forget);
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.hosts.iter().for_each(|host| eprintln!("{}", host.describe()));
        }
        // Daemons first: they hold the pins and the links.
        self.hosts.clear();
        leftovers::remove_traces(&self.id.prefix);
    }
}

fn check_options(options: Options) -> Result<()> {
    if options.hosts == 0 || options.hosts > MAX_HOSTS {
        return Err(Error::new(format!("{} hosts: choose 1 to {MAX_HOSTS}", options.hosts)));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::new(
            "needs root: it makes network namespaces and loads eBPF programs",
        ));
    }
    Ok(())
}

/// The underlay address that ends with this byte.
fn underlay_address(last: u8) -> Ipv4Addr {
    let [a, b, c] = UNDERLAY;
    Ipv4Addr::new(a, b, c, last)
}

/// The same of an underlay of IPv6.
fn underlay_address6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, last.into())
}

/// As `ip addr add` takes it; nobody else can have it, so that it need not be waited for.
fn with_prefix(last: u8, ipv6: bool) -> String {
    if ipv6 {
        format!("{}/64 nodad", underlay_address6(last))
    } else {
        format!("{}/24", underlay_address(last))
    }
}

/// Mounts bpffs where systemd would; a machine without systemd may lack it.
fn mount_bpffs() -> Result<()> {
    let explain = |error: nix::Error| Error::new(format!("{BPFFS}: {error}"));
    let kind = nix::sys::statfs::statfs(BPFFS).map_err(explain)?.filesystem_type();
    if kind == nix::sys::statfs::BPF_FS_MAGIC {
        return Ok(());
    }
    let flags = nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700")).map_err(explain)
}

/// The folder of the built programs: `WEFT_BIN_DIR`, else beside the running test.
pub fn programs() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("WEFT_BIN_DIR") {
        return Ok(folder.into());
    }
    let this = std::env::current_exe().map_err(|error| Error::new(format!("cannot find this program: {error}")))?;
    let folder = this.parent().unwrap_or(Path::new("."));
    // Tests are built into `deps`, programs one folder up.
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    Ok(folder.to_path_buf())
}

/// A built program.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = programs()?.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::new(format!(
            "{} is not built: run `cargo xtask build`",
            path.display()
        )))
    }
}

/// The daemon's eBPF object: `WEFT_BPF_OBJECT`, else in cargo's target folder.
pub fn object() -> Result<PathBuf> {
    let path = match std::env::var_os("WEFT_BPF_OBJECT") {
        Some(path) => path.into(),
        None => programs()?.join("../weft-dataplane.bpf.o"),
    };
    path.canonicalize()
        .map_err(|_| Error::new(format!("{} is not built: run `cargo xtask build-ebpf`", path.display())))
}
