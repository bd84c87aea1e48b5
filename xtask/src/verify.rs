//! `verify`: what each eBPF program costs the kernel's verifier, as a table, against the budget.

use crate::process::{Done, Failure, is_root, run as run_program};
use crate::setup::{self, Scope};
use crate::workspace::Workspace;
use crate::{build, build_ebpf};
use clap::Args;

/// Show what each eBPF program costs: instructions that the verifier walks through, machine code, stack; fail if one is over
/// the budget.
///
/// The budget stands in tests/src/verifier.rs. The same table is a test, programs_budget, so `cargo xtask test` holds it, also
/// under other kernels. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(workspace: &Workspace, _arguments: &Arguments) -> Done {
    if !is_root() {
        return Err(Failure::new("needs root: it loads eBPF programs"));
    }
    let tools = setup::ensure(workspace, Scope::Build)?;
    build_ebpf::build(workspace, &tools)?;
    let mut command = workspace.cargo();
    command.args([
        "test",
        "--quiet",
        "--package",
        "weft-tests",
        "--test",
        "programs_budget",
    ]);
    command.args(["--", "--nocapture"]);
    build::tell_paths(workspace, &mut command);
    run_program(&mut command)
}
