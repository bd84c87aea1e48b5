//! The resolver inside real namespaces, with an upstream server on the loopback of the namespace that plays the host. Needs root.
#![allow(clippy::unwrap_used)]

mod name_server;
mod netns_guard;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use name_server::{BOTH, Over, SERVER, Upstream, connect, data, datagrams, exchange, read};
use netns_guard::{DEADLINE, NetnsGuard, eventually};
use std::collections::BTreeSet;
use std::future::ready;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use weft::daemon::{Command, Handle};
use weft::netns::Netns;
use weft::resolver::{CONNECTIONS_MAX, FORWARDED_MAX, Resolver, ResolverError, ResolverHandle, Upstreams};
use weft_core::dns::{Decision, Question};
use weft_core::id::EndpointId;

fn endpoint() -> EndpointId {
    EndpointId::new("0123456789abcdef".repeat(4)).unwrap()
}

/// What a daemon with one service and one container would decide.
fn decide(question: Question) -> Option<Decision> {
    let known = |name: &str| ["web", "tasks.web", "many"].contains(&name.to_ascii_lowercase().as_str());
    let addresses = |last: std::ops::RangeInclusive<u8>| last.map(|n| Ipv4Addr::new(10, 0, 1, n).into()).collect();
    Some(match question {
        Question::A(name) if name.eq_ignore_ascii_case("web") => Decision::Addresses(addresses(4..=4)),
        Question::A(name) if name.eq_ignore_ascii_case("tasks.web") => Decision::Addresses(addresses(5..=7)),
        Question::A(name) if name == "many" => Decision::Addresses(addresses(1..=200)),
        Question::A(name) if name == "stopping" => return None,
        Question::Aaaa(name) | Question::Mx(name) if known(&name) => Decision::NoData,
        Question::Ptr(ip) if ip == Ipv4Addr::new(10, 0, 1, 2) => Decision::Name("c1.net1".into()),
        _ => Decision::Forward,
    })
}

async fn start(netns: &Netns, upstreams: Upstreams) -> Result<ResolverHandle, ResolverError> {
    Resolver::start(
        netns,
        endpoint(),
        |question| ready(decide(question)),
        Arc::new(upstreams),
    )
    .await
}

fn ask(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

const FOUND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

#[test]
fn local_names_are_answered_over_both_transports() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    container.ip("link set lo down");
    host.block_on(async || {
        let netns = container.open();
        let _resolver = start(&netns, Upstreams::fixed(vec![])).await.unwrap();
        let cases: [(&str, RecordType, &[&str], u32); 7] = [
            ("web.", RecordType::A, &["10.0.1.4"], 30),
            ("WEB.", RecordType::A, &["10.0.1.4"], 30),
            ("tasks.web.", RecordType::A, &["10.0.1.5", "10.0.1.6", "10.0.1.7"], 5),
            ("web.", RecordType::AAAA, &[], 0),
            ("Tasks.Web.", RecordType::AAAA, &[], 0),
            ("web.", RecordType::MX, &[], 0),
            ("2.1.0.10.in-addr.arpa.", RecordType::PTR, &["c1.net1."], 30),
        ];
        for (name, kind, expected, ttl) in cases {
            for over in BOTH {
                let answer = exchange(&netns, over, &ask(name, kind)).await;
                assert_eq!(answer.response_code, ResponseCode::NoError, "{name} {kind} {over:?}");
                assert_eq!(data(&answer), expected, "{name} {kind} {over:?}");
                assert!(
                    answer
                        .answers
                        .iter()
                        .all(|record| record.ttl == ttl && record.name.to_ascii() == name)
                );
            }
        }
    });
}

