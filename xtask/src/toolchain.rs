//! Finding a Rust toolchain that can build for the BPF target: one that has the source of `core`.

use crate::process::{Done, capture};
use crate::workspace::{Workspace, cargo_program, parse_version};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's compiler outside rustup; the packages `rustc-web` and `rust-web-src` put it there.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// A compiler with the source of `core`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// How to call it in messages.
    pub(crate) name: String,
    /// The compiler itself, not rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// The cargo to drive it.
    pub(crate) cargo: OsString,
    /// Major version of the LLVM that it writes bitcode of.
    pub(crate) llvm_major: u32,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Search {
    /// Toolchains that will do, the best first.
    pub(crate) usable: Vec<Toolchain>,
    /// Those that will not, each with the reason.
    pub(crate) refused: Vec<String>,
}

/// Looks through rustup's toolchains, then at the system's compiler. Installs nothing.
pub(crate) fn search(workspace: &Workspace) -> Done<Search> {
    let oldest = workspace.rust_version()?;
    let mut search = Search::default();
    for folder in rustup_toolchains() {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cargo = folder.join("bin/cargo");
        let cargo = if cargo.is_file() { cargo.into() } else { cargo_program() };
        search.add(
            format!("rustup toolchain {name}"),
            folder.join("bin/rustc"),
            cargo,
            oldest,
        );
    }
    // The system's own cargo may be years older than its compiler, so ours drives it.
    search.add(
        format!("system compiler {SYSTEM_RUSTC}"),
        SYSTEM_RUSTC.into(),
        cargo_program(),
        oldest,
    );
    Ok(search)
}

impl Search {
    fn add(&mut self, name: String, rustc: PathBuf, cargo: OsString, oldest: (u32, u32)) {
        match examine(&rustc, oldest) {
            Ok(llvm_major) => self.usable.push(Toolchain {
                name,
                rustc,
                cargo,
                llvm_major,
            }),
            Err(reason) => self.refused.push(format!("{name}: {reason}")),
        }
    }
}

/// The LLVM major of a compiler that will do, or why it will not.
fn examine(rustc: &Path, oldest: (u32, u32)) -> Result<u32, String> {
    if !rustc.is_file() {
        return Err("not installed".to_owned());
    }
    let sysroot = capture(Command::new(rustc).args(["--print", "sysroot"])).map_err(|failure| failure.to_string())?;
    let about = capture(Command::new(rustc).arg("-vV")).map_err(|failure| failure.to_string())?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    judge(&about, source.is_file(), oldest)
}

fn judge(about: &str, has_source: bool, oldest: (u32, u32)) -> Result<u32, String> {
    let release = field(about, "release").unwrap_or("unknown");
    if parse_version(release).is_none_or(|version| version < oldest) {
        return Err(format!("version {release} is older than {}.{}", oldest.0, oldest.1));
    }
    if !has_source {
        return Err("has no rust-src component".to_owned());
    }
    let llvm = field(about, "LLVM version").unwrap_or("unknown");
    llvm.split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .ok_or_else(|| format!("LLVM version {llvm:?} is not MAJOR.MINOR"))
}

/// A line `name: value` of `rustc -vV`.
fn field<'a>(about: &'a str, name: &str) -> Option<&'a str> {
    about
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The folders of rustup's toolchains: nightlies first, for they accept `-Z` by themselves.
fn rustup_toolchains() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".rustup")));
    let Some(entries) = home.and_then(|home| std::fs::read_dir(home.join("toolchains")).ok()) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (!name.starts_with("nightly"), name)
    });
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn a_toolchain_needs_age_and_source() {
        assert_eq!(judge(ABOUT, true, (1, 95)), Ok(22));
        assert_eq!(
            judge(ABOUT, false, (1, 95)),
            Err("has no rust-src component".to_owned())
        );
        assert_eq!(
            judge(ABOUT, true, (1, 97)),
            Err("version 1.96.0 is older than 1.97".to_owned())
        );
        assert_eq!(
            judge("", true, (1, 95)),
            Err("version unknown is older than 1.95".to_owned())
        );
    }

    #[test]
    fn a_compiler_without_llvm_is_refused() {
        let about = "release: 1.96.0\n";
        assert_eq!(
            judge(about, true, (1, 95)),
            Err("LLVM version \"unknown\" is not MAJOR.MINOR".to_owned())
        );
    }

    #[test]
    fn a_missing_compiler_is_refused() {
        assert_eq!(
            examine(Path::new("/nonexistent/rustc"), (1, 95)),
            Err("not installed".to_owned())
        );
    }
}
