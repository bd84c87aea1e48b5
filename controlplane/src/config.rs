//! What the operator sets: `/etc/weft/daemon.json` and the flags of the same names.

mod file;
mod flags;
#[cfg(test)]
mod tests;
mod tuning;

pub use file::{Pool, keys};
pub use flags::Flags;
pub use tuning::Tuning;

use crate::dataplane::Forced;
use file::File;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use weft_dataplane::abi::flow::Timeouts;
use weft_dataplane::abi::{Sizes, VXLAN_PORT};

/// Where the daemon looks for its configuration when no file is named.
pub const DEFAULT_FILE: &str = "/etc/weft/daemon.json";

/// The ports of Docker's swarm (`spec/ipam.md` 6.7).
const GOSSIP_PORT: u16 = 7946;
const CLUSTER_PORT: u16 = 2377;

/// Why the configuration cannot be used: one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the JSON that is wanted.
    #[error("configuration file {path}: {message}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// A value is not possible.
    #[error("{key} {value:?}: {rule}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        rule: String,
    },
    /// As Docker does, a key is not taken from two places.
    #[error("{keys} set both as a flag and in {path}: remove one of the two")]
    Twice {
        /// Which keys.
        keys: String,
        /// The file.
        path: PathBuf,
    },
}

/// Address pools for networks without a `--subnet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPools {
    /// The pools.
    pub subnets: Vec<Ipv4Net>,
    /// Prefix length of the subnets cut from them.
    pub mask_length: u8,
}

impl Default for AddressPools {
    /// Docker's: /24 subnets of 10.0.0.0/8 (`spec/ipam.md` 6.1).
    fn default() -> Self {
        AddressPools {
            subnets: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)],
            mask_length: 24,
        }
    }
}

/// The configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file it came from, and comes from again at SIGHUP.
    pub file: PathBuf,
    /// The file was named by the user, so it must exist.
    pub file_named: bool,
    /// Name of the node, unique in its cluster.
    pub node_name: String,
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Where gossip and cluster listen; `None`: on all addresses of the advertised one's family.
    pub listen_addr: Option<IpAddr>,
    /// The address that others reach this node at; `None`: the source of the default route.
    pub advertise_addr: Option<IpAddr>,
    /// The VTEP address; `None`: the advertised one.
    pub data_path_addr: Option<IpAddr>,
    /// UDP port of VXLAN.
    pub data_path_port: u16,
    /// Port of the gossip, TCP and UDP.
    pub gossip_port: u16,
    /// TCP port of the manager.
    pub cluster_port: u16,
    /// Device that carries the overlay; `None`: the one that has the advertised address.
    pub uplink: Option<String>,
    /// Where subnets come from.
    pub default_addr_pools: AddressPools,
    /// Port of the diagnostic server; zero: off. Takes effect at SIGHUP, as Docker's.
    pub network_diagnostic_port: u16,
    /// The API's socket.
    pub api_socket: PathBuf,
    /// An eBPF object in place of the embedded one.
    pub bpf_object: Option<PathBuf>,
    /// Where programs, links and maps are pinned.
    pub bpf_pin_dir: PathBuf,
    /// Where the process id is written.
    pub pidfile: Option<PathBuf>,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub log_level: String,
    /// How large the kernel's maps are.
    pub sizes: Sizes,
    /// After how many seconds without a packet a balanced connection is forgotten.
    pub timeouts: Timeouts,
    /// What of the kernel is not left to a trial.
    pub features: Forced,
    /// They hold against the file at SIGHUP too.
    flags: Flags,
}

/// What may change while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloadable {
    /// As in [`Config`].
    pub network_diagnostic_port: u16,
}

impl Config {
    /// Puts file and flags together and checks them.
    pub fn load(flags: &Flags) -> Result<Config, ConfigError> {
        let path = flags.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let file_named = flags.config.is_some();
        let file = File::read(&path, file_named)?;
        file.refuse_twice(flags, &path)?;
        Config::combine(file, flags, path, file_named)
    }

