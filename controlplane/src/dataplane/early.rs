//! The XDP program of the uplink, where it is asked for: attached to the driver itself, never in the kernel's generic way, which costs
//! more than it spares.

use super::attach::{AttachError, chain, interface_name, pin_error};
use super::raw;
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use weft_dataplane::abi::program::OVERLAY_FILTER;

/// The interface of a link whose pin has this name.
pub(super) fn of_pin(name: &str) -> Option<u32> {
    let (program, ifindex) = name.rsplit_once('-')?;
    (program == OVERLAY_FILTER).then(|| ifindex.parse().ok())?
}

/// Attaches it, or gives the link of an earlier daemon this one's program; whether it was missing.
pub(super) fn attach(ebpf: &mut Ebpf, directory: &Path, ifindex: u32) -> Result<bool, AttachError> {
    let interface = interface_name(ifindex).ok_or(AttachError::NoInterface {
        ifindex,
        program: OVERLAY_FILTER,
    })?;
    let refused = |error: &dyn std::error::Error| AttachError::Refused {
        program: OVERLAY_FILTER,
        interface: interface.clone(),
        reason: format!(
            "{}; its driver must have native XDP, else features early-drop=tc is possible",
            chain(error)
        ),
    };
    let pin = pin_of(directory, ifindex);
    if replace(ebpf, &pin)? {
        return Ok(false);
    }
    let link = attach_new(ebpf, &interface).map_err(|error| refused(&*error))?;
    link.pin(&pin).map_err(|error| pin_error(&pin, &error))?;
    Ok(true)
}

fn attach_new(ebpf: &mut Ebpf, interface: &str) -> Result<FdLink, Box<dyn std::error::Error>> {
    let program: &mut Xdp = ebpf
        .program_mut(OVERLAY_FILTER)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()?;
    let id = program.attach(interface, XdpMode::Driver)?;
    Ok(program.take_link(id)?.try_into()?)
}

/// Gives the link that is pinned there this program; false if there is none, or it is of an interface that is gone, or of one that
/// somebody else took it from.
fn replace(ebpf: &mut Ebpf, pin: &Path) -> Result<bool, AttachError> {
    let program = ebpf
        .program_mut(OVERLAY_FILTER)
        .ok_or_else(|| pin_error(pin, &ProgramError::NotLoaded))?;
    let fd = program.fd().map_err(|error| pin_error(pin, &error))?;
    match raw::update_link(pin, fd.as_fd()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOLINK) => {
            remove(pin)?;
            Ok(false)
        }
        Err(error) => Err(pin_error(pin, &error)),
    }
}

/// Gives all links that are pinned the program of this object.
pub(super) fn replace_all(ebpf: &mut Ebpf, directory: &Path) -> Result<(), AttachError> {
    for ifindex in attached(directory)? {
        replace(ebpf, &pin_of(directory, ifindex))?;
    }
    Ok(())
}

/// Detaches it at once; nothing happens if it is not attached.
pub(super) fn detach(directory: &Path, ifindex: u32) -> Result<(), AttachError> {
    let pin = pin_of(directory, ifindex);
    match raw::detach_link(&pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() != Some(nix::libc::ENOLINK) => Err(pin_error(&pin, &error)),
        _ => remove(&pin),
    }
}

/// Detaches it everywhere; from which interfaces.
pub(super) fn detach_all(directory: &Path) -> Result<Vec<u32>, AttachError> {
    let attached = attached(directory)?;
    for ifindex in &attached {
        detach(directory, *ifindex)?;
    }
    Ok(attached)
}

fn attached(directory: &Path) -> Result<Vec<u32>, AttachError> {
    let failed = |error: io::Error| pin_error(directory, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        found.extend(name.to_str().and_then(of_pin));
    }
    found.sort_unstable();
    Ok(found)
}

fn pin_of(directory: &Path, ifindex: u32) -> PathBuf {
    directory.join(format!("{OVERLAY_FILTER}-{ifindex}"))
}

fn remove(pin: &Path) -> Result<(), AttachError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(pin, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_names_its_interface() {
        let pin = pin_of(Path::new("/sys/fs/bpf/weft"), 7);
        assert_eq!(pin.file_name().and_then(|name| name.to_str()).and_then(of_pin), Some(7));
        for other in [
            "overlay_filter",
            "overlay_filter-",
            "overlay_ingress-7",
            "overlay_filter-x",
        ] {
            assert_eq!(of_pin(other), None, "{other}");
        }
    }
}
