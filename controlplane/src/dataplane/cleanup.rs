//! Removing all that a weftd left in the kernel, whether it lives in memory of anybody or not: the pins tell what there is.

use super::attach::{AttachError, AttachMode, Attacher, Hook};
use super::{early, sockets};
use crate::lock::{Lock, LockError};
use std::path::{Path, PathBuf};

/// Why not everything was removed. What was removed before stays removed; it can be tried again.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A weftd runs.
    #[error("bpf-pin-dir {0}: stop it first")]
    Lock(#[from] LockError),
    /// A program could not be detached, or a pin not be removed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It is no directory of weft's.
    #[error("bpf-pin-dir {}: holds {found:?}, which is not weft's: nothing was removed", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Programs that were attached, with the index of their interface.
    pub attached: Vec<(Hook, u32)>,
    /// Interfaces that got their `clsact` queueing discipline from weft. It is still there: others may have put filters into it.
    pub disciplines: Vec<u32>,
    /// Interfaces whose drivers dropped packets.
    pub filters: Vec<u32>,
    /// Whether programs saw the host's sockets.
    pub sockets: bool,
    /// Whether there were pins at all.
    pub pins: bool,
}

/// Detaches and unpins everything below a pin directory, and removes the directory. Refused while a weftd uses it.
pub fn clean_up(pin_directory: &Path) -> Result<Removed, CleanupError> {
    if !pin_directory.exists() {
        return Ok(Removed::default());
    }
    let _lock = Lock::take(pin_directory)?;
    // What is detached goes by the pins, whichever the mode.
    let attacher = Attacher::new(pin_directory, AttachMode::Tcx);
    if let Some(found) = attacher.stranger()? {
        return Err(CleanupError::NotOurs {
            path: pin_directory.to_owned(),
            found,
        });
    }
    let removed = Removed {
        attached: attacher.attached()?,
        disciplines: attacher.disciplines()?,
        sockets: sockets::detach(pin_directory)?,
        filters: early::detach_all(pin_directory)?,
        pins: true,
    };
    attacher.remove_all()?;
    Ok(removed)
}
