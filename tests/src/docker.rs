//! Real Docker engines on the hosts of a rig, and containers on them (`dockerd` of Debian's package `docker.io`).
//!
//! Each engine has its host's network namespace, and mount and host name namespaces of its own, which end with it.

use crate::misuse::{DIAGNOSTIC_PORT, get};
use crate::rig::{Error, Host, Netns, Result, Rig, run, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that an engine may take for one step, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How long an engine may take to stop its containers and end.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether an engine has ended.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// An image with nothing but a busybox.
pub const IMAGE: &str = "bb:1";

/// Engines on some hosts of a rig. They are asked to end together when dropped; containers are dropped before them.
#[derive(Debug)]
pub struct Engines(pub Vec<Engine>);

impl Engines {
    /// One on each of these hosts, all started at once; with the [`IMAGE`], and their diagnostic servers on.
    pub fn start(rig: &Rig, hosts: &[usize]) -> Result<Engines> {
        let mut engines = Engines(Vec::new());
        for host in hosts {
            engines.0.push(Engine::start(&rig.hosts[*host])?);
        }
        for (engine, host) in engines.0.iter_mut().zip(hosts) {
            engine.prepare(&rig.hosts[*host])?;
        }
        Ok(engines)
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.0.iter().for_each(Engine::ask_to_end);
    }
}

/// A `dockerd` with its files; ended and removed when dropped.
#[derive(Debug)]
pub struct Engine {
    host: String,
    address: Ipv4Addr,
    prefix: String,
    folder: PathBuf,
    process: Child,
}

impl Engine {
    /// Starts it; it ends with the calling thread at the latest.
    fn start(host: &Host) -> Result<Engine> {
        let folder = host.folder().join("docker");
        let explain = |error: std::io::Error| Error::new(format!("dockerd on {}: {error}", host.name()));
        fs::create_dir(&folder).map_err(explain)?;
        let config = format!("{{\"network-diagnostic-port\": {DIAGNOSTIC_PORT}}}");
        fs::write(folder.join("daemon.json"), config).map_err(explain)?;
        let script = "hostname $2; exec dockerd --config-file $1/daemon.json --data-root $1/data --exec-root $1/exec \
             --pidfile $1/pid -H unix://$1/sock --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /$3";
        let log = File::create(folder.join("log")).map_err(explain)?;
        let prefix = host.netns().name().to_owned();
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "nsenter"])
            .arg(format!("--net={}", host.netns().path().display()))
            .args(["unshare", "--mount", "--uts", "sh", "-c", script, "sh"])
            .arg(&folder)
            .args([host.name(), &prefix])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(explain)?)
            .stderr(log)
            .spawn()
            .map_err(explain)?;
        Ok(Engine {
            host: host.name().to_owned(),
            address: host.address(),
            prefix,
            folder,
            process,
        })
    }

    fn prepare(&mut self, host: &Host) -> Result<()> {
        self.wait_for("it answers", |engine| engine.docker(&["version"]).map(drop))?;
        self.import_image()?;
        self.signal(Signal::SIGHUP)?;
        self.wait_for("its diagnostic server answers", |_| match get(host, "/ready") {
            Ok(body) if body == "OK\nOK" => Ok(()),
            Ok(body) => Err(Error::new(body)),
            Err(error) => Err(error),
        })
    }

    /// Where it advertises itself.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// `docker` with these arguments; what it printed.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let printed = run(self.command().args(arguments));
        printed.map(|text| text.trim().to_owned())
    }

    /// `docker`, told where this engine's socket is, and ended when it takes too long.
    pub fn command(&self) -> Command {
        let mut host = std::ffi::OsString::from("unix://");
        host.push(self.folder.join("sock"));
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", "60", "docker", "-H"]).arg(host);
        command
    }

    /// Makes a swarm with this engine as its manager, with further flags.
    pub fn init_swarm(&self, flags: &[&str]) -> Result<()> {
        let address = self.address.to_string();
        let init = ["swarm", "init", "--advertise-addr", &address];
        self.docker(&[&init[..], flags].concat()).map(drop)
    }

    /// The join token for a `worker` or a `manager`.
    pub fn token(&self, role: &str) -> Result<String> {
        self.docker(&["swarm", "join-token", "--quiet", role])
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.process.id()).map_err(|_| Error::new("pid"))?;
        kill(Pid::from_raw(pid), signal).map_err(|error| Error::new(format!("dockerd on {}: {error}", self.host)))
    }

    /// A container that sleeps, on this network.
    pub fn container(&self, name: &str, network: &str) -> Result<EngineContainer> {
        let id = self.docker(&[
            "run",
            "-d",
            "--init=false",
            "--name",
            name,
            "--network",
            network,
            IMAGE,
            "/bin/busybox",
            "sleep",
            "3600",
        ])?;
        EngineContainer::of(self, name, &id, network)
    }

    /// Runs a busybox command in a container; what it printed.
    pub fn exec(&self, container: &str, arguments: &[&str]) -> Result<String> {
        self.docker(&[&["exec", container, "/bin/busybox"], arguments].concat())
    }

    fn import_image(&self) -> Result<()> {
        let explain = |error: std::io::Error| Error::new(format!("a static busybox (package busybox-static): {error}"));
        let bin = self.folder.join("image/bin");
        fs::create_dir_all(&bin).map_err(explain)?;
        fs::copy("/bin/busybox", bin.join("busybox")).map_err(explain)?;
        let (image, tar) = (self.folder.join("image"), self.folder.join("image.tar"));
        run(Command::new("tar").arg("-C").arg(image).arg("-cf").arg(&tar).arg("."))?;
        self.docker(&["import", &tar.to_string_lossy(), IMAGE]).map(drop)
    }

    /// Waits until something holds; the engine must live on.
    pub fn wait_for(&mut self, what: &str, mut reached: impl FnMut(&Engine) -> Result<()>) -> Result<()> {
        let what = format!("dockerd on {}: {what}", self.host);
        let mut ended = None;
        let waited = wait_until(PATIENCE, &what, || {
            ended = self.process.try_wait().ok().flatten();
            if ended.is_some() { Ok(()) } else { reached(self) }
        });
        match ended {
            None => waited,
            Some(status) => Err(Error::new(format!(
                "dockerd on {} ended with {status} (it needs root and the package docker.io)",
                self.host
            ))),
        }
    }

    fn ask_to_end(&self) {
        // One that has ended already cannot be asked.
        let _ = self.signal(Signal::SIGCONT);
        let _ = self.signal(Signal::SIGTERM);
    }

    fn log_end(&self) -> String {
        const LINES: usize = 25;
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- dockerd on {}, end of its log:\n{}", self.host, self.log_end());
        }
        self.ask_to_end();
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(BETWEEN_LOOKS);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A container of an engine. Ends when dropped.
#[derive(Debug)]
pub struct EngineContainer {
    /// Its name.
    pub name: String,
    /// Its address on its overlay network.
    pub address: Ipv4Addr,
    /// Its endpoint there.
    pub endpoint: String,
    /// Its network namespace.
    pub netns: Netns,
}

impl EngineContainer {
    fn of(engine: &Engine, name: &str, id: &str, network: &str) -> Result<EngineContainer> {
        let field = |name: &str| {
            let template =
                format!("{{{{with index .NetworkSettings.Networks {network:?}}}}}{{{{.{name}}}}}{{{{end}}}}");
            engine.docker(&["inspect", "-f", &template, id])
        };
        let address = field("IPAddress")?;
        let pid = engine.docker(&["inspect", "-f", "{{.State.Pid}}", id])?;
        Ok(EngineContainer {
            name: name.to_owned(),
            address: address
                .parse()
                .map_err(|error| Error::new(format!("address {address:?} of {name}: {error}")))?,
            endpoint: field("EndpointID")?,
            netns: Netns::attach(&format!("{}-{name}", engine.prefix), &pid)?,
        })
    }
}
