//! One weftd for a directory: a lock that the kernel takes back when its holder ends, however it ends.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The kernel's list of locks.
const LOCKS: &str = "/proc/locks";

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else has it.
    #[error("{} is in use by {}", path.display(), holder(*pid))]
    Held {
        /// The directory.
        path: PathBuf,
        /// Its holder, if the kernel tells.
        pid: Option<u32>,
    },
    /// It cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// `another weftd, process 4711`.
pub(crate) fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("another weftd, process {pid}"),
        None => "another weftd".to_owned(),
    }
}

/// A locked directory, until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Locks a directory; refuses at once if it is locked.
    pub(crate) fn take(path: &Path) -> Result<Lock, LockError> {
        let failed = |source| LockError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(LockError::Held {
                path: path.to_owned(),
                pid: holder_of(inode),
            }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

/// The process that has a file locked, if the kernel tells.
pub(crate) fn holder_of_file(path: &Path) -> Option<u32> {
    holder_of(fs::metadata(path).ok()?.ino())
}

fn holder_of(inode: u64) -> Option<u32> {
    find_holder(&fs::read_to_string(LOCKS).ok()?, inode)
}

/// Who holds a lock on the inode, in the text of `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 4711 00:1b:42 0 EOF`. The device is not
/// compared: a filesystem without one has another number here than in `stat`.
fn find_holder(locks: &str, inode: u64) -> Option<u32> {
    let holds = |line: &&str| {
        let place = line.split_whitespace().nth(5);
        place.and_then(|place| place.rsplit(':').next()) == Some(inode.to_string().as_str())
    };
    let line = locks.lines().filter(|line| line.contains(" FLOCK ")).find(holds)?;
    line.split_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_from_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1b:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 00:1b:77 0 EOF\n2: -> FLOCK  ADVISORY  WRITE 12 00:1b:78 0 EOF\n";
        assert_eq!(find_holder(locks, 77), Some(4711));
        assert_eq!(find_holder(locks, 7), None);
        assert_eq!(find_holder("", 77), None);
    }

    #[test]
    fn a_directory_is_locked_once_and_its_holder_named() {
        let folder = std::env::temp_dir().join(format!("weft-lock-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = Lock::take(&folder).unwrap();
        let refusal = Lock::take(&folder).unwrap_err().to_string();
        assert_eq!(
            refusal,
            format!(
                "{} is in use by another weftd, process {}",
                folder.display(),
                std::process::id()
            )
        );
        drop(first);
        drop(Lock::take(&folder).unwrap());
        fs::remove_dir(&folder).unwrap();
    }
}
