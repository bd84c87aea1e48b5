//! What breaks: a host, its daemon, the manager, a container. The rest goes on, and what comes back is as it was.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use weft_tests::rig::{Container, Error, Result, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, ask, diagnose, dns, equal, fetch, wait_names, wait_spread};
use weft_tests::traffic::{Chat, TcpEcho, ping};

/// How long a dead host may be believed alive.
const DEATH: Duration = Duration::from_secs(20);

/// Where the echo servers listen.
const PORT: u16 = 7000;

const TABLES: [&str; 2] = ["overlay_peer_table", "endpoint_table"];

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

/// A service with a task and a plain container on each of three hosts, all known everywhere.
struct Story {
    tasks: Vec<Container>,
    plain: Vec<Container>,
    _servers: Vec<TcpEcho>,
    // Containers are dropped before it.
    cluster: Cluster,
}

impl Story {
    fn start() -> Result<Story> {
        let cluster = Cluster::start(3)?;
        cluster.rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
        let (mut tasks, mut plain, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for host in 0..3 {
            let name = format!("web.{}", host + 1);
            let mut task = cluster.container(host, &name, Some("web"))?;
            task.serve(&["http-serve", "--name", &name])?;
            let container = cluster.container(host, &format!("c{}", host + 1), None)?;
            for container in [&task, &container] {
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
                servers.push(TcpEcho::start(container, any));
            }
            tasks.push(task);
            plain.push(container);
        }
        let story = Story {
            tasks,
            plain,
            _servers: servers,
            cluster,
        };
        story.wait_whole()?;
        Ok(story)
    }

    fn of(&self, hosts: &[usize]) -> Result<Vec<Ipv4Addr>> {
        let containers = hosts.iter().flat_map(|&host| [&self.tasks[host], &self.plain[host]]);
        containers.map(Container::address).collect()
    }

    fn tasks_of(&self, hosts: &[usize]) -> Result<Vec<Ipv4Addr>> {
        hosts.iter().map(|&host| self.tasks[host].address()).collect()
    }

    /// Everybody knows everybody.
    fn wait_whole(&self) -> Result<()> {
        for host in 0..3 {
            let others: Vec<usize> = (0..3).filter(|other| *other != host).collect();
            self.cluster.wait_rows(host, 6)?;
            self.cluster.wait_map(host, "peers", &self.of(&others)?)?;
            self.cluster.wait_map(host, "endpoints", &self.of(&[host])?)?;
            self.cluster.wait_map(host, "backends", &self.tasks_of(&[0, 1, 2])?)?;
            wait_names(&self.plain[host], "tasks.web", &self.tasks_of(&[0, 1, 2])?)?;
        }
        Ok(())
    }

    /// What is to be the same after a restart of the daemon: each map by host 2, each table's keys by host 1.
    fn state(&self, host: usize) -> Result<(String, Vec<BTreeSet<String>>, Vec<String>)> {
        let mut tables = Vec::new();
        for table in TABLES {
            for seen_by in [host, 0] {
                tables.push(self.cluster.rows(seen_by, table)?.into_keys().collect());
            }
        }
        Ok((
            self.cluster.maps(host)?,
            tables,
            pins(self.cluster.rig.hosts[host].pins())?,
        ))
    }

    fn vip(&self) -> Result<Ipv4Addr> {
        let answer = dns(&self.plain[0], "web", &[])?;
        let vip = answer.data.first().and_then(|vip| vip.parse().ok());
        vip.ok_or_else(|| Error::new(format!("web has no VIP: {answer:?}")))
    }
}

/// The pinned maps and links of a host.
fn pins(folder: &Path) -> Result<Vec<String>> {
    let mut pins = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).map_err(|error| Error::new(format!("{}: {error}", folder.display())))?;
        for entry in entries {
            let path = entry.map_err(|error| Error::new(error.to_string()))?.path();
            pins.push(path.to_string_lossy().into_owned());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    pins.sort();
    Ok(pins)
}

#[test]
fn a_dead_host_is_forgotten_everywhere_and_comes_back_whole() -> Result<()> {
    let mut story = Story::start()?;
    let gone = story.cluster.rows(0, TABLES[0])?;
    story.cluster.rig.hosts[2].kill()?;
    story.cluster.rig.unplug(2)?;
    wait_until(DEATH, "the rows of the dead host are gone", || {
        for host in [0, 1] {
            for table in TABLES {
                equal(story.cluster.rows(host, table)?.len(), 4)?;
            }
        }
        Ok::<(), Error>(())
    })?;
    for host in [0, 1] {
        story.cluster.wait_map(host, "peers", &story.of(&[1 - host])?)?;
        story.cluster.wait_map(host, "backends", &story.tasks_of(&[0, 1])?)?;
        let client = &story.plain[host];
        wait_names(client, "tasks.web", &story.tasks_of(&[0, 1])?)?;
        wait_spread(client, "web", &["web.1", "web.2"])?;
        let listed = story.cluster.rig.hosts[host].weft(&["node", "ls"])?;
        equal(
            (listed.matches("Ready").count(), listed.matches("Down").count()),
            (2, 1),
        )?;
        wait_until(SOON, "the name of a container on the dead host is gone", || {
            equal(dns(client, "c3", &["--timeout", "20"])?.data, Vec::new())
        })?;
    }
    story.cluster.rig.plug(2)?;
    story.cluster.rig.hosts[2].start()?;
    diagnose(&mut story.cluster.rig.hosts[2])?;
    story.wait_whole()?;
    story.cluster.wait_ready(3)?;
    equal(
        story.cluster.rows(0, TABLES[0])?.into_keys().collect::<Vec<_>>(),
        gone.into_keys().collect(),
    )?;
    wait_spread(&story.plain[0], "web", &["web.1", "web.2", "web.3"])?;
    wait_spread(&story.plain[2], "web", &["web.1", "web.2", "web.3"])
}

#[test]
fn connections_outlive_the_daemon() -> Result<()> {
    let mut story = Story::start()?;
    let (vip, direct) = (story.vip()?, story.plain[0].address()?);
    // From the host whose daemon ends, to it, and through the VIP to each backend in turn, from it and from elsewhere.
    let mut chats = vec![
        traffic(Chat::start(&story.plain[1], (direct, PORT).into()))?,
        traffic(Chat::start(&story.plain[2], (story.plain[1].address()?, PORT).into()))?,
    ];
    for from in [1, 1, 1, 0, 0, 0] {
        chats.push(traffic(Chat::start(&story.plain[from], (vip, PORT).into()))?);
    }
    let before = story.state(1)?;
    let steps: [fn(&mut weft_tests::rig::Host) -> Result<()>; 2] =
        [weft_tests::rig::Host::kill, weft_tests::rig::Host::stop];
    for end in steps {
        end(&mut story.cluster.rig.hosts[1])?;
        for chat in &mut chats {
            traffic(chat.goes_on())?;
        }
        // New connections as well: the maps stay.
        equal(fetch(&story.plain[0], &vip.to_string(), 12)?.len(), 3)?;
        equal(traffic(ping(&story.plain[1], direct, 56))?, direct)?;
        story.cluster.rig.hosts[1].start()?;
        diagnose(&mut story.cluster.rig.hosts[1])?;
        for chat in &mut chats {
            traffic(chat.goes_on())?;
        }
        story.wait_whole()?;
        wait_until(SOON, "all is as it was before the restart", || {
            equal(story.state(1)?, before.clone())
        })?;
        wait_names(&story.plain[1], "c1", &[direct])?;
        wait_spread(&story.plain[1], "web", &["web.1", "web.2", "web.3"])?;
        for chat in &mut chats {
            traffic(chat.goes_on())?;
        }
    }
    // What was taken over can be let go.
    drop(chats);
    story.plain[1].disconnect(NETWORK)?;
    story.cluster.wait_rows(0, 5)?;
    story.cluster.wait_map(1, "endpoints", &story.tasks_of(&[1])?)
}

#[test]
fn the_others_do_without_the_manager() -> Result<()> {
    let mut story = Story::start()?;
    story.cluster.rig.hosts[0].stop()?;
    let address = story.plain[2].address()?;
    equal(traffic(ping(&story.plain[1], address, 56))?, address)?;
    equal(dns(&story.plain[1], "c3", &[])?.data, vec![address.to_string()])?;
    let at = format!("tname=trial_table&nid={}&key=k1", story.cluster.network);
    ask(
        &story.cluster.rig.hosts[1],
        &format!("/createentry?{at}&value=news&unsafe"),
    )?;
    wait_until(SOON, "news travels between the workers", || {
        ask(&story.cluster.rig.hosts[2], &format!("/getentry?{at}&unsafe"))
    })?;
    let error = story.cluster.rig.hosts[1]
        .weft(&["network", "create", "n2"])
        .expect_err("nobody can create a network without the manager")
        .to_string();
    let told = error.split_once(": ").map_or(error.as_str(), |(_, told)| told);
    assert!(
        told.contains("manager 192.168.50.1:2377 is away") && told.trim().lines().count() == 1,
        "{error}"
    );
    // Disconnecting needs no manager; the address is given back when it is there again.
    story.plain[1].disconnect(NETWORK)?;
    wait_until(SOON, "the name is gone", || {
        equal(dns(&story.plain[2], "c2", &["--timeout", "20"])?.data, Vec::new())
    })?;
    story.cluster.rig.hosts[0].start()?;
    diagnose(&mut story.cluster.rig.hosts[0])?;
    story.cluster.rig.hosts[1].weft(&["network", "create", "n2"])?;
    story.cluster.wait_ready(3)?;
    story.cluster.wait_rows(0, 5)?;
    // The address was given back as soon as the manager could be told.
    wait_until(SOON, "c2 is connected again", || story.plain[1].connect(NETWORK, None))?;
    story.wait_whole()
}

#[test]
fn a_container_that_ends_without_a_word_is_gone_everywhere() -> Result<()> {
    let mut story = Story::start()?;
    let addresses = story.of(&[0, 2])?;
    let ended = story.plain.remove(1);
    let name = ended.name().to_owned();
    drop(ended);
    story.cluster.wait_map(1, "endpoints", &story.tasks_of(&[1])?)?;
    for host in 0..3 {
        story.cluster.wait_rows(host, 5)?;
    }
    let mut peers = addresses[..2].to_vec();
    peers.push(story.tasks[1].address()?);
    story.cluster.wait_map(2, "peers", &peers)?;
    wait_until(SOON, "its name is gone", || {
        equal(dns(&story.tasks[0], &name, &["--timeout", "20"])?.data, Vec::new())
    })?;
    // The interface inside is removed, the namespace stays.
    story.tasks[1].netns().ip("link del eth0")?;
    let left = [story.tasks[0].address()?, story.tasks[2].address()?];
    for host in [0, 2] {
        story.cluster.wait_rows(host, 4)?;
        story.cluster.wait_map(host, "backends", &left)?;
    }
    // Its host takes part no longer.
    story.cluster.wait_rows(1, 0)?;
    story.cluster.wait_map(1, "peers", &[])?;
    // Nothing is left on its host, and it can be connected again.
    equal(story.cluster.map(1, "attachments")?, Vec::new())?;
    let links = story.cluster.rig.hosts[1].run("ip", &["-o", "link", "show", "type", "veth"])?;
    assert!(!links.contains(": weft"), "{links}");
    story.tasks[1].connect(NETWORK, Some("web"))?;
    story.cluster.wait_rows(0, 5)?;
    wait_spread(&story.plain[0], "web", &["web.1", "web.2", "web.3"])
}
