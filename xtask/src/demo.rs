//! `demo`: three hosts, one overlay, one service.

use crate::build;
use crate::process::{Done, Failure, is_root};
use crate::setup::Scope;
use crate::workspace::Workspace;
use clap::Args;

/// Show it: three hosts, one overlay network, the service my-web, and a client that asks it a dozen times.
///
/// The hosts are network namespaces on this machine; nothing outside them is touched. Everything is removed at the end and on
/// Ctrl-C.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave everything up at the end, and print how to enter and how to remove it
    #[arg(long, conflicts_with = "remove")]
    keep: bool,
    /// Remove what an earlier `demo --keep` left
    #[arg(long)]
    remove: bool,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Done {
    if !is_root() {
        return Err(Failure::new(
            "the demo needs root: it makes network namespaces and loads eBPF programs",
        ));
    }
    build::prepare(workspace, Scope::Demo)?;
    let mut passed_on = Vec::new();
    if arguments.keep {
        passed_on.push("--keep".to_owned());
    }
    if arguments.remove {
        passed_on.push("--remove".to_owned());
    }
    build::exec(workspace, "weft-demo", &passed_on)
}
