//! `jumps`: which programs others go on in, and those of an earlier generation that decide on connections which are still to be copied
//! from its maps.

use super::maps::{self, MapsError};
use super::raw::{RawMap, Reads};
use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, loaded_programs};
use std::io;
use std::path::Path;
use weft_dataplane::abi::jump::{self, OLD_EGRESS, OLD_INGRESS, OLD_OPENING, OWN_EGRESS, OWN_INGRESS};

/// Which of the earlier generation's programs goes where.
const CONSULTED: [(u32, u32); 3] = [
    (OWN_INGRESS, OLD_INGRESS),
    (OWN_EGRESS, OLD_EGRESS),
    (OWN_EGRESS, OLD_OPENING),
];

/// The map of this generation.
pub(super) struct Jumps(ProgramArray<MapData>);

impl Jumps {
    /// Puts the loaded programs where those that go on in them look for them.
    pub(super) fn put(ebpf: &mut Ebpf) -> Result<Jumps, MapsError> {
        let shape = |reason: String| MapsError::Shape {
            name: jump::NAME,
            reason,
        };
        let map = maps::take(ebpf, jump::NAME)?;
        let mut jumps = ProgramArray::try_from(map).map_err(|error| shape(error.to_string()))?;
        for (index, name) in jump::PROGRAMS.into_iter().chain(jump::OWN) {
            let program: Result<&SchedClassifier, _> = ebpf
                .program(name)
                .ok_or_else(|| shape(format!("program {name} is missing")))?
                .try_into();
            let program = program.and_then(|program| program.fd());
            let program = program.map_err(|error| shape(error.to_string()))?;
            maps::put_program(&mut jumps, index, program)?;
        }
        Ok(Jumps(jumps))
    }

    /// From now on the programs of the generation whose `jumps` are pinned there decide on connections that ours do not know. Without
    /// them, as one of a version that does not tell its programs, a connection that begins before [`end`](Self::end) may be lost.
    pub(super) fn consult(&mut self, old: &Path, reads: Reads) {
        for (from, to) in CONSULTED {
            let set = program_at(old, from, reads)
                .and_then(|program| maps::put_program(&mut self.0, to, &program).map_err(io::Error::other));
            if let Err(error) = set {
                tracing::info!(jumps = %old.display(), slot = from, %error, "the earlier programs are not asked about new connections");
            }
        }
    }

    /// All links have our programs: what opens a connection is our own affair.
    pub(super) fn open_ourselves(&mut self) {
        self.clear(OLD_OPENING);
    }

    /// All connections are here.
    pub(super) fn end(&mut self) {
        for (_, to) in CONSULTED {
            self.clear(to);
        }
    }

    fn clear(&mut self, index: u32) {
        // An error says that the place is empty.
        if let Err(error) = self.0.clear_index(&index) {
            tracing::debug!(index, %error, "no program taken out of jumps");
        }
    }
}

/// The program at a place of pinned `jumps`: the kernel tells its id.
fn program_at(jumps: &Path, index: u32, reads: Reads) -> io::Result<ProgramFd> {
    let none = || io::Error::from(io::ErrorKind::NotFound);
    let map = RawMap::open(jumps, reads)?.ok_or_else(none)?;
    let id = map.get(&index.to_ne_bytes())?.ok_or_else(none)?;
    let id = id
        .first_chunk()
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or_else(none)?;
    let mut programs = loaded_programs().filter_map(Result::ok);
    let program = programs.find(|program| program.id() == id).ok_or_else(none)?;
    program.fd().map_err(io::Error::other)
}
