//! IPv6 beside IPv4: networks, traffic, names, services, what is shown of them, restarts, and what is refused.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use weft_tests::rig::{Container, Error, Result, wait_until};
use weft_tests::story::{Answer, Cluster, SOON, diagnose, dns, entries, equal, fetch, wait_names};
use weft_tests::traffic::{Chat, TcpEcho, UdpEcho, ping, ping6, tcp_both_ways, udp_ask};

/// The network with both families.
const BOTH: &str = "both";

/// Bytes of a bulk transfer each way: enough that the kernel merges and splits segments.
const BULK: usize = 10_000_000;

/// ICMPv6 data that fills an inner packet of 1450 bytes.
const FULL_MTU: usize = 1450 - 40 - 8;

/// UDP data that takes six fragments.
const FRAGMENTED: usize = 8000;

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

/// Two hosts and the network [`BOTH`].
fn start() -> Result<Cluster> {
    let mut cluster = Cluster::start(2)?;
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
    cluster.network = cluster.rig.hosts[0].weft(&create)?.trim().to_owned();
    Ok(cluster)
}

fn container(cluster: &Cluster, host: usize, name: &str, service: Option<&str>) -> Result<Container> {
    let container = cluster.rig.container(host, name)?;
    container.connect(BOTH, service)?;
    Ok(container)
}

/// The address of [`BOTH`] that stands beside this one.
fn beside(ip: Ipv4Addr) -> Ipv6Addr {
    let offset = u128::from(ip.octets()[3]);
    (u128::from(Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, 0)) + offset).into()
}

/// Waits until a container finds these IPv6 addresses under a name, and the IPv4 ones beside them.
fn wait_both_names(asker: &Container, name: &str, wanted: &[Ipv4Addr]) -> Result<()> {
    wait_names(asker, name, wanted)?;
    let mut wanted: Vec<String> = wanted.iter().map(|ip| beside(*ip).to_string()).collect();
    wanted.sort();
    wait_until(SOON, &format!("{} finds {name} at {wanted:?}", asker.name()), || {
        let mut found = dns(asker, name, &["--type", "AAAA"])?.data;
        found.sort();
        equal(found, wanted.clone())
    })
}

fn inspect(cluster: &Cluster, host: usize, what: &[&str]) -> Result<Value> {
    let text = cluster.rig.hosts[host].weft(what)?;
    let list: Value = serde_json::from_str(&text).map_err(|error| Error::new(format!("{error} in {text}")))?;
    Ok(list[0].clone())
}

#[test]
fn containers_reach_each_other_by_ipv6_on_one_host_and_across() -> Result<()> {
    let cluster = start()?;
    let alice = container(&cluster, 0, "alice", None)?;
    let others = [
        container(&cluster, 0, "bob", None)?,
        container(&cluster, 1, "carol", None)?,
    ];
    let from = alice.address6()?;
    equal(from, beside(alice.address()?))?;
    for other in &others {
        let to = other.address6()?;
        equal(to, beside(other.address()?))?;
        wait_both_names(&alice, other.name(), &[other.address()?])?;
        wait_both_names(other, "alice", &[alice.address()?])?;
        for size in [0, 56, FULL_MTU, FRAGMENTED] {
            equal(traffic(ping6(&alice, to, size))?, to)?;
            equal(traffic(ping6(other, from, size))?, from)?;
        }
        equal(traffic(ping(&alice, other.address()?, 56))?, other.address()?)?;
        for (server, client, address) in [(other, &alice, to), (&alice, other, from)] {
            let address = SocketAddr::from((address, 7000));
            let seen = traffic(tcp_both_ways(server, address, client, address, BULK))?;
            equal(seen.ip(), IpAddr::V6(client.address6()?))?;
            let _echo = UdpEcho::start(server, address, b"echo");
            for size in [1, 1400, FRAGMENTED] {
                equal(traffic(udp_ask(client, address, size))?, b"echo".to_vec())?;
            }
        }
    }
    let gateway = Ipv6Addr::new(0xfd00, 0x66, 0, 0, 0, 0, 0, 1);
    equal(traffic(ping6(&alice, gateway, 56))?, gateway)?;
    shown(&cluster, [&alice, &others[0], &others[1]])
}

