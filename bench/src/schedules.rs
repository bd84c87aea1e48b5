//! Random schedules over the simulated cluster, as many as one likes; a failing one is shrunk and printed.

use crate::error::Result;
use crate::workers;
use clap::Args;
use std::io::Write;
use std::ops::Range;
use std::time::{Duration, Instant};
use weft_core::simulation::schedule::{
    Failure, Outcome, Schedule, generate, run as run_schedule, run_with_diary, shrink,
};

/// By then a process that ended without a word is noticed (`spec/networkdb.md` 3.2: probes and a suspicion, longer for a node that doubts
/// itself).
const NOTICED: Duration = Duration::from_secs(60);

/// How many failing seeds are listed before the rest is only counted.
const LISTED: usize = 20;

/// Run random schedules of joins, leaves, crashes, writes, partitions, loss and more over a simulated cluster, and check what must
/// hold afterwards.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How many schedules
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,

    /// Only this one, with the whole schedule printed
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,

    /// With it, what its nodes log and tell; of a failing schedule, those of its smallest part
    #[arg(long, requires = "seed")]
    log: bool,
}

/// False if a schedule failed.
pub fn run(options: &Options) -> Result<bool> {
    match options.seed {
        Some(seed) => Ok(one(seed, options.log)),
        None => many(options.from..options.from.saturating_add(options.seeds)),
    }
}

fn one(seed: u64, log: bool) -> bool {
    let schedule = generate(seed);
    print!("{schedule}");
    match run_schedule(&schedule) {
        Ok(outcome) => {
            tell_diary(log, &schedule);
            println!(
                "all agreed {:.1} s after the last step; {} keys decided by who wrote last, {} only had to be the same everywhere",
                outcome.agreed_after.as_secs_f64(),
                outcome.decided,
                outcome.undecided
            );
            true
        }
        Err(failure) => {
            tell(seed, failure, log);
            false
        }
    }
}

/// The failure, and the smallest part of the schedule that brings it about.
fn tell(seed: u64, failure: Failure, log: bool) {
    println!("seed {seed} failed: {failure}");
    let schedule = generate(seed);
    let (smallest, failure) = shrink(&schedule, failure);
    tell_diary(log, &smallest);
    println!("the smallest part of it that fails in the same way:\n{smallest}{failure}");
    println!("again: cargo xtask simulate --seed {seed}");
}

fn tell_diary(log: bool, schedule: &Schedule) {
    if log {
        let (_, diary) = run_with_diary(schedule);
        diary.iter().for_each(|line| println!("{line}"));
    }
}

/// How long after the last step all agreed.
fn tell_times(which: &str, mut agreed: Vec<(f64, u64)>) {
    agreed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let times: Vec<_> = agreed.iter().map(|(seconds, _)| *seconds).collect();
    let percentile = |percent| crate::statistics::percentile(&times, percent).unwrap_or_default();
    let slowest = agreed.last().map(|(_, seed)| *seed).unwrap_or_default();
    println!(
        "agreed after the last step, {which} ({}): {:.1} s (p50), {:.1} s (p99), {:.1} s (max, seed {slowest})",
        times.len(),
        percentile(50.0),
        percentile(99.0),
        percentile(100.0),
    );
}

fn many(seeds: Range<u64>) -> Result<bool> {
    // A panic is a failure that is told in order, not a message in between.
    std::panic::set_hook(Box::new(|_| {}));
    let (start, count) = (Instant::now(), seeds.end - seeds.start);
    let mut failures: Vec<(u64, Failure)> = Vec::new();
    let (mut decided, mut undecided, mut done) = (0, 0, 0);
    let (mut agreed, mut calm) = (Vec::new(), Vec::new());
    workers::each(
        seeds,
        |seed| (seed, run_schedule(&generate(seed))),
        |(seed, result): (u64, std::result::Result<Outcome, Failure>)| {
            done += 1;
            match result {
                Ok(outcome) => {
                    decided += outcome.decided;
                    undecided += outcome.undecided;
                    agreed.push((outcome.agreed_after.as_secs_f64(), seed));
                    if outcome.crashed_before.is_none_or(|before| before > NOTICED) {
                        calm.push((outcome.agreed_after.as_secs_f64(), seed));
                    }
                }
                Err(failure) => failures.push((seed, failure)),
            }
            if done % 50 == 0 || done == count {
                eprint!("\r{done} of {count} schedules, {} failed", failures.len());
                let _ = std::io::stderr().flush();
            }
        },
    );
    eprintln!();
    println!(
        "{count} schedules in {:.0} s: {} failed; {decided} keys decided by who wrote last, {undecided} only had to be the same everywhere",
        start.elapsed().as_secs_f64(),
        failures.len(),
    );
    tell_times("all", agreed);
    tell_times("no process ended without a word in the last minute", calm);
    failures.sort_by_key(|(seed, _)| *seed);
    for (seed, failure) in failures.iter().take(LISTED) {
        let mut lines = failure.text.lines().map(str::trim);
        let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        println!("seed {seed}: {first} {second}");
    }
    let passed = failures.is_empty();
    if let Some((seed, failure)) = failures.into_iter().next() {
        tell(seed, failure, false);
    }
    Ok(passed)
}
