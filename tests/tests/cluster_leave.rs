//! Leaving: a container its network, a node its cluster. Nothing stays, and the way back is open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use weft_tests::rig::{Container, Error, Host, Result, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, dns, equal, fetch, wait_names, wait_spread};
use weft_tests::traffic::ping;

/// All that a container can leave behind on its host.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    links: BTreeSet<String>,
    pins: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    maps: String,
    inside: String,
}

fn traces(cluster: &Cluster, host: usize, container: &Container) -> Result<Traces> {
    let on = &cluster.rig.hosts[host];
    let listed = on.run("ip", &["-o", "link", "show"])?;
    let name = |line: &str| line.split(": ").nth(1).map(str::to_owned);
    let inside = [
        container.netns().ip("-br link")?,
        container.netns().ip("-br addr")?,
        container.netns().ip("route show table all")?,
    ];
    let mut files = files(&on.folder().join("data"))?;
    files.extend(files_if_any(&etc(container))?);
    Ok(Traces {
        links: listed.lines().filter_map(name).collect(),
        pins: self::files(on.pins())?,
        files,
        maps: cluster.maps(host)?,
        inside: inside.concat(),
    })
}

/// Where `ip netns exec` takes a namespace's files from.
fn etc(container: &Container) -> PathBuf {
    Path::new("/etc/netns").join(container.netns().name())
}

fn files_if_any(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    if folder.exists() {
        files(folder)
    } else {
        Ok(BTreeSet::new())
    }
}

/// All files and folders below.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let explain = |error: std::io::Error| Error::new(format!("{}: {error}", folder.display()));
    let mut found = BTreeSet::from([folder.to_path_buf()]);
    for entry in std::fs::read_dir(folder).map_err(explain)? {
        let path = entry.map_err(explain)?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.insert(path);
        }
    }
    Ok(found)
}

#[test]
fn a_container_that_leaves_leaves_nothing() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let keeper = cluster.container(0, "keeper", None)?;
    let container = cluster.rig.container(1, "passing")?;
    // The first connection makes what every further one finds, as the folder of all endpoints.
    container.connect(NETWORK, None)?;
    container.disconnect(NETWORK)?;
    let before = traces(&cluster, 1, &container)?;
    for _ in 0..2 {
        container.connect(NETWORK, None)?;
        let connected = traces(&cluster, 1, &container)?;
        assert!(connected.links.len() == before.links.len() + 1, "{connected:?}");
        assert!(
            connected.pins.len() > before.pins.len() && connected.maps != before.maps,
            "{connected:?}"
        );
        let conf = etc(&container).join("resolv.conf");
        let text = std::fs::read_to_string(&conf).map_err(|error| Error::new(format!("{conf:?}: {error}")))?;
        assert!(text.contains("nameserver 127.0.0.11"), "{text}");
        wait_names(&keeper, "passing", &[container.address()?])?;
        cluster.wait_rows(0, 2)?;
        container.disconnect(NETWORK)?;
        equal(&traces(&cluster, 1, &container)?, &before)?;
        cluster.wait_rows(0, 1)?;
        cluster.wait_map(0, "peers", &[])?;
        wait_until(SOON, "its name is gone", || {
            equal(dns(&keeper, "passing", &["--timeout", "20"])?.data, Vec::new())
        })?;
    }
    let twice = container.disconnect(NETWORK).expect_err("it is gone").to_string();
    assert!(
        twice.contains("endpoint passing is not connected to network n1 on this node"),
        "{twice}"
    );
    Ok(())
}

#[test]
fn no_address_is_given_twice() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let containers: Vec<Container> = (0..8)
        .map(|number| cluster.rig.container(number % 2, &format!("c{number}")))
        .collect::<Result<_>>()?;
    // All at once, from both hosts.
    std::thread::scope(|scope| {
        let connecting: Vec<_> = containers
            .iter()
            .map(|container| scope.spawn(|| container.connect(NETWORK, None)))
            .collect();
        connecting
            .into_iter()
            .try_for_each(|connecting| match connecting.join() {
                Ok(connected) => connected.map(drop),
                Err(_) => Err(Error::new("a thread panicked")),
            })
    })?;
    let addresses: BTreeSet<Ipv4Addr> = containers.iter().map(Container::address).collect::<Result<_>>()?;
    equal(addresses.len(), 8)?;
    // One that is taken is refused, with nothing left; once released it is free for another.
    let wanted = containers[0].address()?;
    let taker = cluster.rig.container(1, "taker")?;
    let connect = |ip: &str| {
        let arguments = [&taker.connect_arguments(NETWORK, None)[..], &["--ip", ip]].concat();
        cluster.rig.hosts[1].weft(&arguments)
    };
    let refused = connect(&wanted.to_string())
        .expect_err("the address is taken")
        .to_string();
    assert!(refused.contains(&wanted.to_string()), "{refused}");
    equal(taker.addresses()?, Vec::new())?;
    containers[0].disconnect(NETWORK)?;
    connect(&wanted.to_string())?;
    equal(taker.address()?, wanted)?;
    containers[0].connect(NETWORK, None)?;
    let again = containers[0].address()?;
    assert!(
        again != wanted && !addresses.iter().any(|address| *address != wanted && *address == again),
        "{again} is another's"
    );
    Ok(())
}

