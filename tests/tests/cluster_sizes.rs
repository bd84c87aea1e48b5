//! Sizes and time-outs from the configuration: shown, changed by a restart under traffic, refused where they cannot hold, told when full.

use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft_tests::load::UdpLoad;
use weft_tests::rig::{Container, Error, Host, Result, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, ask, diagnose, dns, wait_names};
use weft_tests::traffic::{Chat, TcpEcho};

const TCP: u16 = 7100;
const UDP: u16 = 7101;

/// Datagrams a second.
const RATE: u64 = 2000;

fn info(host: &Host) -> Result<String> {
    host.weft(&["info"])
}

fn shows(host: &Host, line: &str) -> Result<()> {
    let text = info(host)?;
    if text.contains(line) {
        Ok(())
    } else {
        Err(Error::new(format!("{line:?} is not in:\n{text}")))
    }
}

fn logged(host: &Host, words: &[&str]) -> usize {
    let log = std::fs::read_to_string(host.log()).unwrap_or_default();
    log.lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .count()
}

fn virtual_ip(client: &Container, name: &str) -> Result<Ipv4Addr> {
    wait_until(SOON, &format!("{name} has a virtual IP"), || {
        let answer = dns(client, name, &[])?;
        let vip = answer.data.first().and_then(|vip| vip.parse().ok());
        vip.ok_or_else(|| Error::new(format!("{answer:?}")))
    })
}

#[test]
fn sizes_change_by_a_restart_under_traffic_and_nothing_is_lost() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    cluster.rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
    let server = cluster.container(1, "server", Some("web"))?;
    let client = cluster.container(0, "client", None)?;
    wait_names(&client, "server", &[server.address()?])?;
    let vip = virtual_ip(&client, "web")?;
    let _echo = TcpEcho::start(&server, SocketAddr::from((Ipv4Addr::UNSPECIFIED, TCP)));
    shows(&cluster.rig.hosts[0], " flows: 0 of 524288\n")?;

    let load = UdpLoad::start(&client, &server, SocketAddr::from((vip, UDP)), RATE);
    let to = SocketAddr::from((vip, TCP));
    let chat = Chat::every(&client, to, Duration::from_millis(20)).map_err(Error::new)?;
    let go_on = |load: &UdpLoad| {
        let enough = load.received() + RATE / 2;
        wait_until(SOON, "traffic goes on", || match load.received() {
            received if received >= enough => Ok(()),
            received => Err(format!("{received} of {enough} datagrams")),
        })
    };
    go_on(&load)?;
    for (flows, peers) in [(1000, 50), (50, 5000)] {
        let host = &mut cluster.rig.hosts[0];
        host.stop()?;
        host.set("max-flows", flows)?;
        host.set("max-peers", peers)?;
        host.set("udp-answered-timeout", 100 + flows)?;
        host.start()?;
        go_on(&load)?;
        let host = &cluster.rig.hosts[0];
        // Two connections, of two entries each.
        shows(host, &format!(" flows: 4 of {}\n", 2 * flows))?;
        shows(host, &format!(" peers: 1 of {peers}\n"))?;
        shows(host, &format!("UDP 30 s, answered {} s\n", 100 + flows))?;
    }
    let account = load.finish();
    assert!(account.arrived > 0);
    assert_eq!(account.lost(), 0);
    chat.finish().map_err(Error::new)?;
    // Less than there is, is refused in a line, and the old goes on.
    let host = &mut cluster.rig.hosts[0];
    host.stop()?;
    host.set("max-flows", 1)?;
    // The socket may answer before the maps are looked at.
    let _ = host.start();
    let line = "max-flows leaves map flows room for 2 entries, but it holds 4: set max-flows to 2 or more";
    wait_until(SOON, "the size is refused", || {
        match (logged(host, &[line]), host.is_running()) {
            (1, false) => Ok(()),
            (told, running) => Err(format!("told {told} times, running: {running}")),
        }
    })?;
    let _ = host.kill();
    host.set("max-flows", 50)?;
    host.start()
}

#[test]
fn full_maps_are_told_once_and_shown() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let host = &mut cluster.rig.hosts[0];
    host.weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
    host.stop()?;
    host.set("max-peers", 2)?;
    host.set("max-flows", 2)?;
    host.start()?;
    diagnose(host)?;
    cluster.wait_ready(2)?;
    let client = cluster.container(0, "client", None)?;
    let mut servers = Vec::new();
    for number in 0..2 {
        servers.push(cluster.container(1, &format!("server{number}"), Some("web"))?);
    }
    let host = &cluster.rig.hosts[0];
    wait_until(SOON, "both peers are there", || {
        shows(host, " peers: 2 of 2, full: max-peers sets more\n")
    })?;
    let more = [
        cluster.container(1, "third", None)?,
        cluster.container(1, "fourth", None)?,
    ];
    wait_until(SOON, "the third and fourth are left out", || {
        shows(host, " peers: 2 of 2, full: 2 left out, max-peers sets more\n")
    })?;
    let told = ["map is full", "map=\"peers\"", "limit=2", "set max-peers to more"];
    assert_eq!(logged(host, &told), 1, "once, however many are left out");
    let maps: Value = serde_json::from_str(&ask(host, "/maps?json")?).map_err(|error| Error::new(error.to_string()))?;
    let entries = maps["details"]["entries"].as_array().cloned().unwrap_or_default();
    let peers = entries
        .iter()
        .find(|map| map["name"] == "peers")
        .cloned()
        .unwrap_or_default();
    assert_eq!(
        (&peers["full"], &peers["left_out"]),
        (&Value::Bool(true), &Value::from(2)),
        "{maps}"
    );
    drop(more);
    wait_until(SOON, "all have room again", || {
        shows(host, " peers: 2 of 2, full: max-peers sets more\n")?;
        match logged(host, &["map has room again", "peers"]) {
            1 => Ok(()),
            other => Err(Error::new(format!("told {other} times"))),
        }
    })?;

    // Two connections fill the flow table; those that come then are refused, and that is told once.
    let vip = virtual_ip(&client, "web")?;
    let _echoes =
        [&servers[0], &servers[1]].map(|server| TcpEcho::start(server, SocketAddr::from((Ipv4Addr::UNSPECIFIED, TCP))));
    let to = SocketAddr::from((vip, TCP));
    let chat = || Chat::every(&client, to, Duration::from_millis(20)).map_err(Error::new);
    let chats = [chat()?, chat()?];
    let refused = weft_tests::load::NewConnections::start(&client, to, Duration::from_millis(20));
    wait_until(SOON, "the full flow table is told", || {
        match logged(host, &["flow table is full", "drop_flow_table_full", "max-flows"]) {
            1 => Ok(()),
            other => Err(Error::new(format!("told {other} times"))),
        }
    })?;
    shows(host, " flows: 4 of 4, full: max-flows sets more\n")?;
    for chat in chats {
        assert!(chat.finish().map_err(Error::new)? > 0, "who is in goes on");
    }
    refused.finish();
    assert_eq!(logged(host, &["flow table is full"]), 1);
    Ok(())
}
