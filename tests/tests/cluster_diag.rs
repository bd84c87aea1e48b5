//! The diagnostic server on a cluster of two hosts: switched on and off as the daemon runs, asked over HTTP and by
//! `diagnosticClient`, agreeing with its peer and with the kernel's maps.

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;
use weft_tests::rig::{Container, Error, Host, Options, Result, Rig, program, wait_until};

/// Where the servers listen, each on its own host's loopback.
const PORT: u16 = 2000;

/// Gossip tells news within a second or two; a busy machine gets ten times that.
const SOON: Duration = Duration::from_secs(30);

/// Two hosts with a container each on one network.
struct Cluster {
    // Containers are dropped before the rig that they are in.
    containers: [Container; 2],
    rig: Rig,
    network: String,
}

impl Cluster {
    fn start() -> Result<Cluster> {
        let mut rig = Rig::new(Options::default())?;
        rig.start_cluster()?;
        let network = rig.hosts[0].weft(&["network", "create", "n1"])?.trim().to_owned();
        let containers = [rig.container(0, "a")?, rig.container(1, "b")?];
        for container in &containers {
            container.connect("n1", None)?;
        }
        Ok(Cluster {
            containers,
            rig,
            network,
        })
    }

    fn addresses(&self) -> Result<[Ipv4Addr; 2]> {
        Ok([self.containers[0].address()?, self.containers[1].address()?])
    }

    /// Has both daemons read a new `network-diagnostic-port`.
    fn set_port(&mut self, port: impl Into<Value> + Copy) -> Result<()> {
        for host in &mut self.rig.hosts {
            host.set("network-diagnostic-port", port)?;
            host.hangup()?;
        }
        Ok(())
    }

    /// Both servers on, and answering.
    fn switch_on(&mut self) -> Result<()> {
        self.set_port(PORT)?;
        for host in &self.rig.hosts {
            wait_until(
                SOON,
                &format!("the diagnostic server on {} is ready", host.name()),
                || expect("OK\nOK", &get(host, "/ready")?),
            )?;
        }
        Ok(())
    }
}

/// The body of `GET path`, asked on the host itself.
fn get(host: &Host, path: &str) -> Result<String> {
    let namespace = File::open(host.netns().path()).map_err(|error| Error::new(format!("{}: {error}", host.name())))?;
    let url = format!("http://127.0.0.1:{PORT}{path}");
    let asking = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| format!("setns: {error}"))?;
        let text = ureq::get(&url)
            .call()
            .and_then(|mut reply| reply.body_mut().read_to_string());
        text.map_err(|error| format!("GET {url}: {error}"))
    });
    let answer = asking
        .join()
        .unwrap_or_else(|_| Err("the asking thread panicked".to_owned()));
    answer.map_err(|error| Error::new(format!("on {}: {error}", host.name())))
}

/// What `diagnosticClient -json` found on a host.
fn diagnose(host: &Host, arguments: &[&str]) -> Result<Value> {
    let client = program("diagnosticClient")?;
    let mut all = vec!["-json"];
    all.extend(arguments);
    let found = host.run(&client.to_string_lossy(), &all)?;
    serde_json::from_str(&found).map_err(|error| Error::new(format!("on {}: {error} in {found:?}", host.name())))
}

fn expect(wanted: &str, found: &str) -> Result<()> {
    if found == wanted {
        Ok(())
    } else {
        Err(Error::new(format!("wanted {wanted:?}, found {found:?}")))
    }
}

/// A member of each entry, sorted.
fn members(list: &Value, pointer: &str) -> Vec<String> {
    let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut members: Vec<String> = entries
        .iter()
        .map(|entry| entry.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned())
        .collect();
    members.sort();
    members
}

#[test]
fn both_hosts_tell_the_same_and_the_maps_follow() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.switch_on()?;
    let addresses = cluster.addresses()?;
    tables_agree(&cluster, addresses)?;
    maps_follow_the_tables(&cluster, addresses)?;
    counters_count(&mut cluster, addresses[1])?;
    entries_travel(&cluster)?;
    orphans_are_none(&cluster)?;
    Ok(())
}

