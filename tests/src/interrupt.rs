//! Ctrl-C lets everything be removed on the way out, instead of ending the process on the spot.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Notes SIGINT, SIGTERM and SIGHUP instead of dying of them. Children start with the default again.
pub fn install() -> Result<(), String> {
    let explain = |error: std::io::Error| format!("cannot handle signals: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(explain)?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _guard = runtime.enter();
        let handle = |kind| signal(kind).map_err(explain);
        (
            handle(SignalKind::interrupt())?,
            handle(SignalKind::terminate())?,
            handle(SignalKind::hangup())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if !REQUESTED.swap(true, Ordering::Relaxed) {
                    eprintln!("\nstopping: removing what was made");
                }
            }
        });
    });
    Ok(())
}

/// Whether the user wants to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
