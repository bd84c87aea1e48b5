//! What the tests of bad input share: a refusal is one line with the words that matter, and leaves a host as it was.

use crate::rig::{Error, Host, Netns, Result, wait_until};
use nix::sched::{CloneFlags, setns};
use std::fmt::Write;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Gossip tells news within a second or two; a busy machine gets ten times that.
pub const SOON: Duration = Duration::from_secs(30);

/// Where diagnostic servers listen, each on its own host's loopback.
pub const DIAGNOSTIC_PORT: u16 = 2000;

/// Runs a command that must be refused: its exit code is not zero, and standard error has exactly one line, with all of `words`. Returns
/// the line.
#[track_caller]
pub fn refused(command: &mut Command, words: &[&str]) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the command starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{command:?} was not refused: {told}");
    assert_ne!(output.status.code(), Some(124), "{command:?} did not end: {told}");
    let lines: Vec<&str> = told.lines().collect();
    let [line] = lines.as_slice() else {
        panic!("{command:?}: {} lines, not one: {told}", lines.len());
    };
    for word in words {
        assert!(line.contains(word), "{command:?}: no {word:?} in {line:?}");
    }
    (*line).to_owned()
}

/// `weft` on this host, with words split at spaces, must be refused as [`refused`] says.
#[track_caller]
pub fn weft_refuses(host: &Host, arguments: &str, words: &[&str]) {
    let mut command = host.weft_command().expect("weft is built");
    refused(command.args(arguments.split_whitespace()), words);
}

/// Does something on a thread of its own inside a namespace.
pub fn enter<T: Send>(netns: &Netns, action: impl FnOnce() -> T + Send) -> T {
    let file = File::open(netns.path()).expect("the namespace exists");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET).expect("entering a namespace needs root");
            action()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The body of `GET path` of the host's diagnostic server.
pub fn get(host: &Host, path: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:{DIAGNOSTIC_PORT}{path}");
    let answer = enter(host.netns(), || ureq::get(&url).call()?.body_mut().read_to_string());
    answer.map_err(|error| Error::new(format!("on {}: GET {url}: {error}", host.name())))
}

/// Switches the host's diagnostic server on.
pub fn switch_on(host: &mut Host) -> Result<()> {
    host.set("network-diagnostic-port", DIAGNOSTIC_PORT)?;
    host.hangup()?;
    wait_until(SOON, "the diagnostic server is ready", || {
        is("OK\nOK", &get(host, "/ready")?)
    })
}

/// An error that shows both texts, unless they are equal.
pub fn is(wanted: &str, found: &str) -> Result<()> {
    if found == wanted {
        Ok(())
    } else {
        Err(Error::new(format!("wanted {wanted:?}, found {found:?}")))
    }
}

/// What a refusal must leave alone on a host whose diagnostic server is on: what is declared, links and addresses, the kernel's maps.
pub fn state(host: &Host) -> String {
    let mut state = String::new();
    for arguments in [["network", "ls"], ["service", "ls"], ["node", "ls"]] {
        let shown = host.weft(&arguments).expect("lists are answered");
        let _ = writeln!(state, "{arguments:?}\n{shown}");
    }
    let links = host.netns().ip("-o addr").expect("addresses are shown");
    let links = links
        .lines()
        .map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
    let _ = writeln!(state, "{}", links.collect::<Vec<_>>().join("\n"));
    let names = host.netns().ip("-br link").expect("links are shown");
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    let _ = writeln!(state, "{}", names.collect::<Vec<_>>().join("\n"));
    for map in [
        "networks",
        "endpoints",
        "attachments",
        "peers",
        "nodes",
        "services",
        "backends",
    ] {
        let shown = get(host, &format!("/maps/{map}")).expect("maps are shown");
        let _ = writeln!(state, "{map}: {shown}");
    }
    let folder = host.folder().join("data/endpoints");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = files.map(|file| file.file_name()).collect();
    files.sort();
    let _ = writeln!(state, "{files:?}");
    state
}
