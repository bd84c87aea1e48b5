//! Policies, weights and client affinity of a service, changed while connections are open, and what becomes of those whose backend goes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use weft_tests::rig::{Container, Error, Result, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, dns, entries, equal, fetch, wait_spread};
use weft_tests::traffic::{Chat, Place, TcpEcho, UdpEcho};

/// The ports of the tasks' UDP and TCP echoes, beside their web servers.
const UDP: u16 = 7001;
const TCP: u16 = 7002;

/// How long a client waits before it asks again.
const RETRY: Duration = Duration::from_millis(200);

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

/// A service `web` with a task on each of two hosts, and a client on the first. Fields are dropped in order: the cluster last.
struct Story {
    _echoes: Vec<(TcpEcho, UdpEcho)>,
    client: Container,
    tasks: Vec<Container>,
    cluster: Cluster,
}

impl Story {
    fn start() -> Result<Story> {
        let cluster = Cluster::start(2)?;
        cluster.rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
        let tags: [&'static [u8]; 2] = [b"web.1", b"web.2"];
        let (mut tasks, mut echoes) = (Vec::new(), Vec::new());
        for (host, tag) in tags.into_iter().enumerate() {
            let name = format!("web.{}", host + 1);
            let mut task = cluster.container(host, &name, Some("web"))?;
            task.serve(&["http-serve", "--name", &name])?;
            let at = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            echoes.push((TcpEcho::start(&task, at(TCP)), UdpEcho::start(&task, at(UDP), tag)));
            tasks.push(task);
        }
        let client = cluster.container(0, "client", None)?;
        wait_spread(&client, "web", &["web.1", "web.2"])?;
        Ok(Story {
            _echoes: echoes,
            client,
            tasks,
            cluster,
        })
    }

    /// On the manager: `weft service update` with these options.
    fn update(&self, options: &[&str]) -> Result<()> {
        let arguments = [&["service", "update"], options, &["web"]].concat();
        self.cluster.rig.hosts[0].weft(&arguments).map(drop)
    }

    fn vip(&self, port: u16) -> Result<SocketAddr> {
        let answer = dns(&self.client, "web", &[])?;
        let vip = answer.data.first().and_then(|vip| vip.parse::<Ipv4Addr>().ok());
        let vip = vip.ok_or_else(|| Error::new(format!("web has no address: {answer:?}")))?;
        Ok(SocketAddr::from((vip, port)))
    }

    /// Waits until the kernel of every host has the service with this policy.
    fn wait_policy(&self, policy: &str) -> Result<()> {
        for host in &self.cluster.rig.hosts {
            wait_until(SOON, &format!("web is {policy} on {}", host.name()), || {
                let services = entries(host, "/maps/services")?;
                let policies: Vec<&str> = services.iter().filter_map(|entry| entry["policy"].as_str()).collect();
                equal(policies, vec![policy])
            })?;
        }
        Ok(())
    }

    /// Waits until so many connections are answered by these, so often each.
    fn wait_answers(&self, wanted: &[(&str, usize)]) -> Result<()> {
        let wanted: BTreeMap<String, usize> = wanted
            .iter()
            .map(|(name, times)| ((*name).to_owned(), *times))
            .collect();
        let times = wanted.values().sum();
        wait_until(SOON, &format!("{times} connections are spread as {wanted:?}"), || {
            equal(fetch(&self.client, "web", times)?, wanted.clone())
        })
    }
}

#[test]
fn a_policy_changes_while_a_connection_stays() -> Result<()> {
    let story = Story::start()?;
    let mut chat = traffic(Chat::start(&story.client, story.vip(TCP)?))?;
    for policy in ["maglev", "least-connections", "round-robin"] {
        story.update(&["--policy", policy])?;
        story.wait_policy(policy)?;
        traffic(chat.goes_on())?;
        let answers = fetch(&story.client, "web", 40)?;
        equal(answers.values().sum::<usize>(), 40)?;
        assert_eq!(answers.len(), 2, "{policy}: both tasks answer: {answers:?}");
    }
    wait_spread(&story.client, "web", &["web.1", "web.2"])?;
    traffic(chat.goes_on())?;
    let listed = story.cluster.rig.hosts[1].weft(&["service", "ls"])?;
    assert!(listed.contains("round-robin"), "{listed}");
    Ok(())
}

#[test]
fn a_task_of_weight_zero_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    let story = Story::start()?;
    for policy in ["round-robin", "maglev", "least-connections"] {
        story.update(&["--policy", policy, "--weight", "web.1=0", "--weight", "web.2=1"])?;
        story.wait_policy(policy)?;
        story.wait_answers(&[("web.2", 20)])?;
        // All that is new goes to the second task; then that one drains.
        let mut chat = traffic(Chat::start(&story.client, story.vip(TCP)?))?;
        story.update(&["--weight", "web.1=1", "--weight", "web.2=0"])?;
        story.wait_answers(&[("web.1", 20)])?;
        traffic(chat.goes_on())?;
        story.wait_answers(&[("web.1", 20)])?;
        traffic(chat.goes_on())?;
    }
    let listed = story.cluster.rig.hosts[0].weft(&["service", "ps", "web"])?;
    let weights: Vec<&str> = listed
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    equal(weights, vec!["1", "0"])
}

