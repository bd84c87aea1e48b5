//! Names, as containers see them: of containers, services and networks, over UDP and TCP, and of what the host's resolver knows.

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{RData, Record, rdata::A};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weft_tests::rig::{Container, Error, Host, Result, wait_until};
use weft_tests::story::{Answer, Cluster, NETWORK, SOON, dns, equal, inside, wait_names};

/// No error, and this data.
fn found(data: &[&dyn ToString]) -> Answer {
    Answer {
        code: ResponseCode::NoError.to_string(),
        data: data.iter().map(|data| data.to_string()).collect(),
    }
}

/// The name that is asked for a PTR record (RFC 1035 section 3.5).
fn reverse(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// Connects a container with further options.
fn connect_with(cluster: &Cluster, container: &Container, network: &str, options: &[&str]) -> Result<()> {
    let arguments = [&container.connect_arguments(network, None)[..], options].concat();
    let host = cluster.rig.hosts.iter().find(|host| host.name() == container.host());
    host.ok_or_else(|| Error::new("no such host"))?
        .weft(&arguments)
        .map(drop)
}

#[test]
fn containers_are_found_by_name_alias_network_and_address() -> Result<()> {
    let cluster = Cluster::start(2)?;
    let alice = cluster.container(0, "alice", None)?;
    let bob = cluster.rig.container(1, "bob")?;
    connect_with(&cluster, &bob, NETWORK, &["--alias", "db", "--alias", "Store"])?;
    let address = bob.address()?;
    for name in ["bob", "BOB", "db", "store", "STORE.", "bob.n1", "db.n1"] {
        wait_names(&alice, name, &[address])?;
        equal(dns(&alice, name, &["--tcp"])?, found(&[&address]))?;
        // A known name without such a record: no error and no data, so that clients do not ask on elsewhere.
        equal(dns(&alice, name, &["--type", "AAAA"])?, found(&[]))?;
        equal(dns(&alice, name, &["--type", "AAAA", "--tcp"])?, found(&[]))?;
        equal(dns(&alice, name, &["--type", "MX"])?, found(&[]))?;
    }
    equal(
        dns(&alice, &reverse(address), &["--type", "PTR"])?,
        found(&[&"bob.n1."]),
    )?;
    equal(
        dns(&bob, &reverse(alice.address()?), &["--type", "PTR"])?,
        found(&[&"alice.n1."]),
    )?;
    // A container finds itself.
    equal(dns(&bob, "bob", &[])?, found(&[&address]))?;
    bob.disconnect(NETWORK)?;
    wait_until(SOON, "bob is found no more", || {
        let answer = dns(&alice, "bob", &["--timeout", "20"])?;
        equal(answer.data.is_empty() && answer != found(&[]), true)
    })
}

#[test]
fn a_service_has_a_name_for_itself_and_one_for_its_tasks() -> Result<()> {
    let cluster = Cluster::start(3)?;
    let manager = &cluster.rig.hosts[0];
    for (service, mode) in [("my-web", "vip"), ("turns", "dnsrr")] {
        let create = ["service", "create", "--name", service, "--network", NETWORK];
        manager.weft(&[&create[..], &["--endpoint-mode", mode]].concat())?;
    }
    let client = cluster.container(0, "client", None)?;
    let mut containers = Vec::new();
    for service in ["my-web", "turns"] {
        for host in 0..3 {
            let task = cluster.container(host, &format!("{service}.{host}"), Some(service))?;
            containers.push(task);
        }
    }
    let addresses: Vec<Ipv4Addr> = containers.iter().map(Container::address).collect::<Result<_>>()?;
    let (web, turns) = addresses.split_at(3);
    wait_names(&client, "tasks.my-web", web)?;
    wait_names(&client, "tasks.turns", turns)?;
    wait_names(&client, "turns", turns)?;
    for (task, address) in containers.iter().zip(&addresses) {
        wait_names(&client, task.name(), &[*address])?;
    }
    let vip = dns(&client, "my-web", &[])?;
    equal(vip.data.len(), 1)?;
    assert!(
        !addresses.iter().any(|task| task.to_string() == vip.data[0]),
        "{vip:?} is a task's"
    );
    for name in ["my-web.n1", "MY-WEB"] {
        equal(dns(&client, name, &[])?, vip.clone())?;
    }
    // All nodes agree on it.
    for task in &containers {
        wait_until(SOON, &format!("{} finds my-web", task.name()), || {
            equal(dns(task, "my-web", &[])?, vip.clone())
        })?;
    }
    // Each of three addresses comes first in 40 answers, but for once in 10^7 runs.
    for name in ["turns", "tasks.my-web", "tasks.turns"] {
        let mut first = BTreeSet::new();
        for _ in 0..40 {
            let answer = dns(&client, name, &[])?;
            equal(answer.data.len(), 3)?;
            first.insert(answer.data[0].clone());
        }
        equal(first.len(), 3)?;
    }
    Ok(())
}

#[test]
fn a_container_on_two_networks_finds_the_names_of_both() -> Result<()> {
    let cluster = Cluster::start(2)?;
    cluster.rig.hosts[0].weft(&["network", "create", "n2"])?;
    let both = cluster.container(0, "both", None)?;
    let first = cluster.container(1, "first", None)?;
    let second = cluster.rig.container(1, "second")?;
    second.connect("n2", None)?;
    let (first_address, second_address) = (first.address()?, second.address()?);
    wait_names(&both, "first", &[first_address])?;
    equal(dns(&both, "second", &[])?.data, Vec::new())?;
    both.connect("n2", None)?;
    wait_names(&both, "second", &[second_address])?;
    wait_names(&both, "second.n2", &[second_address])?;
    wait_names(&both, "first.n1", &[first_address])?;
    // What is on one network only neither sees nor reaches the other one.
    equal(dns(&first, "second", &[])?.data, Vec::new())?;
    equal(dns(&second, "first", &[])?.data, Vec::new())?;
    equal(both.addresses()?.len(), 2)?;
    // The resolver was started for the network that goes; the other one is still served.
    both.disconnect(NETWORK)?;
    wait_names(&both, "second", &[second_address])?;
    equal(dns(&both, "first", &[])?.data, Vec::new())?;
    both.disconnect("n2")?;
    assert!(
        dns(&both, "second", &["--timeout", "1"]).is_err(),
        "the resolver goes with the last network"
    );
    Ok(())
}

/// A name server of the host, until dropped: one name has an address, all others do not exist.
struct NameServer {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

const OUTSIDE: &str = "outside.example.";

impl NameServer {
    fn start(host: &Host, address: IpAddr) -> Result<NameServer> {
        let address = SocketAddr::new(address, 53);
        let sockets = inside(host.netns(), || {
            Ok::<_, std::io::Error>((UdpSocket::bind(address)?, TcpListener::bind(address)?))
        })?;
        let (udp, tcp) = sockets.map_err(|error| Error::new(format!("{address}: {error}")))?;
        udp.set_read_timeout(Some(Duration::from_millis(100)))
            .and_then(|()| tcp.set_nonblocking(true))
            .map_err(|error| Error::new(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, stopped_too) = (stop.clone(), stop.clone());
        let datagrams = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut buffer)
                    && let Some(answer) = answer(&buffer[..length])
                {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let streams = std::thread::spawn(move || {
            while !stopped_too.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((stream, _)) => drop(serve(stream)),
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
            }
        });
        Ok(NameServer {
            stop,
            threads: vec![datagrams, streams],
        })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    use std::io::{Read, Write};
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut question)?;
    let answer = answer(&question).unwrap_or_default();
    let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(question).ok()?;
    let name = message.queries.first()?.name().clone();
    message.metadata.message_type = MessageType::Response;
    if name.to_ascii() == OUTSIDE {
        let address = RData::A(A(Ipv4Addr::new(203, 0, 113, 7)));
        message.answers.push(Record::from_rdata(name, 60, address));
    } else {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.to_vec().ok()
}

/// The servers of the `resolv.conf` that `weftd` on this machine reads.
fn host_servers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    servers.take(3).collect()
}

#[test]
fn unknown_names_are_the_host_s_resolver_s_matter() -> Result<()> {
    let cluster = Cluster::start(1)?;
    let alice = cluster.container(0, "alice", None)?;
    let host = &cluster.rig.hosts[0];
    let failure = Answer {
        code: ResponseCode::ServFail.to_string(),
        data: Vec::new(),
    };
    // The underlay leads nowhere, so nobody answers for the host.
    equal(dns(&alice, "outside.example", &["--timeout", "20"])?, failure)?;
    let Some(server) = host_servers().into_iter().find(IpAddr::is_ipv4) else {
        // This machine has no name server over IPv4: there is nobody to be asked, and that is all that can be shown.
        return Ok(());
    };
    host.netns().ip(&format!("addr add {server}/32 dev lo"))?;
    let name_server = NameServer::start(host, server)?;
    for options in [&["--timeout", "20"][..], &["--timeout", "20", "--tcp"]] {
        equal(
            dns(&alice, "outside.example", options)?,
            found(&[&Ipv4Addr::new(203, 0, 113, 7)]),
        )?;
        equal(
            dns(&alice, "nobody.example", options)?.code,
            ResponseCode::NXDomain.to_string(),
        )?;
    }
    // Its own names are never asked outside.
    drop(name_server);
    equal(dns(&alice, "alice", &[])?, found(&[&alice.address()?]))
}
