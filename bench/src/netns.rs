//! Network namespaces that exist as long as their owner.

use crate::command;
use crate::error::{Context, Error, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where iproute2 keeps named namespaces.
const DIRECTORY: &str = "/run/netns";

/// Where `ip netns exec` looks for a namespace's `resolv.conf`.
const SETTINGS: &str = "/etc/netns";

/// All names start with this and the process id of the bench, so that leftovers can be told from a running bench.
const PREFIX: &str = "wb";

/// A named network namespace, removed on drop together with the links in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Creates the namespace `wb<pid>-<suffix>` with its loopback up.
    pub fn create(suffix: &str) -> Result<Self> {
        let name = format!("{PREFIX}{}-{suffix}", std::process::id());
        command::run("ip", &["netns", "add", &name])?;
        let netns = Netns { name };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Its name, as `ip -n` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, as `nsenter --net=` takes it.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs one `ip` command a line inside.
    pub fn ip(&self, commands: &str) -> Result<()> {
        command::run_with_input("ip", &["-n", &self.name, "-batch", "-"], commands)
            .context(|| format!("in namespace {}: {}", self.name, commands.trim()))?;
        Ok(())
    }

    /// Runs a program inside.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let enter = format!("--net={}", self.path().display());
        let mut all = vec![enter.as_str(), program];
        all.extend_from_slice(arguments);
        command::run("nsenter", &all)
    }

    /// Moves the calling thread inside. Sockets made before stay where they were made.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).context(|| format!("cannot open namespace {}", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).context(|| format!("cannot enter namespace {}", self.name))
    }

    /// Does something inside, on a thread of its own.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside
                .join()
                .map_err(|_| Error::new(format!("the work in namespace {} panicked", self.name)))?
        })
    }

    /// All interfaces, as `ip -json link show` tells them.
    pub fn links(&self) -> Result<Vec<serde_json::Value>> {
        let text = command::run("ip", &["-n", &self.name, "-json", "link", "show"])?;
        serde_json::from_str(&text).context(|| format!("ip -json link show in {}: unexpected answer", self.name))
    }

    /// What the kernel says about an interface.
    pub fn link(&self, interface: &str) -> Result<Link> {
        let text = command::run(
            "ip",
            &[
                "-n", &self.name, "-json", "-details", "address", "show", "dev", interface,
            ],
        )?;
        let unexpected = || {
            format!(
                "ip -json address show dev {interface} in {}: unexpected answer",
                self.name
            )
        };
        let answer: serde_json::Value = serde_json::from_str(&text).context(unexpected)?;
        let link = answer.get(0).context(unexpected)?;
        Ok(Link {
            index: link["ifindex"]
                .as_u64()
                .and_then(|i| u32::try_from(i).ok())
                .context(unexpected)?,
            mtu: link["mtu"].as_u64().context(unexpected)?,
            mac: parse_mac(link["address"].as_str().context(unexpected)?).context(unexpected)?,
            json: link.clone(),
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = command::run("ip", &["netns", "delete", &self.name]) {
            eprintln!("weft-bench: {error}");
        }
        remove_settings(&self.name);
    }
}

/// Removes what the daemon wrote for `ip netns exec`; it is ended with its containers still connected.
fn remove_settings(name: &str) {
    // Other arrangements have none.
    let _ = std::fs::remove_dir_all(Path::new(SETTINGS).join(name));
}

/// An interface as it stands.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its MTU, bytes.
    pub mtu: u64,
    /// Its address.
    pub mac: [u8; 6],
    /// Everything that `ip -json -details address show` says.
    pub json: serde_json::Value,
}

/// `02:42:0a:00:01:03` as bytes.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// Bytes as `02:42:0a:00:01:03`.
pub fn format_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Removes the namespaces of benches that are no longer running, and gives their names.
pub fn sweep() -> Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        return Ok(Vec::new());
    };
    let mut swept = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner(&name).is_some_and(|pid| !is_running(pid)) {
            command::run("ip", &["netns", "delete", &name])?;
            remove_settings(&name);
            swept.push(name);
        }
    }
    Ok(swept)
}

/// The process id in `wb<pid>-...`.
fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

/// Whether a process has this id.
pub(crate) fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_bench_have_an_owner() {
        assert_eq!(owner("wb4711-a-hA"), Some(4711));
        for name in ["web-1", "wb-1", "wbx1-a", "wb12", "4711-a", ""] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn a_mac_survives_both_ways() {
        assert_eq!(
            parse_mac("02:42:0a:00:01:03").map(format_mac).as_deref(),
            Some("02:42:0a:00:01:03")
        );
        for wrong in ["", "02:42", "02:42:0a:00:01:03:04", "02:42:0a:00:01:zz"] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_runs() {
        assert!(is_running(std::process::id()));
        assert!(!is_running(u32::MAX));
    }
}
