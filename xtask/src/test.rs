//! `test`: everything that must hold before a change is merged, in order, with one line at the end.

use crate::build;
use crate::build_ebpf;
use crate::kernels;
use crate::process::{Done, Failure, cannot_start, is_root, line_of, run as run_program};
use crate::setup::{self, Scope};
use crate::tidy;
use crate::workspace::Workspace;
use clap::Args;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Run all checks and tests: format, eBPF build, clippy, tidy, unit tests, whole-system tests.
///
/// With names, only those parts: `fmt`, `clippy`, `tidy`, `unit` (tests of all packages), a package, the beginning of a file
/// name in tests/tests (as `programs`, `cluster`, `docker`), or `kernels` (the programs under emulated kernels, which takes too long
/// for every run). Ends with one line, `N passed, N failed`; exits with an error if anything failed or nothing ran.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Parts to run; all if none is named
    parts: Vec<String>,
}

/// The crate of whole-system tests. They share the kernel, so they run one after the other.
const SYSTEM_TESTS: &str = "weft-tests";

/// The file of system tests that upgrades a daemon.
const UPGRADES: &str = "cluster_hitless";

/// Short names of the packages.
const PACKAGES: [(&str, &str); 6] = [
    ("dataplane-ebpf", "weft-dataplane"),
    ("core", "weft-core"),
    ("diag", "weft-diag"),
    ("controlplane", "weft"),
    ("bench", "weft-bench"),
    ("xtask", "xtask"),
];

/// One part of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Format,
    Clippy,
    Tidy,
    /// Unit tests of every package but the system tests.
    Unit,
    /// Unit tests of one package.
    Package(&'static str),
    /// All of the system tests.
    System,
    /// Some files of the system tests.
    Files(Vec<String>),
    /// The tests of the programs, under other kernels.
    Kernels,
}

impl Step {
    fn name(&self) -> String {
        match self {
            Step::Format => "cargo fmt --check".to_owned(),
            Step::Clippy => "clippy".to_owned(),
            Step::Tidy => "tidy".to_owned(),
            Step::Unit => "unit tests".to_owned(),
            Step::Package(package) => format!("tests of {package}"),
            Step::System => "whole-system tests".to_owned(),
            Step::Files(files) => format!("whole-system tests {}", files.join(" ")),
            Step::Kernels => "tests of the programs under other kernels".to_owned(),
        }
    }

    /// Whether upgrades are among its tests.
    fn needs_next_abi(&self) -> bool {
        match self {
            Step::System => true,
            Step::Files(files) => files.iter().any(|file| file == UPGRADES),
            _ => false,
        }
    }

    fn needs_programs(&self) -> bool {
        matches!(self, Step::System | Step::Files(_) | Step::Kernels)
    }
}

/// Tests that ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Done {
    let mut files = test_files(workspace);
    files.retain(|file| !kernels::guests_only(file));
    let steps = choose(&arguments.parts, &files)?;
    if steps.iter().any(Step::needs_programs) && !is_root() {
        return Err(Failure::new(
            "whole-system tests need root: they make network namespaces and load eBPF programs. Without root: fmt clippy tidy unit",
        ));
    }
    prepare(workspace, &steps)?;
    let mut tally = Tally::default();
    let mut failed_steps = Vec::new();
    for step in &steps {
        println!("==> {}", step.name());
        if let Err(failure) = perform(workspace, step, &mut tally) {
            eprintln!("xtask: {failure}");
            failed_steps.push(step.name());
        }
    }
    conclude(&steps, tally, &failed_steps)
}

/// Builds what the steps run; checks alone need neither the object nor the programs.
fn prepare(workspace: &Workspace, steps: &[Step]) -> Done {
    if steps.iter().any(Step::needs_programs) {
        println!("==> setup");
        let tools = setup::ensure(workspace, Scope::Test)?;
        println!("==> build-ebpf");
        build_ebpf::build(workspace, &tools)?;
        if steps.iter().any(Step::needs_next_abi) {
            println!("==> build of the next contract version");
            build::next_abi(workspace, &tools)?;
        }
        println!("==> build");
        build::all(workspace, &tools)?;
    }
    Ok(())
}

