//! Packets and names between two real Docker nodes and a weft node, all of one swarm, and a change of its leader.

use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;
use weft_tests::docker::{Engine, EngineContainer, Engines, IMAGE, PATIENCE};
use weft_tests::misuse::weft_refuses;
use weft_tests::rig::{Container, Error, Host, Options, Result, Rig, wait_until};
use weft_tests::story::{SOON, ask, diagnose, equal, wait_names};
use weft_tests::traffic::{Place, ping, tcp_both_ways};

/// weft's host; the two before it have engines, of which the first is the manager.
const WEFT: usize = 2;

/// Bytes of a bulk transfer each way.
const BULK: usize = 10_000_000;

/// ICMP data that fills an inner packet of 1450 bytes.
const FULL_MTU: usize = 1450 - 20 - 8;

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

#[test]
fn containers_of_docker_and_of_weft_are_on_one_network() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 3,
        ..Options::default()
    })?;
    rig.hosts[WEFT].start()?;
    diagnose(&mut rig.hosts[WEFT])?;
    let engines = Engines::start(&rig, &[0, 1])?;
    let [manager, worker] = &engines.0[..] else {
        return Err(Error::new("two engines"));
    };
    manager.init_swarm(&[])?;
    let (token, at) = (manager.token("worker")?, manager.address().to_string());
    worker.docker(&["swarm", "join", "--token", &token, &at])?;
    println!(
        "{}",
        rig.hosts[WEFT].weft(&["swarm", "join", "--token", &token, &at])?.trim()
    );

    let network = manager.docker(&["network", "create", "-d", "overlay", "--attachable", "n1"])?;
    let docker = [manager.container("c1", "n1")?, worker.container("c2", "n1")?];
    let weft = [rig.container(WEFT, "w1")?, rig.container(WEFT, "w2")?];
    for container in &weft {
        container.connect("n1", None)?;
    }
    println!("{}", manager.docker(&["node", "ls"])?);
    wait_until(SOON, "all three nodes print the same peers and tables", || {
        for (path, rows) in [
            ("/clusterpeers".to_owned(), 3),
            (format!("/networkpeers?nid={network}"), 3),
            (format!("/gettable?nid={network}&tname=endpoint_table"), 4),
            // Each engine has one more, without a name, for load balancing.
            (format!("/gettable?nid={network}&tname=overlay_peer_table"), 6),
        ] {
            let printed = rig.hosts.iter().map(|host| sorted(&ask(host, &path)?));
            let printed = printed.collect::<Result<Vec<_>>>()?;
            equal(&printed[0], &printed[1])?;
            equal(&printed[0], &printed[WEFT])?;
            equal(printed[0].len(), rows)?;
        }
        Ok::<_, Error>(())
    })?;

    for (engine, other) in engines.0.iter().zip(&docker) {
        for own in &weft {
            names_resolve_both_ways(engine, other, own)?;
            packets_go_both_ways(other, own)?;
        }
    }
    a_service_of_docker_answers(manager, &weft[0])?;
    the_manager_may_stand_still(&mut rig, manager, &docker[1], &weft[0])?;
    the_leader_changes(&rig, manager, worker, &docker, &weft[0])
}

/// The rows as printed, without their numbers, in order.
fn sorted(text: &str) -> Result<Vec<String>> {
    let mut rows: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once(") "))
        .map(|(_, row)| row.to_owned())
        .collect();
    rows.sort();
    Ok(rows)
}

fn names_resolve_both_ways(engine: &Engine, docker: &EngineContainer, weft: &Container) -> Result<()> {
    wait_names(weft, &docker.name, &[docker.address])?;
    wait_names(weft, &format!("{}.n1", docker.name), &[docker.address])?;
    let address = weft.address()?;
    let found = format!("Address: {address}");
    let answer = wait_until(
        SOON,
        &format!("Docker's DNS finds {} for {}", weft.name(), docker.name),
        || {
            let answer = engine.exec(&docker.name, &["nslookup", weft.name(), "127.0.0.11"])?;
            equal(answer.lines().any(|line| line.trim() == found), true)
                .map_err(|error| Error::new(format!("{error}: {answer}")))?;
            Ok::<_, Error>(answer)
        },
    )?;
    let line = answer.lines().find(|line| line.trim() == found).unwrap_or_default();
    println!("{} asks Docker's DNS for {}: {}", docker.name, weft.name(), line.trim());
    println!(
        "{} asks weft's DNS for {}: Address: {}",
        weft.name(),
        docker.name,
        docker.address
    );
    Ok(())
}

fn packets_go_both_ways(docker: &EngineContainer, weft: &Container) -> Result<()> {
    let (theirs, ours) = (docker.address, weft.address()?);
    for size in [0, 56, FULL_MTU] {
        equal(traffic(ping(weft, theirs, size))?, theirs)?;
        equal(traffic(ping(&docker.netns, ours, size))?, ours)?;
    }
    println!(
        "ping of 8 to {} bytes: {ours} -> {theirs} and {theirs} -> {ours}",
        FULL_MTU + 8
    );
    bulk(&docker.netns, theirs, weft, ours)?;
    bulk(weft, ours, &docker.netns, theirs)
}

