//! `hitless`: many restarts, crashes and upgrades of the daemon under steady traffic, and the table of what they cost.

use crate::build;
use crate::process::{Done, Failure, is_root, run as run_program};
use crate::setup::{self, Scope};
use crate::workspace::Workspace;
use clap::Args;

/// Restart, kill and upgrade daemons under 20,000 datagrams a second and 50 connections, and print what was lost.
///
/// The long form of the test `cluster_hitless`; needs root. An upgrade is to a contract version that only tests build, with another
/// layout of the flow table, or back.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Restarts by SIGTERM
    #[arg(long, default_value_t = 50)]
    restarts: u32,
    /// Ends by SIGKILL
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Upgrades and ways back
    #[arg(long, default_value_t = 10)]
    upgrades: u32,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Done {
    if !is_root() {
        return Err(Failure::new(
            "needs root: it makes network namespaces and loads eBPF programs",
        ));
    }
    let tools = setup::ensure(workspace, Scope::Test)?;
    build::next_abi(workspace, &tools)?;
    build::all(workspace, &tools)?;
    let times = [arguments.restarts, arguments.kills, arguments.upgrades].map(|times| times.to_string());
    let mut command = workspace.cargo();
    command.args([
        "test",
        "--quiet",
        "--package",
        "weft-tests",
        "--test",
        "cluster_hitless",
    ]);
    command.args(["--", "--nocapture"]).env("WEFT_HITLESS", times.join(","));
    build::tell_paths(workspace, &mut command);
    run_program(&mut command)
}
