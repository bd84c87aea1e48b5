//! Bad tokens, and bytes that mean nothing, against running daemons: refused, and all goes on as before.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use weft::cluster::client::join;
use weft_tests::misuse::{SOON, enter, get, state, switch_on, weft_refuses};
use weft_tests::rig::{Error, Host, Options, Result, Rig, wait_until};

/// Random datagrams at a running daemon.
const DATAGRAMS: usize = 20_000;

/// As many as the smallest receive buffer holds: none may be lost before the daemon has seen it.
const DATAGRAMS_AT_ONCE: usize = 100;

/// Connections with random bytes, for each kind of socket.
const CONNECTIONS: usize = 300;

/// The most lines that all of it may add to the log. A stranger who could write one for each packet could fill the disk.
const MOST_LINES: usize = 60;

#[test]
fn wrong_tokens_are_refused() -> Result<()> {
    let mut rig = Rig::new(Options::default())?;
    for host in &mut rig.hosts {
        host.start()?;
    }
    let [manager, worker] = &rig.hosts[..] else {
        return Err(Error::new("not two hosts"));
    };
    let address = manager.address().to_string();
    let join = |token: &str, manager: &str, words: &[&str]| {
        weft_refuses(worker, &format!("cluster join --token {token} {manager}"), words);
        weft_refuses(worker, "network ls", &["not part of a cluster", "weft cluster join"]);
    };
    weft_refuses(
        manager,
        "cluster join-token",
        &["not part of a cluster", "weft cluster init"],
    );
    let token = manager.weft(&["cluster", "init", "-q"])?.trim().to_owned();
    let members = manager.weft(&["node", "ls"])?;

    for malformed in ["banana", &token[..token.len() - 1], &token.replace('-', "_")] {
        // Its start tells which token; the rest may be the secret.
        let start = &malformed[..malformed.len().min(16)];
        join(malformed, &address, &[start, "malformed", "weft cluster join-token"]);
    }
    join(
        &token.replace("WFTKN-1", "SWMTKN-1"),
        &address,
        &["Docker swarm", "weft swarm join"],
    );
    join(
        &with_other_digit(&token, 10),
        &address,
        &[&address, "join token", "weft cluster join-token"],
    );
    join(
        &with_other_digit(&token, token.len() - 1),
        &address,
        &["join token", "secret is wrong", "weft cluster join-token"],
    );
    // Nobody listens on the worker's port; the third host does not exist.
    join(&token, &worker.address().to_string(), &["192.168.50.2:2377", "refused"]);
    join(&token, "nosuch.invalid", &["nosuch.invalid"]);
    join(&token, "192.168.50.1:7946", &["192.168.50.1:7946"]);
    assert_eq!(manager.weft(&["node", "ls"])?, members);

    // A token that was replaced is told apart from one that never was.
    let old = token;
    let token = manager
        .weft(&["cluster", "join-token", "--rotate", "-q"])?
        .trim()
        .to_owned();
    assert_ne!(token, old);
    join(&old, &address, &["replaced", "join-token --rotate"]);
    assert_eq!(manager.weft(&["node", "ls"])?, members);

    worker.weft(&["cluster", "join", "--token", &token, &address])?;
    assert_eq!(
        manager.weft(&["node", "ls"])?.lines().count(),
        members.lines().count() + 1
    );
    weft_refuses(worker, "cluster join-token", &["not the manager", "192.168.50.1:2377"]);
    Ok(())
}

