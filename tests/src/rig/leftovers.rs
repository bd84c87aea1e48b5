//! Removing what rigs leave: at their end, and of runs that were killed.

use super::command::{limited, run};
use super::netns::DIRECTORY;
use super::{BPFFS, Error, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What every name of a rig begins with, before the process id of its maker.
const PREFIX: &str = "weft";

/// Marks a rig that is left up on purpose.
const KEPT: &str = "kept";

/// The folder of a rig on disk.
pub(super) fn folder(prefix: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{prefix}-rig"))
}

/// Marks a rig as left up on purpose.
pub(super) fn mark_kept(prefix: &str) -> Result<()> {
    let mark = folder(prefix).join(KEPT);
    std::fs::write(&mark, "").map_err(|error| Error::new(format!("cannot write {}: {error}", mark.display())))
}

/// Removes the rigs of processes that are gone, but not those left up on purpose; their prefixes.
pub fn sweep() -> Result<Vec<String>> {
    remove_where(|prefix| !folder(prefix).join(KEPT).exists())
}

/// Removes the rigs that were left up on purpose; their prefixes.
pub fn remove_kept() -> Result<Vec<String>> {
    remove_where(|prefix| folder(prefix).join(KEPT).exists())
}

fn remove_where(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for prefix in prefixes() {
        if owner(&prefix).is_some_and(|pid| !is_running(pid)) && wanted(&prefix) {
            for name in names_in(Path::new(DIRECTORY)).filter(|name| belongs(name, &prefix)) {
                remove_netns(&name);
            }
            remove_traces(&prefix);
            removed.push(prefix);
        }
    }
    Ok(removed)
}

/// Prefixes of all rigs that left anything.
fn prefixes() -> BTreeSet<String> {
    [Path::new(DIRECTORY), &std::env::temp_dir(), Path::new(BPFFS)]
        .into_iter()
        .flat_map(names_in)
        .filter_map(|name| {
            let (prefix, _) = name.split_once('-')?;
            owner(prefix).map(|_| prefix.to_owned())
        })
        .collect()
}

/// The process id in `weft4711_0`.
pub(super) fn owner(prefix: &str) -> Option<u32> {
    let (pid, number) = prefix.strip_prefix(PREFIX)?.split_once('_')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn belongs(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))
}

fn is_running(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Removes a rig's folder, pins and what daemons wrote for its namespaces. Namespaces go first.
pub(super) fn remove_traces(prefix: &str) {
    let _ = std::fs::remove_dir_all(folder(prefix));
    remove_cgroups(prefix);
    for (parent, remove) in [
        (BPFFS, remove_pins as fn(&Path)),
        ("/etc/netns", remove_folder as fn(&Path)),
    ] {
        let parent = Path::new(parent);
        names_in(parent)
            .filter(|name| belongs(name, prefix))
            .for_each(|name| remove(&parent.join(name)));
    }
}

/// Removes the control groups of a rig's engines, in version 2 and in each hierarchy of version 1.
fn remove_cgroups(prefix: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = names_in(root).map(|name| root.join(name)).chain([root.to_path_buf()]);
    for hierarchy in hierarchies {
        for name in names_in(&hierarchy).filter(|name| belongs(name, prefix)) {
            let group = hierarchy.join(name);
            // One that still has processes or groups in it is told.
            if let Err(error) = std::fs::remove_dir(&group) {
                eprintln!("rig: cannot remove {}: {error}", group.display());
            }
        }
    }
}

/// Removes a folder of pins; with the last pin of a link, its program is detached.
pub(super) fn remove_pins(pins: &Path) {
    remove_folder(pins);
}

fn remove_folder(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            eprintln!("rig: cannot remove {}: {error}", folder.display())
        }
        _ => {}
    }
}

/// Ends the processes inside a namespace of a rig and removes it. Who is inside was started by the rig, whatever its parent.
pub(super) fn remove_netns(name: &str) {
    let pids = run(limited("ip").args(["netns", "pids", name])).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    if let Err(error) = run(limited("ip").args(["netns", "delete", name])) {
        eprintln!("rig: {error}");
    }
}
