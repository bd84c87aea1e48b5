//! One emulated machine: boots a kernel with an archive, and hears what its tests say.

use super::packages::{Emulator, Kernel, cannot};
use crate::process::{Done, Failure, cannot_start};
use crate::test::{Tally, read_result};
use nix::sys::signal::{SigSet, Signal};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a guest may take until its first word, on a machine that is busy with other things.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// How long all of its tests may take: some 15 minutes on two idle CPUs, of which the verifier takes most. The guest turns itself off a
/// little later, should nobody be left to end it.
pub(super) const DEADLINE: Duration = Duration::from_secs(3600);
/// Main memory in MiB: the archive twice, and the maps of several loaded dataplanes.
const MEMORY: &str = "1536";
/// What is shown of the kernel's own messages when a guest fails.
const LAST_LINES: usize = 30;

/// Everything that must not be left behind: the guests and the folder of this run.
#[derive(Clone, Debug)]
pub(super) struct Leftovers {
    guests: Arc<Mutex<Vec<Child>>>,
    folder: PathBuf,
}

impl Leftovers {
    /// Makes the folder; both it and the guests go when the process is told to end.
    pub(super) fn new(folder: PathBuf) -> Done<Self> {
        std::fs::create_dir_all(&folder).map_err(|error| cannot("make", &folder, &error))?;
        let leftovers = Leftovers {
            guests: Arc::default(),
            folder,
        };
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        // For this thread and those that it starts from now on. Programs that they start have no signal blocked.
        signals
            .thread_block()
            .map_err(|errno| Failure::new(format!("cannot block signals: {errno}")))?;
        let on_signal = leftovers.clone();
        std::thread::spawn(move || {
            if let Ok(signal) = signals.wait() {
                on_signal.remove();
                std::process::exit(128 + signal as i32);
            }
        });
        Ok(leftovers)
    }

