//! The cluster's gossip is encrypted from its first packet on, and its keys are replaced without losing a word.

use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use weft_tests::rig::{Container, Error, Host, Result, wait_until};
use weft_tests::story::{Cluster, SOON, equal, inside, wait_names};

/// What the log says of gossip in the clear, and of gossip that no key opens.
const PLAINTEXT: &str = "is not encrypted";
const KEYS: &str = "gossip keys opens it";

/// What `weft cluster keys` tells.
fn keys(host: &Host) -> Result<Value> {
    let text = host.weft(&["cluster", "keys", "--json"])?;
    serde_json::from_str(&text).map_err(|error| Error::new(format!("{error} in {text}")))
}

fn fingerprints(host: &Host) -> Result<Vec<String>> {
    let keys = keys(host)?;
    let list = keys["Fingerprints"].as_array().cloned().unwrap_or_default();
    Ok(list.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect())
}

/// All hosts hold the same keys, and no rotation is under way.
fn settled(cluster: &Cluster) -> Result<Vec<String>> {
    equal(keys(&cluster.rig.hosts[0])?["Phase"].as_str(), Some("settled"))?;
    let wanted = fingerprints(&cluster.rig.hosts[0])?;
    for host in &cluster.rig.hosts[1..] {
        equal(fingerprints(host)?, wanted.clone())?;
    }
    Ok(wanted)
}

fn wait_settled(cluster: &Cluster) -> Result<Vec<String>> {
    wait_until(SOON, "all hosts hold the keys of a finished rotation", || {
        settled(cluster).map(drop)
    })?;
    settled(cluster)
}

/// A number that `weft info` tells on the line that begins so, before these words.
fn told(host: &Host, line: &str, words: &str) -> Result<u64> {
    let text = host.weft(&["info"])?;
    let found = text.lines().find_map(|told| told.strip_prefix(line));
    let before = found.and_then(|told| told.split(words).next());
    let number = before.and_then(|told| told.split_whitespace().last()?.parse().ok());
    number.ok_or_else(|| Error::new(format!("no number before {words:?} after {line:?} in {text}")))
}

/// The lines of a host's log with these words.
fn logged(host: &Host, words: &str) -> Result<usize> {
    let log = std::fs::read_to_string(host.log()).map_err(|error| Error::new(error.to_string()))?;
    Ok(log.lines().filter(|line| line.contains(words)).count())
}

/// Nobody was declared failed.
fn nobody_failed(cluster: &Cluster) -> Result<()> {
    for host in &cluster.rig.hosts {
        equal(logged(host, "NodeActive --> NodeFailed")?, 0)?;
    }
    Ok(())
}

#[test]
fn what_no_key_opens_and_what_is_in_the_clear_is_refused_and_told_once() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let (target, from) = (&cluster.rig.hosts[0], &cluster.rig.hosts[1]);
    let gossip = SocketAddr::from((target.address(), 7946));
    // A ping in the clear, and a version byte, a nonce and noise as long as a sealed ping.
    let plain = b"\x00\x82\xa4Node\xa1n\xa5SeqNo\x01".to_vec();
    let mut sealed = vec![0x5a; 120];
    sealed[0] = 1;
    for (packet, counter, words) in [
        (&plain, " in the clear", PLAINTEXT),
        (&sealed, " with other keys", KEYS),
    ] {
        let sent = inside(from.netns(), || -> std::io::Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..20 {
                socket.send_to(packet, gossip)?;
            }
            Ok(())
        })?;
        sent.map_err(|error| Error::new(error.to_string()))?;
        wait_until(SOON, &format!("twenty packets are refused{counter}"), || {
            equal(told(target, "Gossip Refused:", counter)?, 20)
        })?;
        equal(logged(target, words)?, 1)?;
    }
    nobody_failed(&cluster)
}

#[test]
fn keys_are_replaced_under_writes_and_nothing_is_lost() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let before = wait_settled(&cluster)?;
    let watcher = cluster.container(0, "watcher", None)?;
    let mut written: Vec<Container> = Vec::new();
    let mut round = 0;
    let mut write = |cluster: &Cluster| -> Result<()> {
        written.push(cluster.container(1 + round % 2, &format!("c{round}"), None)?);
        round += 1;
        Ok(())
    };
    for _ in 0..2 {
        cluster.rig.hosts[0].weft(&["cluster", "rotate-keys"])?;
        for _ in 0..4 {
            write(&cluster)?;
        }
        wait_settled(&cluster)?;
    }
    for container in &written {
        wait_names(&watcher, container.name(), &[container.address()?])?;
    }
    let after = settled(&cluster)?;
    let primary = before.first().ok_or_else(|| Error::new("no keys"))?;
    assert!(
        !after.contains(primary),
        "the first key is still there: {before:?} {after:?}"
    );
    nobody_failed(&cluster)
}

#[test]
fn a_rotation_goes_on_after_the_manager_was_killed() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let before = wait_settled(&cluster)?;
    // A member that is away keeps the rotation in its first phase for a while.
    cluster.rig.hosts[2].kill()?;
    cluster.rig.hosts[0].weft(&["cluster", "rotate-keys"])?;
    let again = cluster.rig.hosts[0].weft(&["cluster", "rotate-keys"]);
    let error = again.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("is under way"), "{error}");
    cluster.rig.hosts[0].kill()?;
    cluster.rig.hosts[0].start()?;
    cluster.rig.hosts[2].start()?;
    let after = wait_settled(&cluster)?;
    assert_ne!(before.first(), after.first(), "the primary key is another one");
    cluster.wait_ready(3)
}

#[test]
fn a_node_gossips_with_its_stored_keys_while_the_manager_is_away() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let second = cluster.container(1, "second", None)?;
    let third = cluster.container(2, "third", None)?;
    wait_names(&second, "third", &[third.address()?])?;
    cluster.rig.hosts[0].kill()?;
    cluster.rig.hosts[2].kill()?;
    cluster.rig.hosts[2].start()?;
    wait_until(SOON, "both nodes gossip again", || {
        for host in &cluster.rig.hosts[1..] {
            equal(told(host, "Gossip Peers:", "\n")?, 2)?;
        }
        Ok::<_, Error>(())
    })?;
    wait_names(&second, "third", &[third.address()?])?;
    cluster.rig.hosts[0].start()
}

#[test]
fn a_key_of_a_wrong_length_changes_nothing() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let before = wait_settled(&cluster)?;
    let host = &cluster.rig.hosts[0];
    let file = host.folder().join("gossip.key");
    let path = file.to_string_lossy().into_owned();
    for (text, wanted) in [
        ("MTIzNDU2Nzg5MGFi", "it has 12 bytes"),
        ("no key at all!", "neither base64 nor hex"),
    ] {
        std::fs::write(&file, text).map_err(|error| Error::new(error.to_string()))?;
        let refusal = host.weft(&["cluster", "rotate-keys", "--key-file", &path]);
        let error = refusal.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
    equal(settled(&cluster)?, before)
}
