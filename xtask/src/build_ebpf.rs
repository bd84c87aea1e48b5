//! `build-ebpf`: the programs, compiled for the kernel.

use crate::process::{Done, Failure, cannot_start, line_of};
use crate::setup::{self, Scope, Tools};
use crate::workspace::Workspace;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compile the eBPF programs into target/weft-dataplane.bpf.o, and those of the bench into target/weft-bench.bpf.o.
///
/// Uses the toolchain that `setup` finds. An object is replaced only when it changed, so that nothing that depends on it is
/// built again without need.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// The BPF target of this machine's byte order: maps are shared memory, so both sides must agree.
const TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// Programs of the package, the source of each, and the object that it becomes.
const OBJECTS: [(&str, &str, &str); 2] = [
    ("weft-dataplane", "dataplane-ebpf/src/main.rs", "weft-dataplane.bpf.o"),
    ("ceiling", "dataplane-ebpf/src/bin/ceiling.rs", "weft-bench.bpf.o"),
];

pub(crate) fn run(workspace: &Workspace, _arguments: &Arguments) -> Done {
    let tools = setup::ensure(workspace, Scope::Build)?;
    for (object, changed) in build(workspace, &tools)? {
        println!(
            "{} {}",
            object.display(),
            if changed { "built" } else { "is up to date" }
        );
    }
    Ok(())
}

/// The object of the contract version that only tests build: the programs of the same sources, with longer keys of flows.
const NEXT_ABI: (&str, &str, &str) = (
    "weft-dataplane",
    "dataplane-ebpf/src/main.rs",
    "weft-dataplane-next.bpf.o",
);

/// Builds the objects; tells which changed.
pub(crate) fn build(workspace: &Workspace, tools: &Tools) -> Done<Vec<(PathBuf, bool)>> {
    build_objects(workspace, tools, &[], &OBJECTS)
}

/// Builds the object of the contract version that only tests build.
pub(crate) fn build_next_abi(workspace: &Workspace, tools: &Tools) -> Done {
    build_objects(workspace, tools, &["--features", "next-abi"], &[NEXT_ABI]).map(drop)
}

fn build_objects(
    workspace: &Workspace,
    tools: &Tools,
    features: &[&str],
    objects: &[(&str, &str, &str)],
) -> Done<Vec<(PathBuf, bool)>> {
    let folder = workspace.target().join("bpf");
    let mut command = Command::new(&tools.toolchain.cargo);
    command
        .current_dir(workspace.root())
        .args([
            "build",
            "--quiet",
            "--package",
            "weft-dataplane",
            "--bins",
            "--profile",
            "bpf",
        ])
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(&folder)
        .args(features)
        .env("RUSTC", &tools.toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&tools.linker))
        .env_remove("RUSTFLAGS");
    let status = command.status().map_err(|error| cannot_start(&command, &error))?;
    if !status.success() {
        return Err(Failure::new(format!(
            "the eBPF programs did not build with the {} and {}; the reason is above. The command: {}",
            tools.toolchain.name,
            tools.linker.display(),
            line_of(&command)
        )));
    }
    let built = folder.join(TARGET).join("bpf");
    objects
        .iter()
        .filter(|(_, source, _)| workspace.root().join(source).is_file())
        .map(|(program, _, object)| {
            let object = workspace.target().join(object);
            Ok((object.clone(), replace_if_changed(&built.join(program), &object)?))
        })
        .collect()
}

/// Flags joined the way cargo wants them when a path may hold a space.
///
/// bpf-linker expands `memcpy` byte by byte and calls a function for `memset` unless told not to: that costs the programs a
/// tenth of their time.
fn rustflags(linker: &Path) -> String {
    let linker = format!("linker={}", linker.display());
    [
        "-C",
        &linker,
        "-C",
        "link-arg=--btf",
        "-C",
        "link-arg=--disable-expand-memcpy-in-order",
        "-C",
        "debuginfo=2",
    ]
    .join("\u{1f}")
}

/// Copies through a neighbour and a rename, so that a daemon never reads half an object.
fn replace_if_changed(built: &Path, object: &Path) -> Done<bool> {
    let explain = |what: &str, path: &Path, error| Failure::new(format!("cannot {what} {}: {error}", path.display()));
    let new = std::fs::read(built).map_err(|error| explain("read", built, error))?;
    if std::fs::read(object).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    let neighbour = object.with_extension("o.new");
    std::fs::write(&neighbour, new).map_err(|error| explain("write", &neighbour, error))?;
    std::fs::rename(&neighbour, object).map_err(|error| explain("replace", object, error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_replaced_only_when_it_changed() {
        let folder = std::env::temp_dir().join(format!("weft-xtask-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (built, object) = (folder.join("built"), folder.join("weft.bpf.o"));
        std::fs::write(&built, "one").unwrap();
        let first = replace_if_changed(&built, &object);
        let same = replace_if_changed(&built, &object);
        std::fs::write(&built, "two").unwrap();
        let changed = replace_if_changed(&built, &object);
        let content = std::fs::read_to_string(&object).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            (first, same, changed, content.as_str()),
            (Ok(true), Ok(false), Ok(true), "two")
        );
    }

    #[test]
    fn a_missing_build_is_named() {
        let failure =
            replace_if_changed(Path::new("/nonexistent/built"), Path::new("/nonexistent/object")).unwrap_err();
        assert!(
            failure.to_string().starts_with("cannot read /nonexistent/built"),
            "{failure}"
        );
    }

    #[test]
    fn a_linker_path_may_hold_a_space() {
        assert_eq!(
            rustflags(Path::new("/a b/l")).split('\u{1f}').nth(1),
            Some("linker=/a b/l")
        );
    }
}