    /// Where files of this run may be put.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends all guests and removes the folder.
    pub(super) fn remove(&self) {
        // Kept locked until they are gone, so that no other is started meanwhile.
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        for guest in guests.iter_mut() {
            let _ = guest.kill();
            let _ = guest.wait();
        }
        guests.clear();
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn start(&self, emulator: &Emulator, kernel: &Kernel, archive: &Path, console: &Path) -> Done<ChildStdout> {
        let mut command = emulator.command();
        command
            .args(["-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(archive)
            .args(["-append", "console=ttyS0 quiet loglevel=4 panic=-1 rdinit=/init"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-chardev", "stdio,id=words,signal=off", "-serial", "chardev:words"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guest = command.spawn().map_err(|error| cannot_start(&command, &error))?;
        let words = guest.stdout.take();
        guests.push(guest);
        words.ok_or_else(|| Failure::new("the guest has no output"))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// Removes the leftovers of a run when it is over, however it ends.
#[derive(Debug)]
pub(super) struct Owner(pub(super) Leftovers);

/// What one program's tests gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Name of the program.
    pub(super) name: String,
    /// Its counts. A program that ended badly has at least one failure.
    pub(super) tally: Tally,
    /// How long it took.
    pub(super) took: Duration,
    /// What it said.
    pub(super) output: Vec<String>,
}

/// What became of a guest.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// `uname -r` inside.
    pub(super) release: String,
    /// How long it took until its first word.
    pub(super) boot: Duration,
    /// Its tests.
    pub(super) parts: Vec<Part>,
    /// What it said beside: what was set up and what was not.
    pub(super) notes: Vec<String>,
}

/// Boots the kernel, and gives what its tests say; fails if it falls silent or ends before it is done.
pub(super) fn run(leftovers: &Leftovers, emulator: &Emulator, kernel: &Kernel, archive: &Path) -> Done<Report> {
    let console = leftovers.folder().join(format!("console-{}", kernel.series));
    let words = leftovers.start(emulator, kernel, archive, &console)?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(words).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    listen(&receiver, kernel.series).map_err(|failure| {
        let log = std::fs::read_to_string(&console).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        Failure::new(format!("{failure}; the last messages of its kernel:\n{last}"))
    })
}

/// A program whose tests run at the moment.
struct Current {
    name: String,
    tally: Tally,
    start: Instant,
    output: Vec<String>,
}

fn listen(words: &Receiver<String>, series: &str) -> Done<Report> {
    let start = Instant::now();
    let mut report = Report::default();
    let mut current: Option<Current> = None;
    loop {
        let deadline = if report.release.is_empty() {
            BOOT_DEADLINE
        } else {
            DEADLINE
        };
        let line = match words.recv_timeout(deadline.saturating_sub(start.elapsed())) {
            Ok(line) => line,
            Err(error) => return Err(silent(series, &report, current.as_ref(), error, deadline)),
        };
        let (mark, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (mark, &mut current) {
            ("@boot", _) => (report.release, report.boot) = (rest.to_owned(), start.elapsed()),
            ("@note", _) => report.notes.push(rest.to_owned()),
            ("@run", _) => {
                current = Some(Current {
                    name: rest.to_owned(),
                    tally: Tally::default(),
                    start: Instant::now(),
                    output: Vec::new(),
                });
            }
            ("@end", Some(_)) => report
                .parts
                .extend(current.take().map(|part| finish(part, series, rest == "0"))),
            ("@done", _) => return Ok(report),
            (_, Some(part)) => {
                if let Some(result) = read_result(&line) {
                    part.tally.passed += result.passed;
                    part.tally.failed += result.failed;
                }
                part.output.push(line);
            }
            (_, None) => {}
        }
    }
}

fn finish(part: Current, series: &str, well: bool) -> Part {
    let mut tally = part.tally;
    if !well && tally.failed == 0 {
        tally.failed = 1;
    }
    if tally.failed > 0 {
        println!("==> {} under {series} failed:\n{}", part.name, part.output.join("\n"));
    }
    Part {
        name: part.name,
        tally,
        took: part.start.elapsed(),
        output: part.output,
    }
}

fn silent(
    series: &str,
    report: &Report,
    current: Option<&Current>,
    error: RecvTimeoutError,
    deadline: Duration,
) -> Failure {
    let mut doing = match current {
        Some(part) => format!("{}, whose last word was {:?}", part.name, part.output.last()),
        None => "nothing yet".to_owned(),
    };
    for part in &report.parts {
        let (tally, seconds) = (part.tally, part.took.as_secs_f64());
        doing += &format!(
            ", after {} ({} passed, {} failed, {seconds:.0} s)",
            part.name, tally.passed, tally.failed
        );
    }
    Failure::new(match error {
        RecvTimeoutError::Timeout => {
            format!(
                "the guest with kernel {series} did not finish in {} s; it ran {doing}",
                deadline.as_secs()
            )
        }
        RecvTimeoutError::Disconnected => {
            format!("the guest with kernel {series} ended before it was done; it ran {doing}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Done<Report> {
        let (sender, receiver) = channel();
        for line in lines {
            sender.send((*line).to_owned()).unwrap();
        }
        drop(sender);
        listen(&receiver, "6.1")
    }

    #[test]
    fn the_counts_of_each_program_are_heard() {
        let report = heard(&[
            "noise",
            "@boot 6.1.0-56",
            "@note no tcx",
            "@run one",
            "test result: ok. 3 passed; 0 failed; 0 ignored",
            "@end 0",
            "@run two",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored",
            "@end 101",
            "@run three",
            "Killed",
            "@end 137",
            "@done",
        ])
        .unwrap();
        assert_eq!((report.release.as_str(), report.notes.len()), ("6.1.0-56", 1));
        let counts: Vec<(&str, u64, u64)> = report
            .parts
            .iter()
            .map(|part| (part.name.as_str(), part.tally.passed, part.tally.failed))
            .collect();
        assert_eq!(counts, [("one", 3, 0), ("two", 1, 2), ("three", 0, 1)]);
    }

    #[test]
    fn a_guest_that_ends_early_is_a_failure_that_names_what_ran() {
        let failure = heard(&["@boot 6.1", "@run one", "about to die"])
            .unwrap_err()
            .to_string();
        assert_eq!(
            failure,
            "the guest with kernel 6.1 ended before it was done; it ran one, whose last word was Some(\"about to die\")"
        );
        assert!(heard(&[]).unwrap_err().to_string().ends_with("it ran nothing yet"));
    }
}
