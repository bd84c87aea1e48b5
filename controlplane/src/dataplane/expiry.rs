//! Connections that the ring has lost sight of: found by a walk over the whole table, a part at a time.
//!
//! A new connection that meets only living ones in the ring takes the slot of one of them, and a smaller ring has no slot for some. Such
//! a connection still ends at its time-out, but nothing would take its entries away.

use super::raw::{Cursor, RawMap};
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions};
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::path::Path;
use weft_dataplane::abi::flow::{self, Timeouts};
use weft_dataplane::abi::{Flow, FlowKey, Ip, MapType, V4, V6};

/// A walk over a whole table takes so many calls, and the next begins so many calls after it.
const STEPS: u32 = 60;
/// What one call looks at, at least: a bucket of the table must fit.
const LEAST: u32 = 4096;

/// Why a table could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// The table could not be read.
    #[error("map {name}: {source}")]
    Map {
        /// Which map.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The program could not be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Where the walks over both tables are.
#[derive(Debug)]
pub(super) struct Expiry {
    timeouts: Timeouts,
    tables: [Table; 2],
}

#[derive(Debug)]
struct Table {
    name: &'static str,
    map: RawMap,
    cursor: Option<Cursor>,
    /// Calls until a walk may begin.
    pause: u32,
}

impl Expiry {
    /// For the maps that are pinned there.
    pub(super) fn open(pins: &Path, timeouts: Timeouts) -> Result<Expiry, ExpiryError> {
        let table = |name| {
            let failed = |source| ExpiryError::Map { name, source };
            let map = RawMap::open(&pins.join(name)).map_err(failed)?;
            Ok::<_, ExpiryError>(Table {
                name,
                map: map.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?,
                cursor: None,
                pause: 0,
            })
        };
        Ok(Expiry {
            timeouts,
            tables: [table(flow::NAME)?, table(flow::NAME6)?],
        })
    }

    /// Goes on with the walks, and has `program` forget what has expired: it looks again, so nothing that lives is lost.
    pub(super) fn step(&mut self, program: &SchedClassifier) -> Result<(), ExpiryError> {
        let [v4, v6] = &mut self.tables;
        v4.step::<V4>(&self.timeouts, program)?;
        v6.step::<V6>(&self.timeouts, program)
    }
}

impl Table {
    fn step<A: Ip>(&mut self, timeouts: &Timeouts, program: &SchedClassifier) -> Result<(), ExpiryError>
    where
        FlowKey<A>: MapType,
        Flow<A>: MapType,
    {
        if self.pause > 0 && self.cursor.is_none() {
            self.pause -= 1;
            return Ok(());
        }
        let now = now_ticks();
        let mut expired = Vec::new();
        let count = (self.map.shape().max_entries / STEPS).max(LEAST);
        let next = self.map.part(self.cursor.take(), count, |key, value| {
            if let (Some(flow_key), Some(flow)) = (FlowKey::<A>::from_bytes(key), Flow::<A>::from_bytes(value))
                && flow.flags & flow::REPLY == 0
                && flow.is_expired(flow_key.is_tcp(), timeouts, now)
            {
                expired.push([&[0; flow::SWEEP_HEADER], key].concat());
            }
            Ok(())
        });
        self.cursor = next.map_err(|source| ExpiryError::Map {
            name: self.name,
            source,
        })?;
        if self.cursor.is_none() {
            self.pause = STEPS;
        }
        for frame in &expired {
            program.test_run(TestRunOptions {
                data_in: Some(frame),
                ..TestRunOptions::default()
            })?;
        }
        Ok(())
    }
}

fn now_ticks() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
        seconds * 1_000_000_000 + nanoseconds
    });
    flow::ticks(now)
}
