//! Waiting on conditions.

use super::{Error, Result};
use crate::interrupt;
use std::time::{Duration, Instant};

/// How often a condition is tried. Each try is a command or a look at a process, so more often would only burn the CPU that the
/// condition waits for.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Tries until it succeeds. After `limit`, or when the user interrupts, an error that says what was waited for and how the last
/// try failed.
pub fn wait_until<T, E: std::fmt::Display>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> std::result::Result<T, E>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let reason = match attempt() {
            Ok(value) => return Ok(value),
            Err(reason) => reason,
        };
        if interrupt::requested() {
            return Err(Error::new(format!("interrupted while waiting until {what}")));
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!(
                "not within {} s: {what}; last: {reason}",
                limit.as_secs_f32()
            )));
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
}