#[test]
fn a_daemon_is_asked_through_its_handle_and_named_the_endpoint() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let (handle, mut commands) = Handle::new();
        let lookup = move |question| {
            let (handle, endpoint) = (handle.clone(), endpoint());
            async move {
                handle
                    .ask(|reply| Command::Resolve {
                        endpoint,
                        question,
                        reply,
                    })
                    .await
            }
        };
        let upstreams = Arc::new(Upstreams::fixed(vec![]));
        let _resolver = Resolver::start(&netns, endpoint(), lookup, upstreams).await.unwrap();
        let daemon = async {
            let Some(Command::Resolve {
                endpoint: asker,
                question,
                reply,
            }) = commands.recv().await
            else {
                panic!()
            };
            assert_eq!(asker, endpoint());
            reply.send(decide(question).unwrap()).unwrap();
        };
        let web = ask("web.", RecordType::A);
        let (answer, ()) = tokio::join!(exchange(&netns, Over::Udp, &web), daemon);
        assert_eq!(data(&answer), ["10.0.1.4"]);
        drop(commands);
        let answer = exchange(&netns, Over::Udp, &ask("web.", RecordType::A)).await;
        assert_eq!(answer.response_code, ResponseCode::ServFail);
    });
}

#[test]
fn without_a_server_or_a_daemon_it_is_servfail() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let missing = Upstreams::from_resolv_conf("/run/weft-nowhere/resolv.conf");
        let _resolver = start(&netns, missing).await.unwrap();
        for over in BOTH {
            for name in ["nosuch.", "stopping.", "."] {
                let answer = exchange(&netns, over, &ask(name, RecordType::A)).await;
                assert_eq!(answer.response_code, ResponseCode::ServFail, "{name} {over:?}");
            }
        }
    });
}

#[test]
fn the_rest_is_forwarded_to_the_first_server_that_answers() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let failing = Upstream::start("127.0.0.1:0", ResponseCode::ServFail, FOUND).await;
        let refusing = Upstream::start("127.0.0.1:0", ResponseCode::Refused, FOUND).await;
        let good = Upstream::start("[::1]:0", ResponseCode::NoError, FOUND).await;
        let servers = vec![failing.address, refusing.address, good.address];
        let resolver = start(&netns, Upstreams::fixed(servers)).await.unwrap();
        for over in BOTH {
            for _ in 0..8 {
                let answer = exchange(&netns, over, &ask("example.com.", RecordType::A)).await;
                assert_eq!(data(&answer), ["192.0.2.80"], "{over:?}");
                assert_eq!(answer.answers[0].ttl, 77);
            }
        }
        assert_eq!((failing.queries(), refusing.queries(), good.queries()), (16, 16, 16));
        let seen = good.seen.lock().unwrap().clone();
        for choice in [
            seen.iter().map(|seen| seen.0).collect::<BTreeSet<u16>>(),
            seen.iter().map(|seen| seen.1).collect(),
        ] {
            assert!(choice.len() > 8, "ids and ports must be hard to guess: {seen:?}");
        }
        drop(resolver);
        let denying = Upstream::start("127.0.0.1:0", ResponseCode::NXDomain, FOUND).await;
        let nobody = "127.0.0.1:1".parse().unwrap();
        let servers = vec![nobody, denying.address, good.address];
        let _resolver = restart(&netns, servers).await;
        for over in BOTH {
            let answer = exchange(&netns, over, &ask("nosuch.", RecordType::A)).await;
            assert_eq!(answer.response_code, ResponseCode::NXDomain, "{over:?}");
        }
    });
}

/// Starts once the port is free: the runtime closes a stopped resolver's sockets some time after, and a child process that is
/// just being forked holds copies.
async fn restart(netns: &Netns, servers: Vec<SocketAddr>) -> ResolverHandle {
    eventually("the port is free", async || {
        start(netns, Upstreams::fixed(servers.clone())).await.ok()
    })
    .await
}

