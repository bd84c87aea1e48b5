//! `weft-simulation`: the simulated cluster, for long runs. `cargo xtask simulate` and `cargo xtask bench gossip` start it.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use weft_bench::{gossip, schedules};

/// Runs clusters in memory under virtual time. Needs no privilege.
#[derive(Debug, Parser)]
#[command(name = "weft-simulation", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Gossip(gossip::Options),
    Schedules(schedules::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Gossip(options) => gossip::run(&options),
        Task::Schedules(options) => schedules::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-simulation: {error}");
            ExitCode::FAILURE
        }
    }
}