/// Both tables, with owners, on both hosts.
fn tables_agree(cluster: &Cluster, addresses: [Ipv4Addr; 2]) -> Result<()> {
    let mut underlay: Vec<String> = cluster
        .rig
        .hosts
        .iter()
        .map(|host| host.address().to_string())
        .collect();
    underlay.sort();
    for (table, wanted) in [
        ("sd", addresses.map(|address| address.to_string()).to_vec()),
        ("overlay", addresses.map(|address| format!("{address}/24")).to_vec()),
    ] {
        let mut wanted = wanted;
        wanted.sort();
        for host in &cluster.rig.hosts {
            let found = wait_until(
                SOON,
                &format!("{} knows both endpoints in table {table}", host.name()),
                || {
                    let found = diagnose(host, &["-net", &cluster.network, "-t", table])?;
                    if members(&found["entries"], "/record/endpointIP") == wanted {
                        Ok(found)
                    } else {
                        Err(Error::new(format!("wanted {wanted:?} in {found}")))
                    }
                },
            )?;
            assert_eq!(members(&found["clusterPeers"], "/ip"), underlay, "{found}");
            assert_eq!(members(&found["networkPeers"], "/ip"), underlay, "{found}");
            assert_eq!(
                members(&found["entries"], "/owner"),
                members(&found["networkPeers"], "/name"),
                "{found}"
            );
        }
    }
    Ok(())
}

/// The kernel's maps hold the other host's endpoint behind its VTEP, and the own one.
fn maps_follow_the_tables(cluster: &Cluster, addresses: [Ipv4Addr; 2]) -> Result<()> {
    for (own, other) in [(0, 1), (1, 0)] {
        let host = &cluster.rig.hosts[own];
        let vtep = cluster.rig.hosts[other].address();
        for (map, part) in [
            ("peers", format!(" {} -> vtep {vtep} mac 02:42:", addresses[other])),
            ("endpoints", format!(" {} -> ifindex ", addresses[own])),
            ("attachments", format!(" {} mac 02:42:", addresses[own])),
            ("nodes", format!("vtep {vtep} -> next hop {vtep} ")),
            ("networks", " -> gateway ".to_owned()),
        ] {
            wait_until(SOON, &format!("map {map} of {} has {part:?}", host.name()), || {
                let shown = get(host, &format!("/maps/{map}"))?;
                if shown.starts_with("OK\n") && shown.contains(&part) {
                    Ok(())
                } else {
                    Err(Error::new(shown))
                }
            })?;
        }
        let all = get(host, "/maps")?;
        assert!(all.starts_with("OK\ntotal entries: 33\n"), "{all}");
        assert!(get(host, "/maps/nosuch")?.starts_with("FAIL\nError: map \"nosuch\" does not exist, there are: "));
    }
    Ok(())
}

