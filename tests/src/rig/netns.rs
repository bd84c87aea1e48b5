//! A named network namespace that exists as long as its owner.

use super::command::{inside, limited, run};
use super::leftovers;
use super::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where iproute2 keeps named namespaces.
pub(super) const DIRECTORY: &str = "/run/netns";

/// A network namespace with its loopback up. When dropped, processes left inside are ended and it is removed with all links in it.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes it; the name must be new.
    pub fn create(name: &str) -> Result<Self> {
        run(limited("ip").args(["netns", "add", name]))?;
        let netns = Netns { name: name.to_owned() };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Gives the namespace of a process a name; it ends, with that process, when dropped.
    pub fn attach(name: &str, pid: &str) -> Result<Self> {
        run(limited("ip").args(["netns", "attach", name, pid]))?;
        Ok(Netns { name: name.to_owned() })
    }

    /// Its name, as `ip -n` and `weft network connect --netns` take it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, as `nsenter --net=` takes it.
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// `ip` inside, with words split at spaces.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(limited("ip")
            .args(["-n", &self.name])
            .args(arguments.split_whitespace()))
        .map_err(|error| Error::new(format!("in {}: {error}", self.name)))
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        inside(self, program)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        leftovers::remove_netns(&self.name);
    }
}