/// `network inspect`, the tables and the maps say the same of both families, on both hosts.
fn shown(cluster: &Cluster, [alice, bob, carol]: [&Container; 3]) -> Result<()> {
    for (host, here, there) in [(0, vec![alice, bob], vec![carol]), (1, vec![carol], vec![alice, bob])] {
        let network = inspect(cluster, host, &["network", "inspect", BOTH])?;
        equal(&network["EnableIPv6"], &json!(true))?;
        let config = json!([
            { "Subnet": "10.66.0.0/24", "Gateway": "10.66.0.1" },
            { "Subnet": "fd00:66::/64", "Gateway": "fd00:66::1" },
        ]);
        equal(&network["IPAM"]["Config"], &config)?;
        let mut found = BTreeMap::new();
        for shown in network["Containers"]
            .as_object()
            .into_iter()
            .flat_map(|all| all.values())
        {
            let text = |field: &str| shown[field].as_str().unwrap_or_default().to_owned();
            found.insert(text("Name"), (text("IPv4Address"), text("IPv6Address")));
        }
        let mut wanted = BTreeMap::new();
        for container in &here {
            let addresses = (
                format!("{}/24", container.address()?),
                format!("{}/64", container.address6()?),
            );
            wanted.insert(container.name().to_owned(), addresses);
        }
        equal(found, wanted)?;
        wait_map6(cluster, host, "endpoints6", "ip", &here)?;
        wait_map6(cluster, host, "attachments", "ip6", &here)?;
        wait_map6(cluster, host, "peers6", "ip", &there)?;
    }
    Ok(())
}

/// Waits until a map of a host holds exactly the IPv6 addresses of these.
fn wait_map6(cluster: &Cluster, host: usize, map: &str, field: &str, of: &[&Container]) -> Result<()> {
    let mut wanted: Vec<String> = Vec::new();
    for container in of {
        wanted.push(container.address6()?.to_string());
    }
    wanted.sort();
    wait_until(SOON, &format!("map {map} of host {host} holds {wanted:?}"), || {
        let entries = entries(&cluster.rig.hosts[host], &format!("/maps/{map}"))?;
        let mut found: Vec<String> = entries
            .iter()
            .filter_map(|entry| entry[field].as_str().map(str::to_owned))
            .collect();
        found.sort();
        equal(found, wanted.clone())
    })
}

/// The name that is asked for a PTR record (RFC 3596 section 2.5).
fn reverse(address: Ipv6Addr) -> String {
    let nibbles = address
        .octets()
        .into_iter()
        .rev()
        .flat_map(|octet| [octet & 15, octet >> 4]);
    nibbles.fold(String::new(), |name, nibble| format!("{name}{nibble:x}.")) + "ip6.arpa"
}

fn found(data: &[&dyn ToString]) -> Answer {
    Answer {
        code: "No Error".to_owned(),
        data: data.iter().map(|data| data.to_string()).collect(),
    }
}

