//! A host: a namespace on the underlay, and the `weftd` on it.

use super::command::run;
use super::process::{Process, tail};
use super::wait::wait_until;
use super::{BPFFS, Error, Netns, Result, object, program};
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a daemon may take from its start until its API socket answers: loading the programs on a busy machine.
const TIME_TO_START: Duration = Duration::from_secs(30);

/// A host of a rig. Its daemon ends with it.
#[derive(Debug)]
pub struct Host {
    daemon: Option<Process>,
    name: String,
    address: Ipv4Addr,
    advertised: IpAddr,
    folder: PathBuf,
    pins: PathBuf,
    config: Map<String, Value>,
    /// What is installed: the daemon's program and object, if not the ordinary ones.
    installed: Option<(PathBuf, PathBuf)>,
    netns: Netns,
}

impl Host {
    pub(super) fn new(
        netns: Netns,
        name: String,
        (address, advertised): (Ipv4Addr, IpAddr),
        rig: PathBuf,
        prefix: &str,
    ) -> Result<Self> {
        let folder = rig.join(&name);
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::new(format!("cannot make {}: {error}", folder.display())))?;
        let pins = Path::new(BPFFS).join(format!("{prefix}-{name}"));
        let config = Map::new();
        let mut host = Host {
            daemon: None,
            name,
            address,
            advertised,
            folder,
            pins,
            config,
            installed: None,
            netns,
        };
        host.config = host.default_config()?;
        host.write_config()?;
        Ok(host)
    }

    fn default_config(&self) -> Result<Map<String, Value>> {
        let settings = json!({
            "node-name": self.name,
            "data-dir": self.folder.join("data"),
            "listen-addr": self.advertised,
            "advertise-addr": self.advertised,
            "api-socket": self.socket(),
            "bpf-pin-dir": self.pins,
            "pidfile": self.folder.join("weftd.pid"),
        });
        match settings {
            Value::Object(settings) => Ok(settings),
            other => Err(Error::new(format!("no settings: {other}"))),
        }
    }

    /// `node-name`, as `node1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on an underlay of IPv4.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its address on the underlay, of whatever family that is.
    pub fn advertised(&self) -> IpAddr {
        self.advertised
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its folder: config, socket, data, log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `api-socket`.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("weft.sock")
    }

    /// `bpf-pin-dir`.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// The config file.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("weftd.json")
    }

    /// The daemon's log, over all its starts.
    pub fn log(&self) -> PathBuf {
        self.folder.join("weftd.log")
    }

    /// Writes a setting; `Value::Null` removes it. A running daemon reads it at the next [`hangup`](Self::hangup) or start.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        match value.into() {
            Value::Null => self.config.remove(key),
            value => self.config.insert(key.to_owned(), value),
        };
        self.write_config()
    }

    fn write_config(&self) -> Result<()> {
        let path = self.config_file();
        let text = format!("{:#}\n", Value::Object(self.config.clone()));
        std::fs::write(&path, text).map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))
    }

    /// The next start is of the daemon of the contract version that only tests build; or of the ordinary one again.
    pub fn install_next_abi(&mut self, next: bool) -> Result<()> {
        self.installed = if next {
            let object = object()?.with_file_name("weft-dataplane-next.bpf.o");
            Some((program("weftd-next-abi")?, object))
        } else {
            None
        };
        Ok(())
    }

    /// Starts `weftd` and waits until its API socket answers.
    pub fn start(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            return Err(Error::new(format!("weftd on {} is running already", self.name)));
        }
        let (weftd, object) = match &self.installed {
            Some(installed) => installed.clone(),
            None => (program("weftd")?, object()?),
        };
        self.set("bpf-object", json!(object))?;
        let config = self.config_file();
        let arguments = ["--config", &config.to_string_lossy()];
        let name = format!("weftd on {}", self.name);
        let mut daemon = Process::start(&self.netns, &name, &self.log(), &weftd, &arguments)?;
        let socket = self.socket();
        let mut ended = Ok(());
        wait_until(
            TIME_TO_START,
            &format!("{name} answers on {}", socket.display()),
            || {
                ended = daemon.check_running();
                // An end is no reason to wait on; it is told below.
                if ended.is_err() {
                    Ok(())
                } else {
                    UnixStream::connect(&socket).map(drop)
                }
            },
        )
        .map_err(|error| Error::new(format!("{error}; its log:\n{}", tail(&self.log()))))?;
        ended?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Asks the daemon to end and waits; an error unless it ends well. Programs and maps stay.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.take_daemon()?.stop()?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::new(format!(
                "weftd on {} ended with {status}; its log:\n{}",
                self.name,
                tail(&self.log())
            )))
        }
    }

    /// Kills the daemon, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.take_daemon()?.kill()
    }

    /// Makes the daemon read its config file again (SIGHUP).
    pub fn hangup(&self) -> Result<()> {
        let daemon = self.daemon.as_ref().ok_or_else(|| self.not_running())?;
        daemon.signal(Signal::SIGHUP)
    }

    /// The daemon's process id.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Process::pid)
    }

    /// Whether the daemon was started and has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.daemon
            .as_mut()
            .is_some_and(|daemon| daemon.check_running().is_ok())
    }

    fn take_daemon(&mut self) -> Result<Process> {
        let error = self.not_running();
        self.daemon.take().ok_or(error)
    }

    fn not_running(&self) -> Error {
        Error::new(format!("weftd on {} was not started", self.name))
    }

    /// Runs the command line `weft` on this host; what it printed.
    pub fn weft(&self, arguments: &[&str]) -> Result<String> {
        run(self.weft_command()?.args(arguments)).map_err(|error| Error::new(format!("on {}: {error}", self.name)))
    }

    /// The command line `weft`, told where this host's socket is.
    pub fn weft_command(&self) -> Result<Command> {
        let mut command = self.netns.command(program("weft")?);
        command.arg("--socket").arg(self.socket());
        Ok(command)
    }

    /// Runs a program on this host; what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.netns.command(program).args(arguments))
            .map_err(|error| Error::new(format!("on {}: {error}", self.name)))
    }

    /// Starts a program on this host that runs until it is dropped.
    pub fn spawn(&self, program: &Path, arguments: &[&str]) -> Result<Process> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = self.folder.join(format!("{name}.log"));
        Process::start(
            &self.netns,
            &format!("{name} on {}", self.name),
            &log,
            program,
            arguments,
        )
    }

    /// State for a failed test: the end of the log.
    pub(super) fn describe(&self) -> String {
        format!(
            "--- {} ({}), end of {}:\n{}",
            self.name,
            self.advertised,
            self.log().display(),
            tail(&self.log())
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.daemon.take());
        super::leftovers::remove_pins(&self.pins);
    }
}
