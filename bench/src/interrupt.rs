//! Ctrl-C ends the bench at the next step, so that everything it made is removed on the way out.

use crate::error::{Context, Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP are noted and no longer end the process. The programs that the bench starts are not
/// affected: blocking the signals instead would be inherited, and daemons would not hear that they shall end.
pub fn install() -> Result<()> {
    let failed = || "cannot listen for signals".to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(failed)?;
    let registered = {
        let _inside = runtime.enter();
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal)
    };
    let [interrupt, terminate, hangup] = registered;
    let signals = [
        interrupt.context(failed)?,
        terminate.context(failed)?,
        hangup.context(failed)?,
    ];
    std::thread::spawn(move || runtime.block_on(note(signals)));
    Ok(())
}

async fn note([mut interrupt, mut terminate, mut hangup]: [Signal; 3]) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if !REQUESTED.swap(true, Ordering::Relaxed) {
            eprintln!("weft-bench: stopping, removing namespaces");
        }
    }
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
