//! Connections that somebody must look for: those that the ring has lost sight of, found by a walk over the whole table, a part at a
//! time, and those whose backend is gone.
//!
//! A new connection that meets only living ones in the ring takes the slot of one of them, and a smaller ring has no slot for some. Such
//! a connection still ends at its time-out, but nothing would take its entries away.

use super::filter::Filter;
use super::raw::{Cursor, RawMap, Reads};
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions};
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use weft_dataplane::abi::filter;
use weft_dataplane::abi::flow::{self, Timeouts};
use weft_dataplane::abi::{Flow, FlowKey, Ip, MapType, OverlayAddress, V4, V6};

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
    /// What is remembered of clients and backends could not be looked through.
    #[error(transparent)]
    Members(#[from] super::MapsError),
}

/// The members of each virtual IP, and whether a member takes new connections.
pub type OfVip<A> = BTreeMap<OverlayAddress<A>, BTreeMap<A, bool>>;

/// Whether the address takes new connections, if it is a member of the virtual IP.
pub(super) fn member<A: Ip>(members: &OfVip<A>, vip: OverlayAddress<A>, ip: A) -> Option<bool> {
    members.get(&vip)?.get(&ip).copied()
}

/// Where the walks over both tables are.
#[derive(Debug)]
pub(super) struct Expiry {
    timeouts: Timeouts,
    tables: [Table; 2],
    filter: Filter,
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
    pub(super) fn open(pins: &Path, timeouts: Timeouts, reads: Reads, filter: Filter) -> Result<Expiry, ExpiryError> {
        let table = |name| {
            let failed = |source| ExpiryError::Map { name, source };
            let map = RawMap::open(&pins.join(name), reads).map_err(failed)?;
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
            filter,
        })
    }

    /// Goes on with the walks, and has `program` forget what has expired: it looks again, so nothing that lives is lost. A whole walk is what
    /// the filter needs.
    pub(super) fn step(&mut self, program: &SchedClassifier) -> Result<(), ExpiryError> {
        let [v4, v6] = &mut self.tables;
        let filter = &mut self.filter;
        if v4.begins() {
            filter.begin();
        }
        if v4.step::<V4>(&self.timeouts, program, |key| filter.mark(key))? {
            filter.end().map_err(|source| ExpiryError::Map {
                name: filter::STATE_NAME,
                source,
            })?;
        }
        v6.step::<V6>(&self.timeouts, program, |_| ()).map(drop)
    }

    /// Has `program` forget the connections to backends that have gone, and says how many there were.
    pub(super) fn forget_departed(
        &self,
        program: &SchedClassifier,
        stay: &OfVip<V4>,
        stay6: &OfVip<V6>,
    ) -> Result<usize, ExpiryError> {
        let [v4, v6] = &self.tables;
        let lost = v4.forget::<V4>(program, |vip, ip| member(stay, vip, ip).is_some())?;
        Ok(lost + v6.forget::<V6>(program, |vip, ip| member(stay6, vip, ip).is_some())?)
    }
}

impl Table {
    /// Whether the next step begins a walk.
    fn begins(&self) -> bool {
        self.pause == 0 && self.cursor.is_none()
    }

    /// Goes on with the walk, and hands each key to `seen`; whether that was the end of it.
    fn step<A: Ip>(
        &mut self,
        timeouts: &Timeouts,
        program: &SchedClassifier,
        mut seen: impl FnMut(&FlowKey<A>),
    ) -> Result<bool, ExpiryError>
    where
        FlowKey<A>: MapType,
        Flow<A>: MapType,
    {
        if self.pause > 0 && self.cursor.is_none() {
            self.pause -= 1;
            return Ok(false);
        }
        let now = now_ticks();
        let mut expired = Vec::new();
        let count = (self.map.shape().max_entries / STEPS).max(LEAST);
        let next = self.map.part(self.cursor.take(), count, |key, value| {
            let (Some(flow_key), Some(flow)) = (FlowKey::<A>::from_bytes(key), Flow::<A>::from_bytes(value)) else {
                return Ok(());
            };
            seen(&flow_key);
            if flow.flags & flow::REPLY == 0 && flow.is_expired(flow_key.is_tcp(), timeouts, now) {
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
        run(program, &expired)?;
        Ok(self.cursor.is_none())
    }

    /// Has `program` forget the connections to whom `stays` says no of.
    fn forget<A: Ip>(
        &self,
        program: &SchedClassifier,
        stays: impl Fn(OverlayAddress<A>, A) -> bool,
    ) -> Result<usize, ExpiryError>
    where
        FlowKey<A>: MapType,
        Flow<A>: MapType,
    {
        let mut lost = Vec::new();
        let walk = self.map.entries(|key, value| {
            if let (Some(flow_key), Some(flow)) = (FlowKey::<A>::from_bytes(key), Flow::<A>::from_bytes(value))
                && flow.flags & (flow::REPLY | flow::DIRECT) == 0
                && !stays(
                    OverlayAddress::new(flow_key.vni(), flow_key.destination),
                    flow.destination,
                )
            {
                let mut header = [0; flow::SWEEP_HEADER];
                header[0] = flow::SWEEP_ALIVE;
                lost.push([&header, key].concat());
            }
            Ok(())
        });
        walk.map_err(|source| ExpiryError::Map {
            name: self.name,
            source,
        })?;
        run(program, &lost)?;
        Ok(lost.len())
    }
}

/// Hands each frame to the program.
fn run(program: &SchedClassifier, frames: &[Vec<u8>]) -> Result<(), ExpiryError> {
    for frame in frames {
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        })?;
    }
    Ok(())
}

/// The present point in time, as the programs have it.
pub(super) fn now_ticks() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let (seconds, nanoseconds) = (now.tv_sec().cast_unsigned(), now.tv_nsec().cast_unsigned());
        seconds * 1_000_000_000 + nanoseconds
    });
    flow::ticks(now)
}