/// A file that goes with the test.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_hosts_resolv_conf_is_read_anew_when_it_changes() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let file = TemporaryFile(std::env::temp_dir().join(format!("weft-resolv-{}", std::process::id())));
        let other = Ipv4Addr::new(192, 0, 2, 81);
        let _first = Upstream::start("127.0.0.53:53", ResponseCode::NoError, FOUND).await;
        let _second = Upstream::start("127.0.0.54:53", ResponseCode::NoError, other).await;
        let _resolver = start(&netns, Upstreams::from_resolv_conf(&file.0)).await.unwrap();
        for (text, expected) in [
            ("nameserver 127.0.0.11\nnameserver 127.0.0.53\n", "192.0.2.80"),
            (
                "search example\nnameserver 127.0.0.54\nnameserver 127.0.0.53\n",
                "192.0.2.81",
            ),
        ] {
            std::fs::write(&file.0, text).unwrap();
            let answer = exchange(&netns, Over::Udp, &ask("example.com.", RecordType::A)).await;
            assert_eq!(data(&answer), [expected]);
        }
    });
}

#[test]
fn a_large_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let _resolver = start(&netns, Upstreams::fixed(vec![])).await.unwrap();
        let small = exchange(&netns, Over::Udp, &ask("many.", RecordType::A)).await;
        assert!(small.truncation && small.to_vec().unwrap().len() <= 512 && !small.answers.is_empty());
        let mut large = ask("many.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        large.set_edns(edns);
        for answer in [
            exchange(&netns, Over::Udp, &large).await,
            exchange(&netns, Over::Tcp, &ask("many.", RecordType::A)).await,
        ] {
            assert_eq!((answer.truncation, answer.answers.len()), (false, 200));
        }
    });
}

#[test]
fn garbage_does_not_disturb() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let _resolver = start(&netns, Upstreams::fixed(vec![])).await.unwrap();
        let socket = datagrams(&netns);
        let query = ask("web.", RecordType::A).to_vec().unwrap();
        for n in 0..1000u32 {
            let mut garbage = vec![0; (n as usize * 7) % 1200];
            getrandom::fill(&mut garbage).unwrap();
            if n % 2 == 0 {
                // Nearly a query is the better garbage.
                let length = garbage.len().min(query.len());
                garbage[..length].copy_from_slice(&query[..length]);
                if length > 4 {
                    garbage[2 + n as usize % (length - 2)] ^= 1 << (n % 8);
                }
            }
            socket.send_to(&garbage, SERVER).await.unwrap();
        }
        for over in BOTH {
            let answer = exchange(&netns, over, &ask("web.", RecordType::A)).await;
            assert_eq!(data(&answer), ["10.0.1.4"]);
        }
        let mut stream = connect(&netns);
        stream.write_all(&[0, 5, 1, 2, 3, 4, 5]).await.unwrap();
        let closed = timeout(DEADLINE, stream.read(&mut [0; 1])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    });
}

#[test]
fn slow_clients_do_not_block_others() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let _resolver = start(&netns, Upstreams::fixed(vec![])).await.unwrap();
        let mut slow = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 8 {
            let mut stream = connect(&netns);
            stream.write_all(&[0]).await.unwrap();
            slow.push(stream);
        }
        for over in BOTH {
            let answer = exchange(&netns, over, &ask("web.", RecordType::A)).await;
            assert_eq!(data(&answer), ["10.0.1.4"]);
        }
        // The oldest had to go for the youngest: one of them was the exchange over TCP.
        let (closed, open) = slow.split_at_mut(9);
        for stream in closed {
            let closed = timeout(DEADLINE, stream.read(&mut [0; 1])).await.unwrap();
            assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        }
        let query = ask("web.", RecordType::A).to_vec().unwrap();
        for stream in open {
            // The first byte of the length came before.
            let rest = [&[query.len() as u8][..], &query].concat();
            stream.write_all(&rest).await.unwrap();
            let answer = timeout(DEADLINE, read(stream)).await.unwrap();
            assert_eq!(data(&Message::from_vec(&answer).unwrap()), ["10.0.1.4"]);
        }
    });
}