    fn combine(file: File, flags: &Flags, path: PathBuf, file_named: bool) -> Result<Config, ConfigError> {
        let port = |key, from_flag: Option<u32>, from_file: Option<u32>, default| {
            from_flag
                .or(from_file)
                .map_or(Ok(default), |port| checked_port(key, port))
        };
        let (sizes, timeouts) = flags.tuning.combine(&file.tuning)?;
        let config = Config {
            node_name: node_name(flags.node_name.clone().or(file.node_name))?,
            data_dir: flags
                .data_dir
                .clone()
                .or(file.data_dir)
                .unwrap_or_else(|| "/var/lib/weft".into()),
            listen_addr: address("listen-addr", flags.listen_addr.as_ref().or(file.listen_addr.as_ref()))?,
            advertise_addr: unicast(
                "advertise-addr",
                flags.advertise_addr.as_ref().or(file.advertise_addr.as_ref()),
            )?,
            data_path_addr: unicast(
                "data-path-addr",
                flags.data_path_addr.as_ref().or(file.data_path_addr.as_ref()),
            )?,
            data_path_port: port("data-path-port", flags.data_path_port, file.data_path_port, VXLAN_PORT)?,
            gossip_port: port("gossip-port", flags.gossip_port, file.gossip_port, GOSSIP_PORT)?,
            cluster_port: port("cluster-port", flags.cluster_port, file.cluster_port, CLUSTER_PORT)?,
            uplink: flags.uplink.clone().or(file.uplink),
            default_addr_pools: file::pools(match flags.default_addr_pools.as_slice() {
                [] => file.default_addr_pools,
                given => Some(given.to_vec()),
            })?,
            network_diagnostic_port: diagnostic_port(flags.network_diagnostic_port.or(file.network_diagnostic_port))?,
            api_socket: flags
                .api_socket
                .clone()
                .or(file.api_socket)
                .unwrap_or_else(|| "/run/weft/weft.sock".into()),
            bpf_object: flags.bpf_object.clone().or(file.bpf_object),
            bpf_pin_dir: flags
                .bpf_pin_dir
                .clone()
                .or(file.bpf_pin_dir)
                .unwrap_or_else(|| "/sys/fs/bpf/weft".into()),
            pidfile: flags.pidfile.clone().or(file.pidfile),
            log_level: log_level(flags.log_level.clone().or(file.log_level))?,
            sizes,
            timeouts,
            features: features(file.features, &flags.features)?,
            file: path,
            file_named,
            flags: flags.clone(),
        };
        config.check_ports()?;
        Ok(config)
    }

    /// Reads the file again and checks all of it. A bad file changes nothing.
    pub fn reload(&self) -> Result<Reloadable, ConfigError> {
        let file = File::read(&self.file, self.file_named)?;
        file.refuse_twice(&self.flags, &self.file)?;
        let fresh = Config::combine(file, &self.flags, self.file.clone(), self.file_named)?;
        Ok(Reloadable {
            network_diagnostic_port: fresh.network_diagnostic_port,
        })
    }

