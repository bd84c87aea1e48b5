//! What is pinned where: links in the pin directory, maps in a directory of their generation, which tells the contract that they obey.
//!
//! ```text
//! /sys/fs/bpf/weft/
//! ├── overlay_egress-12        a link (or, of a clsact filter, an empty directory)
//! ├── overlay_ingress-2
//! ├── maps-7-abi-3-3           generation 7, written by contract version 3, readable by version 3 and newer ones
//! │   ├── flows
//! │   └── ...
//! └── maps-new                 a generation that is being made: nothing uses it, and the next start removes it
//! ```
//!
//! A generation is complete from the moment that it has its name; the highest one counts. Older ones are there only while links go over
//! to the newest, or if a weftd was killed at that moment.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Contract version of maps that lie in the pin directory itself, as they did before there were generations.
const FLAT_CONTRACT: u32 = 2;

/// What the names of all directories of maps begin with.
pub(super) const PREFIX: &str = "maps-";

/// The directory of a generation that is being made.
const UNFINISHED: &str = "maps-new";

/// Some maps of one contract version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation {
    /// Counts up with each change of layout. Zero: the maps lie in the pin directory itself.
    pub(super) number: u32,
    /// Version of the contract that wrote them.
    pub(super) contract: u32,
    /// The oldest version that reads them by taking the beginning of each key and value.
    pub(super) readable_by: u32,
}

impl Generation {
    fn name(&self) -> String {
        format!("{PREFIX}{}-abi-{}-{}", self.number, self.contract, self.readable_by)
    }

    fn parse(name: &str) -> Option<Generation> {
        let mut numbers = name.strip_prefix(PREFIX)?.splitn(2, "-abi-");
        let number = numbers.next()?.parse().ok().filter(|number| *number > 0)?;
        let (contract, readable_by) = numbers.next()?.split_once('-')?;
        Some(Generation {
            number,
            contract: contract.parse().ok()?,
            readable_by: readable_by.parse().ok()?,
        })
    }
}

/// The pin directory, as far as maps are concerned.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    directory: PathBuf,
    /// Names of all maps of this weftd.
    maps: &'static [&'static str],
}

impl Pins {
    pub(super) fn new(directory: &Path, maps: &'static [&'static str]) -> Self {
        Pins {
            directory: directory.to_owned(),
            maps,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is there, the oldest first.
    pub(super) fn generations(&self) -> io::Result<Vec<Generation>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            found.extend(Generation::parse(name));
            if self.maps.contains(&name) && !found.iter().any(|generation| generation.number == 0) {
                found.push(Generation {
                    number: 0,
                    contract: FLAT_CONTRACT,
                    readable_by: FLAT_CONTRACT,
                });
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Where a generation's maps are.
    pub(super) fn path(&self, generation: Generation) -> PathBuf {
        match generation.number {
            0 => self.directory.clone(),
            _ => self.directory.join(generation.name()),
        }
    }

    /// Where a generation is made.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.directory.join(UNFINISHED)
    }

    /// Begins a generation in an empty directory.
    pub(super) fn begin(&self) -> io::Result<PathBuf> {
        self.discard_unfinished()?;
        let path = self.unfinished();
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Gives up what was begun.
    pub(super) fn discard_unfinished(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.unfinished()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The generation that was begun is complete, and counts from now on.
    pub(super) fn finish(&self, generation: Generation) -> io::Result<()> {
        fs::rename(self.unfinished(), self.path(generation))
    }

    /// Unpins a generation. Maps that a program still uses live on until it goes.
    pub(super) fn remove(&self, generation: Generation) -> io::Result<()> {
        if generation.number > 0 {
            return fs::remove_dir_all(self.path(generation));
        }
        for map in self.maps {
            match fs::remove_file(self.directory.join(map)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_generation_tells_all_of_it() {
        let generation = Generation {
            number: 17,
            contract: 4,
            readable_by: 3,
        };
        assert_eq!(generation.name(), "maps-17-abi-4-3");
        assert_eq!(Generation::parse("maps-17-abi-4-3"), Some(generation));
        for name in [
            "flows",
            UNFINISHED,
            "maps-0-abi-2-2",
            "maps-1-abi-2",
            "maps-x-abi-2-2",
            "overlay_egress-12",
        ] {
            assert_eq!(Generation::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_highest_number_counts_whatever_the_contract() {
        let folder = std::env::temp_dir().join(format!("weft-pins-{}", std::process::id()));
        for name in ["maps-2-abi-4-3", "maps-10-abi-3-3", "maps-new", "overlay_egress-3"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        fs::write(folder.join("flows"), "").unwrap();
        let pins = Pins::new(&folder, &["flows"]);
        let numbers = |pins: &Pins| -> Vec<u32> {
            let found = pins.generations().unwrap();
            found.into_iter().map(|generation| generation.number).collect()
        };
        assert_eq!(numbers(&pins), [0, 2, 10]);
        pins.begin().unwrap();
        let next = Generation {
            number: 11,
            contract: 3,
            readable_by: 3,
        };
        pins.finish(next).unwrap();
        for generation in pins.generations().unwrap().into_iter().filter(|g| g.number < 11) {
            pins.remove(generation).unwrap();
        }
        assert_eq!(numbers(&pins), [11]);
        assert!(folder.join("overlay_egress-3").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
