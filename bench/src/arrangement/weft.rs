//! `weft`: two daemons as a cluster, containers connected by the command line, a service with a virtual IP.

use super::{Arrangement, Container, HOST_A, HOST_B, HostSide, Hosts, SUBNET, Topology, Vip};
use crate::command;
use crate::error::{Context, Error, Result};
use crate::interrupt;
use crate::netns::{self, Netns};
use crate::options::Options;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a daemon may take from its start until its socket answers: loading the programs on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a daemon may take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How long gossip may take to tell the other host of a container. Two gossip intervals are usual, a push-pull is the worst.
const GOSSIP_PATIENCE: Duration = Duration::from_secs(40);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Where state directories are.
const STATE: &str = "/run";
/// All state directories start with this and the process id.
const STATE_PREFIX: &str = "weft-bench-";
const NETWORK: &str = "bench";
const SERVICE: &str = "my-web";

/// The arrangement; everything in it ends with it, daemons first.
#[derive(Debug)]
pub struct Weft {
    id: &'static str,
    facts: Vec<String>,
    _daemons: [Daemon; 2],
    _state: State,
    topology: Topology,
    _hosts: Hosts,
}

impl Arrangement for Weft {
    fn id(&self) -> &'static str {
        self.id
    }

    fn description(&self) -> String {
        let what = "a cluster of two daemons, containers connected by the command line";
        match self.id {
            BY_SOCKETS => format!("{BY_SOCKETS}: {what}, features balance=connect"),
            id => format!("{id}: {what}"),
        }
    }

    fn facts(&self) -> &[String] {
        &self.facts
    }

    fn topology(&self) -> &Topology {
        &self.topology
    }
}

/// Id of the arrangement whose daemons balance sockets when they connect.
pub const BY_SOCKETS: &str = "weft-connect";

/// Builds it, with or without balancing when sockets connect.
pub fn build(id: &str, options: &Options) -> Result<Weft> {
    let (id, prefix, features) = match id {
        BY_SOCKETS => (BY_SOCKETS, "weftc", json!({"balance": "connect"})),
        _ => ("weft", "weft", json!({})),
    };
    let state = State::create(id)?;
    let hosts = Hosts::create(prefix, options)?;
    let near = Daemon::start(&state, options, &features, &hosts.a, ("node-a", HOST_A))?;
    let far = Daemon::start(&state, options, &features, &hosts.b, ("node-b", HOST_B))?;
    let token = near.weft(&["cluster", "init", "-q"])?;
    far.weft(&["cluster", "join", "--token", token.trim(), &HOST_A.to_string()])?;
    near.weft(&["network", "create", "--subnet", SUBNET, NETWORK])?;
    near.weft(&["service", "create", "--name", SERVICE, "--network", NETWORK])?;
    let client = near.connect(hosts.namespace("cA")?, "client", None)?;
    let servers = vec![
        far.connect(hosts.namespace("cB")?, "server-1", Some(SERVICE))?,
        far.connect(hosts.namespace("cC")?, "server-2", Some(SERVICE))?,
    ];
    let vip = Vip {
        client: Arc::clone(&client.netns),
        address: near.virtual_ip()?,
    };
    let client_host_side = HostSide {
        netns: Arc::clone(&hosts.a),
        interface: other_end(&client, &hosts.a)?,
    };
    Ok(Weft {
        id,
        facts: vec![format!("container MTU {}", client.mtu)],
        topology: Topology {
            client,
            client_host_side,
            servers,
            vip: Some(vip),
            uplinks: hosts.uplinks(),
        },
        _daemons: [near, far],
        _state: state,
        _hosts: hosts,
    })
}

/// How long to wait until containers reach each other.
pub(super) const fn patience() -> Duration {
    GOSSIP_PATIENCE
}

/// The state of both daemons and a BPF file system for their pins; removed on drop.
#[derive(Debug)]
struct State {
    directory: PathBuf,
}

impl State {
    fn create(arrangement: &str) -> Result<Self> {
        let directory = Path::new(STATE).join(format!("{STATE_PREFIX}{}-{arrangement}", std::process::id()));
        let pins = directory.join("bpf");
        fs::create_dir_all(&pins).context(|| format!("cannot create {}", pins.display()))?;
        let state = State { directory };
        mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), None::<&str>)
            .context(|| format!("cannot mount a BPF file system on {}", pins.display()))?;
        Ok(state)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    // Not mounted, if it failed to mount.
    let _ = umount2(&directory.join("bpf"), MntFlags::MNT_DETACH);
    if let Err(error) = fs::remove_dir_all(directory) {
        eprintln!("weft-bench: cannot remove {}: {error}", directory.display());
    }
}

/// Removes the state of benches that are no longer running. Their daemons died with them.
pub(super) fn sweep() {
    let Ok(entries) = fs::read_dir(STATE) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(STATE_PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|pid| !netns::is_running(pid)) {
            remove(&entry.path());
        }
    }
}

/// A running `weftd`, ended on drop.
#[derive(Debug)]
struct Daemon {
    child: Child,
    name: &'static str,
    socket: PathBuf,
    log: PathBuf,
    weft: PathBuf,
}

