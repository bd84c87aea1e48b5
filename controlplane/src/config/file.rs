//! The configuration file.

use super::tuning::Tuning;
use super::{AddressPools, ConfigError, Flags};
use ipnet::Ipv4Net;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Far more than all keys with hundreds of pools take; what is longer is no configuration, however it ends.
const MAX_FILE_BYTES: u64 = 1 << 20;

const TEXT: &str = "a text in quotes is wanted";
const ADDRESS: &str = "an IP address in quotes is wanted, as \"192.168.0.1\"";
const PORT: &str = "a port from 1 to 65535 is wanted";

/// The keys that the file may have, but for those of [`Tuning`], and what a value of another type should have been.
const OTHER_KEYS: &[(&str, &str)] = &[
    ("advertise-addr", ADDRESS),
    ("api-socket", TEXT),
    ("bpf-object", TEXT),
    ("bpf-pin-dir", TEXT),
    ("cluster-port", PORT),
    ("data-dir", TEXT),
    ("data-path-addr", ADDRESS),
    ("data-path-port", PORT),
    (
        "default-addr-pools",
        "a list of pools is wanted, as [{\"base\": \"10.0.0.0/8\", \"size\": 24}]",
    ),
    (
        "features",
        "an object of names and choices is wanted, as {\"attach\": \"clsact\"}",
    ),
    ("gossip-port", PORT),
    ("listen-addr", ADDRESS),
    ("log-level", "trace, debug, info, warn or error in quotes is wanted"),
    (
        "network-diagnostic-port",
        "a port from 1 to 65535 is wanted, or 0, which turns the server off",
    ),
    ("node-name", TEXT),
    ("pidfile", TEXT),
    ("uplink", TEXT),
];

/// The keys that the file may have.
pub fn keys() -> Vec<&'static str> {
    let mut keys: Vec<&str> = OTHER_KEYS.iter().map(|(key, _)| *key).collect();
    keys.extend(Tuning::KEYS);
    keys.sort_unstable();
    keys
}

/// What is wanted of a key's value.
fn wanted(key: &str) -> String {
    let other = OTHER_KEYS.iter().find(|(other, _)| *other == key);
    other.map_or_else(|| Tuning::wanted(key), |(_, wanted)| (*wanted).to_owned())
}

/// What `weftd --help` says of the file.
pub(super) const HELP: &str = "The configuration file has the same keys as the flags; \"default-addr-pools\" is a list there, \
[{\"base\": \"10.0.0.0/8\", \"size\": 24}], and \"features\" an object, {\"attach\": \"clsact\"}.";

/// The file as it is written. Numbers are wider than ports, so that a wrong one can be told.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) node_name: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) listen_addr: Option<String>,
    pub(super) advertise_addr: Option<String>,
    pub(super) data_path_addr: Option<String>,
    pub(super) data_path_port: Option<u32>,
    pub(super) gossip_port: Option<u32>,
    pub(super) cluster_port: Option<u32>,
    pub(super) uplink: Option<String>,
    pub(super) default_addr_pools: Option<Vec<Pool>>,
    pub(super) network_diagnostic_port: Option<i64>,
    pub(super) api_socket: Option<PathBuf>,
    pub(super) bpf_object: Option<PathBuf>,
    pub(super) bpf_pin_dir: Option<PathBuf>,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) log_level: Option<String>,
    pub(super) features: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub(super) tuning: Tuning,
}

/// A pool as Docker's daemon.json writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    base: String,
    size: u32,
}

impl std::str::FromStr for Pool {
    type Err = String;

    /// As dockerd's flag has it: `base=10.0.0.0/8,size=24`.
    fn from_str(text: &str) -> Result<Pool, String> {
        let wanted = || format!("{text:?} is no pool: base=CIDR,size=N is wanted, as base=10.0.0.0/8,size=24");
        let (mut base, mut size) = (None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("base", value)) if base.is_none() => base = Some(value.to_owned()),
                Some(("size", value)) if size.is_none() => size = value.parse().ok(),
                _ => return Err(wanted()),
            }
        }
        Ok(Pool {
            base: base.ok_or_else(wanted)?,
            size: size.ok_or_else(wanted)?,
        })
    }
}

