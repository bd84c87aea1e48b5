//! `test kernels`: the programs under the kernels that users run, booted under emulation.

mod archive;
mod guest;
mod packages;

pub(crate) use packages::ensure;

use crate::process::{Done, Failure, capture, find_program};
use crate::test::Tally;
use crate::workspace::Workspace;
use archive::{Archive, Modules};
use guest::{Leftovers, Owner, Part, Report};
use packages::{Kernel, Ready, cannot};
use std::fs;
use std::path::{Path, PathBuf};

/// The name of this part of `test`.
pub(crate) const NAME: &str = "kernels";

/// The tests that run in each guest: loading, the packet tables, and traffic between two hosts, all without a daemon.
const TESTS: &str = "programs_";

/// The tests that run nowhere else, for they take modules that not every kernel has.
const GUESTS_ONLY: &str = "kernels_";

/// The feature of the tests' package without which cargo leaves those out.
pub(crate) const FEATURE: &str = "guests";

/// Modules that these tests take, as far as they are not built in.
const MODULES: [&str; 9] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "vxlan",
    "bridge",
    "br_netfilter",
    "dummy",
    "8021q",
    "bonding",
];

/// Programs that these tests run.
const PROGRAMS: [&str; 5] = ["ip", "tc", "bridge", "ethtool", "tcpdump"];

/// What cannot run in a guest: in which series, the test's name, and why.
const SKIPPED: [(&[&str], &str, &str); 4] = [
    (&["6.1"], "a_restart_takes_over_maps_and_links", NO_TCX),
    (
        &["6.1"],
        "a_new_interface_with_the_index_of_a_lost_one_is_attached",
        NO_TCX,
    ),
    (&["6.1"], "removing_leaves_nothing", NO_TCX),
    (&["6.1"], "what_another_tool_detached_is_put_back", NO_TCX),
];

const NO_TCX: &str = "looks at tcx links, which this kernel has not; the tests of filters run";

/// The test that prints what each program costs the verifier; its table is shown for every kernel.
const COSTS: &str = "programs_budget";

const INIT: &str = include_str!("init.sh");

/// Runs the test programs, whose paths are given, in a guest of each kernel; counts what passed and failed.
pub(crate) fn run(workspace: &Workspace, ready: &Ready, tests: &[PathBuf], tally: &mut Tally) -> Done {
    let folder = packages::folder(workspace);
    remove_dead_runs(&folder);
    let leftovers = Leftovers::new(folder.join(format!("run-{}", std::process::id())))?;
    let owner = Owner(leftovers.clone());
    let shared = shared_content(workspace, leftovers.folder(), tests)?;
    let mut archives = Vec::new();
    for kernel in &ready.kernels {
        let path = leftovers.folder().join(format!("archive-{}", kernel.series));
        write_archive(kernel, &shared, leftovers.folder(), &path)?;
        archives.push(path);
    }
    drop(shared);
    let reports: Vec<Done<Report>> = std::thread::scope(|scope| {
        let guests: Vec<_> = ready
            .kernels
            .iter()
            .zip(&archives)
            .map(|(kernel, archive)| {
                let leftovers = &leftovers;
                scope.spawn(move || guest::run(leftovers, &ready.emulator, kernel, archive))
            })
            .collect();
        guests
            .into_iter()
            .map(|guest| {
                guest
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new("a guest's thread panicked")))
            })
            .collect()
    });
    drop(owner);
    conclude(&ready.kernels, &reports, tests.len(), tally)
}

/// Says for each kernel what ran; an error if anything failed, or less ran than was to.
fn conclude(kernels: &[Kernel], reports: &[Done<Report>], programs: usize, tally: &mut Tally) -> Done {
    let mut failed = Vec::new();
    for (kernel, report) in kernels.iter().zip(reports) {
        match report {
            Ok(report) => {
                let sum = show(kernel, report);
                tally.passed += sum.passed;
                tally.failed += sum.failed;
                let all = report.parts.len() == programs && report.parts.iter().all(|part| part.tally.passed > 0);
                if sum.failed > 0 || !all || report.release != kernel.release {
                    failed.push(kernel.series);
                }
            }
            Err(failure) => {
                println!("kernel {}: {failure}", kernel.release);
                tally.failed += 1;
                failed.push(kernel.series);
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("failed under kernel {}", failed.join(" and "))))
    }
}

