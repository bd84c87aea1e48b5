//! Daemons that balance sockets when they connect: asked for by a restart, over restarts, with containers on several networks, and
//! removed with all the rest.

use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use weft_tests::rig::{Container, Error, Host, Result, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, diagnose, dns, entries, equal};
use weft_tests::traffic::{DEADLINE, Place, TcpEcho};

const PORT: u16 = 7200;

fn vip_of(client: &Container, service: &str) -> Result<SocketAddr> {
    let address = wait_until(SOON, &format!("{service} has a virtual IP"), || {
        let answer = dns(client, service, &[])?;
        let vip: Option<Ipv4Addr> = answer.data.first().and_then(|vip| vip.parse().ok());
        vip.ok_or_else(|| Error::new(format!("{answer:?}")))
    })?;
    Ok((address, PORT).into())
}

fn serve(task: &Container) -> TcpEcho {
    TcpEcho::start(task, (Ipv4Addr::UNSPECIFIED, PORT).into())
}

fn told<T>(outcome: std::io::Result<T>) -> Result<T> {
    outcome.map_err(|error| Error::new(format!("through the virtual IP: {error}")))
}

fn open(client: &Container, to: SocketAddr) -> Result<TcpStream> {
    let mut stream = told(client.enter(|| TcpStream::connect_timeout(&to, DEADLINE)))?;
    told(stream.set_read_timeout(Some(DEADLINE)))?;
    told(talk(&mut stream))?;
    equal(told(stream.peer_addr())?, to)?;
    Ok(stream)
}

fn talk(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = [0; 4];
    stream.write_all(b"weft")?;
    stream.read_exact(&mut answer)?;
    if &answer == b"weft" {
        Ok(())
    } else {
        Err(ErrorKind::InvalidData.into())
    }
}

/// How many connections got their backend from their socket, and how many from a packet.
fn balanced(host: &Host) -> Result<(u64, u64)> {
    let counters = entries(host, "/maps/counters")?;
    let counter = |name: &str| {
        let entry = counters.iter().find(|entry| entry["name"] == name);
        let packets = entry.and_then(|entry| entry["packets"].as_u64());
        packets.ok_or_else(|| Error::new(format!("no counter {name}: {counters:?}")))
    };
    Ok((counter("socket_balanced")?, counter("flow_created")?))
}

/// As many connections to a virtual IP as are told, all at once; each must be balanced by its socket.
fn by_sockets(host: &Host, client: &Container, to: SocketAddr, times: u64) -> Result<()> {
    let before = balanced(host)?;
    let streams: Vec<TcpStream> = (0..times).map(|_| open(client, to)).collect::<Result<_>>()?;
    equal(balanced(host)?, (before.0 + times, before.1))?;
    drop(streams);
    wait_until(SOON, "closed sockets are forgotten", || {
        equal(entries(host, "/maps/sockets")?.len(), 0)
    })
}

/// Its diagnostic server waits for a SIGHUP, as Docker's.
fn start(host: &mut Host) -> Result<()> {
    host.start()?;
    diagnose(host)
}

fn restart_with(host: &mut Host, features: Value) -> Result<()> {
    host.stop()?;
    host.set("features", features)?;
    start(host)
}

#[test]
fn sockets_are_balanced_where_that_is_asked_for() -> Result<()> {
    let mut cluster = Cluster::start(2)?;
    let manager = &cluster.rig.hosts[0];
    manager.weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
    manager.weft(&["network", "create", "n2"])?;
    manager.weft(&["service", "create", "--name", "db", "--network", "n2"])?;
    let near = cluster.container(0, "web.1", Some("web"))?;
    let far = cluster.container(1, "web.2", Some("web"))?;
    let early = cluster.container(0, "early", None)?;
    let _echoes = [serve(&near), serve(&far)];
    let web = vip_of(&early, "web")?;
    let mut kept = open(&early, web)?;
    equal(balanced(&cluster.rig.hosts[0])?, (0, 1))?;

    // A container that was there before, one that comes, and one on two networks.
    restart_with(&mut cluster.rig.hosts[0], json!({"balance": "connect"}))?;
    let host = &cluster.rig.hosts[0];
    let info = host.weft(&["info"])?;
    assert!(info.contains("balance: connect (as configured)"), "{info}");
    by_sockets(host, &early, web, 4)?;
    told(talk(&mut kept))?;
    let late = cluster.container(0, "late", None)?;
    by_sockets(host, &late, web, 4)?;
    late.connect("n2", None)?;
    let database = cluster.rig.container(1, "db.1")?;
    database.connect("n2", Some("db"))?;
    let _database = serve(&database);
    let db = vip_of(&late, "db")?;
    by_sockets(host, &late, db, 2)?;
    by_sockets(host, &late, web, 2)?;
    equal(entries(host, "/maps/namespaces")?.len(), 4)?;

    // A task that goes: its clients are told, and nobody new is sent there.
    let mut streams = vec![open(&late, web)?, open(&late, web)?];
    far.disconnect(NETWORK)?;
    wait_until(SOON, "the client of the task that has gone is reset", || {
        let told: Vec<ErrorKind> = streams
            .iter_mut()
            .filter_map(|s| talk(s).err())
            .map(|error| error.kind())
            .collect();
        match told.as_slice() {
            [ErrorKind::ConnectionReset | ErrorKind::BrokenPipe] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })?;
    drop(streams);
    by_sockets(host, &late, web, 4)?;

    // A crash changes nothing, an endpoint that goes takes its entry with it.
    let mut stream = open(&late, web)?;
    cluster.rig.hosts[0].kill()?;
    told(talk(&mut stream))?;
    start(&mut cluster.rig.hosts[0])?;
    told(talk(&mut stream))?;
    equal(told(stream.peer_addr())?, web)?;
    drop(stream);
    let host = &cluster.rig.hosts[0];
    late.disconnect("n2")?;
    early.disconnect(NETWORK)?;
    equal(entries(host, "/maps/namespaces")?.len(), 2)?;
    by_sockets(host, &late, web, 2)?;

    // Not asked for any more.
    restart_with(&mut cluster.rig.hosts[0], Value::Null)?;
    let host = &cluster.rig.hosts[0];
    let before = balanced(host)?;
    open(&late, web)?;
    equal(balanced(host)?, (before.0, before.1 + 1))
}