fn perform(workspace: &Workspace, step: &Step, tally: &mut Tally) -> Done {
    let test = |arguments: &[&str]| {
        let mut command = workspace.cargo();
        command.arg("test").args(arguments);
        build::tell_paths(workspace, &mut command);
        command
    };
    match step {
        Step::Format => run_program(workspace.cargo().args(["fmt", "--all", "--check"])),
        Step::Clippy => {
            let guests = format!("{SYSTEM_TESTS}/{}", kernels::FEATURE);
            let arguments = [
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--features",
                &guests,
                "--",
                "-D",
                "warnings",
            ];
            run_program(workspace.cargo().args(arguments))
        }
        Step::Tidy => tidy::run(workspace, &tidy::Arguments {}),
        Step::Unit => count(
            &mut test(&["--workspace", "--exclude", SYSTEM_TESTS, "--no-fail-fast"]),
            tally,
        ),
        Step::Package(package) => count(&mut test(&["--package", package, "--no-fail-fast"]), tally),
        Step::System => count(
            &mut test(&["--package", SYSTEM_TESTS, "--no-fail-fast", "--", "--test-threads=1"]),
            tally,
        ),
        Step::Files(files) => {
            let mut command = test(&["--package", SYSTEM_TESTS, "--no-fail-fast"]);
            files.iter().for_each(|file| {
                command.args(["--test", file]);
            });
            count(command.args(["--", "--test-threads=1"]), tally)
        }
        Step::Kernels => {
            let ready = kernels::ensure(workspace)?;
            let tests = kernels::build_tests(workspace, SYSTEM_TESTS, &test_files(workspace))?;
            kernels::run(workspace, &ready, &tests, tally)
        }
    }
}

/// Runs `cargo test`, shows its output as it comes, and adds up its results.
fn count(command: &mut Command, tally: &mut Tally) -> Done {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(command, &error))?;
    if let Some(output) = child.stdout.take() {
        let mut terminal = std::io::stdout().lock();
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(|error| Failure::new(format!("cannot read the tests' output: {error}")))?;
            // A terminal that went away must not end the tests.
            let _ = terminal.write_all(&line).and_then(|()| terminal.write_all(b"\n"));
            if let Some(result) = read_result(&String::from_utf8_lossy(&line)) {
                tally.passed += result.passed;
                tally.failed += result.failed;
            }
        }
    }
    let status = child
        .wait()
        .map_err(|error| Failure::new(format!("cannot wait for the tests: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{}` ended with {status}", line_of(command))))
    }
}

/// `test result: ok. 12 passed; 0 failed; 0 ignored; ...`
pub(crate) fn read_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        counts
            .split("; ")
            .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
    };
    Some(Tally {
        passed: number("passed")?,
        failed: number("failed")?,
    })
}

/// Prints the summary line, last of all; an error if anything failed or, where tests were asked for, none ran.
fn conclude(steps: &[Step], tally: Tally, failed_steps: &[String]) -> Done {
    let tests_wanted = steps
        .iter()
        .any(|step| !matches!(step, Step::Format | Step::Clippy | Step::Tidy));
    let nothing_ran = tests_wanted && tally.passed + tally.failed == 0;
    if !failed_steps.is_empty() {
        println!("failed steps: {}", failed_steps.join(", "));
    }
    if nothing_ran {
        println!("no test ran");
    }
    if tests_wanted {
        println!("{} passed, {} failed", tally.passed, tally.failed);
    }
    if failed_steps.is_empty() && tally.failed == 0 && !nothing_ran {
        Ok(())
    } else {
        Err(Failure::told())
    }
}