fn show(kernel: &Kernel, report: &Report) -> Tally {
    let mut sum = Tally::default();
    for part in &report.parts {
        sum.passed += part.tally.passed;
        sum.failed += part.tally.failed;
    }
    println!(
        "kernel {}: booted in {:.1} s, {} passed, {} failed",
        report.release,
        report.boot.as_secs_f64(),
        sum.passed,
        sum.failed
    );
    for part in &report.parts {
        println!(
            "  {:<24} {:>3} passed, {} failed, {:.1} s",
            part.name,
            part.tally.passed,
            part.tally.failed,
            part.took.as_secs_f64()
        );
    }
    for line in report.parts.iter().filter(|part| part.name == COSTS).flat_map(table) {
        println!("    {line}");
    }
    for note in &report.notes {
        println!("  {note}");
    }
    for (_, test, reason) in skipped(kernel.series) {
        println!("  not run: {test}: {reason}");
    }
    sum
}

/// The lines of a test's output that are not its harness's.
fn table(part: &Part) -> impl Iterator<Item = &String> {
    const HARNESS: [&str; 3] = ["running ", "test ", "ok"];
    let is_harness = |line: &str| line.is_empty() || HARNESS.iter().any(|word| line.starts_with(word));
    part.output.iter().filter(move |line| !is_harness(line))
}

fn skipped(series: &str) -> impl Iterator<Item = &'static (&'static [&'static str], &'static str, &'static str)> {
    SKIPPED.iter().filter(move |(kernels, _, _)| kernels.contains(&series))
}

/// What a run left that was killed before it could remove it.
fn remove_dead_runs(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_string_lossy().strip_prefix("run-").map(str::to_owned);
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// What the guests have in common: programs, tests, and the object at the place where the tests look for it.
fn shared_content(workspace: &Workspace, scratch: &Path, tests: &[PathBuf]) -> Done<Archive> {
    let mut archive = Archive::default();
    for folder in ["/dev", "/proc", "/sys", "/run", "/tmp", "/root"] {
        archive.folder(folder);
    }
    archive.file("/init", INIT.as_bytes());
    let busybox = program("busybox")?;
    archive.program("/bin/busybox", &busybox, scratch)?;
    // The shell that runs `/init`, which then makes links for all the others.
    archive.program("/bin/sh", &busybox, scratch)?;
    for name in PROGRAMS {
        archive.program(Path::new("/usr/sbin").join(name), &program(name)?, scratch)?;
    }
    for test in tests {
        let name = test_name(test);
        archive.program(Path::new("/tests").join(name), test, scratch)?;
    }
    let object = workspace.object();
    let content = fs::read(&object).map_err(|error| cannot("read", &object, &error))?;
    archive.file(&object, &content);
    archive.folder(workspace.root().join("tests"));
    Ok(archive)
}

fn program(name: &str) -> Done<PathBuf> {
    find_program(name).ok_or_else(|| Failure::new(format!("{name} is missing: `cargo xtask setup` installs it")))
}

/// `programs_vip` for `.../programs_vip-0123456789abcdef`.
fn test_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-').map_or(name.as_ref(), |(name, _)| name).to_owned()
}

fn write_archive(kernel: &Kernel, shared: &Archive, scratch: &Path, path: &Path) -> Done {
    let mut archive = shared.clone();
    let mut modules = Modules::of(&kernel.modules);
    let mut number = 0;
    for name in MODULES {
        for (name, content) in modules.take(name, scratch)? {
            archive.file(format!("/modules/{number:03}-{name}.ko"), &content);
            number += 1;
        }
    }
    let arguments: String = skipped(kernel.series)
        .map(|(_, test, _)| format!(" --skip {test}"))
        .collect();
    archive.file("/skip", arguments.as_bytes());
    archive.file("/deadline", (guest::DEADLINE.as_secs() + 60).to_string().as_bytes());
    fs::write(path, archive.finish()).map_err(|error| cannot("write", path, &error))
}

