//! `fuzz`: the fuzz targets of the decoders, one after the other.

use crate::process::{Done, Failure, capture, find_program, run as run_program};
use crate::workspace::{Workspace, cargo_program};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Run the fuzz targets of controlplane/core/fuzz: every decoder of others' bytes, against a panic and against memory that the
/// bytes do not justify.
///
/// Takes a nightly compiler; cargo-fuzz is built into the target folder if it is not there. What fails is written to
/// controlplane/core/fuzz/artifacts, and the exit status is then 1. Needs no root.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// The targets; all if none is named
    targets: Vec<String>,
}

/// The version that is built when none is found.
const VERSION: &str = "0.13.2";

/// What a target may hold. What the sanitizer keeps of freed memory counts too, so that is kept small.
const LIMITS: [&str; 2] = ["-rss_limit_mb=768", "-malloc_limit_mb=32"];

const SANITIZER: &str = "quarantine_size_mb=32";

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Done {
    let folder = workspace.root().join("controlplane/core/fuzz");
    let targets = choose(&arguments.targets, &targets(&folder)?)?;
    let nightly = nightly()?;
    let tool = find(workspace).map_or_else(|| install(workspace), Ok)?;
    // Cargo finds its subcommands on PATH, and cargo-fuzz finds the compiler there.
    let folders = [nightly.parent(), tool.parent()]
        .into_iter()
        .flatten()
        .map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)))
        .map_err(|error| Failure::new(format!("cannot put the nightly compiler on PATH: {error}")))?;
    let fuzz = |subcommand: &str| {
        let mut command = Command::new(&nightly);
        command
            .args(["fuzz", subcommand])
            .current_dir(&folder)
            .env("PATH", &path)
            .env("ASAN_OPTIONS", SANITIZER)
            // Set by the cargo and the proxy that started this program, which are of another toolchain.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO");
        command
    };
    run_program(&mut fuzz("build"))?;
    let mut failed = Vec::new();
    for target in &targets {
        println!("==> {target}, {} s", arguments.seconds);
        let corpus = folder.join("corpus").join(target);
        std::fs::create_dir_all(&corpus)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", corpus.display())))?;
        let mut command = fuzz("run");
        command.arg(target).arg(corpus);
        let seeds = folder.join("seeds").join(target);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        command
            .args([
                "--",
                &format!("-max_total_time={}", arguments.seconds),
                "-verbosity=0",
                "-print_final_stats=1",
            ])
            .args(LIMITS);
        if let Err(failure) = run_program(&mut command) {
            eprintln!("xtask: {failure}");
            failed.push(target.as_str());
        }
    }
    conclude(targets.len(), &failed)
}

fn conclude(targets: usize, failed: &[&str]) -> Done {
    println!(
        "{} targets found nothing, {} failed",
        targets - failed.len(),
        failed.len()
    );
    if failed.is_empty() {
        return Ok(());
    }
    println!("failed targets: {}", failed.join(", "));
    Err(Failure::told())
}

/// The targets that there are.
fn targets(folder: &Path) -> Done<Vec<String>> {
    let folder = folder.join("fuzz_targets");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", folder.display())))?;
    let names = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        is_source.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))?
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

fn choose(wanted: &[String], there: &[String]) -> Done<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !there.contains(name)) {
        return Err(Failure::new(format!(
            "no fuzz target {unknown:?}; there are: {}",
            there.join(" ")
        )));
    }
    Ok(if wanted.is_empty() { there } else { wanted }.to_vec())
}

/// The cargo of the first nightly toolchain of rustup's.
fn nightly() -> Done<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".rustup")));
    let entries = home.and_then(|home| std::fs::read_dir(home.join("toolchains")).ok());
    let mut cargos: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly"))
        .map(|entry| entry.path().join("bin/cargo"))
        .filter(|cargo| cargo.is_file())
        .collect();
    cargos.sort();
    cargos.into_iter().next().ok_or_else(|| {
        Failure::new(
            "fuzzing takes a nightly compiler, and there is none: `rustup toolchain install nightly` installs one",
        )
    })
}

/// cargo-fuzz: the one built before, else the one on PATH.
fn find(workspace: &Workspace) -> Option<PathBuf> {
    [Some(built(workspace)), find_program("cargo-fuzz")]
        .into_iter()
        .flatten()
        .find(|path| path.is_file() && capture(Command::new(path).arg("--version")).is_ok())
}

fn built(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/cargo-fuzz")
}

fn install(workspace: &Workspace) -> Done<PathBuf> {
    println!(
        "fuzz: builds cargo-fuzz {VERSION} into {} (a minute)",
        workspace.tools().display()
    );
    let mut command = Command::new(cargo_program());
    command
        .args([
            "install",
            "--quiet",
            "cargo-fuzz",
            "--version",
            VERSION,
            "--locked",
            "--root",
        ])
        .arg(workspace.tools())
        .arg("--target-dir")
        .arg(workspace.target().join("tools-build"));
    run_program(&mut command).map_err(|failure| {
        Failure::new(format!(
            "fuzzing takes cargo-fuzz, which is not there and could not be built ({failure}): `cargo install cargo-fuzz --locked`"
        ))
    })?;
    Ok(built(workspace))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn all_targets_are_found_and_an_unknown_one_is_refused() {
        let there = targets(&Workspace::here().root().join("controlplane/core/fuzz")).unwrap();
        assert!(there.contains(&"datagram".to_owned()), "{there:?}");
        assert_eq!(choose(&[], &there), Ok(there.clone()));
        assert_eq!(choose(&names(&["lzw"]), &there), Ok(names(&["lzw"])));
        let refused = choose(&names(&["nope"]), &names(&["lzw", "stream"])).unwrap_err();
        assert_eq!(refused.to_string(), "no fuzz target \"nope\"; there are: lzw stream");
    }

    #[test]
    fn one_failed_target_is_a_failure() {
        assert_eq!(conclude(3, &[]), Ok(()));
        assert_eq!(conclude(3, &["lzw"]), Err(Failure::told()));
    }

    #[test]
    fn every_target_is_declared_in_the_manifest_and_explained() {
        let folder = Workspace::here().root().join("controlplane/core/fuzz");
        let (manifest, readme) = ["Cargo.toml", "README.md"]
            .map(|file| std::fs::read_to_string(folder.join(file)).unwrap())
            .into();
        for target in targets(&folder).unwrap() {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
            assert!(readme.contains(&format!("| `{target}` |")), "{target}");
        }
    }
}
