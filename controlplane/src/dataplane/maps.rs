//! The only writer of the programs' maps, and their reader.

use super::expiry::{OfVip, member};
use super::front::{self as fronts, Front};
use super::neighbors::Neighbors;
use super::raw::{RawMap, Reads};
use aya::Ebpf;
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray};
use aya::programs::ProgramFd;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_core::wanted::MapContents;
use weft_dataplane::abi::{
    Affinity, Attachment, Backend, BackendKey, Clamp, Connected, Counter, Endpoint, Flow, FlowKey, FragmentKey,
    FragmentPorts, MaglevKey, MaglevPart, MaglevTable, MapType, MemberKey, NamespaceKey, Network, Node, OverlayAddress,
    Peer, Seat, Service, Sizes, V4, V6, affinity, answer, attachment, backend, clamp, counter, endpoint, filter, flow,
    fragment, front, jump, load, maglev, neighbor, network, node, peer, scratch, service, socket,
};
use weft_diag::{MapDump, MapSummary};

/// How many entries one dump carries: a page that a person can still search, out of maps with a quarter of a million.
pub const MAX_DUMP_ENTRIES: usize = 10_000;

/// Names of all maps, in the order that diagnostics print them.
pub(super) const NAMES: [&str; 49] = [
    attachment::NAME,
    network::NAME,
    clamp::NAME,
    endpoint::NAME,
    endpoint::NAME6,
    peer::NAME,
    peer::NAME6,
    node::NAME,
    service::NAME,
    service::NAME6,
    backend::NAME,
    backend::NAME6,
    service::ROTATION_NAME,
    service::ROTATION_NAME6,
    maglev::TABLES_NAME,
    maglev::TABLES_NAME6,
    maglev::NAME,
    maglev::MEMBERS_NAME,
    maglev::MEMBERS_NAME6,
    load::WEIGHTS_NAME,
    load::WEIGHTS_NAME6,
    load::NAME,
    load::NAME6,
    affinity::NAME,
    affinity::NAME6,
    flow::NAME,
    flow::NAME6,
    flow::RING_NAME,
    flow::RING_NAME6,
    flow::HAND_NAME,
    filter::NAME,
    filter::STATE_NAME,
    fragment::NAME,
    fragment::NAME6,
    answer::NAME,
    counter::NAME,
    jump::NAME,
    scratch::NAME,
    scratch::NAME6,
    scratch::NEW_FLOW_NAME,
    scratch::NEW_FLOW_NAME6,
    scratch::CHOICE_NAME,
    scratch::CHOICE_NAME6,
    front::PLACES_NAME,
    front::NODES_NAME,
    front::LINKS_NAME,
    neighbor::NAME,
    socket::NAMESPACES_NAME,
    socket::SOCKETS_NAME,
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
    #[error("map {name} is full: it holds {max_entries} entries at most; {} sets more", Sizes::setting(name).unwrap_or("nothing"))]
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
    #[error("no map is named {name:?}: there are {}", VISIBLE.join(", "))]
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
pub(super) struct Table<K, V> {
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

    /// The value of a key, if it has one.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, MapsError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(kernel(self.name, error)),
        }
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

    /// Removes the entries of which `stays` says no.
    fn retain(&mut self, stays: impl Fn(&K, &V) -> bool) -> Result<(), MapsError> {
        let mut gone = Vec::new();
        for entry in self.entries() {
            let (key, value) = entry?;
            if !stays(&key, &value) {
                gone.push(key);
            }
        }
        gone.iter().try_for_each(|key| self.remove(key))
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

    /// The entries are counted by way of the map's pin, many at a time: a call for each would take seconds when there are millions.
    fn summary(&self, pins: &Path, reads: Reads) -> Result<MapSummary, MapsError> {
        let failed = |error| kernel(self.name, MapError::IoError(error));
        let map = RawMap::open(&pins.join(self.name), reads).map_err(failed)?;
        let map = map.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(MapSummary {
            name: self.name.to_owned(),
            entries: map.count().map_err(failed)?,
            max_entries: self.max_entries,
            left_out: 0,
        })
    }
}

/// The slots of a front, in an array.
pub(super) struct Slots<S: Pod> {
    name: &'static str,
    map: Array<MapData, S>,
}

impl<S: Pod> Slots<S> {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, MapsError> {
        let map = take(ebpf, name)?
            .try_into()
            .map_err(|error: MapError| MapsError::Shape {
                name,
                reason: error.to_string(),
            })?;
        Ok(Slots { name, map })
    }

    pub(super) fn read(&self, slot: u32) -> Result<S, MapsError> {
        self.map.get(&slot, 0).map_err(|error| kernel(self.name, error))
    }

    pub(super) fn write(&mut self, slot: u32, content: S) -> Result<(), MapsError> {
        self.map.set(slot, content, 0).map_err(|error| kernel(self.name, error))
    }
}

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, MapsError> {
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

/// Makes the maps of flows with memory for all entries, where they are not there yet: the object's take memory as entries come.
pub(super) fn preallocate_flows(sizes: &Sizes, pins: &Path) -> Result<(), MapsError> {
    preallocate::<FlowKey<V4>, Flow<V4>>(flow::NAME, sizes.flows * 2, pins)?;
    preallocate::<FlowKey<V6>, Flow<V6>>(flow::NAME6, sizes.flows6 * 2, pins)
}

fn preallocate<K: Pod, V: Pod>(name: &'static str, max_entries: u32, pins: &Path) -> Result<(), MapsError> {
    let pin = pins.join(name);
    if pin.exists() {
        return Ok(());
    }
    let map = HashMap::<MapData, K, V>::create(max_entries, 0).map_err(|error| kernel(name, error))?;
    map.pin(&pin).map_err(|error| {
        kernel(
            name,
            MapError::PinError {
                name: Some(name.to_owned()),
                error,
            },
        )
    })
}

/// Puts a program into a place of a program array.
pub(super) fn put_program(
    programs: &mut ProgramArray<MapData>,
    index: u32,
    program: &ProgramFd,
) -> Result<(), MapsError> {
    programs
        .set(index, program, 0)
        .map_err(|error| kernel(jump::NAME, error))
}

/// The hash maps: what each is called in [`Maps`], and of what it is.
macro_rules! tables {
    ($($field:ident: $key:ty => $value:ty, $name:path;)+) => {
        /// All maps that are read or written here. The others are the programs' own affair.
        pub(super) struct Maps {
            $(pub(super) $field: Table<$key, $value>,)+
            /// What the load looks up before the hash maps.
            pub(super) front: Front,
            /// What it sends to other nodes with.
            pub(super) neighbors: Neighbors,
            counters: PerCpuArray<MapData, u64>,
        }

        impl Maps {
            /// Takes the maps out of the loaded object.
            pub(super) fn take(ebpf: &mut Ebpf, sizes: &Sizes) -> Result<Self, MapsError> {
                Ok(Maps {
                    $($field: Table::take(ebpf, $name, sizes.of($name).unwrap_or_default())?,)+
                    front: Front::take(ebpf)?,
                    neighbors: Neighbors::take(ebpf)?,
                    counters: take(ebpf, counter::NAME)?
                        .try_into()
                        .map_err(|error: MapError| MapsError::Shape {
                            name: counter::NAME,
                            reason: error.to_string(),
                        })?,
                })
            }

            pub(super) fn dump(&self, name: &str) -> Result<MapDump, MapsError> {
                match name {
                    $($name => self.$field.dump(),)+
                    counter::NAME => self.dump_counters(),
                    _ => Err(MapsError::Unknown { name: name.to_owned() }),
                }
            }

            pub(super) fn summaries(&self, pins: &Path, reads: Reads) -> Result<Vec<MapSummary>, MapsError> {
                Ok(vec![
                    $(self.$field.summary(pins, reads)?,)+
                    MapSummary {
                        name: counter::NAME.to_owned(),
                        entries: Counter::ALL.len() as u64,
                        max_entries: counter::MAX_ENTRIES,
                        left_out: 0,
                    },
                ])
            }
        }

        /// Names of the maps that can be looked at, in the order that diagnostics print them.
        const VISIBLE: &[&str] = &[$($name,)+ counter::NAME];
    };
}

tables! {
    attachments: u32 => Attachment, attachment::NAME;
    networks: u32 => Network, network::NAME;
    clamps: u32 => Clamp, clamp::NAME;
    endpoints: OverlayAddress<V4> => Endpoint, endpoint::NAME;
    endpoints6: OverlayAddress<V6> => Endpoint, endpoint::NAME6;
    peers: OverlayAddress<V4> => Peer, peer::NAME;
    peers6: OverlayAddress<V6> => Peer, peer::NAME6;
    nodes: V6 => Node, node::NAME;
    services: OverlayAddress<V4> => Service, service::NAME;
    services6: OverlayAddress<V6> => Service, service::NAME6;
    backends: BackendKey<V4> => Backend<V4>, backend::NAME;
    backends6: BackendKey<V6> => Backend<V6>, backend::NAME6;
    rotations: OverlayAddress<V4> => u32, service::ROTATION_NAME;
    rotations6: OverlayAddress<V6> => u32, service::ROTATION_NAME6;
    maglev_tables: OverlayAddress<V4> => MaglevTable, maglev::TABLES_NAME;
    maglev_tables6: OverlayAddress<V6> => MaglevTable, maglev::TABLES_NAME6;
    maglev: MaglevKey => MaglevPart, maglev::NAME;
    maglev_members: MaglevKey => Backend<V4>, maglev::MEMBERS_NAME;
    maglev_members6: MaglevKey => Backend<V6>, maglev::MEMBERS_NAME6;
    weights: MemberKey<V4> => u32, load::WEIGHTS_NAME;
    weights6: MemberKey<V6> => u32, load::WEIGHTS_NAME6;
    loads: MemberKey<V4> => u32, load::NAME;
    loads6: MemberKey<V6> => u32, load::NAME6;
    affinities: MemberKey<V4> => Affinity<V4>, affinity::NAME;
    affinities6: MemberKey<V6> => Affinity<V6>, affinity::NAME6;
    flows: FlowKey<V4> => Flow<V4>, flow::NAME;
    flows6: FlowKey<V6> => Flow<V6>, flow::NAME6;
    fragments: FragmentKey<V4> => FragmentPorts, fragment::NAME;
    fragments6: FragmentKey<V6> => FragmentPorts, fragment::NAME6;
    answers: u32 => u64, answer::NAME;
    namespaces: NamespaceKey => Seat, socket::NAMESPACES_NAME;
    sockets: u64 => Connected, socket::SOCKETS_NAME;
}

/// Performs a step on the table that it names.
macro_rules! perform {
    ($maps:ident, $step:ident, $($variant:ident: $field:ident,)+) => {
        match *$step {
            $(Step::Put(Entry::$variant(key, value)) => $maps.$field.put(key, value),)+
            $(Step::Remove(EntryKey::$variant(key)) => $maps.$field.remove(&key),)+
        }
    };
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maps")
    }
}

impl Maps {
    pub(super) fn present(&self) -> Result<MapContents, MapsError> {
        Ok(MapContents {
            attachments: self.attachments.read()?,
            networks: self.networks.read()?,
            clamps: self.clamps.read()?,
            endpoints: self.endpoints.read()?,
            endpoints6: self.endpoints6.read()?,
            peers: self.peers.read()?,
            peers6: self.peers6.read()?,
            nodes: self.nodes.read()?,
            services: self.services.read()?,
            services6: self.services6.read()?,
            backends: self.backends.read()?,
            backends6: self.backends6.read()?,
            maglev_tables: self.maglev_tables.read()?,
            maglev_tables6: self.maglev_tables6.read()?,
            maglev: self.maglev.read()?,
            maglev_members: self.maglev_members.read()?,
            maglev_members6: self.maglev_members6.read()?,
            weights: self.weights.read()?,
            weights6: self.weights6.read()?,
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
        let Some(key) = fronts::Key::of(step) else {
            return self.perform_behind(step);
        };
        self.front.leave(key)?;
        self.neighbors.leave(step)?;
        let performed = self.perform_behind(step);
        if performed.is_ok() {
            self.neighbors.note(step);
        }
        // Also of what is there after a failure.
        fronts::enter(self, key)?;
        performed
    }

    /// Performs a step on the hash maps, which are behind their fronts.
    fn perform_behind(&mut self, step: &Step) -> Result<(), MapsError> {
        perform! {
            self, step,
            Attachment: attachments,
            Network: networks,
            Clamp: clamps,
            Endpoint: endpoints,
            Endpoint6: endpoints6,
            Peer: peers,
            Peer6: peers6,
            Node: nodes,
            Service: services,
            Service6: services6,
            Backend: backends,
            Backend6: backends6,
            MaglevTable: maglev_tables,
            MaglevTable6: maglev_tables6,
            MaglevPart: maglev,
            MaglevMember: maglev_members,
            MaglevMember6: maglev_members6,
            Weight: weights,
            Weight6: weights6,
        }?;
        // The kernel made the virtual IP's position; nobody else would remove it.
        match step {
            Step::Remove(EntryKey::Service(key)) => self.rotations.remove(key),
            Step::Remove(EntryKey::Service6(key)) => self.rotations6.remove(key),
            _ => Ok(()),
        }
    }

    /// The namespaces of the endpoints of this node, all of them.
    pub(super) fn put_namespaces(&mut self, wanted: &BTreeMap<NamespaceKey, Seat>) -> Result<(), MapsError> {
        let present = self.namespaces.read()?;
        for key in present.keys().filter(|key| !wanted.contains_key(*key)) {
            self.namespaces.remove(key)?;
        }
        for (key, seat) in wanted.iter().filter(|(key, seat)| present.get(*key) != Some(*seat)) {
            self.namespaces.put(*key, *seat)?;
        }
        Ok(())
    }

    /// No socket was balanced when it connected.
    pub(super) fn forget_sockets(&mut self) -> Result<(), MapsError> {
        self.sockets.retain(|_, _| false)
    }

    /// The nodes that are in the kernel.
    pub(super) fn read_nodes(&self) -> Result<BTreeMap<V6, Node>, MapsError> {
        self.nodes.read()
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

    pub(super) fn counters(&self) -> Result<Vec<(Counter, u64)>, MapsError> {
        Counter::ALL
            .iter()
            .map(|counter| Ok((*counter, self.counter(*counter)?)))
            .collect()
    }

    pub(super) fn counter(&self, counter: Counter) -> Result<u64, MapsError> {
        let values = self.counters.get(&(counter as u32), 0);
        Ok(values.map_err(|error| kernel(counter::NAME, error))?.iter().sum())
    }

    /// Clients forget backends that take nothing new.
    pub(super) fn keep_members(&mut self, stay: &OfVip<V4>, stay6: &OfVip<V6>) -> Result<(), MapsError> {
        self.affinities
            .retain(|client, affinity| member(stay, client.network_vip(), affinity.backend) == Some(true))?;
        self.affinities6
            .retain(|client, affinity| member(stay6, client.network_vip(), affinity.backend) == Some(true))
    }

    /// Nothing is counted any more of backends that have gone.
    pub(super) fn keep_loads(&mut self, stay: &OfVip<V4>, stay6: &OfVip<V6>) -> Result<(), MapsError> {
        self.loads
            .retain(|backend, _| member(stay, backend.network_vip(), backend.ip).is_some())?;
        self.loads6
            .retain(|backend, _| member(stay6, backend.network_vip(), backend.ip).is_some())
    }
}