impl File {
    /// Reads the file. The default file need not exist, a named one must.
    pub(super) fn read(path: &Path, named: bool) -> Result<File, ConfigError> {
        let malformed = |message| ConfigError::Malformed {
            path: path.to_owned(),
            message,
        };
        let mut text = String::new();
        // One byte more than may be there tells that more is there.
        let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
        match read {
            Ok(bytes) if bytes as u64 > MAX_FILE_BYTES => {
                Err(malformed(format!("it should have at most {MAX_FILE_BYTES} bytes")))
            }
            Ok(_) => File::parse(&text).map_err(malformed),
            Err(error) if error.kind() == ErrorKind::NotFound && !named => Ok(File::default()),
            Err(source) => Err(ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            }),
        }
    }

    pub(super) fn parse(text: &str) -> Result<File, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let Some(object) = value.as_object() else {
            return Err("a JSON object {...} is wanted".to_owned());
        };
        let known = keys();
        if let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!(
                "unknown key {unknown:?}; the known keys are {}",
                known.join(", ")
            ));
        }
        // One key at a time, so that the message names it.
        for (key, value) in object {
            let single = serde_json::Value::Object(std::iter::once((key.clone(), value.clone())).collect());
            serde_json::from_value::<File>(single).map_err(|_| format!("{key} {value}: {}", wanted(key)))?;
        }
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    /// As dockerd: a key given both ways is refused, whatever its values.
    pub(super) fn refuse_twice(&self, flags: &Flags, path: &Path) -> Result<(), ConfigError> {
        let both = [
            ("node-name", self.node_name.is_some() && flags.node_name.is_some()),
            ("data-dir", self.data_dir.is_some() && flags.data_dir.is_some()),
            ("listen-addr", self.listen_addr.is_some() && flags.listen_addr.is_some()),
            (
                "advertise-addr",
                self.advertise_addr.is_some() && flags.advertise_addr.is_some(),
            ),
            (
                "data-path-addr",
                self.data_path_addr.is_some() && flags.data_path_addr.is_some(),
            ),
            (
                "data-path-port",
                self.data_path_port.is_some() && flags.data_path_port.is_some(),
            ),
            ("gossip-port", self.gossip_port.is_some() && flags.gossip_port.is_some()),
            (
                "cluster-port",
                self.cluster_port.is_some() && flags.cluster_port.is_some(),
            ),
            ("uplink", self.uplink.is_some() && flags.uplink.is_some()),
            (
                "default-addr-pools",
                self.default_addr_pools.is_some() && !flags.default_addr_pools.is_empty(),
            ),
            (
                "network-diagnostic-port",
                self.network_diagnostic_port.is_some() && flags.network_diagnostic_port.is_some(),
            ),
            ("api-socket", self.api_socket.is_some() && flags.api_socket.is_some()),
            ("bpf-object", self.bpf_object.is_some() && flags.bpf_object.is_some()),
            ("bpf-pin-dir", self.bpf_pin_dir.is_some() && flags.bpf_pin_dir.is_some()),
            ("pidfile", self.pidfile.is_some() && flags.pidfile.is_some()),
            ("log-level", self.log_level.is_some() && flags.log_level.is_some()),
            ("features", self.features.is_some() && !flags.features.is_empty()),
        ];
        let others = both.iter().filter(|(_, twice)| *twice).map(|(key, _)| *key);
        let keys: Vec<&str> = others.chain(self.tuning.also_in(&flags.tuning)).collect();
        if keys.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Twice {
                keys: keys.join(", "),
                path: path.to_owned(),
            })
        }
    }
}

/// Checks the pools (`spec/ipam.md` 6.1): networks, not overlapping, of one subnet size that leaves room for endpoints.
pub(super) fn pools(pools: Option<Vec<Pool>>) -> Result<AddressPools, ConfigError> {
    let Some(pools) = pools.filter(|pools| !pools.is_empty()) else {
        return Ok(AddressPools::default());
    };
    let wrong = |value: String, rule: &str| ConfigError::Value {
        key: "default-addr-pools",
        value,
        rule: rule.to_owned(),
    };
    let size = pools[0].size;
    let mut subnets: Vec<Ipv4Net> = Vec::new();
    for pool in &pools {
        let base: Ipv4Net = pool
            .base
            .parse()
            .map_err(|_| wrong(pool.base.clone(), "a subnet in CIDR form is wanted, as 10.0.0.0/8"))?;
        if base != base.trunc() {
            return Err(wrong(pool.base.clone(), &format!("it should be {}", base.trunc())));
        }
        if pool.size != size {
            return Err(wrong(
                format!("size {}", pool.size),
                "all pools must have the same size",
            ));
        }
        if pool.size > 29 || pool.size < u32::from(base.prefix_len()) {
            let rule = format!(
                "a prefix length from that of the pool ({}) to 29 is wanted",
                base.prefix_len()
            );
            return Err(wrong(format!("size {}", pool.size), &rule));
        }
        if let Some(other) = subnets
            .iter()
            .find(|other| other.contains(&base) || base.contains(*other))
        {
            return Err(wrong(pool.base.clone(), &format!("it overlaps {other}")));
        }
        subnets.push(base);
    }
    subnets.sort_unstable();
    Ok(AddressPools {
        subnets,
        mask_length: size as u8,
    })
}