impl Daemon {
    fn start(
        state: &State,
        options: &Options,
        features: &Value,
        host: &Netns,
        (name, address): (&'static str, Ipv4Addr),
    ) -> Result<Self> {
        let directory = state.directory.join(name);
        fs::create_dir_all(&directory).context(|| format!("cannot create {}", directory.display()))?;
        let config = directory.join("config.json");
        let socket = directory.join("weft.sock");
        let log = directory.join("log");
        let settings = json!({
            "node-name": name,
            "data-dir": directory.join("data"),
            "listen-addr": address,
            "advertise-addr": address,
            "api-socket": socket,
            "bpf-object": options.dataplane_object,
            "bpf-pin-dir": state.directory.join("bpf").join(name),
            "pidfile": directory.join("weftd.pid"),
            "features": features,
        });
        fs::write(&config, settings.to_string()).context(|| format!("cannot write {}", config.display()))?;
        let output = File::create(&log).context(|| format!("cannot create {}", log.display()))?;
        let child = spawn(&options.bin_dir.join("weftd"), host, &config, output)?;
        let weft = options.bin_dir.join("weft");
        let mut daemon = Daemon {
            child,
            name,
            socket,
            log,
            weft,
        };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            interrupt::check()?;
            let ended = self
                .child
                .try_wait()
                .context(|| format!("cannot look at the daemon of {}", self.name))?;
            if let Some(status) = ended {
                return Err(Error::new(format!(
                    "the daemon of {} ended: {status}\n{}",
                    self.name,
                    self.last_words()
                )));
            }
            match UnixStream::connect(&self.socket) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error)
                        .context(|| format!("the daemon of {} does not answer\n{}", self.name, self.last_words()));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }

    /// Runs the command line against this daemon.
    fn weft(&self, arguments: &[&str]) -> Result<String> {
        let (program, socket) = (self.weft.to_string_lossy(), self.socket.to_string_lossy());
        let mut all = vec!["--socket", &socket];
        all.extend_from_slice(arguments);
        command::run(&program, &all).map_err(|error| Error::new(format!("{error}\n{}", self.last_words())))
    }

    /// Connects a namespace to the network and looks at what came of it.
    fn connect(&self, netns: Arc<Netns>, name: &str, service: Option<&str>) -> Result<Container> {
        let mut arguments = vec!["network", "connect", NETWORK, "--netns", netns.name(), "--name", name];
        if let Some(service) = service {
            arguments.extend(["--service", service]);
        }
        self.weft(&arguments)?;
        let interface = connected_interface(&netns)?;
        Container::inspect(netns, &interface)
    }

    fn virtual_ip(&self) -> Result<Ipv4Addr> {
        let text = self.weft(&["service", "inspect", SERVICE])?;
        let answer: Value = serde_json::from_str(&text).context(|| "weft service inspect: no JSON".to_owned())?;
        find_virtual_ip(&answer).context(|| format!("weft service inspect {SERVICE}: no virtual IP in {answer}"))
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// The daemon dies with the bench even if the bench is killed.
fn spawn(weftd: &Path, host: &Netns, config: &Path, output: File) -> Result<Child> {
    if !weftd.exists() {
        return Err(Error::new(format!(
            "{} does not exist: cargo build --package weft",
            weftd.display()
        )));
    }
    let errors = output.try_clone().context(|| "cannot share the log".to_owned())?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "nsenter"])
        .arg(format!("--net={}", host.path().display()))
        .arg(weftd)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .context(|| "cannot run setpriv".to_owned())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("weft-bench: the daemon of {} does not end, killing it", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// `VirtualIPs` of Docker's shape: `{"Endpoint":{"VirtualIPs":[{"NetworkID":"...","Addr":"10.0.1.2/24"}]}}`, alone or in a list.
fn find_virtual_ip(answer: &Value) -> Option<Ipv4Addr> {
    match answer {
        Value::Array(items) => items.iter().find_map(find_virtual_ip),
        Value::Object(fields) => match fields.get("Addr").and_then(Value::as_str) {
            Some(address) => address.split('/').next()?.parse().ok(),
            None => fields.values().find_map(find_virtual_ip),
        },
        _ => None,
    }
}

/// The interface that the daemon put into a namespace that had none.
fn connected_interface(netns: &Netns) -> Result<String> {
    let links = netns.links()?;
    let link = links.iter().find(|link| link["ifname"] != "lo");
    let name = link.and_then(|link| link["ifname"].as_str());
    Ok(name
        .context(|| format!("weft network connect put no interface into {}", netns.name()))?
        .to_owned())
}

/// Name of the host's end of a container's veth.
fn other_end(container: &Container, host: &Netns) -> Result<String> {
    let index = container.netns.link(&container.interface)?.json["link_index"].clone();
    let links = host.links()?;
    let link = links
        .iter()
        .find(|link| link["ifindex"] == index)
        .and_then(|link| link["ifname"].as_str());
    let interface = &container.interface;
    Ok(link
        .context(|| {
            format!(
                "{interface} of {} has no other end in {}",
                container.netns.name(),
                host.name()
            )
        })?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_ip_is_found_in_dockers_shape() {
        let endpoint = json!({"Ports": [], "VirtualIPs": [{"NetworkID": "x", "Addr": "10.0.1.7/24"}]});
        let expected = Some(Ipv4Addr::new(10, 0, 1, 7));
        assert_eq!(find_virtual_ip(&json!([{"ID": "1", "Endpoint": endpoint}])), expected);
        assert_eq!(find_virtual_ip(&json!({"Endpoint": {"VirtualIPs": []}})), None);
        assert_eq!(find_virtual_ip(&json!("10.0.1.7")), None);
    }
}
