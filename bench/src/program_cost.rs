//! What each program costs while frames pass: the kernel's own statistics (`BPF_ENABLE_STATS`). Real caches and real redirects, but each
//! run also pays for reading the clock twice. What they cost by test run is in [`warm`](crate::warm).

use crate::error::{Context, Result};
use crate::object;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use std::collections::BTreeMap;
use weft_dataplane::abi::program;

/// The programs on the two hooks of an arrangement that has any: out of a container, and from the uplink.
pub fn names(arrangement: &str) -> Option<(&'static str, &'static str)> {
    match arrangement {
        "e2" => Some((object::program::EGRESS, object::program::INGRESS)),
        "maps" | "weft" => Some((program::OVERLAY_EGRESS, program::OVERLAY_INGRESS)),
        _ => None,
    }
}

/// Nanoseconds a run of each named program while `work` goes on; programs that did not run are missing.
pub fn while_running<T>(names: &[&str], work: impl FnOnce() -> Result<T>) -> Result<(T, BTreeMap<String, f64>)> {
    let _enabled =
        enable_stats(Stats::RunTime).context(|| "BPF statistics (Linux 5.8) are not available".to_owned())?;
    let before = run_times()?;
    let done = work()?;
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (id, (name, time, count)) in run_times()? {
        let (_, time_before, count_before) = before.get(&id).cloned().unwrap_or_default();
        let sum = sums.entry(name).or_default();
        sum.0 += time.saturating_sub(time_before);
        sum.1 += count.saturating_sub(count_before);
    }
    let ran = sums
        .into_iter()
        .filter(|(name, (_, count))| names.contains(&name.as_str()) && *count > 0);
    Ok((
        done,
        ran.map(|(name, (time, count))| (name, time as f64 / count as f64))
            .collect(),
    ))
}

/// By program id: name, nanoseconds, runs.
fn run_times() -> Result<BTreeMap<u32, (String, u64, u64)>> {
    let mut times = BTreeMap::new();
    // A program may vanish between listing and asking.
    for info in loaded_programs().flatten() {
        let name = info.name_as_str().unwrap_or_default().to_owned();
        let nanoseconds = u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX);
        times.insert(info.id(), (name, nanoseconds, info.run_count()));
    }
    Ok(times)
}
