//! The guest's first and only filesystem: a cpio archive that the kernel unpacks into memory (Linux
//! Documentation/driver-api/early-userspace/buffer-format.rst), written here so that no other program is needed.

use super::packages::cannot;
use crate::process::{Done, Failure, capture, find_program, run_quietly};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive in the format `newc`.
#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    members: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds an empty folder, and those that it lies in.
    pub(super) fn folder(&mut self, path: impl AsRef<Path>) {
        let ancestors: Vec<&Path> = path.as_ref().ancestors().collect();
        for folder in ancestors.into_iter().rev() {
            if folder.parent().is_some() && self.members.insert(folder.to_owned()) {
                self.member(folder, FOLDER, &[]);
            }
        }
    }

    /// Adds a file that may be executed, unless it is there.
    pub(super) fn file(&mut self, path: impl AsRef<Path>, content: &[u8]) {
        let path = path.as_ref();
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        if self.members.insert(path.to_owned()) {
            self.member(path, PROGRAM, content);
        }
    }

    /// Adds a program of this machine's, with the libraries that it is linked to.
    pub(super) fn program(&mut self, path: impl AsRef<Path>, program: &Path, scratch: &Path) -> Done {
        // Without its symbols a test is a tenth as large; if nothing can strip it, it is taken as it is.
        let stripped = scratch.join("stripped");
        let strip =
            find_program("strip").map(|strip| Command::new(strip).arg("-o").arg(&stripped).arg(program).output());
        let smaller = matches!(strip, Some(Ok(output)) if output.status.success());
        let source = if smaller { &stripped } else { program };
        let content = fs::read(source).map_err(|error| cannot("read", source, &error))?;
        self.file(path, &content);
        for library in libraries(program)? {
            let content = fs::read(&library).map_err(|error| cannot("read", &library, &error))?;
            self.file(&library, &content);
        }
        Ok(())
    }

    /// The archive's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.write("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn member(&mut self, path: &Path, mode: u32, content: &[u8]) {
        let name = path.to_string_lossy();
        self.write(name.trim_start_matches('/'), mode, content);
    }

    fn write(&mut self, name: &str, mode: u32, content: &[u8]) {
        let (inode, links, length, name_length) = (self.members.len(), 1, content.len(), name.len() + 1);
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{length:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name_length:08x}{0:08x}",
            0
        );
        self.bytes.extend(header.bytes());
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The libraries of a program, and the loader; none if it is linked statically.
fn libraries(program: &Path) -> Done<Vec<PathBuf>> {
    Ok(match capture(Command::new("ldd").arg(program)) {
        Ok(shown) => paths(&shown),
        Err(_) => Vec::new(),
    })
}

fn paths(shown: &str) -> Vec<PathBuf> {
    shown
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// A module and all that it needs, in the order in which they are to be loaded; empty if the kernel has it built in.
#[derive(Debug)]
pub(super) struct Modules {
    files: Vec<PathBuf>,
    loaded: BTreeSet<String>,
}

impl Modules {
    /// The modules of a kernel's folder.
    pub(super) fn of(folder: &Path) -> Self {
        let mut modules = Modules {
            files: Vec::new(),
            loaded: BTreeSet::new(),
        };
        modules.search(folder);
        modules
    }

    fn search(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.search(&path);
            } else {
                self.files.push(path);
            }
        }
    }

    /// Names and contents of the module and what it depends on, without those that were given before.
    pub(super) fn take(&mut self, name: &str, scratch: &Path) -> Done<Vec<(String, Vec<u8>)>> {
        if !self.loaded.insert(name.to_owned()) {
            return Ok(Vec::new());
        }
        let Some(path) = self.files.iter().find(|path| module_name(path) == name).cloned() else {
            return Ok(Vec::new());
        };
        let content = if path.extension().is_some_and(|extension| extension == "xz") {
            let copy = scratch.join("module.ko.xz");
            let unpacked = scratch.join("module.ko");
            let _ = fs::remove_file(&unpacked);
            fs::copy(&path, &copy).map_err(|error| cannot("copy", &path, &error))?;
            run_quietly(Command::new("xz").arg("--decompress").arg(&copy))?;
            fs::read(&unpacked).map_err(|error| cannot("read", &unpacked, &error))?
        } else {
            fs::read(&path).map_err(|error| cannot("read", &path, &error))?
        };
        let depends = depends(&content)
            .ok_or_else(|| Failure::new(format!("{} does not say what it depends on", path.display())))?;
        let mut all = Vec::new();
        for depend in depends {
            all.extend(self.take(&depend, scratch)?);
        }
        all.push((name.to_owned(), content));
        Ok(all)
    }
}

/// `sch_ingress` for `sch_ingress.ko.xz`; a hyphen in a file's name is an underscore in the module's.
fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

/// What a module says that it needs: `depends=a,b` in its section `.modinfo`.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let start = module.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let list = module[start..].split(|byte| *byte == 0).next()?;
    let names = String::from_utf8_lossy(list);
    Some(
        names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(|name| name.replace('-', "_"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_reads() {
        let mut archive = Archive::default();
        archive.file("/a/b/file", b"hello");
        archive.file("/a/b/file", b"twice");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        for name in ["a\0", "a/b\0", "a/b/file\0", "TRAILER!!!\0"] {
            assert_eq!(text.matches(&format!("00000000{name}")).count(), 1, "{name}");
        }
        assert!(text.contains("hello") && !text.contains("twice"), "{text}");
    }

    #[test]
    fn libraries_are_the_paths_that_ldd_prints() {
        let shown = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(paths(shown), [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld.so")]);
    }

    #[test]
    fn a_module_says_what_it_depends_on() {
        let module = b"\x7fELF\0alias=x\0depends=udp_tunnel,ip6-udp-tunnel\0name=vxlan\0";
        assert_eq!(depends(module).unwrap(), ["udp_tunnel", "ip6_udp_tunnel"]);
        assert_eq!(depends(b"\0depends=\0").unwrap(), Vec::<String>::new());
        assert_eq!(depends(b"nothing"), None);
        assert_eq!(module_name(Path::new("/m/net/sch-ingress.ko.xz")), "sch_ingress");
    }
}
