//! Where things are in this workspace.

use crate::process::{Done, Failure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace that the tasks work on.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The workspace that this program was started from through cargo, else the one it was built in.
    pub(crate) fn here() -> Self {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let manifest = PathBuf::from(manifest);
        let root = manifest.parent().map(Path::to_path_buf).unwrap_or(manifest);
        Workspace { root }
    }

    /// The folder of `Cargo.lock`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }

    /// The eBPF object that the daemon loads.
    pub(crate) fn object(&self) -> PathBuf {
        self.target().join("weft-dataplane.bpf.o")
    }

    /// Where tools that the tasks build for themselves are installed.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// The cargo that started this program.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo_program());
        command.current_dir(&self.root);
        command
    }

    /// The oldest Rust that the workspace allows: `rust-version` in `Cargo.toml`, as (major, minor).
    pub(crate) fn rust_version(&self) -> Done<(u32, u32)> {
        let manifest = read(&self.root.join("Cargo.toml"))?;
        let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
        version
            .and_then(|text| parse_version(text.trim().trim_matches('"')))
            .ok_or_else(|| Failure::new("Cargo.toml has no line `rust-version = \"MAJOR.MINOR\"`"))
    }
}

/// The cargo that started this program, else the one on PATH.
pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Reads a text file; the error names it.
pub(crate) fn read(path: &Path) -> Done<String> {
    std::fs::read_to_string(path).map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
}

/// The first two numbers of `1.95.0` or `1.97.0-nightly`.
pub(crate) fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_suffix() {
        assert_eq!(parse_version("1.95"), Some((1, 95)));
        assert_eq!(parse_version("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(parse_version("22"), None);
        assert_eq!(parse_version("one.two"), None);
    }

    #[test]
    fn the_workspace_states_its_rust_version() {
        assert!(
            Workspace::here().rust_version().unwrap() >= (1, 85),
            "edition 2024 needs 1.85"
        );
    }
}
