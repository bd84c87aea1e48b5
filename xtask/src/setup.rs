//! `setup`: everything the other tasks need, installed once.

use crate::kernels;
use crate::linker;
use crate::process::{Done, Failure, capture, find_program, is_root, run_quietly};
use crate::toolchain::{self, Search, Toolchain};
use crate::workspace::Workspace;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Install what the other tasks need: a toolchain for eBPF, programs for the demo, tests and bench.
///
/// Says what it will install before it does. Installs Debian packages with apt-get (only missing ones; needs root) and builds
/// bpf-linker into target/tools unless one that works is found. Never installs through rustup: a rustup toolchain that has the
/// component rust-src is used if there is one, else Debian's rustc-web. Kernels and an emulator for `test kernels` are unpacked
/// into target/kernels and never installed. Does nothing, and says so, when all is there.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// What a task needs beyond Rust itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The eBPF toolchain.
    Build,
    /// And the programs that make and look at namespaces.
    Demo,
    /// And what measures.
    Bench,
    /// And the real peers that the tests talk to.
    Test,
}

/// Programs that are run, the Debian package of each, and the smallest scope that runs it.
const PROGRAMS: [(&str, &str, Scope); 9] = [
    ("ip", "iproute2", Scope::Demo),
    ("nsenter", "util-linux", Scope::Demo),
    ("curl", "curl", Scope::Demo),
    ("ethtool", "ethtool", Scope::Bench),
    ("tcpdump", "tcpdump", Scope::Test),
    ("dockerd", "docker.io", Scope::Test),
    ("iptables", "iptables", Scope::Test),
    ("busybox", "busybox-static", Scope::Test),
    ("xz", "xz-utils", Scope::Test),
];

/// Debian's compiler with the source of `core`.
const COMPILER_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Programs and the compiler, then the packages of that compiler's LLVM; the third round finds all there, or builds the linker.
const ROUNDS: usize = 3;

/// What building the eBPF object takes.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// The compiler.
    pub(crate) toolchain: Toolchain,
    /// The linker that reads its LLVM.
    pub(crate) linker: PathBuf,
}

enum Plan {
    Ready(Tools),
    Install(Vec<String>),
    BuildLinker(Toolchain),
}

pub(crate) fn run(workspace: &Workspace, _arguments: &Arguments) -> Done {
    let planned = plan(workspace, Scope::Test)?;
    let ready = matches!(planned, Plan::Ready(_));
    let tools = ensure(workspace, Scope::Test)?;
    let emulation = kernels::ensure(workspace)?;
    if ready && !emulation.fetched {
        println!("setup: all there, nothing to do.");
    }
    describe(&tools);
    for kernel in &emulation.kernels {
        println!("  kernel         {}", kernel.release());
    }
    Ok(())
}

fn describe(tools: &Tools) {
    println!(
        "  eBPF compiler  {} (LLVM {})",
        tools.toolchain.name, tools.toolchain.llvm_major
    );
    println!("  eBPF linker    {}", tools.linker.display());
}

/// Installs what is missing; silent when nothing is.
pub(crate) fn ensure(workspace: &Workspace, scope: Scope) -> Done<Tools> {
    let mut installed: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        match plan(workspace, scope)? {
            Plan::Ready(tools) => return Ok(tools),
            Plan::Install(packages) => {
                // A list of some weeks ago may offer a compiler that is too old, or a version that the mirror no longer has.
                install_packages(&packages, installed.is_empty())?;
                installed.extend(packages);
            }
            Plan::BuildLinker(toolchain) => {
                println!(
                    "setup: will build bpf-linker {} against LLVM {} into {} (about a minute)",
                    linker::VERSION,
                    toolchain.llvm_major,
                    workspace.tools().display()
                );
                let linker = linker::install(workspace, &toolchain)?;
                return Ok(Tools { toolchain, linker });
            }
        }
    }
    let refused = toolchain::search(workspace)?.refused.join("; ");
    let packages = installed.join(" ");
    Err(Failure::new(format!(
        "setup: installed {packages}, but the tools are still not usable ({refused})"
    )))
}

