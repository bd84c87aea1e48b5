//! From the maps that are pinned to the maps of this weftd, while the programs of the earlier one go on.
//!
//! What did not change is shared: the new programs use the very same map. What changed is made anew beside the old, filled from it, and
//! after every link has the new program, filled once more with what changed meanwhile. Until then nothing of the old is touched.

use super::convert::{self, Bytes, Control, ConvertEntry, READABLE_BY};
use super::pins::{Generation, Pins};
use super::raw::{RawMap, Reads, Shape};
use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use weft_core::wanted::MapContents;
use weft_dataplane::abi::{
    ABI_VERSION, MapType, Sizes, attachment, backend, clamp, endpoint, filter, flow, front, load, maglev, network,
    node, peer, scratch, service, socket,
};

/// The maps that the daemon writes; all others are the kernel's. Those of IPv6 have a 6 at their end.
const CONTROL: [&str; 13] = [
    attachment::NAME,
    network::NAME,
    clamp::NAME,
    endpoint::NAME,
    peer::NAME,
    node::NAME,
    service::NAME,
    backend::NAME,
    maglev::TABLES_NAME,
    maglev::NAME,
    maglev::MEMBERS_NAME,
    load::WEIGHTS_NAME,
    socket::NAMESPACES_NAME,
];

fn is_control(map: &str) -> bool {
    CONTROL.contains(&map.trim_end_matches('6'))
}

/// Whether nothing in the map outlives a packet.
fn is_scratch(map: &str) -> bool {
    [scratch::NAME, scratch::NEW_FLOW_NAME, scratch::CHOICE_NAME].contains(&map.trim_end_matches('6'))
}

/// Whether the map says nothing that another one does not.
fn is_front(map: &str) -> bool {
    [front::PLACES_NAME, front::NODES_NAME, front::LINKS_NAME].contains(&map)
}