/// Datagrams from host 1 to host 2 and back are counted on both.
fn counters_count(cluster: &mut Cluster, to: Ipv4Addr) -> Result<()> {
    let packets = |host: &Host, name: &str| -> Result<u64> {
        let shown = get(host, "/maps/counters?json")?;
        let reply: Value = serde_json::from_str(&shown).map_err(|error| Error::new(format!("{error} in {shown}")))?;
        let entries = reply["details"]["entries"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let counter = entries.iter().find(|entry| entry["name"] == name);
        counter
            .and_then(|counter| counter["packets"].as_u64())
            .ok_or_else(|| Error::new(format!("no {name} in {shown}")))
    };
    let all = |hosts: &[Host]| -> Result<Vec<u64>> {
        let each = hosts
            .iter()
            .flat_map(|host| ["encapsulated", "delivered"].map(|name| packets(host, name)));
        each.collect()
    };
    cluster.containers[1].serve(&["udp-echo"])?;
    let server = format!("{to}:7001");
    let ping = |times: &str| cluster.containers[0].tool(&["udp-ping", "-n", times, &server]);
    wait_until(SOON, "the echo server answers", || ping("1"))?;
    let before = all(&cluster.rig.hosts)?;
    expect("20 of 20 came back", ping("20")?.trim())?;
    let after = all(&cluster.rig.hosts)?;
    assert!(
        before.iter().zip(&after).all(|(before, after)| *after >= before + 20),
        "before {before:?}, after {after:?}"
    );
    Ok(())
}

/// What is written by one host's API is read by the other's, changed there, and deleted.
fn entries_travel(cluster: &Cluster) -> Result<()> {
    let [one, two] = &cluster.rig.hosts[..] else {
        return Err(Error::new("not two hosts"));
    };
    let at = format!("tname=trial_table&nid={}&key=k1", cluster.network);
    expect("OK", &get(one, &format!("/createentry?{at}&value=aGVsbG8="))?)?;
    let again = get(one, &format!("/createentry?{at}&value=aGVsbG8="))?;
    let exists = format!(
        "FAIL\nError: cannot create entry in table trial_table with network id {} and key k1, already exists",
        cluster.network
    );
    expect(&exists, &again)?;
    wait_until(SOON, "the entry is on the other host", || {
        expect(
            "OK\n0) k:`k1` -> v:`aGVsbG8=` owner:``\n",
            &get(two, &format!("/getentry?{at}"))?,
        )
    })?;
    expect("OK", &get(two, &format!("/updateentry?{at}&value=world&unsafe"))?)?;
    wait_until(SOON, "the change is on the first host", || {
        expect(
            "OK\n0) k:`k1` -> v:`world` owner:``\n",
            &get(one, &format!("/getentry?{at}&unsafe"))?,
        )
    })?;
    expect("OK", &get(one, &format!("/deleteentry?{at}"))?)?;
    let table = format!("/gettable?tname=trial_table&nid={}", cluster.network);
    wait_until(SOON, "the entry is gone on the other host", || {
        expect("OK\ntotal entries: 0\n", &get(two, &table)?)
    })
}

/// No entry without owner on either host; a network that nobody has is told.
fn orphans_are_none(cluster: &Cluster) -> Result<()> {
    for host in &cluster.rig.hosts {
        for table in ["sd", "overlay"] {
            let found = diagnose(host, &["-net", &cluster.network, "-t", table])?;
            let entries = found["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
            let orphan =
                |entry: &&Value| entry["networkOrphan"] != json!(false) || entry["clusterOrphan"] != json!(false);
            assert_eq!(entries.iter().find(orphan), None, "{found}");
        }
        expect("OK\ntotal entries: 0\n", &get(host, "/networkpeers?nid=nosuch")?)?;
        expect("OK\nentries: -1, qlen: -1\n", &get(host, "/networkstats?nid=nosuch")?)?;
    }
    Ok(())
}

#[test]
fn it_is_switched_on_and_off_while_the_daemon_runs() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    rig.start_cluster()?;
    let host = &mut rig.hosts[0];
    assert!(get(host, "/ready").is_err(), "it is off at the start");
    let logged = |host: &Host, line: &str| {
        wait_until(SOON, &format!("{} logs {line:?}", host.name()), || {
            let log = std::fs::read_to_string(host.log()).map_err(|error| Error::new(error.to_string()))?;
            if log.contains(line) {
                Ok(())
            } else {
                Err(Error::new("it did not"))
            }
        })
    };
    for _ in 0..2 {
        host.set("network-diagnostic-port", PORT)?;
        host.hangup()?;
        wait_until(SOON, "it is ready", || expect("OK\nOK", &get(host, "/ready")?))?;
        logged(
            host,
            &format!("Starting the diagnostic server listening on {PORT} for commands"),
        )?;
        host.set("network-diagnostic-port", Value::Null)?;
        host.hangup()?;
        wait_until(SOON, "it is off", || match get(host, "/ready") {
            Ok(answer) => Err(Error::new(answer)),
            Err(_) => Ok(()),
        })?;
        logged(host, "Disabling the diagnostic server")?;
    }
    host.set("network-diagnostic-port", "2000")?;
    host.hangup()?;
    logged(host, "network-diagnostic-port")?;
    assert!(get(host, "/ready").is_err(), "a wrong port changes nothing");
    Ok(())
}