#[test]
fn a_service_has_a_virtual_ip_of_each_family() -> Result<()> {
    let cluster = start()?;
    let create = ["service", "create", "--name", "web", "--network", BOTH];
    cluster.rig.hosts[0].weft(&create)?;
    let mut tasks = Vec::new();
    for host in [0, 1] {
        let name = format!("web.{host}");
        let mut task = container(&cluster, host, &name, Some("web"))?;
        task.serve(&["http-serve", "--name", &name])?;
        tasks.push(task);
    }
    let clients = [
        container(&cluster, 0, "client0", None)?,
        container(&cluster, 1, "client1", None)?,
    ];
    let service = inspect(&cluster, 0, &["service", "inspect", "web"])?;
    let vips = service["Endpoint"]["VirtualIPs"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let addresses: Vec<&str> = vips.iter().filter_map(|vip| vip["Addr"].as_str()).collect();
    let vip = dns(&clients[0], "web", &[])?.data.concat();
    let vip: Ipv4Addr = vip.parse().map_err(|error| Error::new(format!("{vip:?}: {error}")))?;
    let vip6 = beside(vip);
    equal(
        addresses,
        vec![format!("{vip}/24").as_str(), format!("{vip6}/64").as_str()],
    )?;
    for client in &clients {
        wait_both_names(client, "web", &[vip])?;
        wait_both_names(client, "tasks.web", &[tasks[0].address()?, tasks[1].address()?])?;
        for task in &tasks {
            wait_both_names(client, task.name(), &[task.address()?])?;
            let by_address = dns(client, &reverse(task.address6()?), &["--type", "PTR"])?;
            equal(by_address, found(&[&format!("{}.{BOTH}.", task.name())]))?;
        }
        let url = format!("[{vip6}]");
        let even = BTreeMap::from([("web.0".to_owned(), 4), ("web.1".to_owned(), 4)]);
        wait_until(SOON, &format!("both tasks answer {} at {url}", client.name()), || {
            equal(fetch(client, &url, 8)?, even.clone())
        })?;
        equal(fetch(client, &vip.to_string(), 8)?, even)?;
        equal(traffic(ping6(client, vip6, 56))?, vip6)?;
        udp_spread(client, &tasks, vip6)?;
    }
    // A task that asks its own service reaches itself too.
    equal(fetch(&tasks[0], &format!("[{vip6}]"), 8)?.len(), 2)?;
    follows_its_tasks(&tasks, &clients, vip6)
}

/// Each new socket is a flow of its own, whole or in fragments.
fn udp_spread(client: &Container, tasks: &[Container], vip6: Ipv6Addr) -> Result<()> {
    let tags: [&'static [u8]; 2] = [b"0", b"1"];
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7001));
    let servers = tasks.iter().zip(tags);
    let _servers: Vec<UdpEcho> = servers
        .map(|(task, tag)| UdpEcho::start(task, everywhere, tag))
        .collect();
    for size in [100, FRAGMENTED] {
        let mut answers: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for _ in 0..8 {
            let tag = traffic(udp_ask(client, SocketAddr::from((vip6, 7001)), size))?;
            *answers.entry(tag).or_insert(0) += 1;
        }
        equal(answers, tags.iter().map(|tag| (tag.to_vec(), 4)).collect())?;
    }
    Ok(())
}

/// What a TCP connection to an address without a listener, or a virtual IP without a task, is told at once.
fn follows_its_tasks(tasks: &[Container], clients: &[Container], vip6: Ipv6Addr) -> Result<()> {
    tasks[0].disconnect(BOTH)?;
    let url = format!("[{vip6}]");
    for client in clients {
        wait_until(SOON, &format!("web.1 alone answers {}", client.name()), || {
            equal(fetch(client, &url, 4)?, BTreeMap::from([("web.1".to_owned(), 4)]))
        })?;
    }
    tasks[1].disconnect(BOTH)?;
    for client in clients {
        wait_until(SOON, &format!("{} is refused", client.name()), || {
            match fetch(client, &url, 1) {
                Err(error) if error.to_string().contains("refused") => Ok(()),
                other => Err(Error::new(format!("not refused: {other:?}"))),
            }
        })?;
    }
    Ok(())
}

