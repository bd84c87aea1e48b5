//! `simulate`: random schedules over the simulated cluster, and the gossip's bench on it.

use crate::process::{Done, run as run_program};
use crate::workspace::Workspace;
use clap::Args;
use std::process::Command;

/// Run random schedules of joins, crashes, writes, partitions, loss and more over simulated clusters and check what must hold.
///
/// `--seeds N` runs that many, `--from SEED` from another seed than 0, `--seed SEED` one, with the schedule printed. A failing one is
/// shrunk and printed; the exit status is then 1. Needs no root.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Arguments of the program itself; `simulate -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Done {
    exec(workspace, "schedules", &arguments.arguments)
}

/// Builds the program that simulates, and lets it take the place of this process.
pub(crate) fn exec(workspace: &Workspace, task: &str, arguments: &[String]) -> Done {
    const PROGRAM: &str = "weft-simulation";
    run_program(
        workspace
            .cargo()
            .args(["build", "--quiet", "--package", "weft-bench", "--bin", PROGRAM]),
    )?;
    let mut command = Command::new(workspace.target().join("debug").join(PROGRAM));
    crate::process::exec(command.arg(task).args(arguments))
}
