//! `build`: the eBPF object and all programs.

use crate::process::{Done, Failure, run as run_program};
use crate::setup::{self, Scope, Tools};
use crate::workspace::Workspace;
use crate::{build_ebpf, process};
use clap::Args;
use std::process::Command;

/// Build the eBPF object and the programs weftd, weft and diagnosticClient.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// Name of the environment variable that tells where the daemon's object is.
pub(crate) const OBJECT_VARIABLE: &str = "WEFT_BPF_OBJECT";

/// Name of the environment variable that tells where the programs are.
pub(crate) const PROGRAMS_VARIABLE: &str = "WEFT_BIN_DIR";

pub(crate) fn run(workspace: &Workspace, _arguments: &Arguments) -> Done {
    let tools = setup::ensure(workspace, Scope::Build)?;
    all(workspace, &tools)?;
    println!("built: {}", workspace.object().display());
    for name in ["weftd", "weft", "diagnosticClient"] {
        println!("built: {}", workspace.target().join("debug").join(name).display());
    }
    Ok(())
}

/// Sets up, builds all, and says each step.
pub(crate) fn prepare(workspace: &Workspace, scope: Scope) -> Done {
    let tools = setup::ensure(workspace, scope)?;
    println!("==> build");
    all(workspace, &tools)
}

/// Builds the object and the programs of all packages.
pub(crate) fn all(workspace: &Workspace, tools: &Tools) -> Done {
    build_ebpf::build(workspace, tools)?;
    run_program(
        workspace
            .cargo()
            .args(["build", "--quiet", "--workspace", "--bins", "--exclude", "xtask"]),
    )
}

/// The daemon of the contract version that only tests build, beside the other programs.
const NEXT_ABI: &str = "weftd-next-abi";

/// Builds the daemon and the object of the contract version that only tests build. In cargo's own folder, so that little is built
/// twice; `weftd` there is that daemon until [`all`] runs.
pub(crate) fn next_abi(workspace: &Workspace, tools: &Tools) -> Done {
    build_ebpf::build_next_abi(workspace, tools)?;
    let arguments = [
        "build",
        "--quiet",
        "--workspace",
        "--bin",
        "weftd",
        "--features",
        "weft/next-abi",
    ];
    run_program(workspace.cargo().args(arguments))?;
    let programs = workspace.target().join("debug");
    let (built, kept) = (programs.join("weftd"), programs.join(NEXT_ABI));
    std::fs::copy(&built, &kept).map(drop).map_err(|error| {
        Failure::new(format!(
            "cannot copy {} to {}: {error}",
            built.display(),
            kept.display()
        ))
    })
}

/// Replaces this process by a built program, which is told where the object and the programs are.
pub(crate) fn exec(workspace: &Workspace, program: &str, arguments: &[String]) -> Done {
    if !process::is_root() {
        return Err(Failure::new(
            "needs root: it makes network namespaces and loads eBPF programs",
        ));
    }
    let mut command = Command::new(workspace.target().join("debug").join(program));
    tell_paths(workspace, &mut command);
    process::exec(command.args(arguments))
}

/// Tells a program where the object and the programs are.
pub(crate) fn tell_paths(workspace: &Workspace, command: &mut Command) {
    command
        .env(OBJECT_VARIABLE, workspace.object())
        .env(PROGRAMS_VARIABLE, workspace.target().join("debug"));
}
