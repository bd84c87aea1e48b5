//! Log lines in the two forms of Docker's: `time="…" level=info msg="…"`, and coloured on a terminal.

use crate::golang::quote;
use std::io::Write;
use std::time::Instant;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes log lines.
pub(crate) struct Log<'a> {
    out: &'a mut dyn Write,
    coloured: bool,
    verbose: bool,
    start: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Fatal => "fatal",
        }
    }

    /// Four capitals and the number of an ANSI colour.
    fn short(self) -> (&'static str, u8) {
        match self {
            Level::Debug => ("DEBU", 37),
            Level::Info => ("INFO", 36),
            Level::Warning => ("WARN", 33),
            Level::Error => ("ERRO", 31),
            Level::Fatal => ("FATA", 31),
        }
    }
}

impl<'a> Log<'a> {
    /// A log that begins now; `verbose` also writes debug lines.
    pub(crate) fn new(out: &'a mut dyn Write, coloured: bool, verbose: bool) -> Log<'a> {
        Log {
            out,
            coloured,
            verbose,
            start: Instant::now(),
        }
    }

    pub(crate) fn debug(&mut self, message: &str) {
        if self.verbose {
            self.write(Level::Debug, message, None);
        }
    }

    pub(crate) fn info(&mut self, message: &str) {
        self.write(Level::Info, message, None);
    }

    pub(crate) fn warning(&mut self, message: &str) {
        self.write(Level::Warning, message, None);
    }

    pub(crate) fn error(&mut self, message: &str, error: Option<&str>) {
        self.write(Level::Error, message, error);
    }

    pub(crate) fn fatal(&mut self, message: &str, error: Option<&str>) {
        self.write(Level::Fatal, message, error);
    }

    fn write(&mut self, level: Level, message: &str, error: Option<&str>) {
        let line = if self.coloured {
            coloured(level, self.start.elapsed().as_secs(), message, error)
        } else {
            plain(level, OffsetDateTime::now_utc(), message, error)
        };
        // There is nowhere left to tell that standard error is closed.
        let _ = self.out.write_all(line.as_bytes());
    }
}

fn plain(level: Level, now: OffsetDateTime, message: &str, error: Option<&str>) -> String {
    let now = now
        .replace_nanosecond(0)
        .unwrap_or(now)
        .format(&Rfc3339)
        .unwrap_or_default();
    let error = error.map_or_else(String::new, |error| format!(" error={}", value(error)));
    format!(
        "time={} level={} msg={}{error}\n",
        value(&now),
        level.name(),
        value(message)
    )
}

fn coloured(level: Level, seconds: u64, message: &str, error: Option<&str>) -> String {
    let (name, colour) = level.short();
    let message = message.strip_suffix('\n').unwrap_or(message);
    let error = error.map_or_else(String::new, |error| {
        format!(" \x1b[{colour}merror\x1b[0m={}", value(error))
    });
    format!("\x1b[{colour}m{name}\x1b[0m[{seconds:04}] {message:<44} {error}\n")
}

/// Quoted when it has anything but letters, digits and a few signs.
fn value(text: &str) -> String {
    if text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b))
    {
        text.to_owned()
    } else {
        quote(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::parse("2026-11-22T04:44:14.5Z", &Rfc3339).unwrap()
    }

    #[test]
    fn plain_lines_are_docker_s() {
        assert_eq!(
            plain(Level::Info, now(), "Fetch cluster peers", None),
            "time=\"2026-11-22T04:44:14Z\" level=info msg=\"Fetch cluster peers\"\n"
        );
        assert_eq!(
            plain(Level::Warning, now(), "Joining the network:\"n1\"\n", Some("refused")),
            "time=\"2026-11-22T04:44:14Z\" level=warning msg=\"Joining the network:\\\"n1\\\"\\n\" error=refused\n"
        );
    }

    #[test]
    fn terminal_lines_are_docker_s() {
        assert_eq!(
            coloured(Level::Info, 3, "Fetch cluster peers", None),
            format!("\x1b[36mINFO\x1b[0m[0003] {:<44} \n", "Fetch cluster peers")
        );
        assert_eq!(
            coloured(Level::Error, 12, "Failed", Some("a b")),
            format!(
                "\x1b[31mERRO\x1b[0m[0012] {:<44}  \x1b[31merror\x1b[0m=\"a b\"\n",
                "Failed"
            )
        );
    }
}
