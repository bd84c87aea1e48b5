//! Namespaces that ended without a `disconnect`: found, so that their endpoints go.
//!
//! The resolver's sockets keep a namespace alive when all others have let go of it, so the kernel never tells that it ended.

use super::{Command, Handle};
use crate::netns::NetnsSpec;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;
use weft_core::id::EndpointId;

/// How often it is looked whether the namespaces are there: a look at a file for each endpoint, so that the names of a dead container
/// are gone about as fast as gossip carries the news.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The namespace of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// How the user named the namespace.
    pub spec: NetnsSpec,
    /// Its inode.
    pub inode: u64,
}

/// Looks again and again, and tells the daemon of endpoints whose namespace ended, until the daemon stops.
pub(super) async fn watch(handle: Handle) {
    loop {
        sleep(LOOK_INTERVAL).await;
        let Some(watched) = handle.ask(Command::Namespaces).await else {
            return;
        };
        // A task that was lost looked at nothing; the next one looks again.
        let ended = tokio::task::spawn_blocking(move || ended(watched))
            .await
            .unwrap_or_default();
        if !ended.is_empty() && !handle.tell(Command::NamespacesEnded(ended)).await {
            return;
        }
    }
}

fn ended(mut watched: Vec<Watched>) -> Vec<EndpointId> {
    watched.retain(|w| !leads_to(&w.spec, w.inode));
    // Twice, because a process may hand its namespace to a child and end while the processes are listed.
    for _ in 0..2 {
        if watched.is_empty() {
            break;
        }
        match in_use() {
            Ok(in_use) => watched.retain(|w| !in_use.contains(&w.inode)),
            Err(error) => {
                tracing::warn!(%error, "namespaces in use not listed");
                return Vec::new();
            }
        }
    }
    watched.into_iter().map(|w| w.endpoint).collect()
}

/// Whether what the user named is still this namespace. What cannot be looked at is taken to be.
fn leads_to(spec: &NetnsSpec, inode: u64) -> bool {
    match fs::metadata(spec.path()) {
        Ok(file) => file.ino() == inode,
        Err(error) => {
            error.kind() != io::ErrorKind::NotFound && error.raw_os_error() != Some(nix::errno::Errno::ESRCH as i32)
        }
    }
}

/// The namespaces that a process is in or that are mounted somewhere.
fn in_use() -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process that ended meanwhile has no link any more.
        if is_process(&path)
            && let Ok(target) = fs::read_link(path.join("ns/net"))
        {
            inodes.extend(target.to_str().and_then(inode_of));
        }
    }
    // The fourth field is what of the file system is mounted (proc_pid_mountinfo(5)); of nsfs that is a namespace.
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    inodes.extend(
        mounts
            .lines()
            .filter_map(|line| inode_of(line.split_whitespace().nth(3)?)),
    );
    Ok(inodes)
}

fn is_process(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The inode in `net:[4026531840]` (namespaces(7)).
fn inode_of(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(spec: NetnsSpec, inode: u64) -> Watched {
        let endpoint = EndpointId::new(format!("{inode:064x}")).unwrap();
        Watched { endpoint, spec, inode }
    }

    #[test]
    fn a_namespace_lives_while_it_is_named_or_a_process_is_in_it() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let nobody = NetnsSpec::Path("/nonexistent/namespace".into());
        let alive = [
            watched(NetnsSpec::Pid(std::process::id()), own),
            watched(NetnsSpec::Path("/proc/self/ns/net".into()), own),
            watched(nobody.clone(), own),
        ];
        assert_eq!(ended(alive.to_vec()), []);
        // The path leads to another namespace by now, and no process is in this one.
        let gone = [
            watched(nobody, 1),
            watched(NetnsSpec::Path("/proc/self/ns/net".into()), 2),
        ];
        let all = [&alive[..], &gone[..]].concat();
        assert_eq!(ended(all), gone.map(|w| w.endpoint));
    }

    #[test]
    fn the_inode_is_read_from_the_kernel_s_name() {
        assert_eq!(inode_of("net:[4026531840]"), Some(4026531840));
        for other in ["mnt:[4026531840]", "net:[]", "net:[-1]", "/", ""] {
            assert_eq!(inode_of(other), None, "{other}");
        }
    }
}
