//! Containers of three hosts reach each other, directly and through services.

use serde_json::json;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use weft_tests::rig::{Container, Error, Result};
use weft_tests::story::{Cluster, NETWORK, SOON, dns, equal, fetch, wait_names, wait_spread};
use weft_tests::traffic::{UdpEcho, ping, tcp_both_ways, udp_ask};

/// Bytes of a bulk transfer each way: enough that the kernel merges and splits segments.
const BULK: usize = 10_000_000;

/// ICMP data that fills an inner packet of 1450 bytes.
const FULL_MTU: usize = 1450 - 20 - 8;

/// UDP data that takes six fragments.
const FRAGMENTED: usize = 8000;

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

#[test]
fn containers_reach_each_other_on_one_host_and_across() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let alice = cluster.container(0, "alice", None)?;
    let others = [
        cluster.container(0, "bob", None)?,
        cluster.container(1, "carol", None)?,
        cluster.container(2, "dave", None)?,
    ];
    for other in &others {
        let (from, to) = (alice.address()?, other.address()?);
        wait_names(&alice, other.name(), &[to])?;
        wait_names(other, "alice", &[from])?;
        for size in [0, 56, FULL_MTU] {
            equal(traffic(ping(&alice, to, size))?, to)?;
            equal(traffic(ping(other, from, size))?, from)?;
        }
        let server = SocketAddr::from((to, 7000));
        equal(
            traffic(tcp_both_ways(other, server, &alice, server, BULK))?.ip(),
            from.into(),
        )?;
        let _echo = UdpEcho::start(other, server, b"echo");
        for size in [1, 1400, FRAGMENTED] {
            equal(traffic(udp_ask(&alice, server, size))?, b"echo".to_vec())?;
        }
    }
    Ok(())
}

/// Changed by a restart, on one node and then on the other.
#[test]
fn a_vxlan_device_encapsulates_where_that_is_wanted() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let alice = cluster.container(0, "alice", None)?;
    let bob = cluster.container(1, "bob", None)?;
    wait_names(&alice, "bob", &[bob.address()?])?;
    for host in 0..2 {
        let at = &mut cluster.rig.hosts[host];
        at.set("features", json!({"encap": "collect_md"}))?;
        // The second restart finds the device there.
        for _ in 0..2 {
            at.stop()?;
            at.start()?;
        }
        let told = at.weft(&["info"])?;
        assert!(told.contains(" encap: collect_md (as configured)"), "{told}");
        let device = || at.run("ip", &["-o", "-s", "link", "show", "weft-gro"]);
        let before = device()?;
        for (from, to) in [(&alice, &bob), (&bob, &alice)] {
            let server = SocketAddr::from((to.address()?, 7000));
            for size in [0, FULL_MTU, FRAGMENTED] {
                equal(traffic(ping(from, to.address()?, size))?, to.address()?)?;
            }
            traffic(tcp_both_ways(to, server, from, server, BULK))?;
            let _echo = UdpEcho::start(to, server, b"echo");
            equal(traffic(udp_ask(from, server, FRAGMENTED))?, b"echo".to_vec())?;
        }
        assert_ne!(device()?, before, "nothing went through it");
    }
    Ok(())
}

#[test]
fn full_packets_that_must_not_be_fragmented_arrive() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let alice = cluster.container(0, "alice", None)?;
    let mut bob = cluster.container(1, "bob", None)?;
    wait_names(&alice, "bob", &[bob.address()?])?;
    let link = alice.run("ip", &["-o", "link", "show", "eth0"])?;
    assert!(link.contains(" mtu 1450 "), "{link}");
    bob.serve(&["udp-echo"])?;
    // Linux sets DF on every datagram that it need not fragment itself (ip_no_pmtu_disc is 0), so it is on all of these.
    let server = format!("{}:7001", bob.address()?);
    weft_tests::rig::wait_until(SOON, "the echo server answers", || {
        alice.tool(&["udp-ping", &server, "--size", "1422"])
    })?;
    equal(
        alice.tool(&["udp-ping", &server, "--size", "1422", "-n", "20"])?.trim(),
        "20 of 20 came back",
    )?;
    Ok(())
}

/// Three tasks of a service, one on each host, each with a web server.
fn tasks(cluster: &Cluster, service: &str, mode: &str) -> Result<Vec<Container>> {
    cluster.rig.hosts[0].weft(&[
        "service",
        "create",
        "--name",
        service,
        "--network",
        NETWORK,
        "--endpoint-mode",
        mode,
    ])?;
    let mut tasks = Vec::new();
    for host in 0..3 {
        let name = format!("{service}.{}", host + 1);
        let mut task = cluster.container(host, &name, Some(service))?;
        task.serve(&["http-serve", "--name", &name])?;
        tasks.push(task);
    }
    Ok(tasks)
}

