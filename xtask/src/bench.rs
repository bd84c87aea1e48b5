//! `bench`: packet rate and cost, and how fast gossip converges.

use crate::build;
use crate::process::{Done, Failure, is_root};
use crate::setup::Scope;
use crate::simulate;
use crate::workspace::Workspace;
use clap::Args;

/// Measure packet rate and cost against Docker's arrangement and no overlay at all, in one run; or with `gossip` how fast a
/// simulated cluster agrees.
///
/// `bench gossip` needs no root; `bench gossip --help` lists its arguments.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Arguments of the bench itself; `bench -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Done {
    if let Some((first, rest)) = arguments.arguments.split_first()
        && first == "gossip"
    {
        return simulate::exec(workspace, "gossip", rest);
    }
    if !is_root() {
        return Err(Failure::new(
            "the bench needs root: it makes network namespaces and loads eBPF programs",
        ));
    }
    build::prepare(workspace, Scope::Bench)?;
    // The profile compiles the bench itself with optimisation: its generators must not be what limits the rate.
    build::exec(workspace, "weft-bench", &arguments.arguments)
}
