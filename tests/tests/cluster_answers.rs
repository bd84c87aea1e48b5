//! What cannot be delivered is told to the container at once, in its own kernel's words, instead of silence.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use weft_tests::rig::{Container, Error, Result, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, dns, entries, equal, wait_names, wait_spread};
use weft_tests::traffic::{DEADLINE, Place, TcpEcho, ping, tcp_both_ways};

/// Bytes of a transfer over a narrow path, each way.
const BULK: usize = 3_000_000;

/// MTU of the narrow path on the underlay.
const PATH_MTU: u32 = 1000;

fn vip(client: &Container) -> Result<Ipv4Addr> {
    let data = dns(client, "web", &[])?.data;
    match data.as_slice() {
        [vip] => vip.parse().map_err(|error| Error::new(format!("{vip:?}: {error}"))),
        other => Err(Error::new(format!("web has not one address: {other:?}"))),
    }
}

/// How a connection attempt ends.
fn connect(client: &Container, to: SocketAddr) -> io::Result<TcpStream> {
    client.enter(|| TcpStream::connect_timeout(&to, DEADLINE))
}

/// How a question ends that nobody answers: with the error that the kernel was told.
fn ask(client: &Container, to: SocketAddr) -> io::Result<usize> {
    client.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.send(b"question")?;
        socket.recv(&mut [0; 64])
    })
}

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

/// A service with one task on the second host, and a client on the first.
fn service(cluster: &Cluster) -> Result<(Container, Container)> {
    cluster.rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
    let mut task = cluster.container(1, "web.1", Some("web"))?;
    task.serve(&["http-serve", "--name", "web.1"])?;
    let client = cluster.container(0, "client", None)?;
    wait_spread(&client, "web", &["web.1"])?;
    Ok((task, client))
}

#[test]
fn a_service_without_tasks_refuses_at_once() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let (task, client) = service(&cluster)?;
    let vip = vip(&client)?;
    for size in [0, 56, 1400] {
        equal(traffic(ping(&client, vip, size))?, vip)?;
    }
    let _echo = TcpEcho::start(&task, SocketAddr::from((task.address()?, 7000)));
    let mut open = connect(&client, SocketAddr::from((vip, 7000))).map_err(|e| Error::new(e.to_string()))?;
    let read = |stream: &mut TcpStream| stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut [0; 5]));
    read(&mut open).map_err(|error| Error::new(format!("before: {error}")))?;

    task.disconnect(NETWORK)?;
    let refused = |what: &str, found: io::Result<()>| match found {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(Error::new(format!("{what}: {other:?}, not a refusal"))),
    };
    wait_until(SOON, "connections to the service are refused", || {
        refused("TCP", connect(&client, SocketAddr::from((vip, 80))).map(drop))?;
        refused("UDP", ask(&client, SocketAddr::from((vip, 53))).map(drop))
    })?;
    open.set_read_timeout(Some(DEADLINE))
        .map_err(|e| Error::new(e.to_string()))?;
    let ended = read(&mut open).map_err(|error| error.kind());
    equal(ended, Err(ErrorKind::ConnectionReset))?;

    task.connect(NETWORK, Some("web"))?;
    wait_spread(&client, "web", &["web.1"])?;
    equal(traffic(ping(&client, vip, 56))?, vip)
}

#[test]
fn a_path_that_is_narrower_than_the_overlay_carries_all_the_same() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let alice = cluster.container(0, "alice", None)?;
    let bob = cluster.container(1, "bob", None)?;
    wait_names(&alice, "bob", &[bob.address()?])?;
    wait_names(&bob, "alice", &[alice.address()?])?;
    let hosts = &cluster.rig.hosts;
    for (host, other) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
        let to = other.address().to_string();
        let route = host.run("ip", &["-o", "route", "get", &to])?;
        let device = route
            .split_whitespace()
            .skip_while(|word| *word != "dev")
            .nth(1)
            .ok_or_else(|| Error::new(format!("no device in {route:?}")))?;
        let mtu = PATH_MTU.to_string();
        host.run(
            "ip",
            &["route", "replace", &format!("{to}/32"), "dev", device, "mtu", &mtu],
        )?;
        wait_until(SOON, "the map of nodes knows the path's MTU", || {
            let nodes = entries(host, "/maps/nodes")?;
            equal(
                nodes.iter().filter_map(|node| node["mtu"].as_u64()).collect(),
                vec![u64::from(PATH_MTU)],
            )
        })?;
    }
    let server = SocketAddr::from((bob.address()?, 7000));
    traffic(tcp_both_ways(&bob, server, &alice, server, BULK))?;
    let told = entries(&hosts[0], "/maps/counters")?
        .iter()
        .find(|counter| counter["name"] == "unreachable_sent")
        .and_then(|counter| counter["packets"].as_u64());
    assert!(told.is_some_and(|packets| packets > 0), "{told:?} errors were sent");
    Ok(())
}