/// Whether only guests run that file of tests.
pub(crate) fn guests_only(file: &str) -> bool {
    file.starts_with(GUESTS_ONLY)
}

/// Builds the tests that the guests run, and gives their paths.
pub(crate) fn build_tests(workspace: &Workspace, package: &str, files: &[String]) -> Done<Vec<PathBuf>> {
    let mut command = workspace.cargo();
    command.args([
        "test",
        "--quiet",
        "--no-run",
        "--message-format",
        "json",
        "--package",
        package,
        "--features",
        FEATURE,
    ]);
    let wanted: Vec<&String> = files
        .iter()
        .filter(|file| file.starts_with(TESTS) || guests_only(file))
        .collect();
    for file in &wanted {
        command.args(["--test", file]);
    }
    let mut paths = executables(&capture(&mut command)?);
    paths.retain(|path| wanted.iter().any(|file| **file == test_name(path)));
    paths.sort();
    if paths.len() == wanted.len() && !paths.is_empty() {
        Ok(paths)
    } else {
        Err(Failure::new(format!(
            "cargo built {} of the {} test programs {TESTS}* and {GUESTS_ONLY}*",
            paths.len(),
            wanted.len()
        )))
    }
}

/// The programs that cargo's messages name.
fn executables(messages: &str) -> Vec<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    messages
        .lines()
        .filter_map(|line| line.split_once(KEY)?.1.split_once('"'))
        .map(|(path, _)| PathBuf::from(path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn kernel() -> Kernel {
        Kernel {
            series: "6.1",
            release: "6.1.0-56".to_owned(),
            image: PathBuf::new(),
            modules: PathBuf::new(),
        }
    }

    fn report(passed: u64, failed: u64) -> Done<Report> {
        let part = Part {
            name: "programs_x".to_owned(),
            tally: Tally { passed, failed },
            took: Duration::ZERO,
            output: Vec::new(),
        };
        Ok(Report {
            release: "6.1.0-56".to_owned(),
            parts: vec![part],
            ..Report::default()
        })
    }

    #[test]
    fn programs_are_read_from_the_messages_of_cargo() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/t/programs_vip-0f\",\"fresh\":true}\n{}";
        let found = executables(messages);
        assert_eq!(found, [Path::new("/t/programs_vip-0f")]);
        assert_eq!(test_name(&found[0]), "programs_vip");
    }

    #[test]
    fn the_table_of_costs_is_what_the_harness_did_not_say() {
        let output =
            "\nrunning 1 test\ntest it ... \nprogram 1\nbudget 2\nok\n\ntest result: ok. 1 passed; 0 failed;\n";
        let mut report = report(1, 0).unwrap_or_default();
        report.parts[0].output = output.lines().map(str::to_owned).collect();
        assert_eq!(table(&report.parts[0]).collect::<Vec<_>>(), ["program 1", "budget 2"]);
    }

    #[test]
    fn what_failed_or_did_not_run_under_a_kernel_is_a_failure() {
        let outcome = |report, programs| {
            let mut tally = Tally::default();
            let done = conclude(&[kernel()], &[report], programs, &mut tally);
            (done.is_ok(), tally)
        };
        assert_eq!(outcome(report(3, 0), 1), (true, Tally { passed: 3, failed: 0 }));
        assert_eq!(outcome(report(3, 1), 1), (false, Tally { passed: 3, failed: 1 }));
        assert!(!outcome(report(3, 0), 2).0, "a program that did not run");
        assert!(!outcome(report(0, 0), 1).0, "a program without tests");
        let dead = Err(Failure::new("dead"));
        assert_eq!(outcome(dead, 1), (false, Tally { passed: 0, failed: 1 }));
    }
}
