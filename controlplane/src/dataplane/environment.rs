//! What the host must offer, checked before anything is touched; and the directory for pins.

use aya::util::KernelVersion;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the BPF filesystem belongs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The oldest kernel: `bpf_redirect_peer` and `bpf_redirect_neigh` came with 5.10, 32-bit atomic additions that return the old value
/// with 5.12.
pub const MINIMUM_KERNEL: (u8, u8) = (5, 12);

/// Capability numbers (Linux `include/uapi/linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Why the host cannot run the programs. Nothing was changed, except that the BPF filesystem may have been mounted.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The kernel is too old.
    #[error("kernel {found} is too old: weft needs {}.{} or newer", MINIMUM_KERNEL.0, MINIMUM_KERNEL.1)]
    KernelTooOld {
        /// The running kernel.
        found: String,
    },
    /// A privilege is missing.
    #[error(
        "loading eBPF programs needs root, or the capabilities CAP_BPF and CAP_NET_ADMIN: this process lacks {missing}"
    )]
    NotPermitted {
        /// Which ones.
        missing: &'static str,
    },
    /// A file of the kernel cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which one.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The BPF filesystem cannot be mounted.
    #[error("the BPF filesystem cannot be mounted at {BPFFS}: {source}")]
    Mount {
        /// Why.
        source: io::Error,
    },
    /// The directory lies on another filesystem.
    #[error("pin directory {} is not on a BPF filesystem: choose one below {BPFFS}", path.display())]
    NotBpffs {
        /// Which directory.
        path: PathBuf,
    },
    /// The directory cannot be made.
    #[error("pin directory {}: {source}", path.display())]
    PinDirectory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether the kernel and this process's privileges are enough.
pub(super) fn check() -> Result<(), EnvironmentError> {
    check_kernel(KernelVersion::current().ok(), running_kernel)?;
    const STATUS: &str = "/proc/self/status";
    let status = fs::read_to_string(STATUS).map_err(|source| EnvironmentError::Unreadable { path: STATUS, source })?;
    match missing_capabilities(&status) {
        Some(missing) => Err(EnvironmentError::NotPermitted { missing }),
        None => Ok(()),
    }
}

/// A kernel whose version cannot be read passes: the later steps will tell.
fn check_kernel(current: Option<KernelVersion>, name: impl FnOnce() -> String) -> Result<(), EnvironmentError> {
    let (major, minor) = MINIMUM_KERNEL;
    match current {
        Some(current) if current < KernelVersion::new(major, minor, 0) => {
            Err(EnvironmentError::KernelTooOld { found: name() })
        }
        _ => Ok(()),
    }
}

/// Whether the running kernel is of this version or newer; if its version cannot be read, the later steps will tell.
pub(super) fn kernel_is_at_least((major, minor): (u8, u8)) -> bool {
    KernelVersion::current().map_or(true, |current| current >= KernelVersion::new(major, minor, 0))
}

pub(super) fn running_kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "of unknown version".to_owned(), |text| text.trim().to_owned())
}

/// What the effective capabilities in the text of `/proc/self/status` lack.
fn missing_capabilities(status: &str) -> Option<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 == 1;
    if has(CAP_SYS_ADMIN) && has(CAP_NET_ADMIN) {
        return None;
    }
    match (has(CAP_BPF), has(CAP_NET_ADMIN)) {
        (true, true) => None,
        (false, true) => Some("CAP_BPF"),
        (true, false) => Some("CAP_NET_ADMIN"),
        (false, false) => Some("both"),
    }
}

/// A pin directory that was made just now and goes again, with what was pinned in it, unless it is kept: so a failed start leaves
/// nothing. One that was there before stays.
#[derive(Debug)]
pub(super) struct PinDirectory {
    made: Option<PathBuf>,
}

impl PinDirectory {
    /// From now on it stays.
    pub(super) fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for PinDirectory {
    fn drop(&mut self) {
        let Some(path) = &self.made else { return };
        if let Err(error) = fs::remove_dir_all(path) {
            tracing::warn!(directory = %path.display(), %error, "the pins of a failed start stay");
        }
    }
}

/// Makes the directory, for root only, on a BPF filesystem that is mounted if nothing is mounted there yet.
pub(super) fn prepare_pin_directory(path: &Path) -> Result<PinDirectory, EnvironmentError> {
    if path.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|errno| EnvironmentError::Mount { source: errno.into() })?;
    }
    if !nearest_existing(path).is_some_and(is_bpffs) {
        return Err(EnvironmentError::NotBpffs { path: path.to_owned() });
    }
    let failed = |source| EnvironmentError::PinDirectory {
        path: path.to_owned(),
        source,
    };
    let made = (!path.exists()).then(|| path.to_owned());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let directory = PinDirectory { made };
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(directory)
}

fn nearest_existing(path: &Path) -> Option<&Path> {
    path.ancestors().find(|ancestor| ancestor.exists())
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused() {
        let check = |major, minor, patch| {
            check_kernel(Some(KernelVersion::new(major, minor, patch)), || {
                format!("{major}.{minor}.{patch}-generic")
            })
        };
        let (major, minor) = MINIMUM_KERNEL;
        for (major, minor, patch) in [(4, 19, 300), (major, minor - 1, 255)] {
            assert_eq!(
                check(major, minor, patch).unwrap_err().to_string(),
                format!("kernel {major}.{minor}.{patch}-generic is too old: weft needs 5.12 or newer")
            );
        }
        assert!(check(major, minor, 0).is_ok() && check(major + 1, 0, 0).is_ok());
        assert!(check_kernel(None, String::new).is_ok());
    }

    #[test]
    fn missing_capabilities_are_named() {
        let status = |hex: &str| format!("Name:\tweftd\nCapPrm:\tffffffffffffffff\nCapEff:\t{hex}\nCapBnd:\t0\n");
        for (effective, missing) in [
            ("000001ffffffffff", None),
            ("0000008000001000", None),
            ("0000000000201000", None),
            ("0000008000000000", Some("CAP_NET_ADMIN")),
            ("0000000000001000", Some("CAP_BPF")),
            ("0000000000000000", Some("both")),
        ] {
            assert_eq!(missing_capabilities(&status(effective)), missing, "{effective}");
        }
        assert_eq!(missing_capabilities("garbage"), Some("both"));
    }

    #[test]
    fn a_directory_elsewhere_is_refused() {
        let error = prepare_pin_directory(Path::new("/proc/weft/pins"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "pin directory /proc/weft/pins is not on a BPF filesystem: choose one below /sys/fs/bpf"
        );
    }
}
