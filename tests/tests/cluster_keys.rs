//! The cluster's gossip is encrypted from its first packet on, and its keys are replaced without losing a word.

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weft_core::networkdb::{Key, Keyring};
use weft_tests::misuse::weft_refuses;
use weft_tests::rig::{Container, Error, Host, Options, Result, Rig, wait_until};
use weft_tests::story::{Cluster, SOON, ask, equal, inside, wait_names};

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
    // A ping in the clear, and the same from a sender with a key of its own.
    let plain = b"\x00\x82\xa4Node\xa1n\xa5SeqNo\x01".to_vec();
    let stranger = Key::new(&[9; 32]).map_err(|error| Error::new(error.to_string()))?;
    let sealed = Keyring::new(stranger, Vec::new()).seal_datagram([1; 12], plain.clone());
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

/// Payloads of the gossip, UDP's and TCP's, that pass a host's interfaces meanwhile.
fn captured(host: &Host, meanwhile: impl FnOnce() -> Result<()>) -> Result<Vec<Vec<u8>>> {
    const ALL_PROTOCOLS: u16 = 3;
    let failed = |error: std::io::Error| Error::new(format!("capture: {error}"));
    let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
    let socket = inside(host.netns(), || {
        Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))
    })?
    .map_err(failed)?;
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .map_err(failed)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut payloads, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                match (&socket).read(&mut buffer) {
                    Ok(length) => payloads.extend(gossip_payload(&buffer[..length])),
                    // Only when nothing waits any more.
                    Err(_) if done.load(Ordering::SeqCst) => return payloads,
                    Err(_) => {}
                }
            }
        });
        let outcome = meanwhile();
        done.store(true, Ordering::SeqCst);
        let payloads = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.map(|()| payloads)
    })
}

/// What a packet to or from port 7946 carries.
fn gossip_payload(packet: &[u8]) -> Option<Vec<u8>> {
    let packet = etherparse::SlicedPacket::from_ip(packet).ok()?;
    let (ports, payload) = match packet.transport? {
        etherparse::TransportSlice::Udp(udp) => ([udp.source_port(), udp.destination_port()], udp.payload().to_vec()),
        etherparse::TransportSlice::Tcp(tcp) => ([tcp.source_port(), tcp.destination_port()], tcp.payload().to_vec()),
        _ => return None,
    };
    (ports.contains(&7946) && !payload.is_empty()).then_some(payload)
}

#[test]
fn nothing_on_the_wire_names_a_node_or_a_row() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let (host, other) = (&cluster.rig.hosts[0], &cluster.rig.hosts[1]);
    // A ping in the clear must be seen, or what is not seen says nothing.
    let control = b"\x00\x82\xa4Node\xa1n\xa5SeqNo\x01";
    let mut containers = Vec::new();
    let payloads = captured(host, || {
        for number in 0..4 {
            containers.push(cluster.container(number % 2, &format!("hidden-{number}"), None)?);
        }
        for host in 0..2 {
            cluster.wait_rows(host, 4)?;
        }
        let sent = inside(other.netns(), || {
            UdpSocket::bind("0.0.0.0:0")?.send_to(control, SocketAddr::from((host.address(), 7946)))
        })?;
        sent.map_err(|error| Error::new(error.to_string()))?;
        wait_until(SOON, "the packet in the clear is refused", || {
            equal(told(host, "Gossip Refused:", " in the clear")?, 1)
        })
    })?;
    let rows = cluster.rows(0, "endpoint_table")?;
    equal(rows.len(), 4)?;
    let mut secrets = vec![
        cluster.network.clone(),
        "hidden-".to_owned(),
        "endpoint_table".to_owned(),
        "SeqNo".to_owned(),
    ];
    secrets.extend(rows.iter().flat_map(|(key, owner)| [key.clone(), owner.clone()]));
    let holds = |payload: &[u8], words: &str| payload.windows(words.len()).any(|window| window == words.as_bytes());
    // Four rows crossed, in two packets at the least, with their probes and digests; how many more is chance.
    assert!(payloads.len() > 4, "{} packets", payloads.len());
    let (clear, sealed): (Vec<_>, Vec<_>) = payloads.into_iter().partition(|payload| payload[..] == control[..]);
    assert!(
        clear.len() == 1 && holds(&clear[0], "SeqNo"),
        "{} in the clear",
        clear.len()
    );
    for payload in &sealed {
        for secret in &secrets {
            assert!(
                !holds(payload, secret),
                "{secret} in {}",
                String::from_utf8_lossy(payload)
            );
        }
    }
    Ok(())
}

