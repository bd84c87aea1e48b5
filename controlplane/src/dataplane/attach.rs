//! Puts programs on interfaces: tcx links where the kernel has them, `clsact` filters elsewhere.
//!
//! A tcx link is pinned, so it outlives the daemon, and its program is replaced in place. A filter outlives the daemon by itself.

use super::{early, maps, pins, sockets};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use nix::net::if_::if_indextoname;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use weft_dataplane::abi::program;

/// Priority and handle of our `clsact` filters: fixed, so that a restart finds and replaces them. "weft" on a telephone's keys.
const FILTER_PRIORITY: u16 = 9338;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// An empty directory of this name and an interface's index says that we made the `clsact` queueing discipline there.
const DISCIPLINE_NOTE: &str = "clsact-";

/// A place where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// The host-side veth of an endpoint: `overlay_egress`.
    Endpoint,
    /// The device that carries the overlay: `overlay_ingress`.
    Uplink,
}

impl Hook {
    /// All hooks.
    pub const ALL: [Hook; 2] = [Hook::Endpoint, Hook::Uplink];

    /// The program that belongs there.
    pub const fn program(self) -> &'static str {
        match self {
            Hook::Endpoint => program::OVERLAY_EGRESS,
            Hook::Uplink => program::OVERLAY_INGRESS,
        }
    }

    fn of_program(name: &str) -> Option<Hook> {
        Hook::ALL.into_iter().find(|hook| hook.program() == name)
    }
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx links, from Linux 6.6 on.
    Tcx,
    /// Filters of the `clsact` queueing discipline.
    Clsact,
}

