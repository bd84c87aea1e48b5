//! What enters a living node's gossip is recorded, and run again it gives what the node held.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use weft_tests::rig::{Error, Host, Options, Result, Rig, program, wait_until};
use weft_tests::story::{Cluster, SOON, ask, entries, equal, inside, wait_names};

/// A key of 32 bytes, and how it may be written.
const KEY: &[u8; 32] = b"record me not, record me never!!";
const KEY_HEX: &str = "7265636f7264206d65206e6f742c207265636f7264206d65206e657665722121";
const KEY_BASE64: &str = "cmVjb3JkIG1lIG5vdCwgcmVjb3JkIG1lIG5ldmVyISE";

const TABLES: [&str; 2] = ["overlay_peer_table", "endpoint_table"];

fn io(error: std::io::Error) -> Error {
    Error::new(error.to_string())
}

fn weft(host: &Host, arguments: &[&str]) -> Result<Output> {
    host.weft_command()?.args(arguments).output().map_err(io)
}

/// What it says on standard error when it fails with status 1: one line.
fn fails(host: &Host, arguments: &[&str]) -> Result<String> {
    let output = weft(host, arguments)?;
    equal(output.status.code(), Some(1))?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<_> = error.lines().filter(|line| !line.starts_with("Recording ")).collect();
    match lines[..] {
        [line] => Ok(line.to_owned()),
        _ => Err(Error::new(format!("{arguments:?} says {error:?}"))),
    }
}

fn expect(line: &str, wanted: &str) -> Result<()> {
    if line.contains(wanted) {
        Ok(())
    } else {
        Err(Error::new(format!("{line:?} has no {wanted:?}")))
    }
}

/// `weft debug record` at work; killed when dropped.
struct Recorder {
    child: Option<Child>,
    file: PathBuf,
}

impl Recorder {
    fn start(host: &Host, name: &str, seconds: &str) -> Result<Recorder> {
        let file = host.folder().join(name);
        // nsenter replaces itself by the command, so that signals reach it.
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", host.netns().path().display()))
            .arg("--");
        command.arg(program("weft")?).arg("--socket").arg(host.socket());
        command
            .args(["debug", "record", "--seconds", seconds, "--output"])
            .arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().map_err(io)?;
        let recorder = Recorder {
            child: Some(child),
            file,
        };
        wait_until(SOON, "the recording begins", || {
            match std::fs::metadata(&recorder.file) {
                Ok(file) if file.len() > 0 => Ok(()),
                other => Err(Error::new(format!("{other:?}"))),
            }
        })?;
        Ok(recorder)
    }

    fn path(&self) -> String {
        self.file.to_string_lossy().into_owned()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.as_ref().map(Child::id).unwrap_or_default();
        let pid = Pid::from_raw(i32::try_from(id).map_err(|_| Error::new(format!("pid {id}")))?);
        kill(pid, signal).map_err(|error| Error::new(error.to_string()))
    }