/// The token with another hexadecimal digit at a place.
fn with_other_digit(token: &str, at: usize) -> String {
    let other = if &token[at..=at] == "0" { "1" } else { "0" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[test]
fn a_name_that_another_node_has_is_refused() -> Result<()> {
    let mut rig = Rig::new(Options::default())?;
    rig.hosts[1].set("node-name", "node1")?;
    for host in &mut rig.hosts {
        host.start()?;
    }
    let token = rig.hosts[0].weft(&["cluster", "init", "-q"])?.trim().to_owned();
    let members = rig.hosts[0].weft(&["node", "ls"])?;
    weft_refuses(
        &rig.hosts[1],
        &format!("cluster join --token {token} 192.168.50.1"),
        &["node1", "192.168.50.1"],
    );
    weft_refuses(&rig.hosts[1], "network ls", &["not part of a cluster"]);
    assert_eq!(rig.hosts[0].weft(&["node", "ls"])?, members);
    Ok(())
}

#[test]
fn an_address_is_taken_only_from_a_dead_node_and_only_by_who_gets_in() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 3,
        ..Options::default()
    })?;
    rig.start_cluster()?;
    let token = rig.hosts[0].weft(&["cluster", "join-token", "-q"])?.trim().to_owned();
    let manager = format!("{}:2377", rig.hosts[0].address());
    let address = rig.hosts[1].address();
    // A daemon with this name and this advertise-addr would ask so.
    let claim = |rig: &Rig, name: &str| {
        enter(rig.hosts[2].netns(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let joined = runtime
                .expect("a runtime")
                .block_on(join(&token, &manager, 2377, name, address.into()));
            joined.map(drop).map_err(|refused| refused.to_string())
        })
    };
    let nodes = |rig: &Rig| rig.hosts[0].weft(&["node", "ls"]);
    wait_until(SOON, "three nodes are Ready", || {
        let listed = nodes(&rig)?;
        if listed.matches("Ready").count() == 3 {
            Ok(())
        } else {
            Err(Error::new(listed))
        }
    })?;
    let before = nodes(&rig)?;
    assert_eq!(
        claim(&rig, "node9"),
        Err(format!(
            "node node9 cannot join at {address}: node node2 is live at that address; give each node an advertise-addr of its own, or `weft cluster leave` on node2 first"
        ))
    );
    assert_eq!(nodes(&rig)?, before);

    rig.hosts[1].kill()?;
    wait_until(SOON, "the killed node is Down", || {
        let listed = nodes(&rig)?;
        if listed.contains("Down") {
            Ok(())
        } else {
            Err(Error::new(listed))
        }
    })?;
    let before = nodes(&rig)?;
    // The name is another node's, so this one does not get in, and the dead one keeps its place.
    let refused = claim(&rig, "node3").expect_err("the name is taken");
    assert!(refused.contains("node3") && !refused.contains('\n'), "{refused}");
    assert_eq!(nodes(&rig)?, before);
    assert_eq!(claim(&rig, "node9"), Ok(()));
    let after = nodes(&rig)?;
    assert!(after.contains("node9") && !after.contains("node2"), "{after}");
    // Who comes back to a place that was taken is told so.
    rig.hosts[1].start()?;
    weft_refuses(&rig.hosts[1], "network ls", &["node2 was removed from the cluster"]);
    Ok(())
}