#[test]
fn a_network_in_use_stays_and_goes_when_it_is_free() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let manager = &cluster.rig.hosts[0];
    manager.weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
    let container = cluster.container(1, "web.1", Some("web"))?;
    let refused = |host: &Host, arguments: &[&str], reason: &str| -> Result<()> {
        let error = host.weft(arguments).expect_err("it is in use").to_string();
        if error.contains(reason) {
            Ok(())
        } else {
            Err(Error::new(format!(
                "{arguments:?} is refused, but not for {reason:?}: {error}"
            )))
        }
    };
    for host in &cluster.rig.hosts {
        refused(host, &["network", "rm", NETWORK], "web")?;
    }
    // The refusal left all as it was.
    equal(container.addresses()?.len(), 1)?;
    equal(
        dns(&container, "web.1", &[])?.data,
        vec![container.address()?.to_string()],
    )?;
    container.disconnect(NETWORK)?;
    refused(manager, &["network", "rm", NETWORK], "web")?;
    manager.weft(&["service", "rm", "web"])?;
    cluster.rig.hosts[1].weft(&["network", "rm", NETWORK])?;
    for host in &cluster.rig.hosts {
        let listed = host.weft(&["network", "ls"])?;
        assert!(!listed.contains(NETWORK), "{listed}");
    }
    let error = container
        .connect(NETWORK, None)
        .expect_err("the network is gone")
        .to_string();
    assert!(error.contains("network n1 not found"), "{error}");
    manager.weft(&["network", "create", NETWORK])?;
    container.connect(NETWORK, None).map(drop)
}

#[test]
fn a_node_leaves_its_cluster_and_joins_again_under_its_name() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let manager = &cluster.rig.hosts[0];
    manager.weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
    let mut tasks = Vec::new();
    for host in 0..3 {
        let name = format!("web.{}", host + 1);
        let mut task = cluster.container(host, &name, Some("web"))?;
        task.serve(&["http-serve", "--name", &name])?;
        tasks.push(task);
    }
    let client = cluster.container(0, "client", None)?;
    wait_spread(&client, "web", &["web.1", "web.2", "web.3"])?;
    let leaver = &cluster.rig.hosts[2];
    let refused = leaver
        .weft(&["cluster", "leave"])
        .expect_err("a container is connected")
        .to_string();
    assert!(
        refused.contains("1 endpoint") && refused.contains("--force"),
        "{refused}"
    );
    equal(fetch(&client, "web", 3)?.len(), 3)?;
    leaver.weft(&["cluster", "leave", "--force"])?;
    gone(&cluster, &client, &tasks)?;
    let outside = leaver
        .weft(&["network", "ls"])
        .expect_err("it is outside of the cluster")
        .to_string();
    assert!(outside.contains("not part of a cluster"), "{outside}");
    let token = manager.weft(&["cluster", "join-token", "-q"])?;
    leaver.weft(&[
        "cluster",
        "join",
        "--token",
        token.trim(),
        &manager.address().to_string(),
    ])?;
    cluster.wait_ready(3)?;
    tasks[2].connect(NETWORK, Some("web"))?;
    for host in 0..3 {
        cluster.wait_rows(host, 4)?;
    }
    wait_spread(&client, "web", &["web.1", "web.2", "web.3"])?;
    wait_spread(&tasks[2], "web", &["web.1", "web.2", "web.3"])?;
    // Without containers it may simply go.
    tasks[2].disconnect(NETWORK)?;
    leaver.weft(&["cluster", "leave"])?;
    gone(&cluster, &client, &tasks)?;
    // The manager takes the declared networks with it, so it wants to be told twice.
    let refused = manager
        .weft(&["cluster", "leave"])
        .expect_err("it is the manager")
        .to_string();
    assert!(
        refused.contains("this node is the manager") && refused.contains("--force"),
        "{refused}"
    );
    Ok(())
}

/// Nothing of the third host is left on the others, and on itself nothing of the cluster.
fn gone(cluster: &Cluster, client: &Container, tasks: &[Container]) -> Result<()> {
    let left: Vec<Ipv4Addr> = tasks[..2].iter().map(Container::address).collect::<Result<_>>()?;
    for host in 0..2 {
        cluster.wait_rows(host, 3)?;
        cluster.wait_map(host, "backends", &left)?;
    }
    cluster.wait_map(0, "peers", &left[1..])?;
    wait_names(client, "tasks.web", &left)?;
    wait_spread(client, "web", &["web.1", "web.2"])?;
    let listed = cluster.rig.hosts[0].weft(&["node", "ls"])?;
    assert!(!listed.contains("node3"), "{listed}");
    for map in ["attachments", "endpoints", "peers", "backends"] {
        cluster.wait_map(2, map, &[])?;
    }
    equal(cluster.rows(2, "endpoint_table")?, BTreeMap::new())?;
    equal(tasks[2].addresses()?, Vec::new())?;
    let unreached = tasks[2].tool(&["udp-ping", &format!("{}:7001", left[0]), "--timeout", "100"]);
    assert!(unreached.is_err(), "{unreached:?}");
    equal(ping(client, left[0], 56).map_err(Error::new)?, left[0])
}
