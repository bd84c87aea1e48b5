//! The eBPF object: where it comes from, whether it is ours, and what the verifier said of it.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use weft_dataplane::abi::{ABI_MARK, ABI_VERSION};

static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weft-dataplane.bpf.o"));

/// The largest object that is read: fifty times the size of ours, far below what could hurt.
const MAX_OBJECT_BYTES: u64 = 32 * 1024 * 1024;

/// Why there is no usable object. Nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The daemon was built before the object.
    #[error(
        "this weftd has no eBPF object built in: run `cargo xtask build-ebpf` and build weftd again, or name an object with --bpf-object"
    )]
    NotEmbedded,
    /// The file cannot be read.
    #[error("eBPF object {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is too large to be one.
    #[error("eBPF object {}: {size} bytes, more than the {MAX_OBJECT_BYTES} that an object may have", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// It does not carry weft's mark.
    #[error("{origin} is no eBPF object of weft: it carries no contract version; `cargo xtask build-ebpf` makes one")]
    NotOurs {
        /// Which object.
        origin: String,
    },
    /// It was built for another version of the contract.
    #[error(
        "eBPF object {origin} has contract version {found}, this weftd has {ABI_VERSION}: build both from the same source"
    )]
    OtherVersion {
        /// Which object.
        origin: String,
        /// Its version.
        found: u32,
    },
    /// It lacks a program.
    #[error("eBPF object {origin} has no program {program}: build it and weftd from the same source")]
    NoProgram {
        /// Which object.
        origin: String,
        /// Which program.
        program: &'static str,
    },
}

/// An object that carries this daemon's version of the contract.
#[derive(Debug)]
pub struct Object {
    bytes: Cow<'static, [u8]>,
    origin: String,
}

impl Object {
    /// The object that was built into the daemon.
    pub fn embedded() -> Result<Self, ObjectError> {
        if EMBEDDED.is_empty() {
            return Err(ObjectError::NotEmbedded);
        }
        Object::checked(Cow::Borrowed(EMBEDDED), "built into weftd".to_owned())
    }

    /// The object in a file.
    pub fn from_file(path: &Path) -> Result<Self, ObjectError> {
        let unreadable = |source| ObjectError::Read {
            path: path.to_owned(),
            source,
        };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_OBJECT_BYTES {
            return Err(ObjectError::TooLarge {
                path: path.to_owned(),
                size,
            });
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        Object::checked(Cow::Owned(bytes), path.display().to_string())
    }

    fn checked(bytes: Cow<'static, [u8]>, origin: String) -> Result<Self, ObjectError> {
        match version(&bytes) {
            Some(ABI_VERSION) => Ok(Object { bytes, origin }),
            Some(found) => Err(ObjectError::OtherVersion { origin, found }),
            None => Err(ObjectError::NotOurs { origin }),
        }
    }

    /// The ELF file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it came from, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// The version of the contract in the section `.weft_abi`.
fn version(bytes: &[u8]) -> Option<u32> {
    let mark = bytes.windows(ABI_MARK.len()).position(|window| window == ABI_MARK)?;
    let version = bytes.get(mark + ABI_MARK.len()..)?.first_chunk()?;
    Some(u32::from_le_bytes(*version))
}

/// The line of a verifier's log that says why: the last one before its statistics.
pub(super) fn decisive_line(log: &str) -> String {
    const STATISTICS: [&str; 4] = [
        "processed ",
        "verification time ",
        "stack depth ",
        "max_states_per_insn",
    ];
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !STATISTICS.iter().any(|prefix| line.starts_with(prefix)))
        .unwrap_or("it gave no reason")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(version: u32) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 0, 0];
        bytes.extend(ABI_MARK);
        bytes.extend(version.to_le_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn the_version_decides() {
        let checked = |bytes| Object::checked(Cow::Owned(bytes), "x.o".to_owned());
        assert!(checked(marked(ABI_VERSION)).is_ok());
        let other = checked(marked(ABI_VERSION + 7)).unwrap_err().to_string();
        assert_eq!(
            other,
            format!(
                "eBPF object x.o has contract version {}, this weftd has {ABI_VERSION}: build both from the same source",
                ABI_VERSION + 7
            )
        );
        for bytes in [vec![], b"text".to_vec(), marked(1)[..20].to_vec(), ABI_MARK.to_vec()] {
            assert!(matches!(checked(bytes), Err(ObjectError::NotOurs { .. })));
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Object::from_file(Path::new("/nonexistent/x.o"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("eBPF object /nonexistent/x.o: "), "{error}");
    }

    #[test]
    fn the_decisive_line_stands_before_the_statistics() {
        let log = "0: R1=ctx()\n12: (61) r2 = *(u32 *)(r1 +76)\ninvalid access to packet, off=14 size=4\nverification time 91 usec\nstack depth 0\nprocessed 13 insns (limit 1000000)\n\n";
        assert_eq!(decisive_line(log), "invalid access to packet, off=14 size=4");
        assert_eq!(decisive_line(""), "it gave no reason");
    }
}