/// Why pinned maps could not be taken over. They, and the programs that use them, are as they were.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Another version wrote them, and nothing is known of it.
    #[error(
        "the maps in {} obey contract version {found}, this weftd has {ABI_VERSION} and cannot convert them: start a weftd of that version again, or `weftd --cleanup`, which ends all overlay connections of this host, and then this one", directory.display()
    )]
    OtherVersion {
        /// Where they are.
        directory: PathBuf,
        /// Their version.
        found: u32,
    },
    /// A map of the same version, or of one that can be converted, is not as that version has it.
    #[error(
        "pinned map {} has keys of {key_bytes} and values of {value_bytes} bytes, which is not how contract version {contract} has it: `weftd --cleanup` removes it with all others", path.display()
    )]
    Shape {
        /// The pin.
        path: PathBuf,
        /// Bytes of its keys.
        key_bytes: usize,
        /// Bytes of its values.
        value_bytes: usize,
        /// The version.
        contract: u32,
    },
    /// A map is to become smaller than what it holds.
    #[error(
        "{setting} leaves map {map} room for {room} entries, but it holds {entries}: set {setting} to {least} or more"
    )]
    TooSmall {
        /// The key of the configuration.
        setting: &'static str,
        /// Which map.
        map: &'static str,
        /// What would fit.
        room: u32,
        /// What there is.
        entries: u64,
        /// What would do.
        least: u64,
    },
    /// An entry could not be copied.
    #[error("pinned map {} cannot be copied: {source}", path.display())]
    Copy {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pin cannot be made, read or removed.
    #[error("pins in {}: {source}", directory.display())]
    Pins {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What becomes of an old map's entries.
#[derive(Clone, Copy, Debug)]
enum How {
    /// They stay as they are.
    Whole,
    /// Of each key and value, so many bytes of the beginning.
    Beginning(usize, usize),
    /// A function of the table makes them anew.
    By(ConvertEntry),
}

impl How {
    fn convert(self, key: &[u8], value: &[u8]) -> Option<Bytes> {
        match self {
            How::Whole => Some((key.to_vec(), value.to_vec())),
            How::Beginning(key_bytes, value_bytes) => {
                Some((key.get(..key_bytes)?.to_vec(), value.get(..value_bytes)?.to_vec()))
            }
            How::By(convert) => convert(key, value),
        }
    }
}

/// How the maps of an old generation relate to ours.
#[derive(Clone, Copy, Debug)]
enum Relation {
    /// The same version.
    Same,
    /// A newer one, whose keys and values begin as ours.
    Longer,
    /// One of the table.
    Row(&'static convert::From),
}

impl Relation {
    fn of(generation: Generation) -> Option<Relation> {
        if generation.contract == ABI_VERSION {
            return Some(Relation::Same);
        }
        let row = convert::from(generation.contract).map(Relation::Row);
        let readable = generation.readable_by <= ABI_VERSION && ABI_VERSION < generation.contract;
        row.or(readable.then_some(Relation::Longer))
    }

    fn converter(self, map: &str) -> Option<ConvertEntry> {
        match self {
            Relation::Row(row) => row.entries.iter().find(|(name, _)| *name == map).map(|(_, by)| *by),
            _ => None,
        }
    }

    fn makes_control_anew(self) -> bool {
        matches!(self, Relation::Row(row) if matches!(row.control, Control::Anew(_)))
    }

    /// Whether the new programs can use the old map itself.
    fn shares(self, map: &str, old: Shape, new: Shape) -> bool {
        old == new && self.converter(map).is_none() && !(is_control(map) && self.makes_control_anew())
    }

    /// How a map that is not shared is copied; `None` if it cannot be.
    fn how(self, map: &str, old: Shape, new: Shape) -> Option<How> {
        if let Some(by) = self.converter(map) {
            return Some(How::By(by));
        }
        let longer = old.key_bytes >= new.key_bytes && old.value_bytes >= new.value_bytes;
        match self {
            _ if (old.key_bytes, old.value_bytes) == (new.key_bytes, new.value_bytes) => Some(How::Whole),
            Relation::Longer if longer => Some(How::Beginning(new.key_bytes, new.value_bytes)),
            _ => None,
        }
    }
}

/// A map that is copied.
#[derive(Debug)]
struct Copying {
    how: How,
    old: RawMap,
    old_path: PathBuf,
    new: RawMap,
    /// What was copied: hashes of keys and values, so that a second pass finds what changed.
    copied: HashMap<u64, u64>,
}

impl Copying {
    /// Copies what is new or changed since the last pass; how many entries that were.
    fn pass(&mut self, hasher: &RandomState) -> Result<usize, MigrateError> {
        let (how, new, copied) = (self.how, &self.new, &mut self.copied);
        let (mut count, zeros) = (0, self.old.begins_with_zeros());
        let result = self.old.entries(|key, value| {
            if new.is_array() && beyond(key, new) {
                return Ok(());
            }
            let (key_hash, value_hash) = (hasher.hash_one(key), hasher.hash_one(value));
            let before = copied.get(&key_hash);
            // Of an array most is unused, and the new one has the same zeros.
            let unused = before.is_none() && zeros && value.iter().all(|byte| *byte == 0);
            if before == Some(&value_hash) || unused {
                return Ok(());
            }
            copied.insert(key_hash, value_hash);
            count += 1;
            match how.convert(key, value) {
                Some((key, value)) => new.put(&key, &value),
                None => Ok(()),
            }
        });
        result.map_err(|source| self.failed(source))?;
        Ok(count)
    }

    fn add_missing(&self) -> Result<(), MigrateError> {
        let result = self.old.entries(|key, value| match self.how.convert(key, value) {
            Some((key, value)) => self.new.put_missing(&key, &value),
            None => Ok(()),
        });
        result.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> MigrateError {
        MigrateError::Copy {
            path: self.old_path.clone(),
            source,
        }
    }
}

/// The takeover of what is pinned, from the plan to the end.
#[derive(Debug)]
pub(super) struct Takeover {
    pins: Pins,
    /// What is there and counts, and how it relates to ours.
    old: Option<(Generation, Relation)>,
    /// What a start left that was killed before its end, the oldest first.
    interrupted: Vec<Generation>,
    /// What there will be; the old one itself if nothing changed.
    target: Generation,
    copying: Vec<Copying>,
    /// A front is made anew.
    front_is_new: bool,
    hasher: RandomState,
    reads: Reads,
}

impl Takeover {
    /// Looks at what is pinned. Refuses what cannot be taken over; changes nothing.
    pub(super) fn plan(pins: Pins, reads: Reads) -> Result<Takeover, MigrateError> {
        let mut interrupted = pins.generations().map_err(|source| pins_failed(&pins, source))?;
        let old = match interrupted.pop() {
            None => None,
            Some(newest) => match Relation::of(newest) {
                Some(relation) => Some((newest, relation)),
                None => {
                    return Err(MigrateError::OtherVersion {
                        directory: pins.path(newest),
                        found: newest.contract,
                    });
                }
            },
        };
        let target = Generation {
            number: old.map_or(0, |(newest, _)| newest.number) + 1,
            contract: ABI_VERSION,
            readable_by: READABLE_BY,
        };
        Ok(Takeover {
            pins,
            old,
            interrupted,
            target,
            copying: Vec::new(),
            front_is_new: false,
            hasher: RandomState::new(),
            reads,
        })
    }

    /// Where the object's maps are to be pinned: first all of them as the object has them, by `load`. Those that the old generation
    /// has just so are then exchanged for it, and `load` takes them up.
    pub(super) fn prepare<T, E: std::convert::From<MigrateError>>(
        &mut self,
        names: &[&'static str],
        load: impl Fn(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let reads = self.reads;
        let failed = |source| E::from(pins_failed(&self.pins, source));
        let directory = self.pins.begin().map_err(failed)?;
        let loaded = load(&directory)?;
        let Some((generation, relation)) = self.old else {
            return Ok(loaded);
        };
        let (mut shared, mut changed) = (Vec::new(), false);
        for name in names {
            let (old_path, new_path) = (self.pins.path(generation).join(name), directory.join(name));
            let open = |path: &Path| RawMap::open(path, reads).map_err(failed);
            let (Some(old), Some(new)) = (open(&old_path)?, open(&new_path)?) else {
                continue;
            };
            if relation.shares(name, old.shape(), new.shape()) {
                shared.push((old_path, new_path, new.refers_to_programs()));
                continue;
            }
            // The filter is made anew from the connections anyhow.
            if is_front(name) || *name == filter::NAME {
                changed = true;
                self.front_is_new |= is_front(name);
                continue;
            }
            if relation.makes_control_anew() && is_control(name) || is_scratch(name) || !new.is_copied() {
                changed = true;
                continue;
            }
            let how = relation.how(name, old.shape(), new.shape());
            let how = how.ok_or_else(|| {
                let Shape {
                    key_bytes, value_bytes, ..
                } = old.shape();
                MigrateError::Shape {
                    path: old_path.clone(),
                    key_bytes,
                    value_bytes,
                    contract: generation.contract,
                }
            })?;
            fits(name, &old, &new).map_err(|error| match error {
                Unfit::Refused(error) => E::from(error),
                Unfit::Unread(source) => failed(source),
            })?;
            self.copying.push(Copying {
                how,
                old,
                old_path,
                new,
                copied: HashMap::new(),
            });
        }
        let same = self.copying.is_empty() && !changed && shared.len() == names.len();
        if same && generation.number > 0 && generation.contract == ABI_VERSION {
            // Nothing changed: an ordinary restart.
            self.pins.discard_unfinished().map_err(failed)?;
            self.target = generation;
            return load(&self.pins.path(generation));
        }
        for (old_path, new_path, refers) in shared {
            // What refers to programs would lead the old ones to the new.
            if refers {
                continue;
            }
            fs::remove_file(&new_path)
                .and_then(|()| fs::hard_link(&old_path, &new_path))
                .map_err(failed)?;
        }
        drop(loaded);
        load(&directory)
    }

    /// The control maps' content, if it is made anew.
    pub(super) fn control(&self) -> Result<Option<MapContents>, MigrateError> {
        let Some((
            generation,
            Relation::Row(convert::From {
                control: Control::Anew(make),
                ..
            }),
        )) = self.old
        else {
            return Ok(None);
        };
        let directory = self.pins.path(generation);
        let failure = std::cell::RefCell::new(None);
        let read = |name: &str| {
            let path = directory.join(name);
            let mut entries = Vec::new();
            let walked = RawMap::open(&path, self.reads).and_then(|map| match map {
                Some(map) => map.entries(|key, value| {
                    entries.push((key.to_vec(), value.to_vec()));
                    Ok(())
                }),
                None => Ok(()),
            });
            if let Err(source) = walked {
                failure.borrow_mut().get_or_insert(MigrateError::Copy { path, source });
            }
            entries
        };
        let contents = make(&read);
        match failure.into_inner() {
            Some(error) => Err(error),
            None => Ok(Some(contents)),
        }
    }

    /// Copies what is to be copied, and gives the new generation its name. The old programs go on with the old maps.
    pub(super) fn commit(&mut self) -> Result<(), MigrateError> {
        if self.pins.unfinished().exists() {
            for copying in &mut self.copying {
                copying.pass(&self.hasher)?;
            }
            // The first pass may have taken a while; this one is short, and so is what the last has to do. The rings of connections are
            // copied before these: of those that begin between this and the last pass the new programs do not know yet.
            for copying in self.copying.iter_mut().rev() {
                let entries = copying.pass(&self.hasher)?;
                tracing::info!(map = %copying.old_path.display(), entries = copying.copied.len(), again = entries, "pinned map converted");
            }
            self.pins
                .finish(self.target)
                .map_err(|source| pins_failed(&self.pins, source))?;
        }
        Ok(())
    }

    /// The directory of our maps' pins.
    pub(super) fn directory(&self) -> PathBuf {
        self.pins.path(self.target)
    }

    /// Whether a front is empty beside hash maps that are not.
    pub(super) fn front_is_new(&self) -> bool {
        self.front_is_new
    }

    /// Where the old generation has a map, if connections are copied from that.
    pub(super) fn copies_connections_beside(&self, name: &str) -> Option<PathBuf> {
        let of_connections = |copying: &&Copying| {
            let map = copying.old_path.file_name().and_then(|map| map.to_str());
            map.is_some_and(|map| [flow::NAME, flow::NAME6].contains(&map))
        };
        let copying = self.copying.iter().find(of_connections)?;
        Some(copying.old_path.with_file_name(name))
    }

    /// After every link has its new program: copies what the old ones changed meanwhile, and those of starts that were killed before their
    /// end. What cannot be done is told: the new programs are there, and the next start would not do better.
    pub(super) fn catch_up(&mut self, names: &[&'static str]) {
        self.pass();
        for generation in self.interrupted.iter().rev() {
            self.add_missing(*generation, names).unwrap_or_else(tell);
        }
    }

    fn pass(&mut self) {
        for copying in &mut self.copying {
            match copying.pass(&self.hasher) {
                Ok(entries) => {
                    tracing::debug!(map = %copying.old_path.display(), entries, "changed while programs were replaced");
                }
                Err(error) => tell(error),
            }
        }
    }

    /// After no program uses the old maps any more: copies the rest, and unpins them.
    pub(super) fn finish(mut self) {
        self.pass();
        let superseded = self.old.map(|(old, _)| old).filter(|old| *old != self.target);
        for generation in self.interrupted.iter().chain(&superseded) {
            let removed = self.pins.remove(*generation);
            removed
                .map_err(|source| pins_failed(&self.pins, source))
                .unwrap_or_else(tell);
        }
    }

    /// Adds what the kernel wrote into maps of a generation that is not used any more.
    fn add_missing(&self, generation: Generation, names: &[&'static str]) -> Result<(), MigrateError> {
        let Some(relation) = Relation::of(generation) else {
            return Ok(());
        };
        let is_kept = |name: &str| !is_control(name) && !is_scratch(name) && name != filter::STATE_NAME;
        for name in names.iter().filter(|name| is_kept(name)) {
            let (old_path, new_path) = (self.pins.path(generation).join(name), self.directory().join(name));
            let open = |path: &Path| RawMap::open(path, self.reads).map_err(|source| pins_failed(&self.pins, source));
            let (Some(old), Some(new)) = (open(&old_path)?, open(&new_path)?) else {
                continue;
            };
            if old.id() == new.id() || !new.is_copied() {
                continue;
            }
            if let Some(how) = relation.how(name, old.shape(), new.shape()) {
                Copying {
                    how,
                    old,
                    old_path,
                    new,
                    copied: HashMap::new(),
                }
                .add_missing()?;
            }
        }
        Ok(())
    }
}

fn tell(error: MigrateError) {
    tracing::error!(%error, "the takeover of an earlier version's maps is not complete");
}

/// Whether the key of an array is none of the new one's.
fn beyond(key: &[u8], new: &RawMap) -> bool {
    u32::from_bytes(key).is_some_and(|index| index >= new.shape().max_entries)
}

/// Why a map's content has no room in another, or whether that is unknown.
enum Unfit {
    Refused(MigrateError),
    Unread(io::Error),
}

/// Refuses a map that is smaller than the content of the old one. Of an array, places are given up: nothing but the order in which
/// connections are looked at is lost.
fn fits(map: &'static str, old: &RawMap, new: &RawMap) -> Result<(), Unfit> {
    let room = new.shape().max_entries;
    if room >= old.shape().max_entries || new.is_array() || new.is_lru() {
        return Ok(());
    }
    let entries = old.count().map_err(Unfit::Unread)?;
    if entries <= u64::from(room) {
        return Ok(());
    }
    let twice = matches!(map, flow::NAME | flow::NAME6);
    Err(Unfit::Refused(MigrateError::TooSmall {
        setting: Sizes::setting(map).unwrap_or("its size"),
        map,
        room,
        entries,
        least: if twice { entries.div_ceil(2) } else { entries },
    }))
}

fn pins_failed(pins: &Pins, source: io::Error) -> MigrateError {
    MigrateError::Pins {
        directory: pins.directory().to_owned(),
        source,
    }
}
