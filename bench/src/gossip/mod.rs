//! How fast a cluster agrees: the simulated cluster at several sizes, through several kinds of trouble.

mod apply;
mod cluster;
mod cost;
mod scenario;
mod table;

use crate::error::{Context, Error, Result};
use crate::workers;
use clap::Args;
use scenario::{SCENARIOS, Sample, Scenario};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use table::Line;
use weft_core::simulation::Simulation;

/// From this size on a cluster is built once and cloned for each seed.
const CLONED_FROM: usize = 100;

/// Measure how fast simulated clusters agree, in virtual time: write to row at all live members, heal to all views equal.
///
/// Each seed is a cluster of its own with its own chance. Of 200 seeds, clusters of 300 nodes get 40 and of 1000 nodes 4, in
/// scenarios that exchange whole views 2; the output says how many.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Few seeds, sizes up to 100: shows that everything runs
    #[arg(long, conflicts_with_all = ["seeds", "sizes"])]
    quick: bool,

    /// Seeds for each scenario and size, fewer for the largest
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,

    /// As many seeds for the largest sizes as for others
    #[arg(long)]
    all_seeds: bool,

    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    from: u64,

    /// Sizes of the clusters
    #[arg(long, value_delimiter = ',', value_name = "N,...", default_values_t = [3, 10, 25, 100, 300, 1000], value_parser = size)]
    sizes: Vec<usize>,

    /// Scenarios: clean join newcomer churn loss10 loss30 slow partition one-way restart-all restart-half; all without this option
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", value_parser = scenario_named)]
    scenario: Vec<Scenario>,

    /// Instead of the simulation: how long one node takes for so many rows of a bulk sync, in real time
    #[arg(long, value_name = "ROWS", num_args = 0..=1, default_missing_value = "10000", conflicts_with_all = ["scenario", "quick"])]
    apply: Option<usize>,

    /// Instead: what one of so many nodes, each with ten rows that all have, costs at rest
    #[arg(long, value_name = "NODES", num_args = 0..=1, default_missing_value = "1000", value_parser = size, conflicts_with_all = ["scenario", "quick", "apply"])]
    at_rest: Option<usize>,

    /// Only the first seed, and what its nodes log and tell
    #[arg(long, requires = "scenario", conflicts_with_all = ["seeds", "quick", "apply"])]
    log: bool,

    /// Writes all samples to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn size(text: &str) -> Result<usize> {
    let size: usize = text.parse().context(|| format!("{text:?} is no number of nodes"))?;
    if (3..=5000).contains(&size) {
        Ok(size)
    } else {
        Err(Error::new(format!("{size} nodes: choose 3 to 5000")))
    }
}

fn scenario_named(text: &str) -> Result<Scenario> {
    let found = SCENARIOS.iter().find(|(_, name, _)| *name == text);
    found.map(|(scenario, ..)| *scenario).ok_or_else(|| {
        let names: Vec<_> = SCENARIOS.iter().map(|(_, name, _)| *name).collect();
        Error::new(format!("no scenario {text:?}: choose from {}", names.join(", ")))
    })
}

impl Options {
    fn seeds_for(&self, scenario: Scenario, size: usize) -> u64 {
        let exchanges_views = !matches!(
            scenario,
            Scenario::Clean | Scenario::Newcomer | Scenario::Loss10 | Scenario::Loss30
        );
        let share = match size {
            _ if self.all_seeds => 1,
            0..=100 => 1,
            101..=300 => 5,
            _ if exchanges_views => 100,
            _ => 50,
        };
        self.seeds.div_ceil(share)
    }
}

/// False if something was never reached.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(rows) = options.apply {
        return apply::run(rows).map(|()| true);
    }
    if let Some(size) = options.at_rest {
        return cost::run(size, options.from).map(|()| true);
    }
    let mut options = options.clone();
    if options.quick {
        (options.seeds, options.sizes) = (10, vec![3, 10, 25, 100]);
    }
    if options.log {
        options.seeds = 1;
    }
    println!(
        "gossip, simulated: virtual time, 1 to 2 ms between nodes, gossip every 200 ms to 3 nodes; seeds from {}; {} workers",
        options.from,
        workers::count()
    );
    println!("{}", table::HEAD);
    let mut lines = Vec::new();
    let mut bases = BTreeMap::new();
    for (scenario, name, _) in SCENARIOS {
        if !options.scenario.is_empty() && !options.scenario.contains(&scenario) {
            continue;
        }
        for size in &options.sizes {
            let line = measure(&options, &mut bases, scenario, name, *size)?;
            println!("{line}");
            lines.push(line);
        }
    }
    println!("{}", table::legend());
    let complete = lines.iter().all(|line| line.never() == 0);
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", table::json(&lines));
        std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(complete)
}

/// Settled clusters, by size and whether all are in the network.
type Bases = BTreeMap<(usize, bool), Simulation>;

fn measure(options: &Options, bases: &mut Bases, scenario: Scenario, name: &'static str, size: usize) -> Result<Line> {
    let start = Instant::now();
    let count = options.seeds_for(scenario, size);
    let seeds = options.from..options.from + count;
    let kind = (size, scenario.starts_in_network());
    if size >= CLONED_FROM && !bases.contains_key(&kind) {
        eprint!("\r{name} {size}: building the cluster ");
        let base = scenario::fresh(scenario, size, options.from).map_err(Error::new)?;
        bases.insert(kind, base);
    }
    let base = bases.get(&kind);
    let one = |seed| -> std::result::Result<Sample, String> {
        let mut simulation = match base {
            Some(base) => {
                let mut simulation = base.clone();
                simulation.reseed(seed);
                simulation
            }
            None => scenario::fresh(scenario, size, seed)?,
        };
        if options.log {
            simulation.diary = Some(Vec::new());
        }
        let (sample, simulation) = scenario::run(scenario, simulation, size);
        simulation.diary.iter().flatten().for_each(|line| println!("{line}"));
        Ok(sample)
    };
    let mut samples = Vec::new();
    let mut failed = None;
    workers::each(seeds, one, |sample| {
        match sample {
            Ok(sample) => samples.push(sample),
            Err(error) => failed = Some(error),
        }
        eprint!("\r{name} {size}: {} of {count} seeds          ", samples.len());
    });
    eprint!("\r{:60}\r", "");
    match failed {
        Some(error) => Err(Error::new(format!("{name} with {size} nodes: {error}"))),
        None => Ok(Line::new(name, size, samples, start.elapsed())),
    }
}
