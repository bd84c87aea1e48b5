//! Commands with a limit on their time, and what they printed in the error.

use super::{Error, Netns, Result};
use std::process::{Command, Stdio};

/// No command of a test or the demo takes longer; one that does hangs.
const LIMIT_SECONDS: &str = "60";

/// A command that runs inside a namespace and is ended when it takes too long.
///
/// nsenter rather than `ip netns exec`, which would mount another /sys and so hide cgroups and pins.
pub fn inside(netns: &Netns, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = limited("nsenter");
    command
        .arg(format!("--net={}", netns.path().display()))
        .arg("--")
        .arg(program);
    command
}

/// A command that is ended when it takes too long.
pub(super) fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", LIMIT_SECONDS, program]);
    command
}

/// Runs a command to its end; what it printed on its output, or an error with all that it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::new(format!("cannot start `{}`: {error}", line_of(command))))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let printed = [errors.trim(), text.trim()].join("\n");
    Err(Error::new(format!(
        "`{}` ended with {}: {}",
        line_of(command),
        output.status,
        printed.trim()
    )))
}

/// The command as one would type it, without what limits and moves it.
pub(super) fn line_of(command: &Command) -> String {
    let mut words: Vec<String> = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned()),
    );
    if words.first().is_some_and(|word| word == "timeout") {
        words.drain(..3.min(words.len()));
    }
    if words.first().is_some_and(|word| word == "nsenter") {
        words.drain(..3.min(words.len()));
    }
    if let Some(first) = words.first_mut() {
        *first = first.rsplit('/').next().unwrap_or_default().to_owned();
    }
    words.join(" ")
}
