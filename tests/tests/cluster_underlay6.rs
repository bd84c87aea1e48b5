//! A cluster whose hosts reach each other by IPv6 alone: gossip, joining, VXLAN, and both families inside.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use weft_tests::rig::{Container, Error, Options, Result, Rig, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, dns, entries, equal, fetch, wait_names};
use weft_tests::traffic::{Chat, TcpEcho, UdpEcho, ping, ping6, tcp_both_ways, udp_ask};

/// The network with both families, and one whose packets are wider than the underlay carries.
const BOTH: &str = "both";
const WIDE: &str = "wide";

/// What is left of 1500 bytes: IPv6 40, UDP 8, VXLAN 8 and Ethernet 14 are around it.
const MTU: usize = 1430;

/// Bytes of a bulk transfer each way.
const BULK: usize = 10_000_000;

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

fn start() -> Result<Cluster> {
    let options = Options {
        ipv6: true,
        ..Options::default()
    };
    let mut cluster = Cluster::start_on(options)?;
    let manager = &cluster.rig.hosts[0];
    let create = [
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.66.0.0/24",
        "--subnet",
        "fd00:66::/64",
        BOTH,
    ];
    cluster.network = manager.weft(&create)?.trim().to_owned();
    Ok(cluster)
}

fn container(cluster: &Cluster, host: usize, name: &str, network: &str, service: Option<&str>) -> Result<Container> {
    let container = cluster.rig.container(host, name)?;
    container.connect(network, service)?;
    Ok(container)
}

/// Both addresses of a container, with a port.
fn sockets(container: &Container, port: u16) -> Result<[SocketAddr; 2]> {
    let (ipv4, ipv6) = (container.address()?, container.address6()?);
    Ok([SocketAddr::from((ipv4, port)), SocketAddr::from((ipv6, port))])
}

#[test]
fn both_families_cross_an_ipv6_underlay() -> Result<()> {
    let cluster = start()?;
    let host = &cluster.rig.hosts[1];
    equal(host.netns().ip("-o -4 addr show scope global")?, String::new())?;
    let listed = cluster.rig.hosts[0].weft(&["node", "ls"])?;
    assert!(
        listed.contains("fd00:50::1") && listed.contains("fd00:50::2"),
        "{listed}"
    );
    let alice = container(&cluster, 0, "alice", BOTH, None)?;
    let bob = container(&cluster, 1, "bob", BOTH, None)?;
    wait_names(&alice, "bob", &[bob.address()?])?;
    wait_names(&bob, "alice", &[alice.address()?])?;
    let link = alice.run("ip", &["-o", "link", "show", "eth0"])?;
    assert!(link.contains(&format!(" mtu {MTU} ")), "{link}");
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        for size in [0, MTU - 28, 8000] {
            equal(traffic(ping(from, to.address()?, size))?, to.address()?)?;
        }
        for size in [0, MTU - 48, 8000] {
            equal(traffic(ping6(from, to.address6()?, size))?, to.address6()?)?;
        }
        for (to_socket, own) in sockets(to, 7000)?.into_iter().zip(sockets(from, 0)?) {
            let seen = traffic(tcp_both_ways(to, to_socket, from, to_socket, BULK))?;
            equal(seen.ip(), own.ip())?;
            let _echo = UdpEcho::start(to, to_socket, b"echo");
            for size in [1, 1300, 8000] {
                equal(traffic(udp_ask(from, to_socket, size))?, b"echo".to_vec())?;
            }
        }
    }
    for (map, address) in [
        ("peers", bob.address()?.to_string()),
        ("peers6", bob.address6()?.to_string()),
    ] {
        let peers = entries(&cluster.rig.hosts[0], &format!("/maps/{map}"))?;
        let vteps: Vec<(&str, &str)> = peers
            .iter()
            .filter_map(|peer| Some((peer["ip"].as_str()?, peer["vtep"].as_str()?)))
            .collect();
        equal(vteps, vec![(address.as_str(), "fd00:50::2")])?;
    }
    Ok(())
}

