//! What a node costs in a large cluster at rest: all nodes are simulated in this process, whose CPU time and memory are shared out.

use super::cluster::{TABLE, net, settled};
use crate::error::{Context, Error, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::time::Duration;
use weft_core::simulation::{Simulation, secs};

/// Rows that each node owns: ten endpoints.
const ROWS_OF_A_NODE: usize = 10;

/// A record of Docker's has about this many bytes.
const VALUE_BYTES: usize = 100;

/// How long all may take to have all rows.
const PATIENCE: Duration = Duration::from_secs(600);

/// Virtual time that is measured: two rounds of the rarest periodic work.
const MEASURED: Duration = Duration::from_secs(60);

/// Prints what one of `size` nodes costs.
pub(super) fn run(size: usize, seed: u64) -> Result<()> {
    let mut simulation = settled(size, seed, true).map_err(Error::new)?;
    let members = resident_bytes()?;
    for node in 0..size {
        for row in 0..ROWS_OF_A_NODE {
            let key = format!("{:064x}", node * ROWS_OF_A_NODE + row);
            simulation
                .act(node, |db, now| {
                    db.create_entry(now, TABLE, &net(), &key, vec![7; VALUE_BYTES])
                })
                .context(|| format!("cannot write row {row} of node {node}"))?;
        }
        // Gossip would bring them everywhere too, ten million times a message; comparing digests brings them at once.
        simulation.hush(node);
    }
    let rows = size * ROWS_OF_A_NODE;
    let start = simulation.now;
    while !has_all(&simulation, size, rows) {
        if simulation.now.saturating_since(start) > PATIENCE {
            return Err(Error::new(format!(
                "{rows} rows were not at all nodes within {PATIENCE:?}"
            )));
        }
        simulation.run_for(secs(1));
        eprint!("\r{size} nodes, {rows} rows: {} ", simulation.now);
    }
    while (0..size).any(|node| simulation.busy(node)) {
        simulation.run_for(secs(1));
    }
    eprint!("\r{:60}\r", "");
    let resident = resident_bytes()?;
    let (traffic, before) = (simulation.traffic, cpu_time()?);
    simulation.run_for(MEASURED);
    let spent = cpu_time()?.saturating_sub(before);
    let sent = simulation.traffic.since(&traffic);
    let node_seconds = size as f64 * MEASURED.as_secs_f64();
    println!(
        "{size} nodes at rest, all members of one network with {rows} rows, simulated in one process for {} s: of one core {:.3} % a node \
         (the simulation of packets and clocks included, sockets and encryption not); {:.2} MiB a node, {:.2} MiB of it members; \
         {:.1} datagrams of {:.0} bytes a second, {:.0} bytes a second by TCP",
        MEASURED.as_secs(),
        spent.as_secs_f64() / node_seconds * 100.0,
        mebibytes(resident) / size as f64,
        mebibytes(members) / size as f64,
        sent.datagrams as f64 / node_seconds,
        sent.datagram_bytes as f64 / sent.datagrams.max(1) as f64,
        sent.stream_bytes as f64 / node_seconds,
    );
    Ok(())
}

fn has_all(simulation: &Simulation, size: usize, rows: usize) -> bool {
    (0..size).all(|node| simulation.nodes[node].db.rows(&net(), TABLE).count() == rows)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context(|| "cannot read the CPU time of this process".to_owned())?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// How much memory this process has (`proc(5)`, `/proc/pid/statm`).
pub(super) fn resident_bytes() -> Result<u64> {
    const PAGE_BYTES: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").context(|| "cannot read /proc/self/statm".to_owned())?;
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages
        .map(|pages| pages * PAGE_BYTES)
        .ok_or_else(|| Error::new(format!("/proc/self/statm says {text:?}")))
}