#[test]
fn a_client_with_affinity_gets_one_backend() -> Result<()> {
    let story = Story::start()?;
    for policy in ["round-robin", "maglev", "least-connections"] {
        story.update(&["--policy", policy, "--affinity", "60"])?;
        story.wait_policy(policy)?;
        let one = wait_until(SOON, "one task answers 20 connections", || {
            let answers = fetch(&story.client, "web", 20)?;
            match answers.len() {
                1 => Ok(answers),
                _ => Err(Error::new(format!("{answers:?}"))),
            }
        })?;
        equal(fetch(&story.client, "web", 20)?, one)?;
    }
    story.update(&["--policy", "round-robin", "--affinity", "0"])?;
    wait_spread(&story.client, "web", &["web.1", "web.2"])
}

#[test]
fn connections_follow_the_weights() -> Result<()> {
    let story = Story::start()?;
    story.update(&["--weight", "web.1=3"])?;
    story.wait_answers(&[("web.1", 30), ("web.2", 10)])?;
    story.update(&["--weight", "web.1=1", "--weight", "web.2=3"])?;
    story.wait_answers(&[("web.1", 10), ("web.2", 30)])?;
    story.update(&["--weight", "web.2=1"])?;
    wait_spread(&story.client, "web", &["web.1", "web.2"])
}

#[test]
fn a_node_that_was_away_takes_the_present_settings() -> Result<()> {
    let mut story = Story::start()?;
    story.cluster.rig.hosts[1].stop()?;
    story.update(&["--weight", "web.2=3"])?;
    story.cluster.rig.hosts[1].start()?;
    story.wait_answers(&[("web.1", 10), ("web.2", 30)])?;
    story.cluster.rig.hosts[1].kill()?;
    story.cluster.rig.hosts[1].start()?;
    story.wait_answers(&[("web.1", 10), ("web.2", 30)])
}

#[test]
fn clients_of_a_backend_that_goes_are_served_anew_or_told() -> Result<()> {
    let story = Story::start()?;
    story.update(&["--weight", "web.2=0"])?;
    story.wait_answers(&[("web.1", 20)])?;
    let (udp, tcp) = (story.vip(UDP)?, story.vip(TCP)?);
    let text = |error: std::io::Error| Error::new(format!("through the virtual IP: {error}"));
    let connect = || -> std::io::Result<(UdpSocket, TcpStream)> {
        let datagrams = UdpSocket::bind("0.0.0.0:0")?;
        datagrams.connect(udp)?;
        datagrams.set_read_timeout(Some(RETRY))?;
        let stream = TcpStream::connect_timeout(&tcp, SOON)?;
        stream.set_read_timeout(Some(RETRY))?;
        Ok((datagrams, stream))
    };
    let (datagrams, mut stream) = story.client.enter(connect).map_err(text)?;
    let mut buffer = [0; 64];
    stream.write_all(b"hello").map_err(text)?;
    stream.read_exact(&mut buffer[..5]).map_err(text)?;
    let ask = |wanted: &str| {
        wait_until(SOON, &format!("{wanted} answers datagrams"), || {
            let mut buffer = [0; 64];
            datagrams.send(b"!").map_err(|error| Error::new(error.to_string()))?;
            let length = datagrams
                .recv(&mut buffer)
                .map_err(|error| Error::new(error.to_string()))?;
            equal(
                String::from_utf8_lossy(&buffer[..length]).into_owned(),
                format!("{wanted}!"),
            )
        })
    };
    ask("web.1")?;
    story.update(&["--weight", "web.2=1"])?;
    wait_spread(&story.client, "web", &["web.1", "web.2"])?;
    ask("web.1")?;
    story.tasks[0].disconnect(NETWORK)?;
    ask("web.2")?;
    wait_until(SOON, "the TCP connection is reset", || {
        let outcome = stream
            .write_all(b"hello")
            .and_then(|()| stream.read_exact(&mut buffer[..5]));
        match outcome.map_err(|error| error.kind()) {
            Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(()),
            other => Err(Error::new(format!("{other:?}"))),
        }
    })
}