fn addresses(containers: &[Container]) -> Result<Vec<Ipv4Addr>> {
    containers.iter().map(Container::address).collect()
}

fn vip(client: &Container, service: &str) -> Result<Ipv4Addr> {
    let answer = dns(client, service, &[])?;
    match answer.data.as_slice() {
        [vip] => vip.parse().map_err(|error| Error::new(format!("{vip:?}: {error}"))),
        _ => Err(Error::new(format!("{service} has not one address: {answer:?}"))),
    }
}

fn counts(names: [&str; 3], each: usize) -> BTreeMap<String, usize> {
    names.iter().map(|name| ((*name).to_owned(), each)).collect()
}

#[test]
fn a_service_spreads_connections_evenly_and_follows_its_tasks() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let web = tasks(&cluster, "web", "vip")?;
    let clients = [
        cluster.container(0, "client1", None)?,
        cluster.container(1, "client2", None)?,
    ];
    let all = ["web.1", "web.2", "web.3"];
    for client in &clients {
        wait_names(client, "tasks.web", &addresses(&web)?)?;
        wait_spread(client, "web", &all)?;
        equal(fetch(client, "web", 12)?, counts(all, 4))?;
    }
    udp_through_the_vip(&web, &clients)?;
    tasks_are_clients(&web)?;
    // A task that goes gets no new connection, from its own host neither.
    web[1].disconnect(NETWORK)?;
    for client in &clients {
        wait_spread(client, "web", &["web.1", "web.3"])?;
        wait_names(client, "tasks.web", &[web[0].address()?, web[2].address()?])?;
        let answers = fetch(client, "web", 12)?;
        equal(answers, counts(["web.1", "web.3", "web.3"], 6))?;
    }
    web[1].connect(NETWORK, Some("web"))?;
    for client in &clients {
        wait_spread(client, "web", &all)?;
    }
    Ok(())
}

/// Each new socket is a flow of its own; answers come from the VIP, else a connected socket would not take them.
fn udp_through_the_vip(web: &[Container], clients: &[Container; 2]) -> Result<()> {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7001));
    let tags: [&'static [u8]; 3] = [b"1", b"2", b"3"];
    let _servers: Vec<UdpEcho> = web
        .iter()
        .zip(tags)
        .map(|(task, tag)| UdpEcho::start(task, everywhere, tag))
        .collect();
    for client in clients {
        let to = SocketAddr::from((vip(client, "web")?, 7001));
        let mut answers: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for _ in 0..12 {
            *answers.entry(traffic(udp_ask(client, to, 100))?).or_insert(0) += 1;
        }
        equal(answers, tags.iter().map(|tag| (tag.to_vec(), 4)).collect())?;
    }
    Ok(())
}

/// A task that asks its own service reaches all tasks, itself included.
fn tasks_are_clients(web: &[Container]) -> Result<()> {
    for task in web {
        equal(fetch(task, "web", 12)?, counts(["web.1", "web.2", "web.3"], 4))?;
        let own = task.address()?;
        let text = task.tool(&["http-get", "-n", "3", "http://web/"])?;
        let hairpin = format!("{} at {own} answers ", task.name());
        assert!(text.contains(&hairpin), "{} does not reach itself: {text}", task.name());
    }
    Ok(())
}

#[test]
fn a_dnsrr_service_is_reached_without_a_vip() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let pages = tasks(&cluster, "pages", "dnsrr")?;
    let client = cluster.container(0, "client", None)?;
    wait_names(&client, "pages", &addresses(&pages)?)?;
    wait_names(&client, "tasks.pages", &addresses(&pages)?)?;
    // The client takes the first address of each answer, whose order is chance: all are first in 60 answers but once in 10^10.
    let mut answers = fetch(&client, "pages", 60)?;
    equal(answers.values().sum(), 60)?;
    answers.values_mut().for_each(|count| *count = 1);
    equal(answers, counts(["pages.1", "pages.2", "pages.3"], 1))?;
    equal(cluster.map(0, "backends")?, Vec::new())?;
    pages[2].disconnect(NETWORK)?;
    wait_names(&client, "pages", &addresses(&pages[..2])?)?;
    let answers = fetch(&client, "pages", 12)?;
    assert!(!answers.contains_key("pages.3"), "{answers:?}");
    Ok(())
}
