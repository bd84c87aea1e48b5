//! A process that ends with its owner.

use super::wait::wait_until;
use super::{Error, Netns, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a process may take to end when asked; then it is killed.
const TIME_TO_END: Duration = Duration::from_secs(10);

/// A process inside a namespace, its output in a file. Asked to end when dropped, and killed if it does not.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program inside a namespace; its output is added to the file `log`. `name` is for messages.
    pub fn start(netns: &Netns, name: &str, log: &Path, program: &Path, arguments: &[&str]) -> Result<Self> {
        let explain =
            |error: std::io::Error| Error::new(format!("cannot start {name}, log {}: {error}", log.display()));
        let output = File::options().create(true).append(true).open(log).map_err(explain)?;
        let errors = output.try_clone().map_err(explain)?;
        // nsenter replaces itself by the program, so the child's id is the program's. A group of its own keeps the terminal's
        // Ctrl-C away: the owner decides.
        let child = Command::new("nsenter")
            .arg(format!("--net={}", netns.path().display()))
            .arg("--")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(explain)?;
        Ok(Process {
            child,
            name: name.to_owned(),
            log: log.to_path_buf(),
        })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// An error with the end of its log if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => Err(Error::new(format!(
                "{} ended with {status}; its log:\n{}",
                self.name,
                tail(&self.log)
            ))),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(|_| Error::new(format!("pid {}", self.child.id())))?;
        kill(Pid::from_raw(pid), signal).map_err(|error| Error::new(format!("{signal} to {}: {error}", self.name)))
    }

    /// Asks it to end and waits; its exit status.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.end()
    }

    /// Kills it, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait().map(drop).map_err(|error| self.cannot_wait(&error))
    }

    fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.exit_status()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let name = self.name.clone();
        wait_until(TIME_TO_END, &format!("{name} ends when asked"), || {
            self.exit_status()?.ok_or_else(|| Error::new("it runs on"))
        })
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|error| self.cannot_wait(&error))
    }

    fn cannot_wait(&self, error: &std::io::Error) -> Error {
        Error::new(format!("cannot wait for {}: {error}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end().is_err() {
            // The child is ours and not yet waited for, so its id cannot be somebody else's.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How many lines of a log are shown with an error.
const TAIL_LINES: usize = 25;

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