/// The steps that the named parts stand for, in the order of the whole.
fn choose(parts: &[String], files: &[String]) -> Done<Vec<Step>> {
    if parts.is_empty() {
        return Ok(vec![Step::Format, Step::Clippy, Step::Tidy, Step::Unit, Step::System]);
    }
    let mut steps = Vec::new();
    let mut chosen_files = Vec::new();
    for part in parts {
        match part.as_str() {
            "fmt" => steps.push(Step::Format),
            "clippy" => steps.push(Step::Clippy),
            "tidy" => steps.push(Step::Tidy),
            "unit" => steps.push(Step::Unit),
            kernels::NAME => steps.push(Step::Kernels),
            name => match package(name) {
                Some(package) => steps.push(Step::Package(package)),
                None => chosen_files.extend(matching(name, files)?),
            },
        }
    }
    chosen_files.sort();
    chosen_files.dedup();
    if !chosen_files.is_empty() {
        steps.push(Step::Files(chosen_files));
    }
    Ok(steps)
}

fn package(name: &str) -> Option<&'static str> {
    PACKAGES
        .iter()
        .find(|(short, package)| *short == name || *package == name)
        .map(|(_, package)| *package)
}

fn matching(part: &str, files: &[String]) -> Done<Vec<String>> {
    let found: Vec<String> = files.iter().filter(|file| file.starts_with(part)).cloned().collect();
    if found.is_empty() {
        let packages = PACKAGES.map(|(short, _)| short).join(" ");
        return Err(Failure::new(format!(
            "no part {part:?}; there are: fmt clippy tidy unit kernels, packages {packages}, files of tests/tests {}",
            files.join(" ")
        )));
    }
    Ok(found)
}

/// Names of the files in tests/tests, each a test program.
fn test_files(workspace: &Workspace) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(workspace.root().join("tests/tests")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let is_program =
                path.join("main.rs").is_file() || path.extension().is_some_and(|extension| extension == "rs");
            is_program.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))?
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parts: &[&str]) -> Vec<String> {
        parts.iter().map(|part| (*part).to_owned()).collect()
    }

    #[test]
    fn results_are_read_from_the_lines_of_cargo_test() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(read_result(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(
            read_result("test result: ok. 0 passed; 0 failed; 0 ignored"),
            Some(Tally::default())
        );
        assert_eq!(read_result("running 12 tests"), None);
        assert_eq!(read_result("test result: what"), None);
    }

    #[test]
    fn without_names_every_step_is_run() {
        let steps = choose(&[], &names(&["programs"])).unwrap();
        assert_eq!(
            steps,
            [Step::Format, Step::Clippy, Step::Tidy, Step::Unit, Step::System]
        );
    }

    #[test]
    fn a_name_is_a_step_a_package_or_the_beginning_of_a_file() {
        let files = names(&["cluster_gossip", "cluster_vip", "programs"]);
        let steps = choose(&names(&["tidy", "core", "cluster"]), &files).unwrap();
        let expected = [
            Step::Tidy,
            Step::Package("weft-core"),
            Step::Files(names(&["cluster_gossip", "cluster_vip"])),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_there_are() {
        let text = choose(&names(&["nope"]), &names(&["programs"]))
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("no part \"nope\"") && text.ends_with("tests/tests programs"),
            "{text}"
        );
    }

    #[test]
    fn tests_that_did_not_run_are_a_failure() {
        let none = conclude(&[Step::Unit], Tally::default(), &[]);
        assert_eq!(none, Err(Failure::told()));
        assert_eq!(conclude(&[Step::Format], Tally::default(), &[]), Ok(()));
        assert_eq!(conclude(&[Step::Unit], Tally { passed: 1, failed: 0 }, &[]), Ok(()));
        assert!(conclude(&[Step::Unit], Tally { passed: 1, failed: 1 }, &[]).is_err());
        assert!(conclude(&[Step::Unit], Tally { passed: 1, failed: 0 }, &names(&["clippy"])).is_err());
    }
}