fn bulk(server: &impl Place, at: Ipv4Addr, client: &impl Place, from: Ipv4Addr) -> Result<()> {
    let began = Instant::now();
    let address = SocketAddr::from((at, 7000));
    let seen = traffic(tcp_both_ways(server, address, client, address, BULK))?;
    equal(seen.ip(), from.into())?;
    println!(
        "TCP, {BULK} bytes each way: {from} connects to {at}, {} ms",
        began.elapsed().as_millis()
    );
    Ok(())
}

/// This kernel has no IPVS, so Docker's own virtual IPs do not answer here. weft's containers reach them all the same: weft balances.
fn a_service_of_docker_answers(manager: &Engine, client: &Container) -> Result<()> {
    let served = "b=/bin/busybox; $b mkdir /www; $b hostname > /www/index.html; exec $b httpd -f -p 80 -h /www";
    let create = [
        "service",
        "create",
        "-d",
        "--no-resolve-image",
        "--replicas",
        "2",
        "--network",
        "n1",
        "--name",
        "web",
    ];
    manager.docker(&[&create[..], &[IMAGE, "/bin/busybox", "sh", "-c", served]].concat())?;
    let template = "{{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}";
    let vip = manager.docker(&["service", "inspect", "-f", template, "web"])?;
    let vip = vip.split('/').next().unwrap_or_default();
    wait_until(
        PATIENCE,
        "both tasks of a service of Docker answer at its virtual IP",
        || {
            let answer = client.tool(&["dns-query", "web"])?;
            equal(answer.contains(vip), true)?;
            let answers = client.tool(&["http-get", "-n", "4", "http://web/"])?;
            let mut hosts: Vec<&str> = answers.lines().collect();
            hosts.sort_unstable();
            hosts.dedup();
            equal(hosts.len(), 2).map_err(|error| Error::new(format!("{error}: {answers}")))
        },
    )?;
    println!("service web at {vip}: both tasks answered");
    manager.docker(&["service", "rm", "web"]).map(drop)
}

/// Only heartbeats tell that a manager stands still, for its connections stay open. Meanwhile even a restart changes nothing: the gossip
/// goes on with the keys as they were, through the other nodes.
fn the_manager_may_stand_still(
    rig: &mut Rig,
    manager: &Engine,
    docker: &EngineContainer,
    weft: &Container,
) -> Result<()> {
    let address = weft.address()?;
    let host = &mut rig.hosts[WEFT];
    let swarm_is = |host: &Host, state: &str| {
        let wanted = format!("Swarm: {state}");
        wait_until(PATIENCE, &format!("weft's node says {wanted:?}"), || {
            let status = host.weft(&["swarm", "status"])?;
            equal(status.lines().next().unwrap_or_default(), &wanted)
        })
    };
    manager.signal(Signal::SIGSTOP)?;
    let meanwhile = (|| {
        swarm_is(host, "pending")?;
        println!("{}", host.weft(&["swarm", "status"])?.trim());
        let connect = format!("network connect n1 --netns {} --name late", weft.netns().name());
        weft_refuses(host, &connect, &["no manager of the swarm answers"]);
        host.stop()?;
        host.start()?;
        diagnose(host)?;
        wait_until(SOON, "the gossip goes on without the manager", || {
            equal(ask(host, "/clusterpeers")?.contains("-> 192.168.50.2"), true)
        })?;
        equal(traffic(ping(weft, docker.address, 56))?, docker.address)?;
        wait_names(weft, &docker.name, &[docker.address])
    })();
    manager.signal(Signal::SIGCONT)?;
    meanwhile?;
    swarm_is(host, "active")?;
    equal(weft.address()?, address)?;
    wait_until(PATIENCE, "the node is ready again", || {
        let states = manager.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}}"])?;
        equal(states.lines().any(|line| line == "node3 Ready Drain"), true)
    })
}

/// The worker becomes a manager, and the first one a worker: weft's node goes on with the new leader, and nothing else changes.
fn the_leader_changes(
    rig: &Rig,
    manager: &Engine,
    worker: &Engine,
    docker: &[EngineContainer],
    weft: &Container,
) -> Result<()> {
    manager.docker(&["node", "promote", "node2"])?;
    wait_until(PATIENCE, "the second manager is reachable", || {
        let states = worker.docker(&["node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}"])?;
        equal(states.contains("node2 Reachable"), true).map_err(|error| Error::new(format!("{error}: {states}")))
    })?;
    manager.docker(&["node", "demote", "node1"])?;
    wait_until(PATIENCE, "weft's node is ready with the new leader", || {
        let states = worker.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"])?;
        let mut lines: Vec<&str> = states.lines().map(str::trim).collect();
        lines.sort_unstable();
        equal(lines, vec!["node1 Ready", "node2 Ready Leader", "node3 Ready"])?;
        let status = rig.hosts[WEFT].weft(&["swarm", "status"])?;
        let manager = format!(" Manager: {}:2377", worker.address());
        equal(status.lines().any(|line| line == manager), true)
            .map_err(|error| Error::new(format!("{error}: {status}")))
    })?;
    println!("{}", worker.docker(&["node", "ls"])?);
    println!("{}", rig.hosts[WEFT].weft(&["swarm", "status"])?.trim());
    for container in docker {
        equal(traffic(ping(weft, container.address, 56))?, container.address)?;
    }
    // The new leader gives addresses, too.
    let late = rig.container(WEFT, "w3")?;
    wait_until(PATIENCE, "an endpoint is connected through the new leader", || {
        late.connect("n1", None)
    })?;
    equal(traffic(ping(&docker[1].netns, late.address()?, 56))?, late.address()?).map(drop)
}