#[test]
fn too_many_forwarded_queries_are_refused_and_local_names_answered() {
    let limit = std::process::Command::new("prlimit")
        .args(["--nofile=8192:", "--pid", &std::process::id().to_string()])
        .status();
    assert!(limit.unwrap().success());
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    host.block_on(async || {
        let netns = container.open();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let _resolver = start(&netns, Upstreams::fixed(vec![silent.local_addr().unwrap()]))
            .await
            .unwrap();
        let socket = datagrams(&netns);
        let mut query = ask("example.com.", RecordType::A);
        let refused = async {
            loop {
                // More are sent than the limit, for the kernel drops what does not fit into the socket's buffer.
                query.metadata.id = query.metadata.id.wrapping_add(1);
                socket.send_to(&query.to_vec().unwrap(), SERVER).await.unwrap();
                tokio::task::yield_now().await;
                let mut answer = [0; 512];
                if let Ok(length) = socket.try_recv(&mut answer) {
                    return (
                        Message::from_vec(&answer[..length]).unwrap().response_code,
                        query.metadata.id,
                    );
                }
            }
        };
        let (code, sent) = timeout(DEADLINE, refused).await.unwrap();
        assert_eq!(code, ResponseCode::Refused);
        assert!(usize::from(sent.wrapping_sub(0x1234)) > FORWARDED_MAX);
        let answer = exchange(&netns, Over::Udp, &ask("web.", RecordType::A)).await;
        assert_eq!(data(&answer), ["10.0.1.4"]);
    });
}

#[test]
fn a_taken_port_is_told_and_leaves_nothing_open() {
    let host = NetnsGuard::new();
    for (protocol, address) in [("UDP", "127.0.0.11:53"), ("UDP", "0.0.0.0:53"), ("TCP", "0.0.0.0:53")] {
        let container = NetnsGuard::new();
        host.block_on(async || {
            let netns = container.open();
            let address: SocketAddr = address.parse().unwrap();
            let (udp, tcp) = match protocol {
                "UDP" => (Some(netns.udp_socket(address).unwrap()), None),
                _ => (None, Some(netns.tcp_listener(address).unwrap())),
            };
            let error = start(&netns, Upstreams::fixed(vec![])).await.unwrap_err().to_string();
            let expected = format!(
                "{protocol} port 53 of 127.0.0.11 is in use in network namespace \"{}\": a DNS server there must listen \
                 on its own address instead of all addresses, and a namespace has one resolver only",
                container.name
            );
            assert_eq!(error, expected);
            drop((udp, tcp));
            let resolver = restart(&netns, vec![]).await;
            let second = start(&netns, Upstreams::fixed(vec![])).await;
            assert!(matches!(second, Err(ResolverError::PortInUse { .. })), "{second:?}");
            drop(resolver);
            let _resolver = restart(&netns, vec![]).await;
            exchange(&netns, Over::Udp, &ask("web.", RecordType::A)).await;
        });
    }
}

/// `/etc/netns/<name>`, which `ip netns exec` lays over `/etc`.
struct EtcOverlay(PathBuf);

impl Drop for EtcOverlay {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_c_librarys_resolver_is_content() {
    let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
    let etc = EtcOverlay(PathBuf::from("/etc/netns").join(&container.name));
    std::fs::create_dir_all(&etc.0).unwrap();
    std::fs::write(
        etc.0.join("resolv.conf"),
        weft::resolver::resolv_conf("nameserver 192.0.2.1\n"),
    )
    .unwrap();
    std::fs::write(etc.0.join("hosts"), "").unwrap();
    std::fs::write(etc.0.join("nsswitch.conf"), "hosts: dns\n").unwrap();
    host.block_on(async || {
        let netns = container.open();
        let _resolver = start(&netns, Upstreams::fixed(vec![])).await.unwrap();
        for (query, expected) in [
            ("ahosts web", "10.0.1.4"),
            ("ahosts many", "10.0.1.200"),
            ("hosts 10.0.1.2", "c1.net1"),
        ] {
            let name = container.name.clone();
            let words = format!("netns exec {name} getent {query}");
            let run = move || {
                std::process::Command::new("ip")
                    .args(words.split(' '))
                    .output()
                    .unwrap()
            };
            // In the namespace of the test, but beside the runtime, which must answer meanwhile.
            let output = tokio::task::spawn_blocking(run).await.unwrap();
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                shown.contains(expected),
                "{query}: {shown}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
    });
}
