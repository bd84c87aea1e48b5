//! Keeps the filter before the table of connections sharp: [`weft_dataplane::abi::filter`] says what it promises.

use super::raw::{RawMap, Reads, Words};
use std::io;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use weft_dataplane::abi::filter::{self, FIRST, HALF, OFF, SECOND};
use weft_dataplane::abi::{FlowKey, V4};

/// Both halves, and which one is in force.
#[derive(Debug)]
pub(super) struct Filter {
    words: Words,
    state: RawMap,
    in_force: u32,
    /// Whether a walk comes by every connection: read one by one, some may be missed, and one that is missed would not be known.
    sees_all: bool,
}

impl Filter {
    /// For the maps that are pinned there. It is off until all connections have been seen: programs that knew no filter may have made some.
    pub(super) fn open(pins: &Path, reads: Reads) -> io::Result<Filter> {
        let open = |name| RawMap::open(&pins.join(name), reads)?.ok_or_else(|| io::ErrorKind::NotFound.into());
        let open =
            |name| open(name).map_err(|error: io::Error| io::Error::new(error.kind(), format!("map {name}: {error}")));
        let mut filter = Filter {
            words: open(filter::NAME)?.words()?,
            state: open(filter::STATE_NAME)?,
            in_force: OFF,
            sees_all: reads == Reads::Batch,
        };
        filter.put_in_force(OFF)?;
        Ok(filter)
    }

    /// Which half is not in force, and where its words begin.
    fn other(&self) -> (u32, usize) {
        match self.in_force {
            FIRST => (SECOND, HALF as usize),
            _ => (FIRST, 0),
        }
    }

    /// Clears the other half. Connections that programs make from now on have their bits in it, and so will have all that are marked.
    pub(super) fn begin(&self) {
        let (_, start) = self.other();
        for word in self.words.iter().skip(start).take(HALF as usize) {
            word.store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// There is a connection with this key.
    pub(super) fn mark(&self, key: &FlowKey<V4>) {
        let (_, start) = self.other();
        let (word, mask) = filter::bits(key);
        if let Some(word) = self.words.get(start + word as usize) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// The walk is over: if it saw all connections, the other half is in force.
    pub(super) fn end(&mut self) -> io::Result<()> {
        fence(Ordering::SeqCst);
        if !self.sees_all {
            return Ok(());
        }
        let (other, _) = self.other();
        self.put_in_force(other)
    }

    fn put_in_force(&mut self, half: u32) -> io::Result<()> {
        self.state.put(&0_u32.to_ne_bytes(), &half.to_ne_bytes())?;
        self.in_force = half;
        Ok(())
    }
}