#[test]
fn rows_written_all_through_rotations_are_on_all_nodes() -> Result<()> {
    let cluster = Cluster::start(3)?;
    // A node is in a network as long as a container of it is.
    let containers = (0..3).map(|host| cluster.container(host, &format!("c{host}"), None));
    let containers = containers.collect::<Result<Vec<_>>>()?;
    wait_settled(&cluster)?;
    let mut rows = 0;
    for _ in 0..3 {
        cluster.rig.hosts[0].weft(&["cluster", "rotate-keys"])?;
        let until = rows + 30;
        while rows < until || keys(&cluster.rig.hosts[0])?["Phase"].as_str() != Some("settled") {
            let at = format!("nid={}&tname=t&key=k{rows}&value=aGVsbG8=", cluster.network);
            ask(&cluster.rig.hosts[rows % 3], &format!("/createentry?{at}"))?;
            rows += 1;
        }
    }
    for host in 0..3 {
        wait_until(SOON, &format!("all rows are on host {host}"), || {
            equal(cluster.rows(host, "t")?.len(), rows)
        })?;
    }
    drop(containers);
    nobody_failed(&cluster)
}

#[test]
fn a_rotation_that_was_switching_goes_on_after_the_manager_was_killed() -> Result<()> {
    let mut cluster = Cluster::start(3)?;
    let before = wait_settled(&cluster)?;
    let phase = |host: &Host, wanted: &str| equal(keys(host)?["Phase"].as_str(), Some(wanted));
    // A member that is away keeps each phase open for a while.
    cluster.rig.hosts[2].kill()?;
    cluster.rig.hosts[0].weft(&["cluster", "rotate-keys"])?;
    wait_until(SOON, "the new key is used", || {
        phase(&cluster.rig.hosts[0], "switching")
    })?;
    cluster.rig.hosts[0].kill()?;
    cluster.rig.hosts[0].start()?;
    phase(&cluster.rig.hosts[0], "switching")?;
    cluster.rig.hosts[2].start()?;
    let after = wait_settled(&cluster)?;
    assert!(
        before.first() != after.first() && after.contains(&before[0]),
        "{before:?} {after:?}"
    );
    cluster.wait_ready(3)
}

#[test]
fn a_node_that_left_knows_no_key_that_is_in_use() -> Result<()> {
    let cluster = Cluster::start(3)?;
    wait_settled(&cluster)?;
    cluster.rig.hosts[0].weft(&["cluster", "rotate-keys"])?;
    let known = wait_settled(&cluster)?;
    equal(known.len(), 3)?;
    let first = cluster.container(0, "first", None)?;
    let second = cluster.container(1, "second", None)?;
    cluster.rig.hosts[2].weft(&["cluster", "leave"])?;
    wait_until(SOON, "both nodes that stay hold other keys", || {
        equal(keys(&cluster.rig.hosts[0])?["Phase"].as_str(), Some("settled"))?;
        let now = fingerprints(&cluster.rig.hosts[0])?;
        equal(now.len(), 2)?;
        equal(now.iter().filter(|key| known.contains(key)).count(), 0)?;
        equal(fingerprints(&cluster.rig.hosts[1])?, now)
    })?;
    equal(logged(&cluster.rig.hosts[0], "no member any more")?, 1)?;
    wait_names(&first, "second", &[second.address()?])?;
    equal(logged(&cluster.rig.hosts[0], "NodeActive --> NodeFailed")?, 0)?;
    // Who joins from now on gets the new ones.
    let token = cluster.rig.hosts[0].weft(&["cluster", "join-token", "-q"])?;
    let manager = cluster.rig.hosts[0].address().to_string();
    cluster.rig.hosts[2].weft(&["cluster", "join", "--token", token.trim(), &manager])?;
    cluster.wait_ready(3)?;
    wait_settled(&cluster).map(drop)
}

#[test]
fn a_cluster_starts_with_the_key_of_a_file_or_not_at_all() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    rig.hosts[0].start()?;
    let host = &rig.hosts[0];
    let file = host.folder().join("gossip.key");
    let write = |text: &str| std::fs::write(&file, text).map_err(|error| Error::new(error.to_string()));
    let init = format!("cluster init -q --gossip-key-file {}", file.display());
    let name = file.to_string_lossy().into_owned();
    weft_refuses(host, &init, &[&name, "No such file"]);
    for (text, words) in [
        ("MTIzNDU2Nzg5MGFi\n", "it has 12 bytes; 16, 24 or 32 are wanted"),
        ("not base64 at all", "neither base64 nor hex"),
        ("", "it has 0 bytes"),
    ] {
        write(text)?;
        weft_refuses(host, &init, &[&name, words]);
        weft_refuses(host, "network ls", &["not part of a cluster"]);
    }
    // `0123456789abcdef` in base64, with a newline as editors leave it.
    write("MDEyMzQ1Njc4OWFiY2RlZg==\n")?;
    host.weft(&init.split_whitespace().collect::<Vec<_>>())?;
    let key = Key::new(b"0123456789abcdef").map_err(|error| Error::new(error.to_string()))?;
    equal(fingerprints(host)?.first().cloned(), Some(key.fingerprint()))
}
