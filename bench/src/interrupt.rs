//! Ctrl-C ends the bench at the next step, so that everything it made is removed on the way out.

use crate::error::{Context, Error, Result};
use nix::sys::signal::{SigSet, Signal};
use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Takes SIGINT, SIGTERM and SIGHUP away from all threads started later and notes them instead. Call it first in `main`.
pub fn install() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block().context(|| "cannot block signals".to_owned())?;
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            if !REQUESTED.swap(true, Ordering::Relaxed) {
                eprintln!("weft-bench: stopping, removing namespaces");
            }
        }
    });
    Ok(())
}

/// Whether the user wants to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error once the user wants to stop.
pub fn check() -> Result<()> {
    if requested() {
        return Err(Error::new("interrupted"));
    }
    Ok(())
}