#[test]
fn restarts_keep_ipv6_connections_and_maps() -> Result<()> {
    let mut cluster = start()?;
    cluster.rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", BOTH])?;
    let alice = container(&cluster, 0, "alice", None)?;
    let task = container(&cluster, 1, "web.1", Some("web"))?;
    wait_both_names(&alice, "tasks.web", &[task.address()?])?;
    let vip = dns(&alice, "web", &["--type", "AAAA"])?.data.concat();
    let vip: Ipv6Addr = vip.parse().map_err(|error| Error::new(format!("{vip:?}: {error}")))?;
    let _echo = TcpEcho::start(&task, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7002)));
    let mut chats = Vec::new();
    for address in [vip, task.address6()?] {
        chats.push(traffic(Chat::start(&alice, SocketAddr::from((address, 7002))))?);
    }
    for host in [0, 1] {
        let maps = |cluster: &Cluster| -> Result<Vec<Vec<Value>>> {
            let names = ["attachments", "endpoints6", "peers6", "services6", "backends6", "nodes"];
            let hosts = &cluster.rig.hosts;
            names
                .iter()
                .map(|name| entries(&hosts[host], &format!("/maps/{name}")))
                .collect()
        };
        let before = maps(&cluster)?;
        equal(before.iter().filter(|entries| entries.is_empty()).count(), 0)?;
        cluster.rig.hosts[host].stop()?;
        for chat in &mut chats {
            traffic(chat.goes_on())?;
        }
        cluster.rig.hosts[host].start()?;
        diagnose(&mut cluster.rig.hosts[host])?;
        cluster.wait_ready(2)?;
        wait_until(SOON, "the maps are as before", || {
            equal(maps(&cluster)?, before.clone())
        })?;
        for chat in &mut chats {
            traffic(chat.goes_on())?;
        }
    }
    let bob = container(&cluster, 0, "bob", None)?;
    wait_both_names(&task, "bob", &[bob.address()?])?;
    equal(traffic(ping6(&task, bob.address6()?, 56))?, bob.address6()?)?;
    for chat in chats {
        traffic(chat.finish())?;
    }
    Ok(())
}

#[test]
fn wrong_ipv6_is_refused_and_networks_without_it_have_none() -> Result<()> {
    let cluster = start()?;
    let manager = &cluster.rig.hosts[0];
    for (arguments, wanted) in [
        (
            &["--subnet", "fd00:67::/64"][..],
            "invalid subnet fd00:67::/64: it is of IPv6, which should be asked for (--ipv6, EnableIPv6 true)",
        ),
        (
            &["--ipv6", "--subnet", "fd00:67::1/64"],
            "invalid subnet fd00:67::1/64: it should be fd00:67::/64",
        ),
        (
            &["--ipv6", "--subnet", "fd00:66:0:0:1::/80"],
            "fd00:66:0:0:1::/80 overlaps fd00:66::/64 of network both",
        ),
        (
            &["--ipv6", "--subnet", "fd00:67::/64", "--subnet", "fd00:68::/64"],
            "several IPv6 subnets were given: a network has one",
        ),
        (
            &["--ipv6", "--subnet", "fd00:67::/64", "--gateway", "fd00:68::1"],
            "invalid gateway fd00:68::1: it should be a host address of fd00:67::/64, but is outside",
        ),
        (
            &["--ipv6", "--gateway", "fd00:68::1"],
            "invalid gateway fd00:68::1: it should come with the subnet that holds it",
        ),
        (
            &["--ipv6", "--opt", "com.docker.network.driver.mtu=1300"],
            "invalid MTU value: \"1300\": com.docker.network.driver.mtu of a network with IPv6 should be 1330 or more bytes",
        ),
    ] {
        let refused = manager.weft(&[&["network", "create"][..], arguments, &["wrong"]].concat());
        let line = match &refused {
            Err(error) => error.to_string(),
            Ok(id) => return Err(Error::new(format!("{arguments:?} made network {id}"))),
        };
        assert!(line.contains(wanted), "{arguments:?}: {line}");
    }
    // Without a subnet it gets one of the cluster's own (RFC 4193).
    manager.weft(&["network", "create", "--ipv6", "any"])?;
    let network = inspect(&cluster, 0, &["network", "inspect", "any"])?;
    let subnet = network["IPAM"]["Config"][1]["Subnet"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(subnet.starts_with("fd") && subnet.ends_with("::/64"), "{network}");
    // Where there is none, nothing is shown, answered or sent.
    let plain = cluster.container(0, "plain", None)?;
    let both = container(&cluster, 0, "both.1", None)?;
    wait_names(&plain, "plain", &[plain.address()?])?;
    equal(dns(&plain, "plain", &["--type", "AAAA"])?, found(&[]))?;
    equal(plain.netns().ip("-o -6 addr show scope global")?, String::new())?;
    let network = inspect(&cluster, 0, &["network", "inspect", "n1"])?;
    equal(&network["EnableIPv6"], &json!(false))?;
    wait_map6(&cluster, 0, "endpoints6", "ip", &[&both])
}
