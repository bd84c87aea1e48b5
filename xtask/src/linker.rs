//! `bpf-linker`: found if one works, else built into `target/tools`.

use crate::process::{Done, Failure, capture, find_program, run};
use crate::toolchain::Toolchain;
use crate::workspace::{Workspace, cargo_program};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that is built when none is found. 0.13.0 does not link against Debian's LLVM with the same settings.
pub(crate) const VERSION: &str = "0.10.3";

/// The LLVM majors that this version can be built against: its features `llvm-N`.
const LLVM_MAJORS: [u32; 3] = [20, 21, 22];

/// What the probe compiles: enough for LLVM to write the attributes that another major cannot read.
const PROBE: &str = "#![no_std]\n#[unsafe(no_mangle)]\npub extern \"C\" fn probe(x: &u32) -> u32 { *x + 1 }\n";

/// Files that the build needs, and the Debian package of each; `N` stands for the LLVM major.
const BUILD_NEEDS: [(&str, &str); 5] = [
    ("/usr/lib/llvm-N/bin/llvm-config", "llvm-N-dev"),
    ("/usr/lib/llvm-N/lib/libPolly.a", "libpolly-N-dev"),
    ("/usr/include/zstd.h", "libzstd-dev"),
    ("/usr/include/zlib.h", "zlib1g-dev"),
    ("/usr/include/libxml2/libxml/parser.h", "libxml2-dev"),
];

/// A linker that reads what this toolchain writes: the one built before, else one on PATH.
pub(crate) fn find(workspace: &Workspace, toolchain: &Toolchain) -> Option<PathBuf> {
    [Some(built(workspace)), find_program("bpf-linker")]
        .into_iter()
        .flatten()
        .filter(|path| path.is_file())
        .find(|path| works(workspace, path, toolchain))
}

/// Whether a linker could be built for this toolchain at all.
pub(crate) fn can_build_for(toolchain: &Toolchain) -> bool {
    LLVM_MAJORS.contains(&toolchain.llvm_major)
}

/// Debian packages that are missing for building it.
pub(crate) fn missing_packages(toolchain: &Toolchain) -> Vec<String> {
    let major = toolchain.llvm_major.to_string();
    BUILD_NEEDS
        .iter()
        .map(|(file, package)| (file.replace('N', &major), package.replace('N', &major)))
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| package)
        .collect()
}

/// Builds it against the toolchain's LLVM, about a minute on two cores.
pub(crate) fn install(workspace: &Workspace, toolchain: &Toolchain) -> Done<PathBuf> {
    let major = toolchain.llvm_major;
    let mut command = Command::new(cargo_program());
    command
        .args([
            "install",
            "--quiet",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{major}"), "--root"])
        .arg(workspace.tools())
        .arg("--target-dir")
        .arg(workspace.target().join("tools-build"))
        .env(format!("LLVM_SYS_{major}1_PREFIX"), format!("/usr/lib/llvm-{major}"))
        .env("RUSTFLAGS", format!("-L native=/usr/lib/llvm-{major}/lib"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut command)?;
    let linker = built(workspace);
    if works(workspace, &linker, toolchain) {
        Ok(linker)
    } else {
        Err(Failure::new(format!(
            "{} was built but cannot link what the {} writes",
            linker.display(),
            toolchain.name
        )))
    }
}

fn built(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/bpf-linker")
}

/// Links a function compiled by the toolchain: proof that both speak the same LLVM.
fn works(workspace: &Workspace, linker: &Path, toolchain: &Toolchain) -> bool {
    let folder = workspace
        .target()
        .join("tools-probe")
        .join(std::process::id().to_string());
    let outcome = probe(&folder, linker, toolchain);
    let _ = std::fs::remove_dir_all(&folder);
    outcome.is_ok()
}

fn probe(folder: &Path, linker: &Path, toolchain: &Toolchain) -> Done {
    let source = folder.join("probe.rs");
    let write = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&source, PROBE));
    write.map_err(|error| Failure::new(format!("cannot write {}: {error}", source.display())))?;
    let bitcode = folder.join("probe.bc");
    capture(
        Command::new(&toolchain.rustc)
            .args([
                "--edition",
                "2024",
                "--crate-type",
                "lib",
                "--emit",
                "llvm-bc",
                "-C",
                "panic=abort",
                "-C",
                "opt-level=3",
                "-o",
            ])
            .args([&bitcode, &source]),
    )?;
    let linking = ["--target", "bpfel-unknown-none", "--export", "probe", "-o"];
    capture(
        Command::new(linker)
            .args(linking)
            .args([&folder.join("probe.o"), &bitcode]),
    )
    .map(|_| ())
}
