//! `differential`: random packets through the programs and the model of them.

use crate::build;
use crate::process::Done;
use crate::setup::Scope;
use crate::workspace::Workspace;
use clap::Args;

/// Send random packets on random maps through the eBPF programs and through the model of them in tests/src/model.
///
/// `--packets N` sends that many, `--seed S` from that seed on. A difference is made short and printed as a case of a packet table;
/// the exit status is then 1. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Arguments of the program itself; `differential -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Done {
    build::prepare(workspace, Scope::Demo)?;
    build::exec(workspace, "weft-differential", &arguments.arguments)
}