    /// Waits for its end; status, standard output, standard error.
    fn end(&mut self) -> Result<(Option<i32>, String, String)> {
        let child = self.child.take().ok_or_else(|| Error::new("ended already"))?;
        let output = child.wait_with_output().map_err(io)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A file system of one page.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Result<Small> {
        std::fs::create_dir(&at).map_err(io)?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"])
            .arg(&at)
            .status();
        equal(mount.map_err(io)?.code(), Some(0))?;
        Ok(Small(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The folder around it goes with the rig.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn replay(host: &Host, file: &str) -> Result<Value> {
    let text = host.weft(&["debug", "replay", "--json", file])?;
    serde_json::from_str(&text).map_err(|error| Error::new(format!("{error} in {text}")))
}

/// Rows as the diagnostic server shows them: key, owner, value.
type Rows = BTreeSet<(String, String, String)>;

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn shown_rows(host: &Host, network: &str, table: &str) -> Result<Rows> {
    let rows = entries(host, &format!("/gettable?nid={network}&tname={table}"))?;
    let row = |row: &Value| (text(row, "key"), text(row, "owner"), text(row, "value"));
    Ok(rows.iter().map(row).collect())
}

fn replayed_rows(replayed: &Value, network: &str, table: &str) -> Rows {
    let networks = replayed["Networks"].as_array().cloned().unwrap_or_default();
    let found = networks.iter().find(|found| found["ID"] == network);
    let rows = found.and_then(|found| found["Tables"][table].as_array());
    let shown = rows.into_iter().flatten().filter(|row| row["OwnerState"] != "failed");
    shown
        .map(|row| (text(row, "Key"), text(row, "Owner"), text(row, "Value")))
        .collect()
}

/// The live nodes, name and address.
fn shown_peers(host: &Host) -> Result<BTreeSet<(String, String)>> {
    let peers = entries(host, "/clusterpeers")?;
    Ok(peers
        .iter()
        .map(|peer| (text(peer, "-=name"), text(peer, "ip")))
        .collect())
}

fn replayed_peers(replayed: &Value) -> BTreeSet<(String, String)> {
    let nodes = replayed["Nodes"].as_array().cloned().unwrap_or_default();
    let live = nodes
        .iter()
        .filter(|node| node["State"] == "alive" || node["State"] == "suspect");
    let address = |node: &Value| text(node, "Address").replace(":7946", "");
    live.map(|node| (text(node, "Name"), address(node))).collect()
}

fn events(replayed: &Value, event: &str) -> usize {
    let timeline = replayed["Timeline"].as_array().cloned().unwrap_or_default();
    timeline.iter().filter(|entry| entry["Event"] == event).count()
}

fn holds(file: &Path, wanted: &[u8]) -> Result<bool> {
    let bytes = std::fs::read(file).map_err(io)?;
    Ok(bytes.windows(wanted.len()).any(|window| window == wanted))
}

#[test]
fn a_recording_of_a_living_node_gives_what_the_node_held() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let network = cluster.network.clone();
    let here = cluster.container(1, "here", None)?;
    cluster.wait_rows(1, 1)?;
    let mut recorder = Recorder::start(&cluster.rig.hosts[1], "incident", "300")?;
    let host = &cluster.rig.hosts[1];
    equal(
        std::fs::metadata(&recorder.file).map_err(io)?.permissions().mode() & 0o777,
        0o600,
    )?;
    let other = host.folder().join("second");
    let error = fails(host, &["debug", "record", "--output", &other.to_string_lossy()])?;
    expect(&error, "this node is being recorded already")?;
    assert!(!other.exists(), "a refused recording leaves no file");

    // Keys are replaced by one that is known.
    let key = cluster.rig.hosts[0].folder().join("gossip.key");
    std::fs::write(&key, KEY_HEX).map_err(io)?;
    cluster.rig.hosts[0].weft(&["cluster", "rotate-keys", "--key-file", &key.to_string_lossy()])?;
    // Endpoints and rows come and go, and somebody without the keys is there.
    let there = cluster.container(0, "there", None)?;
    let gone = cluster.container(2, "gone", None)?;
    wait_names(&here, "gone", &[gone.address()?])?;
    for (on, row) in [(1, "own"), (0, "others"), (1, "short")] {
        let path = format!("/createentry?nid={network}&tname=story_table&key={row}&value=value-{row}&unsafe");
        ask(&cluster.rig.hosts[on], &path)?;
    }
    let path = format!("/updateentry?nid={network}&tname=story_table&key=own&value=anew&unsafe");
    ask(host, &path)?;
    ask(host, &format!("/deleteentry?nid={network}&tname=story_table&key=short"))?;
    let gossip = SocketAddr::from((host.address(), 7946));
    let sent = inside(cluster.rig.hosts[0].netns(), || {
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"\x00\x82\xa4Node\xa1n\xa5SeqNo\x01", gossip)
    })?;
    sent.map_err(io)?;
    let second = cluster.rig.hosts[0]
        .weft(&["network", "create", "n2"])?
        .trim()
        .to_owned();
    there.connect("n2", None)?;
    here.connect("n2", None)?;
    wait_until(SOON, "the second network has two rows", || {
        equal(shown_rows(host, &second, TABLES[0])?.len(), 2)
    })?;
    wait_until(SOON, "the rotation is over", || {
        let keys: Value = serde_json::from_str(&cluster.rig.hosts[0].weft(&["cluster", "keys", "--json"])?)
            .map_err(|error| Error::new(error.to_string()))?;
        equal(keys["Phase"].as_str(), Some("settled"))
    })?;
    cluster.rig.hosts[2].kill()?;
    let host = &cluster.rig.hosts[1];
    wait_until(SOON, "the killed node has failed", || {
        equal(shown_peers(host)?.len(), 2)
    })?;
    cluster.wait_rows(1, 2)?;
    wait_until(SOON, "the row of the other node is here", || {
        equal(shown_rows(host, &network, "story_table")?.len(), 2)
    })?;

    recorder.signal(Signal::SIGINT)?;
    let (status, out, error) = recorder.end()?;
    equal((status, out.lines().count()), (Some(0), 1)).map_err(|wrong| Error::new(format!("{wrong}: {out}{error}")))?;
    expect(&out, "happenings in")?;
    expect(&out, &format!("weft debug replay {}", recorder.path()))?;

    let replayed = replay(host, &recorder.path())?;
    equal(replayed["Verdict"].as_str(), Some("same")).map_err(|wrong| Error::new(format!("{wrong}: {replayed:#}")))?;
    equal(text(&replayed["Recorded"], "Node"), host.name().to_owned())?;
    equal(replayed_peers(&replayed), shown_peers(host)?)?;
    for network in [&network, &second] {
        for table in [TABLES[0], TABLES[1], "story_table"] {
            let (ours, shown) = (
                replayed_rows(&replayed, network, table),
                shown_rows(host, network, table)?,
            );
            assert!(
                !shown.is_empty() || (table, network) == ("story_table", &second),
                "{table}"
            );
            equal(ours, shown)?;
        }
    }
    for event in [
        "row-created",
        "row-updated",
        "row-gone",
        "node-failed",
        "command",
        "refused",
    ] {
        assert!(events(&replayed, event) > 0, "no {event} in {replayed:#}");
    }
    // As lines, for people.
    let story = host.weft(&["debug", "replay", &recorder.path()])?;
    for wanted in [
        "this node: create own in table story_table",
        "this node: use a keyring of ",
        "node failed: ",
        "it is not encrypted, and this node has a gossip key",
        "The recording ended: it was ended by the user",
        "The replay arrived at the same state as recorded.",
    ] {
        expect(&story, wanted)?;
    }
    assert!(holds(&recorder.file, b"story_table")?, "rows are in it");
    for key in [&KEY[..], KEY_HEX.as_bytes(), KEY_BASE64.as_bytes()] {
        assert!(!holds(&recorder.file, key)?, "a key is in it");
    }
    Ok(())
}

#[test]
fn a_recording_ends_with_its_time_its_reader_its_node_or_its_daemon() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    rig.start_cluster()?;
    let host = &rig.hosts[0];
    let mut timed = Recorder::start(host, "timed", "1")?;
    let (status, out, _) = timed.end()?;
    equal(status, Some(0))?;
    expect(&out, "Recorded ")?;
    equal(replay(host, &timed.path())?["Verdict"].as_str(), Some("same"))?;
    // A reader that is gone leaves room for the next.
    let killed = Recorder::start(host, "killed", "300")?;
    killed.signal(Signal::SIGKILL)?;
    let mut next = None;
    let mut number = 0;
    wait_until(SOON, "another recording begins", || {
        number += 1;
        let file = host.folder().join(format!("next{number}"));
        let output = weft(
            host,
            &["debug", "record", "--seconds", "1", "--output", &file.to_string_lossy()],
        )?;
        equal(output.status.code(), Some(0)).map(|()| next = Some(file))
    })?;
    assert!(next.is_some_and(|file| file.exists()));
    // The node begins anew.
    let mut left = Recorder::start(host, "left", "300")?;
    host.weft(&["cluster", "leave", "--force"])?;
    let (status, _, error) = left.end()?;
    equal(status, Some(1))?;
    expect(&error, "the recording ended early, the node left the gossip")?;
    equal(replay(host, &left.path())?["Verdict"].as_str(), Some("same"))?;
    // The daemon stops.
    let mut stopped = Recorder::start(host, "stopped", "300")?;
    rig.hosts[0].stop()?;
    let (status, _, error) = stopped.end()?;
    equal(status, Some(1))?;
    expect(&error, "the recording ended early, the daemon stopped")?;
    // The daemon is killed: what it handed over runs.
    rig.hosts[0].start()?;
    let mut cut = Recorder::start(&rig.hosts[0], "cut", "300")?;
    rig.hosts[0].kill()?;
    let (status, _, error) = cut.end()?;
    equal(status, Some(1))?;
    expect(&error, "the recording has no end")?;
    let replayed = replay(&rig.hosts[0], &cut.path())?;
    equal(
        (replayed["Verdict"].as_str(), replayed["Ending"].is_null()),
        (Some("unknown"), true),
    )
}

#[test]
fn what_cannot_be_recorded_or_replayed_gets_one_line() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    rig.start_cluster()?;
    let host = &rig.hosts[0];
    let folder = host.folder().to_owned();
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut good = Recorder::start(host, "good", "1")?;
    equal(good.end()?.0, Some(0))?;
    let bytes = std::fs::read(&good.file).map_err(io)?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(host.folder().join(name), bytes).map_err(io);
    write("empty", b"")?;
    write("foreign", b"#!/bin/sh\n")?;
    write("stub", &bytes[..40])?;
    let mut later = bytes.clone();
    later[8..12].copy_from_slice(&[0, 0, 0, 9]);
    write("later", &later)?;
    let mut long = bytes.clone();
    long[12..16].copy_from_slice(&[0xff; 4]);
    write("long", &long)?;
    let mut damaged = bytes.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 0x55;
    write("damaged", &damaged)?;
    for (name, wanted) in [
        ("empty", "the file is empty, and no recording"),
        ("foreign", "this is not a recording of weft"),
        ("stub", "the recording is cut off before there is anything to run"),
        (
            "later",
            "this recording has format 9, and this weft reads formats up to 1",
        ),
        ("long", "frame 1 of this recording says that it has 4294967295 bytes"),
        ("damaged", "is damaged: its checksum is wrong"),
        ("nowhere", "No such file or directory"),
        ("", "Is a directory"),
    ] {
        let line = fails(host, &["debug", "replay", &file(name)])?;
        expect(&line, wanted)?;
        expect(&line, &file(name))?;
    }
    // What is cut off runs as far as it goes, and says so.
    write("cut", &bytes[..bytes.len() - 3])?;
    let story = host.weft(&["debug", "replay", &file("cut")])?;
    expect(&story, "The recording is not whole, it is cut off, ")?;

    let line = fails(host, &["debug", "record", "--output", &file("good")])?;
    expect(&line, "the file exists, and nothing is written over")?;
    equal(std::fs::read(&good.file).map_err(io)?, bytes)?;
    let line = fails(host, &["debug", "record", "--output", &file("no/such/folder")])?;
    expect(&line, "No such file or directory")?;
    let usage = weft(host, &["debug", "record", "--output", &file("none"), "--seconds", "0"])?;
    equal(usage.status.code(), Some(2))?;
    let small = Small::mount(host.folder().join("small"))?;
    // The page is taken, so there is room for a name only.
    write("small/page", &[7; 4096])?;
    let line = fails(host, &["debug", "record", "--output", &file("small/full")])?;
    expect(&line, "No space left on device")?;
    drop(small);
    rig.hosts[0].stop()?;
    let host = &rig.hosts[0];
    let line = fails(host, &["debug", "record", "--output", &file("none")])?;
    expect(&line, "Is weftd running?")?;
    assert!(!Path::new(&file("none")).exists());
    Ok(())
}
