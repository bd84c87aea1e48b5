//! Runs a system's own tools.

use crate::error::{Context, Error, Result};
use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Runs a command to its end and gives its standard output; an error holds what it wrote on standard error.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context(|| cannot_run(program))?;
    checked(program, arguments, output)
}

/// The same with `input` on standard input.
pub fn run_with_input<S: AsRef<OsStr>>(program: &str, arguments: &[S], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| cannot_run(program))?;
    // The command may end before it reads everything; its exit status then tells why.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child
        .wait_with_output()
        .context(|| format!("cannot wait for {program}"))?;
    let text = checked(program, arguments, output)?;
    written.context(|| format!("cannot write to {program}"))?;
    Ok(text)
}

fn cannot_run(program: &str) -> String {
    format!("cannot run {program:?} (is it installed?)")
}

fn checked<S: AsRef<OsStr>>(program: &str, arguments: &[S], output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    let error = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!(
        "{program} {}: {}: {}",
        arguments.join(" "),
        output.status,
        error.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_tells_its_arguments_and_its_complaint() {
        let error = run("sh", &["-c", "echo no such thing >&2; exit 3"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sh -c") && error.contains("no such thing") && error.contains('3'),
            "{error}"
        );
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input("cat", &[] as &[&str], "hello").unwrap(), "hello");
    }

    #[test]
    fn a_missing_command_is_named() {
        let error = run("weft-no-such-program", &[] as &[&str]).unwrap_err().to_string();
        assert!(error.contains("weft-no-such-program"), "{error}");
    }
}
