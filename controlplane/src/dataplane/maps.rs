//! The only writer of the programs' maps, and their reader.

use aya::Ebpf;
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use std::collections::BTreeMap;
use std::fmt;
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_core::wanted::MapContents;
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Counter, Endpoint, Flow, FlowKey, MapType, Network, Node, OverlayAddress, Peer,
    Service, answer, attachment, backend, counter, endpoint, flow, network, node, peer, service,
};
use weft_diag::{MapDump, MapSummary};

/// How many entries one dump carries: a page that a person can still search, out of maps with a quarter of a million.
pub const MAX_DUMP_ENTRIES: usize = 10_000;

/// Names of all maps, in the order that diagnostics print them.
pub(super) const NAMES: [&str; 11] = [
    attachment::NAME,
    network::NAME,
    endpoint::NAME,
    peer::NAME,
    node::NAME,
    service::NAME,
    backend::NAME,
    service::ROTATION_NAME,
    flow::NAME,
    answer::NAME,
    counter::NAME,
];

/// Why a map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    /// The object has no such map, or one of another shape.
    #[error("map {name} of the eBPF object is not as this weftd knows it: {reason}")]
    Shape {
        /// Which map.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The map is full. It is as it was.
    #[error("map {name} is full: it holds {max_entries} entries at most")]
    Full {
        /// Which map.
        name: &'static str,
        /// Its limit.
        max_entries: u32,
    },
    /// The kernel refused. The map is as it was.
    #[error("map {name}: {source}")]
    Kernel {
        /// Which map.
        name: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// There is no map of this name.
    #[error("no map is named {name:?}: there are {}", NAMES.join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
}

/// Some steps could not be done; the others were.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {steps} map steps failed, the first: {first}")]
pub struct ApplyError {
    /// How many failed.
    pub failed: usize,
    /// How many there were.
    pub steps: usize,
    /// Why the first one failed.
    pub first: MapsError,
}

/// A hash map with its name and limit, which errors tell.
struct Table<K, V> {
    name: &'static str,
    max_entries: u32,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod + MapType + Ord, V: Pod + MapType> Table<K, V> {
    fn take(ebpf: &mut Ebpf, name: &'static str, max_entries: u32) -> Result<Self, MapsError> {
        let map = take(ebpf, name)?
            .try_into()
            .map_err(|error: MapError| MapsError::Shape {
                name,
                reason: error.to_string(),
            })?;
        Ok(Table { name, max_entries, map })
    }

    fn put(&mut self, key: K, value: V) -> Result<(), MapsError> {
        match self.map.insert(key, value, 0) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::E2BIG) => {
                Err(MapsError::Full {
                    name: self.name,
                    max_entries: self.max_entries,
                })
            }
            other => other.map_err(|error| kernel(self.name, error)),
        }
    }

    fn remove(&mut self, key: &K) -> Result<(), MapsError> {
        match self.map.remove(key) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(()),
            Err(MapError::KeyNotFound) => Ok(()),
            other => other.map_err(|error| kernel(self.name, error)),
        }
    }

    /// The entries, at most as many as the map may hold: while the kernel writes, a walk may come by an entry twice.
    fn entries(&self) -> impl Iterator<Item = Result<(K, V), MapsError>> {
        self.map
            .iter()
            .take(self.max_entries as usize)
            .map(|entry| entry.map_err(|error| kernel(self.name, error)))
    }

    fn read(&self) -> Result<BTreeMap<K, V>, MapsError> {
        self.entries().collect()
    }

    fn dump(&self) -> Result<MapDump, MapsError> {
        let mut entries = Vec::new();
        for entry in self.entries().take(MAX_DUMP_ENTRIES + 1) {
            let (key, value) = entry?;
            entries.push((key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
        let truncated = entries.len() > MAX_DUMP_ENTRIES;
        entries.truncate(MAX_DUMP_ENTRIES);
        entries.sort_unstable();
        Ok(MapDump {
            name: self.name.to_owned(),
            max_entries: self.max_entries,
            entries,
            truncated,
        })
    }

    fn summary(&self) -> Result<MapSummary, MapsError> {
        let mut entries = 0;
        for key in self.map.keys().take(self.max_entries as usize) {
            key.map_err(|error| kernel(self.name, error))?;
            entries += 1;
        }
        Ok(MapSummary {
            name: self.name.to_owned(),
            entries,
            max_entries: self.max_entries,
        })
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, MapsError> {
    ebpf.take_map(name).ok_or(MapsError::Shape {
        name,
        reason: "it is missing".to_owned(),
    })
}

fn kernel(name: &'static str, error: MapError) -> MapsError {
    MapsError::Kernel {
        name,
        source: Box::new(error),
    }
}

/// All maps.
pub(super) struct Maps {
    attachments: Table<u32, Attachment>,
    networks: Table<u32, Network>,
    endpoints: Table<OverlayAddress, Endpoint>,
    peers: Table<OverlayAddress, Peer>,
    nodes: Table<[u8; 4], Node>,
    services: Table<OverlayAddress, Service>,
    backends: Table<BackendKey, Backend>,
    rotations: Table<OverlayAddress, u32>,
    flows: Table<FlowKey, Flow>,
    answers: Table<u32, u64>,
    counters: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maps")
    }
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Ok(Maps {
            attachments: Table::take(ebpf, attachment::NAME, attachment::MAX_ENTRIES)?,
            networks: Table::take(ebpf, network::NAME, network::MAX_ENTRIES)?,
            endpoints: Table::take(ebpf, endpoint::NAME, endpoint::MAX_ENTRIES)?,
            peers: Table::take(ebpf, peer::NAME, peer::MAX_ENTRIES)?,
            nodes: Table::take(ebpf, node::NAME, node::MAX_ENTRIES)?,
            services: Table::take(ebpf, service::NAME, service::MAX_ENTRIES)?,
            backends: Table::take(ebpf, backend::NAME, backend::MAX_ENTRIES)?,
            rotations: Table::take(ebpf, service::ROTATION_NAME, service::MAX_ENTRIES)?,
            flows: Table::take(ebpf, flow::NAME, flow::MAX_ENTRIES)?,
            answers: Table::take(ebpf, answer::NAME, answer::MAX_ENTRIES)?,
            counters: take(ebpf, counter::NAME)?
                .try_into()
                .map_err(|error: MapError| MapsError::Shape {
                    name: counter::NAME,
                    reason: error.to_string(),
                })?,
        })
    }

    pub(super) fn present(&self) -> Result<MapContents, MapsError> {
        Ok(MapContents {
            attachments: self.attachments.read()?,
            networks: self.networks.read()?,
            endpoints: self.endpoints.read()?,
            peers: self.peers.read()?,
            nodes: self.nodes.read()?,
            services: self.services.read()?,
            backends: self.backends.read()?,
        })
    }

    pub(super) fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        let mut failed = 0;
        let mut first = None;
        for step in steps {
            if let Err(error) = self.perform(step) {
                failed += 1;
                first.get_or_insert(error);
            }
        }
        match first {
            None => Ok(()),
            Some(first) => Err(ApplyError {
                failed,
                steps: steps.len(),
                first,
            }),
        }
    }

    fn perform(&mut self, step: &Step) -> Result<(), MapsError> {
        match *step {
            Step::Put(entry) => match entry {
                Entry::Attachment(key, value) => self.attachments.put(key, value),
                Entry::Network(key, value) => self.networks.put(key, value),
                Entry::Endpoint(key, value) => self.endpoints.put(key, value),
                Entry::Peer(key, value) => self.peers.put(key, value),
                Entry::Node(key, value) => self.nodes.put(key, value),
                Entry::Service(key, value) => self.services.put(key, value),
                Entry::Backend(key, value) => self.backends.put(key, value),
            },
            Step::Remove(key) => match key {
                EntryKey::Attachment(key) => self.attachments.remove(&key),
                EntryKey::Network(key) => self.networks.remove(&key),
                EntryKey::Endpoint(key) => self.endpoints.remove(&key),
                EntryKey::Peer(key) => self.peers.remove(&key),
                EntryKey::Node(key) => self.nodes.remove(&key),
                // The kernel made the virtual IP's position; nobody else would remove it.
                EntryKey::Service(key) => self.services.remove(&key).and_then(|()| self.rotations.remove(&key)),
                EntryKey::Backend(key) => self.backends.remove(&key),
            },
        }
    }

    pub(super) fn dump(&self, name: &str) -> Result<MapDump, MapsError> {
        match name {
            attachment::NAME => self.attachments.dump(),
            network::NAME => self.networks.dump(),
            endpoint::NAME => self.endpoints.dump(),
            peer::NAME => self.peers.dump(),
            node::NAME => self.nodes.dump(),
            service::NAME => self.services.dump(),
            backend::NAME => self.backends.dump(),
            service::ROTATION_NAME => self.rotations.dump(),
            flow::NAME => self.flows.dump(),
            answer::NAME => self.answers.dump(),
            counter::NAME => self.dump_counters(),
            _ => Err(MapsError::Unknown { name: name.to_owned() }),
        }
    }

    fn dump_counters(&self) -> Result<MapDump, MapsError> {
        let bytes = |(counter, packets): (Counter, u64)| {
            let index = counter as u32;
            (index.to_ne_bytes().to_vec(), packets.to_ne_bytes().to_vec())
        };
        Ok(MapDump {
            name: counter::NAME.to_owned(),
            max_entries: counter::MAX_ENTRIES,
            entries: self.counters()?.into_iter().map(bytes).collect(),
            truncated: false,
        })
    }

    pub(super) fn summaries(&self) -> Result<Vec<MapSummary>, MapsError> {
        Ok(vec![
            self.attachments.summary()?,
            self.networks.summary()?,
            self.endpoints.summary()?,
            self.peers.summary()?,
            self.nodes.summary()?,
            self.services.summary()?,
            self.backends.summary()?,
            self.rotations.summary()?,
            self.flows.summary()?,
            self.answers.summary()?,
            MapSummary {
                name: counter::NAME.to_owned(),
                entries: Counter::ALL.len() as u64,
                max_entries: counter::MAX_ENTRIES,
            },
        ])
    }

    pub(super) fn counters(&self) -> Result<Vec<(Counter, u64)>, MapsError> {
        Counter::ALL
            .iter()
            .map(|counter| {
                let values = self
                    .counters
                    .get(&(*counter as u32), 0)
                    .map_err(|error| kernel(counter::NAME, error))?;
                Ok((*counter, values.iter().sum()))
            })
            .collect()
    }

    pub(super) fn forget_flows(&mut self, backend: OverlayAddress) -> Result<usize, MapsError> {
        let concerns = |key: &FlowKey, flow: &Flow| {
            let replies = flow.flags & flow::REPLY != 0;
            key.vni == backend.vni && (if replies { key.source } else { flow.destination }) == backend.ip
        };
        let mut keys = Vec::new();
        for entry in self.flows.entries() {
            let (key, flow) = entry?;
            if concerns(&key, &flow) {
                keys.push(key);
            }
        }
        for key in &keys {
            self.flows.remove(key)?;
        }
        Ok(keys.len())
    }
}
