//! `weft-bench`: builds the arrangements, measures them in rounds, prints the table.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;
use weft_bench::error::{Context, Result};
use weft_bench::options::Options;
use weft_bench::report::Report;
use weft_bench::{arrangement, forged, growth, interrupt, measure, rounds, warm};

/// How long to look whether others use the CPUs: long enough for a share in percent of ticks of 10 ms.
const LISTEN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False when some measurement failed.
fn run() -> Result<bool> {
    let options = Options::from_command_line()?;
    interrupt::install()?;
    arrangement::sweep()?;
    let mut arrangements = Vec::new();
    for id in &options.arrangements {
        interrupt::check()?;
        arrangements.push(arrangement::ready(id, &options)?);
    }
    let busy_before = measure::busy_share(LISTEN)?;
    let samples = rounds::run(&arrangements, &options)?;
    // Without weft among the arrangements its object may not have been built.
    let expected =
        options.arrangements.iter().any(|id| id == "weft" || id == "maps") || options.dataplane_object.exists();
    let programs =
        (options.wants("prog") && expected).then(|| warm::costs(&options).map_err(|error| error.to_string()));
    let growth = (options.wants(measure::GROWTH) && expected)
        .then(|| growth::measure(&options).map_err(|error| error.to_string()));
    let forged = (options.wants(measure::FORGED) && expected)
        .then(|| forged::measure(&options).map_err(|error| error.to_string()));
    let complete = samples.iter().all(|sample| sample.outcome.is_ok())
        && !matches!(programs, Some(Err(_)))
        && !matches!(growth, Some(Err(_)))
        && !matches!(forged, Some(Err(_)));
    let report = Report {
        busy_before,
        options: &options,
        arrangements: &arrangements,
        samples: &samples,
        programs,
        growth,
        forged,
    };
    print!("{}", report.text());
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.plot {
        std::fs::write(path, report.plot()).context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(complete)
}