fn plan(workspace: &Workspace, scope: Scope) -> Done<Plan> {
    let search = toolchain::search(workspace)?;
    let mut packages = missing_programs(scope);
    let ready = search.usable.iter().find_map(|toolchain| {
        let linker = linker::find(workspace, toolchain)?;
        Some(Tools {
            toolchain: toolchain.clone(),
            linker,
        })
    });
    if let Some(tools) = ready {
        return Ok(if packages.is_empty() {
            Plan::Ready(tools)
        } else {
            Plan::Install(packages)
        });
    }
    let buildable = choose(&search);
    match buildable {
        Some(toolchain) => packages.extend(linker::missing_packages(toolchain)),
        None if apt_is_here() => packages.extend(COMPILER_PACKAGES.map(String::from)),
        None => return Err(no_toolchain(&search)),
    }
    match buildable {
        Some(toolchain) if packages.is_empty() => Ok(Plan::BuildLinker(toolchain.clone())),
        _ => Ok(Plan::Install(packages)),
    }
}

/// The first toolchain whose LLVM is installed or can be, so that a linker can be built for it.
fn choose(search: &Search) -> Option<&Toolchain> {
    search
        .usable
        .iter()
        .filter(|toolchain| linker::can_build_for(toolchain))
        .find(|toolchain| {
            let missing = linker::missing_packages(toolchain);
            missing.is_empty() || (apt_is_here() && missing.iter().all(|package| has_candidate(package)))
        })
}

fn no_toolchain(search: &Search) -> Failure {
    Failure::new(format!(
        "no Rust toolchain for eBPF: install the component rust-src (`rustup component add rust-src --toolchain nightly`) and \
         bpf-linker (`cargo install bpf-linker`), or Debian's {}. Looked at: {}",
        COMPILER_PACKAGES.join(" and "),
        search.refused.join("; ")
    ))
}

/// Debian packages of the programs that this scope runs and this machine lacks.
fn missing_programs(scope: Scope) -> Vec<String> {
    PROGRAMS
        .iter()
        .filter(|(program, _, smallest)| *smallest <= scope && !is_usable(program))
        .map(|(_, package, _)| (*package).to_owned())
        .collect()
}

fn is_usable(program: &str) -> bool {
    match find_program(program) {
        // Containers without libraries run it, so a dynamic one will not do.
        Some(path) if program == "busybox" => !capture(Command::new("ldd").arg(path)).is_ok_and(|l| l.contains("=>")),
        found => found.is_some(),
    }
}

fn install_packages(packages: &[String], refresh: bool) -> Done {
    let list = packages.join(" ");
    if !apt_is_here() {
        return Err(Failure::new(format!(
            "missing, and no apt-get to install it: the programs of Debian's packages {list}"
        )));
    }
    if !is_root() {
        return Err(Failure::new(format!(
            "needs root to install packages; run: sudo apt-get install --no-install-recommends {list}"
        )));
    }
    println!("setup: will install with apt-get: {list} (this may take some minutes)");
    if refresh {
        println!("setup: apt-get update");
        run_quietly(Command::new("apt-get").args(["update", "-q"]))?;
    }
    let mut command = Command::new("apt-get");
    command
        .args(["install", "-q", "-y", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run_quietly(&mut command)
}

fn apt_is_here() -> bool {
    Path::new("/usr/bin/apt-get").exists()
}

/// Whether apt's lists offer the package.
fn has_candidate(package: &str) -> bool {
    capture(Command::new("apt-cache").args(["policy", package])).is_ok_and(|policy| offers(&policy))
}

fn offers(policy: &str) -> bool {
    policy
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .any(|version| version != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_a_version() {
        assert!(offers(
            "llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1~deb12u1\n"
        ));
        assert!(!offers("llvm-99-dev:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!offers(""), "a package that apt has never heard of prints nothing");
    }

    #[test]
    fn larger_scopes_hold_the_smaller_ones() {
        let count = |scope| PROGRAMS.iter().filter(|(_, _, smallest)| *smallest <= scope).count();
        assert_eq!(
            [count(Scope::Build), count(Scope::Demo), count(Scope::Test)],
            [0, 3, PROGRAMS.len()]
        );
    }

    #[test]
    fn a_failure_names_what_was_looked_at() {
        let search = Search {
            usable: Vec::new(),
            refused: vec!["rustup toolchain stable: has no rust-src component".to_owned()],
        };
        let text = no_toolchain(&search).to_string();
        assert!(
            text.contains("rust-src") && text.ends_with("stable: has no rust-src component"),
            "{text}"
        );
    }
}