impl AttachMode {
    /// `tcx` or `clsact`.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttachMode::Tcx => "tcx",
            AttachMode::Clsact => "clsact",
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a program could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such interface in this namespace.
    #[error("no interface has index {ifindex} to attach {program} to")]
    NoInterface {
        /// Which index.
        ifindex: u32,
        /// Which program.
        program: &'static str,
    },
    /// The kernel refused.
    #[error("{program} cannot be attached to {interface}: {reason}")]
    Refused {
        /// Which program.
        program: &'static str,
        /// Which interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// A pin could not be made, read or removed.
    #[error("pin {}: {reason}", path.display())]
    Pin {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Attaches and detaches; remembers by pins only.
#[derive(Debug)]
pub(super) struct Attacher {
    pin_directory: PathBuf,
    mode: AttachMode,
}

impl Attacher {
    pub(super) fn new(pin_directory: &Path, mode: AttachMode) -> Self {
        Attacher {
            pin_directory: pin_directory.to_owned(),
            mode,
        }
    }

    pub(super) fn attach(&self, ebpf: &mut Ebpf, hook: Hook, ifindex: u32) -> Result<(), AttachError> {
        let interface = interface_name(ifindex).ok_or(AttachError::NoInterface {
            ifindex,
            program: hook.program(),
        })?;
        let refused = |error: ProgramError| refused(hook, &interface, &error);
        let program = classifier(ebpf, hook, &interface)?;
        match self.mode {
            AttachMode::Tcx => self.attach_tcx(program, &interface, &self.pin(hook, ifindex), refused),
            AttachMode::Clsact => {
                // Whether it is there already is not told apart from other failures; if it is missing, the filter below fails and
                // says so.
                if tc::qdisc_add_clsact(&interface).is_ok() {
                    note(&self.pin_directory.join(format!("{DISCIPLINE_NOTE}{ifindex}")))?;
                }
                attach_clsact(program, &interface).map_err(refused)?;
                // A filter has nothing to pin; an empty directory of the link's name says that it is there.
                note(&self.pin(hook, ifindex))
            }
        }
    }

    fn attach_tcx(
        &self,
        program: &mut SchedClassifier,
        interface: &str,
        pin: &Path,
        refused: impl Fn(ProgramError) -> AttachError,
    ) -> Result<(), AttachError> {
        if replace_pinned(program, pin)? {
            return Ok(());
        }
        let id = program
            .attach_with_options(
                interface,
                TcAttachType::Ingress,
                TcAttachOptions::TcxOrder(LinkOrder::default()),
            )
            .map_err(&refused)?;
        let link: FdLink = program
            .take_link(id)
            .map_err(&refused)?
            .try_into()
            .map_err(|error| pin_error(pin, &error))?;
        link.pin(pin).map_err(|error| pin_error(pin, &error))?;
        Ok(())
    }

    /// Puts a program back that somebody else detached; whether that was needed.
    pub(super) fn ensure(&self, ebpf: &mut Ebpf, hook: Hook, ifindex: u32) -> Result<bool, AttachError> {
        let interface = interface_name(ifindex).ok_or(AttachError::NoInterface {
            ifindex,
            program: hook.program(),
        })?;
        let program = classifier(ebpf, hook, &interface)?;
        let there = match self.mode {
            AttachMode::Tcx => {
                let failed = |error: ProgramError| refused(hook, &interface, &error);
                let id = program.info().map_err(failed)?.id();
                let (_, attached) = SchedClassifier::query_tcx(&interface, TcAttachType::Ingress).map_err(failed)?;
                attached.iter().any(|program| program.id() == id)
            }
            // The kernel is not asked whether the filter is there: it can be replaced just then.
            AttachMode::Clsact => replace_filter(program, &interface).is_ok(),
        };
        if !there {
            self.attach(ebpf, hook, ifindex)?;
        }
        Ok(!there)
    }

    pub(super) fn detach(&self, hook: Hook, ifindex: u32) -> Result<(), AttachError> {
        let pin = self.pin(hook, ifindex);
        if pin.is_dir() {
            if let Some(interface) = interface_name(ifindex) {
                detach_clsact(hook, &interface)?;
            }
            return fs::remove_dir(&pin).map_err(|error| pin_error(&pin, &error));
        }
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(&pin, &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn attached(&self) -> Result<Vec<(Hook, u32)>, AttachError> {
        let mut found: Vec<_> = self.names()?.iter().filter_map(|name| parse_pin(name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Interfaces on which the `clsact` queueing discipline was made for our filters.
    pub(super) fn disciplines(&self) -> Result<Vec<u32>, AttachError> {
        let index = |name: &String| name.strip_prefix(DISCIPLINE_NOTE)?.parse().ok();
        Ok(self.names()?.iter().filter_map(index).collect())
    }

    /// Something in the pin directory that is not ours.
    pub(super) fn stranger(&self) -> Result<Option<String>, AttachError> {
        let ours = |name: &String| {
            parse_pin(name).is_some()
                || sockets::is_pin(name)
                || early::of_pin(name).is_some()
                || name.starts_with(DISCIPLINE_NOTE)
                || name.starts_with(pins::PREFIX)
                || maps::NAMES.contains(&name.as_str())
        };
        Ok(self.names()?.into_iter().find(|name| !ours(name)))
    }

    fn names(&self) -> Result<Vec<String>, AttachError> {
        let failed = |error: io::Error| pin_error(&self.pin_directory, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.pin_directory).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    /// Gives every pinned link, and every filter that is noted, the program of this object. Links are all opened before the first one
    /// changes, so that little time passes with some of either; one whose interface is gone is left out.
    pub(super) fn replace_all(&self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        let mut links = Vec::new();
        for (hook, ifindex) in self.attached()? {
            let pin = self.pin(hook, ifindex);
            if !pin.is_dir() {
                links.push((hook, open_link(&pin)?, pin));
            } else if let Some(interface) = interface_name(ifindex) {
                let program = classifier(ebpf, hook, &interface)?;
                // One that is not there any more is put there again by whoever knows that it should be.
                if let Err(error) = replace_filter(program, &interface) {
                    tracing::warn!(
                        interface,
                        program = hook.program(),
                        error = chain(&error),
                        "filter not replaced"
                    );
                }
            }
        }
        for (hook, link, pin) in links {
            let program = classifier(ebpf, hook, &pin.display().to_string())?;
            replace_link(program, link, &pin)?;
        }
        Ok(())
    }

    /// Detaches all programs, and removes all pins and the directory itself.
    pub(super) fn remove_all(&self) -> Result<(), AttachError> {
        for (hook, ifindex) in self.attached()? {
            self.detach(hook, ifindex)?;
        }
        fs::remove_dir_all(&self.pin_directory).map_err(|error| pin_error(&self.pin_directory, &error))
    }

    fn pin(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.pin_directory.join(format!("{}-{ifindex}", hook.program()))
    }
}

/// Which hook and interface the name of a pin stands for.
fn parse_pin(name: &str) -> Option<(Hook, u32)> {
    let (program, ifindex) = name.rsplit_once('-')?;
    Some((Hook::of_program(program)?, ifindex.parse().ok()?))
}

/// Gives the pinned link the new program; false if there is no link, or only one whose interface is gone.
fn replace_pinned(program: &mut SchedClassifier, pin: &Path) -> Result<bool, AttachError> {
    if !pin.exists() {
        return Ok(false);
    }
    replace_link(program, open_link(pin)?, pin)
}

fn open_link(pin: &Path) -> Result<SchedClassifierLink, AttachError> {
    let link = PinnedLink::from_pin(pin).map_err(|error| pin_error(pin, &error))?;
    FdLink::from(link).try_into().map_err(|error| pin_error(pin, &error))
}

/// False if the link's interface is gone; then so is its pin.
fn replace_link(program: &mut SchedClassifier, link: SchedClassifierLink, pin: &Path) -> Result<bool, AttachError> {
    match program.attach_to_link(link) {
        Ok(id) => {
            // The pin keeps the link; this handle of it is closed.
            program.take_link(id).map_err(|error| pin_error(pin, &error))?;
            Ok(true)
        }
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOLINK) => {
            fs::remove_file(pin).map_err(|error| pin_error(pin, &error))?;
            Ok(false)
        }
        Err(error) => Err(pin_error(pin, &error)),
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, hook: Hook, at: &str) -> Result<&'a mut SchedClassifier, AttachError> {
    let failed = |error: ProgramError| refused(hook, at, &error);
    let program = ebpf.program_mut(hook.program());
    program
        .ok_or_else(|| failed(ProgramError::NotLoaded))?
        .try_into()
        .map_err(failed)
}

fn refused(hook: Hook, interface: &str, error: &dyn std::error::Error) -> AttachError {
    AttachError::Refused {
        program: hook.program(),
        interface: interface.to_owned(),
        reason: chain(error),
    }
}

/// Gives the filter that is there the new program; an error if there is none.
fn replace_filter(program: &mut SchedClassifier, interface: &str) -> Result<(), ProgramError> {
    let old = SchedClassifierLink::attached(interface, TcAttachType::Ingress, FILTER_PRIORITY, FILTER_HANDLE, None)?;
    let id = program.attach_to_link(old)?;
    // Dropping the handle would remove the filter.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

fn attach_clsact(program: &mut SchedClassifier, interface: &str) -> Result<(), ProgramError> {
    if replace_filter(program, interface).is_ok() {
        return Ok(());
    }
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: FILTER_PRIORITY,
        handle: FILTER_HANDLE,
        classid: None,
    });
    let id = program.attach_with_options(interface, TcAttachType::Ingress, options)?;
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

fn detach_clsact(hook: Hook, interface: &str) -> Result<(), AttachError> {
    match tc::qdisc_detach_program(interface, TcAttachType::Ingress, hook.program()) {
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(AttachError::Refused {
            program: hook.program(),
            interface: interface.to_owned(),
            reason: chain(&error),
        }),
        Ok(()) => Ok(()),
    }
}

/// Makes an empty directory that says something by its name.
fn note(path: &Path) -> Result<(), AttachError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(pin_error(path, &error)),
        _ => Ok(()),
    }
}

pub(super) fn interface_name(ifindex: u32) -> Option<String> {
    // Some versions of the C library's wrapper give an empty name for an index that nobody has.
    if_indextoname(ifindex)
        .ok()?
        .into_string()
        .ok()
        .filter(|name| !name.is_empty())
}

pub(super) fn pin_error(path: &Path, error: &dyn std::error::Error) -> AttachError {
    AttachError::Pin {
        path: path.to_owned(),
        reason: chain(error),
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_named_after_program_and_interface() {
        let attacher = Attacher::new(Path::new("/sys/fs/bpf/x"), AttachMode::Clsact);
        for hook in Hook::ALL {
            let pin = attacher.pin(hook, 42);
            let name = pin.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(parse_pin(name), Some((hook, 42)));
        }
        for name in [
            "flows",
            "overlay_egress",
            "overlay_egress-",
            "overlay_egress-x",
            "other-1",
        ] {
            assert_eq!(parse_pin(name), None, "{name}");
        }
    }
}
