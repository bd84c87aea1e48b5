//! The programs that see sockets: attached to the root of the host's cgroups, so that they see those of every container, and pinned.

use super::attach::{AttachError, chain, pin_error};
use super::raw;
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program, ProgramError};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use weft_dataplane::abi::program;

/// What follows a program's name in the name of its link's pin.
const PIN_SUFFIX: &str = "-cgroup";

/// The root of the host's cgroups of version 2; `None` if they are mounted nowhere.
pub(super) fn root() -> io::Result<Option<PathBuf>> {
    Ok(root_in(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// The fields are those of proc_pid_mountinfo(5); the type follows the hyphen that ends the optional ones.
fn root_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, what) = line.split_once(" - ")?;
        let is_cgroups = what.split(' ').next() == Some("cgroup2");
        is_cgroups.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Whether the name of a file in the pin directory is that of such a link.
pub(super) fn is_pin(name: &str) -> bool {
    name.strip_suffix(PIN_SUFFIX)
        .is_some_and(|name| program::OF_CGROUP.contains(&name))
}

/// Attaches all of them, or gives the links of an earlier daemon the programs of this one; whether one was missing.
pub(super) fn attach(ebpf: &mut Ebpf, directory: &Path) -> Result<bool, AttachError> {
    let mut missing = false;
    for name in program::OF_CGROUP {
        let pin = pin_of(directory, name);
        let program = ebpf
            .program_mut(name)
            .ok_or_else(|| refused(name, &ProgramError::NotLoaded))?;
        let fd = program.fd().map_err(|error| refused(name, &error))?;
        match raw::update_link(&pin, fd.as_fd()) {
            Ok(()) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Somebody detached it; the pin is of a link to nothing.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOLINK) => remove(&pin)?,
            Err(error) => return Err(pin_error(&pin, &error)),
        }
        missing = true;
        let link = attach_one(program).map_err(|error| refused(name, &*error))?;
        link.pin(&pin).map_err(|error| pin_error(&pin, &error))?;
    }
    Ok(missing)
}

fn attach_one(program: &mut Program) -> Result<FdLink, Box<dyn std::error::Error>> {
    let root = root()?.ok_or("no file system of type cgroup2 is mounted")?;
    let root = File::open(root)?;
    // No flag: a link never takes the place of another program, and the kernel wants that unsaid.
    let mode = CgroupAttachMode::Single;
    Ok(match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(root, mode)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSock(program) => {
            let id = program.attach(root, mode)?;
            program.take_link(id)?.try_into()?
        }
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    })
}

/// Detaches those of this pin directory; whether there were any.
pub(super) fn detach(directory: &Path) -> Result<bool, AttachError> {
    let mut any = false;
    for name in program::OF_CGROUP {
        let pin = pin_of(directory, name);
        match raw::detach_link(&pin) {
            Ok(()) => any = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // It is attached to nothing any more.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOLINK) => {}
            Err(error) => return Err(pin_error(&pin, &error)),
        }
        remove(&pin)?;
    }
    Ok(any)
}

fn pin_of(directory: &Path, program: &str) -> PathBuf {
    directory.join(format!("{program}{PIN_SUFFIX}"))
}

fn remove(pin: &Path) -> Result<(), AttachError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(pin, &error)),
        _ => Ok(()),
    }
}

fn refused(program: &'static str, error: &dyn std::error::Error) -> AttachError {
    AttachError::Refused {
        program,
        interface: "the host's root cgroup".to_owned(),
        reason: chain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_first_mount_of_version_2() {
        let both = "24 1 8:1 / / rw - ext4 /dev/vda rw\n\
                    30 24 0:27 / /sys/fs/cgroup/pids rw,nosuid shared:9 - cgroup cgroup rw,pids\n\
                    31 24 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(both), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(root_in("24 1 8:1 / /cgroup2 rw - ext4 cgroup2 rw\n"), None);
    }

    #[test]
    fn pins_are_told_from_those_of_interfaces() {
        let pin = pin_of(Path::new("/sys/fs/bpf/weft"), program::OVERLAY_RELEASE);
        let name = pin.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        assert!(is_pin(name));
        for other in [
            "overlay_release",
            "overlay_egress-cgroup",
            "overlay_egress-3",
            "-cgroup",
        ] {
            assert!(!is_pin(other), "{other}");
        }
    }
}