#[test]
fn services_and_restarts_work_over_an_ipv6_underlay() -> Result<()> {
    let mut cluster = start()?;
    cluster.rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", BOTH])?;
    let mut tasks = Vec::new();
    for host in [0, 1] {
        let name = format!("web.{host}");
        let mut task = container(&cluster, host, &name, BOTH, Some("web"))?;
        task.serve(&["http-serve", "--name", &name])?;
        tasks.push(task);
    }
    let client = container(&cluster, 1, "client", BOTH, None)?;
    wait_names(&client, "tasks.web", &[tasks[0].address()?, tasks[1].address()?])?;
    let even = BTreeMap::from([("web.0".to_owned(), 4), ("web.1".to_owned(), 4)]);
    let vips = [
        dns(&client, "web", &[])?.data.concat(),
        dns(&client, "web", &["--type", "AAAA"])?.data.concat(),
    ];
    let mut chats = Vec::new();
    let _echo: Vec<TcpEcho> = tasks
        .iter()
        .map(|task| TcpEcho::start(task, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7002))))
        .collect();
    for vip in &vips {
        let vip: IpAddr = vip.parse().map_err(|error| Error::new(format!("{vip:?}: {error}")))?;
        let url = if vip.is_ipv6() {
            format!("[{vip}]")
        } else {
            vip.to_string()
        };
        wait_until(SOON, &format!("both tasks answer at {url}"), || {
            equal(fetch(&client, &url, 8)?, even.clone())
        })?;
        // Two connections through each: one to either task.
        for _ in 0..2 {
            chats.push(traffic(Chat::start(&client, SocketAddr::from((vip, 7002))))?);
        }
    }
    for host in [0, 1] {
        cluster.rig.hosts[host].stop()?;
        cluster.rig.hosts[host].start()?;
        cluster.wait_ready(2)?;
    }
    for chat in &mut chats {
        traffic(chat.goes_on())?;
    }
    let late = container(&cluster, 0, "late", BOTH, None)?;
    wait_names(&client, "late", &[late.address()?])?;
    equal(traffic(ping6(&client, late.address6()?, 56))?, late.address6()?)?;
    equal(traffic(ping(&late, client.address()?, 56))?, client.address()?)?;
    for chat in chats {
        traffic(chat.finish())?;
    }
    Ok(())
}

/// Whoever sends too much at once is told by the gateway, in either family.
#[test]
fn packets_wider_than_the_underlay_find_their_size() -> Result<()> {
    let cluster = start()?;
    let option = "com.docker.network.driver.mtu=1520";
    cluster.rig.hosts[0].weft(&["network", "create", "--ipv6", "--opt", option, WIDE])?;
    let alice = container(&cluster, 0, "alice", WIDE, None)?;
    let bob = container(&cluster, 1, "bob", WIDE, None)?;
    wait_names(&alice, "bob", &[bob.address()?])?;
    wait_names(&bob, "alice", &[alice.address()?])?;
    let link = alice.run("ip", &["-o", "link", "show", "eth0"])?;
    assert!(link.contains(" mtu 1450 "), "{link}");
    for to in sockets(&bob, 7000)? {
        traffic(tcp_both_ways(&bob, to, &alice, to, BULK))?;
        let _echo = UdpEcho::start(&bob, to, b"echo");
        equal(traffic(udp_ask(&alice, to, 1400))?, b"echo".to_vec())?;
    }
    Ok(())
}

#[test]
fn an_address_that_others_cannot_use_is_refused() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ipv6: true,
        ..Options::default()
    })?;
    let host = &mut rig.hosts[0];
    for (key, value, wanted) in [
        (
            "listen-addr",
            "0.0.0.0",
            "listen-addr \"0.0.0.0\": an address of the family of advertise-addr fd00:50::1 is wanted, as ::",
        ),
        (
            "advertise-addr",
            "fe80::1",
            "advertise-addr \"fe80::1\": the address of one interface of this host is wanted",
        ),
        (
            "advertise-addr",
            "fd00:51::1",
            "no interface has the address fd00:51::1; this host has fd00:50::1",
        ),
    ] {
        let kept = host.advertised().to_string();
        host.set(key, value)?;
        let line = match host.start() {
            Err(error) => error.to_string(),
            Ok(()) => return Err(Error::new(format!("weftd starts with {key} {value}"))),
        };
        assert!(line.contains(wanted), "{key} {value}: {line}");
        host.set(key, kept)?;
    }
    // Nothing set: the source of the default route, which is of IPv6 here.
    for key in ["listen-addr", "advertise-addr"] {
        host.set(key, serde_json::Value::Null)?;
    }
    host.start()?;
    host.weft(&["cluster", "init", "-q"])?;
    let listed = host.weft(&["node", "ls"])?;
    assert!(listed.contains("fd00:50::1"), "{listed}");
    host.weft(&["network", "create", NETWORK])?;
    let alone = rig.container(0, "alone")?;
    alone.connect(NETWORK, None)?;
    let gateway = Ipv4Addr::new(10, 0, 0, 1);
    equal(traffic(ping(&alone, gateway, 56))?, gateway)
}