#[test]
fn random_bytes_change_nothing() -> Result<()> {
    let mut rig = Rig::new(Options::default())?;
    rig.hosts[0].start()?;
    rig.hosts[0].weft(&["cluster", "init", "-q"])?;
    rig.hosts[0].weft(&["network", "create", "n1"])?;
    let container = rig.container(0, "web")?;
    container.connect("n1", None)?;
    switch_on(&mut rig.hosts[0])?;
    let (manager, stranger) = (&rig.hosts[0], &rig.hosts[1]);
    let before = (state(manager), get(manager, "/clusterpeers")?, manager.pid());
    let lines = lines_of(manager, "component=\"diagnostic\"");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);

    datagrams(manager, stranger, &mut random)?;
    for port in [7946, 2377] {
        enter(stranger.netns(), || {
            // Some say nothing, and stay.
            let silent: Vec<_> = (0..32).map(|_| TcpStream::connect(("192.168.50.1", port))).collect();
            assert!(silent.iter().all(|connection| connection.is_ok()));
            for _ in 0..CONNECTIONS {
                let stream = TcpStream::connect(("192.168.50.1", port)).expect("the daemon listens");
                stream
                    .set_read_timeout(Some(Duration::from_millis(200)))
                    .expect("a socket option");
                let _ = (&stream).write_all(&random.message());
                let _ = stream.shutdown(Shutdown::Write);
                let _ = (&stream).read(&mut [0; 256]);
            }
        });
    }
    for _ in 0..CONNECTIONS {
        let stream = UnixStream::connect(manager.socket()).map_err(|error| Error::new(error.to_string()))?;
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a socket option");
        let _ = (&stream).write_all(&random.message());
        let _ = stream.shutdown(Shutdown::Write);
        let _ = (&stream).read(&mut [0; 256]);
    }

    let told = lines_of(manager, "component=\"diagnostic\"") - lines;
    assert!(told <= MOST_LINES, "{told} lines logged");
    assert_eq!((state(manager), get(manager, "/clusterpeers")?, manager.pid()), before);
    assert!(rig.hosts[0].is_running());
    // It is not only there, it works: a node joins, and both know each other.
    rig.hosts[1].start()?;
    let token = rig.hosts[0].weft(&["cluster", "join-token", "-q"])?;
    rig.hosts[1].weft(&["cluster", "join", "--token", token.trim(), "192.168.50.1"])?;
    wait_until(SOON, "the nodes know each other", || {
        let peers = get(&rig.hosts[0], "/clusterpeers")?;
        if peers.contains("total entries: 2\n") {
            Ok(())
        } else {
            Err(Error::new(peers))
        }
    })
}

/// Lines in the log without these words.
fn lines_of(host: &Host, without: &str) -> usize {
    let log = std::fs::read_to_string(host.log()).unwrap_or_default();
    log.lines().filter(|line| !line.contains(without)).count()
}

/// Sends all datagrams, no faster than the daemon takes them.
fn datagrams(manager: &Host, stranger: &Host, random: &mut Random) -> Result<()> {
    let socket =
        enter(stranger.netns(), || UdpSocket::bind("0.0.0.0:0")).map_err(|error| Error::new(error.to_string()))?;
    let (mut sent, dropped) = (0, queue(manager)?.1);
    while sent < DATAGRAMS {
        for _ in 0..DATAGRAMS_AT_ONCE {
            let message = random.message();
            socket
                .send_to(&message, "192.168.50.1:7946")
                .map_err(|error| Error::new(error.to_string()))?;
            sent += 1;
        }
        wait_until(SOON, "the daemon took the datagrams", || match queue(manager)? {
            (0, _) => Ok(()),
            (bytes, _) => Err(Error::new(format!("{bytes} bytes wait"))),
        })?;
    }
    assert_eq!(
        queue(manager)?.1,
        dropped,
        "datagrams were lost before the daemon saw them"
    );
    Ok(())
}

/// Bytes that wait in the gossip's UDP socket, and datagrams lost in front of it (`/proc/net/udp`).
fn queue(host: &Host) -> Result<(u64, u64)> {
    let table = host.run("cat", &["/proc/net/udp"])?;
    let row = table.lines().find(|line| line.contains(":1F0A "));
    let fields: Vec<&str> = row.into_iter().flat_map(str::split_whitespace).collect();
    let waiting = fields
        .get(4)
        .and_then(|field| field.split(':').nth(1))
        .and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let dropped = fields.last().and_then(|field| field.parse().ok());
    waiting
        .zip(dropped)
        .ok_or_else(|| Error::new(format!("no row of port 7946 in {table}")))
}

/// A sequence of bytes that is the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Up to 1400 bytes; every second begins as a message of memberlist's does, with a type from 0 to 15 or 244.
    fn message(&mut self) -> Vec<u8> {
        let length = 1 + self.next() as usize % 1400;
        let mut bytes: Vec<u8> = (0..length).map(|_| self.next() as u8).collect();
        if self.next().is_multiple_of(2) {
            let kind = self.next() as u8 % 17;
            bytes[0] = if kind == 16 { 244 } else { kind };
        }
        bytes
    }
}