    /// Where to listen, of the family of the advertised address: others could not answer the other one.
    pub fn listen_on(&self, advertise: IpAddr) -> Result<IpAddr, ConfigError> {
        let any = match advertise {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        match self.listen_addr {
            Some(address) if address.is_ipv4() != advertise.is_ipv4() => Err(ConfigError::Value {
                key: "listen-addr",
                value: address.to_string(),
                rule: format!("an address of the family of advertise-addr {advertise} is wanted, as {any}"),
            }),
            Some(address) => Ok(address),
            None => Ok(any),
        }
    }

    fn check_ports(&self) -> Result<(), ConfigError> {
        let clash = |key, port: u16, other: &str| {
            let rule = format!("{other} has the same: each needs a port of its own");
            Err(ConfigError::Value {
                key,
                value: port.to_string(),
                rule,
            })
        };
        if self.cluster_port == self.gossip_port {
            return clash("cluster-port", self.cluster_port, "gossip-port");
        }
        if self.data_path_port == self.gossip_port {
            return clash("data-path-port", self.data_path_port, "gossip-port");
        }
        for (port, other) in [(self.gossip_port, "gossip-port"), (self.cluster_port, "cluster-port")] {
            if self.network_diagnostic_port == port {
                return clash("network-diagnostic-port", port, other);
            }
        }
        Ok(())
    }

    /// Writes the process id, if a pidfile is wanted; it goes when the guard is dropped.
    pub fn write_pidfile(&self) -> Result<Option<Pidfile>, ConfigError> {
        let Some(path) = &self.pidfile else { return Ok(None) };
        std::fs::write(path, format!("{}\n", std::process::id())).map_err(|error| ConfigError::Value {
            key: "pidfile",
            value: path.display().to_string(),
            rule: format!("cannot be written: {error}"),
        })?;
        Ok(Some(Pidfile(path.clone())))
    }
}

/// Removes the pidfile when dropped.
#[derive(Debug)]
pub struct Pidfile(PathBuf);

impl Drop for Pidfile {
    fn drop(&mut self) {
        // The directory may have been removed by then.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn checked_port(key: &'static str, port: u32) -> Result<u16, ConfigError> {
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(ConfigError::Value {
            key,
            value: port.to_string(),
            rule: "a port from 1 to 65535 is wanted".to_owned(),
        }),
    }
}

/// Docker's words (`spec/diag-api.md` 1.6).
fn diagnostic_port(port: Option<i64>) -> Result<u16, ConfigError> {
    let port = port.unwrap_or(0);
    u16::try_from(port).map_err(|_| ConfigError::Value {
        key: "network-diagnostic-port",
        value: port.to_string(),
        rule: "value must be between 0 and 65535, where 0 turns the server off".to_owned(),
    })
}

fn address(key: &'static str, text: Option<&String>) -> Result<Option<IpAddr>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| ConfigError::Value {
        key,
        value: text.clone(),
        rule: "an IP address is wanted, as 192.168.0.1".to_owned(),
    })
}

fn unicast(key: &'static str, text: Option<&String>) -> Result<Option<IpAddr>, ConfigError> {
    let Some(address) = address(key, text)? else {
        return Ok(None);
    };
    let of_one_host = match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => {
            let of_the_link = v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some();
            !v6.is_unspecified() && !v6.is_multicast() && !of_the_link
        }
    };
    if of_one_host {
        return Ok(Some(address));
    }
    Err(ConfigError::Value {
        key,
        value: address.to_string(),
        rule: "the address of one interface of this host is wanted, and none of fe80::/10, which every link has"
            .to_owned(),
    })
}

fn features(from_file: Option<BTreeMap<String, String>>, from_flags: &[String]) -> Result<Forced, ConfigError> {
    let refused = |value: &str, rule: &str| ConfigError::Value {
        key: "features",
        value: value.to_owned(),
        rule: rule.to_owned(),
    };
    let mut forced = Forced::default();
    let mut force = |name: &str, choice: &str| {
        let done = forced.force(name, choice);
        done.map_err(|error| refused(&error.value, &error.rule))
    };
    for (name, choice) in from_file.into_iter().flatten() {
        force(&name, &choice)?;
    }
    for text in from_flags {
        let (name, choice) = text
            .split_once('=')
            .ok_or_else(|| refused(text, "NAME=CHOICE is wanted, as attach=clsact"))?;
        force(name, choice)?;
    }
    Ok(forced)
}

fn node_name(name: Option<String>) -> Result<String, ConfigError> {
    let name = match name {
        Some(name) => name,
        None => nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .ok_or_else(|| ConfigError::Value {
                key: "node-name",
                value: String::new(),
                rule: "is not set, and the host has no name".to_owned(),
            })?,
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&name.len()) && name.chars().all(valid) {
        Ok(name)
    } else {
        let rule = "1 to 64 letters, digits, '-', '_' and '.' are wanted".to_owned();
        Err(ConfigError::Value {
            key: "node-name",
            value: name,
            rule,
        })
    }
}

fn log_level(level: Option<String>) -> Result<String, ConfigError> {
    let level = level.unwrap_or_else(|| "info".to_owned());
    if ["trace", "debug", "info", "warn", "error"].contains(&level.as_str()) {
        Ok(level)
    } else {
        let rule = "trace, debug, info, warn or error is wanted".to_owned();
        Err(ConfigError::Value {
            key: "log-level",
            value: level,
            rule,
        })
    }
}
