//! The server over real connections: what the recording of Docker does not show.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::{PATIENCE, Server, asking, exchange, get, tell, try_exchange};
use tracing_subscriber::fmt::MakeWriter;
use weft_diag::{DiagnosticServer, MapDump, MapSummary, NetworkStats, Peer, Request, Row};

/// Answers each request with something that shows its parameters.
fn answer(request: Request) {
    let error = |text: String| Err(format!("<{text}>"));
    match request {
        Request::ClusterPeers(reply) => tell(reply, Vec::new()),
        Request::NetworkPeers(_, reply) => {
            let known = Peer {
                name: "node1".to_owned(),
                ip: "fd00::1".parse().ok(),
            };
            let orphan = Peer {
                name: "orphan-node2".to_owned(),
                ip: None,
            };
            tell(reply, vec![known, orphan]);
        }
        Request::Join(members, reply) => tell(reply, error(members.join("|"))),
        Request::Leave(reply) => tell(reply, Ok(())),
        Request::JoinNetwork(network, reply) | Request::LeaveNetwork(network, reply) => tell(reply, error(network)),
        Request::CreateEntry(address, value, reply) | Request::UpdateEntry(address, value, reply) => {
            tell(
                reply,
                error(format!(
                    "{}/{}/{} {value:?}",
                    address.table, address.network, address.key
                )),
            );
        }
        Request::DeleteEntry(_, reply) => tell(reply, Ok(())),
        Request::GetEntry(_, reply) => tell(reply, Ok(b"<a&b>\xff".to_vec())),
        Request::GetTable(_, _, reply) => {
            let row = Row {
                key: "k".to_owned(),
                value: b"\x01".to_vec(),
                owner: "node1".to_owned(),
            };
            tell(reply, vec![row]);
        }
        Request::NetworkStats(network, reply) => {
            let stats = (network == "net1").then_some(NetworkStats {
                entries: 3,
                queue_len: 1,
            });
            tell(reply, stats);
        }
        Request::Maps(reply) => {
            let map = MapSummary {
                name: "peers".to_owned(),
                entries: 2,
                max_entries: 131_072,
            };
            tell(reply, Ok(vec![map]));
        }
        Request::Map(name, reply) => tell(reply, Ok(peers_map(name))),
    }
}

fn peers_map(name: String) -> MapDump {
    use weft_dataplane::abi::{MapType, OverlayAddress, Peer};
    let key = OverlayAddress {
        vni: 4097,
        ip: [10, 0, 1, 3],
    };
    let value = Peer {
        vtep: [192, 168, 0, 2],
        mac: [2, 0x42, 10, 0, 1, 3],
        padding: [0; 2],
    };
    let entries = vec![(key.as_bytes().to_vec(), value.as_bytes().to_vec())];
    MapDump {
        name,
        max_entries: 131_072,
        entries,
        truncated: false,
    }
}

#[test]
fn replies_have_docker_s_bytes() {
    let server = Server::start(answer);
    for (path, body) in [
        ("/clusterpeers", "OK\ntotal entries: 0\n"),
        (
            "/clusterpeers?json",
            r#"{"message":"OK","details":{"size":0,"entries":null}}"#,
        ),
        (
            "/networkpeers?nid=n",
            "OK\ntotal entries: 2\n0) node1 -> fd00::1\n1) orphan-node2 -> invalid IP\n",
        ),
        (
            "/networkpeers?nid=n&json",
            r#"{"message":"OK","details":{"size":2,"entries":[{"-=name":"node1","ip":"fd00::1"},{"-=name":"orphan-node2","ip":""}]}}"#,
        ),
        (
            "/networkpeers?nid=n&json=pretty",
            "{\n  \"message\": \"OK\",\n  \"details\": {\n    \"size\": 2,\n    \"entries\": [\n      {\n        \"-=name\": \"node1\",\n        \"ip\": \"fd00::1\"\n      },\n      {\n        \"-=name\": \"orphan-node2\",\n        \"ip\": \"\"\n      }\n    ]\n  }\n}",
        ),
        ("/join?members=a,b:7947", "FAIL\nError: <a|b:7947>"),
        (
            "/join?members=a,b&json=other",
            r#"{"message":"FAIL","details":{"error":"\u003ca|b\u003e"}}"#,
        ),
        ("/leave?members=a", "OK"),
        ("/leave", "missing parameter\nUsage: /leave?members=ip1,ip2,..."),
        (
            "/leave?json",
            r#"{"message":"missing parameter","details":{"usage":"/leave?members=ip1,ip2,..."}}"#,
        ),
        ("/joinnetwork?nid=", "FAIL\nError: <>"),
        ("/joinnetwork?nid=a%20b+c&nid=second", "FAIL\nError: <a b c>"),
        (
            "/joinnetwork?nid=%zz",
            "missing parameter\nUsage: /joinnetwork?nid=network_id",
        ),
        (
            "/getentry?nid=n&tname=t&key=k",
            "OK\n0) k:`k` -> v:`PGEmYj7/` owner:``\n",
        ),
        (
            "/getentry?nid=n&tname=t&key=k&unsafe&json",
            r#"{"message":"OK","details":{"key":"k","value":"\u003ca\u0026b\u003e\ufffd","owner":""}}"#,
        ),
        (
            "/createentry?nid=n&tname=t&key=k&value=%2F%2B8A",
            "FAIL\nError: <t/n/k [255, 239, 0]>",
        ),
        (
            "/updateentry?nid=n&tname=t&key=k&value=%ff&unsafe=",
            "FAIL\nError: <t/n/k [255]>",
        ),
        (
            "/updateentry?nid=n&tname=t&key=k&value=aGVsb",
            "FAIL\nError: illegal base64 data at input byte 4",
        ),
        ("/networkstats?nid=net1", "OK\nentries: 3, qlen: 1\n"),
        ("/networkstats?nid=zz", "OK\nentries: -1, qlen: -1\n"),
        (
            "/networkstats?nid=zz&json",
            r#"{"message":"OK","details":{"entries":-1,"QueueLen":-1}}"#,
        ),
        (
            "/stackdump",
            "not implemented\nUsage: URL path: /stackdump no method implemented check /help\n",
        ),
        ("/%72eady", "OK\nOK"),
        (
            "/join/",
            "not implemented\nUsage: URL path: /join/ no method implemented check /help\n",
        ),
    ] {
        let reply = get(server.port(), path);
        assert_eq!((reply.status, reply.text()), (200, body.to_owned()), "{path}");
    }
}

#[test]
fn the_content_type_is_sniffed_as_by_go() {
    let server = Server::start(answer);
    for (path, content_type) in [
        ("/ready", "text/plain; charset=utf-8"),
        ("/gettable?nid=n&tname=t", "text/plain; charset=utf-8"),
        ("/gettable?nid=n&tname=t&unsafe", "application/octet-stream"),
        ("/gettable?nid=n&tname=t&unsafe&json", "application/json"),
    ] {
        assert_eq!(get(server.port(), path).header("content-type"), content_type, "{path}");
    }
}

#[test]
fn maps_are_shown() {
    let server = Server::start(answer);
    for (path, body) in [
        ("/maps", "OK\ntotal entries: 1\npeers        2 of 131072 entries\n"),
        (
            "/maps?json",
            r#"{"message":"OK","details":{"size":1,"entries":[{"name":"peers","entries":2,"limit":131072}]}}"#,
        ),
        (
            "/maps/peers",
            "OK\ntotal entries: 1, limit 131072\nvni 4097 10.0.1.3 -> vtep 192.168.0.2 mac 02:42:0a:00:01:03\n",
        ),
        (
            "/maps/peers?json",
            r#"{"message":"OK","details":{"name":"peers","size":1,"limit":131072,"truncated":false,"entries":[{"vni":4097,"ip":"10.0.1.3","vtep":"192.168.0.2","mac":"02:42:0a:00:01:03"}]}}"#,
        ),
        (
            "/maps/nosuch",
            "FAIL\nError: map \"nosuch\" does not exist, there are: attachments, backends, counters, endpoints, flows, networks, nodes, peers, rotations, services",
        ),
    ] {
        assert_eq!(get(server.port(), path).text(), body, "{path}");
    }
}

#[test]
fn methods_do_not_matter_and_forms_are_merged() {
    let server = Server::start(answer);
    let send = |method: &str, content_type: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "{method} /joinnetwork?nid=query HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        exchange(server.port(), &request).text()
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(send("POST", form, "nid=body"), "FAIL\nError: <body>");
    assert_eq!(
        send("PATCH", "Application/X-WWW-form-urlencoded; charset=x", "nid=body"),
        "FAIL\nError: <body>"
    );
    assert_eq!(send("DELETE", form, "nid=body"), "FAIL\nError: <query>");
    assert_eq!(send("POST", "multipart/form-data", "nid=body"), "FAIL\nError: <query>");
    assert_eq!(send("HEAD", form, ""), "");
    assert_eq!(send("ANYTHING", form, ""), "FAIL\nError: <query>");
}

#[test]
fn unclean_paths_are_redirected() {
    let server = Server::start(answer);
    let reply = get(server.port(), "//a/../ready?json&x=%22");
    assert_eq!((reply.status, reply.header("location")), (307, "/ready?json&x=%22"));
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(
        reply.text(),
        "<a href=\"/ready?json&amp;x=%22\">Temporary Redirect</a>.\n\n"
    );
    assert_eq!(get(server.port(), "//a%0d%0ab").header("location"), "/a%0D%0Ab");
}

#[test]
fn a_body_that_is_too_large_is_refused_in_a_line() {
    let server = Server::start(answer);
    let head = "POST /joinnetwork HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1048577\r\nConnection: close\r\n\r\n";
    // One byte above the limit.
    let reply = exchange(server.port(), &format!("{head}{}", "n".repeat(1_048_577)));
    assert_eq!(
        reply.text(),
        "FAIL\nError: the request body is cut short or larger than 1048576 bytes"
    );
}

#[test]
fn a_stopping_daemon_is_told() {
    // Dropping a request is what a daemon that stops does.
    let server = Server::start(drop);
    assert_eq!(
        get(server.port(), "/clusterpeers").text(),
        "FAIL\nError: the daemon is stopping"
    );
    assert_eq!(get(server.port(), "/ready").text(), "OK\nOK");
}

#[test]
fn connections_above_the_limit_wait_for_a_place() {
    let server = Server::start(answer);
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("connect");
    let mut idle: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    for stream in &mut idle {
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream
            .write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("send");
        let mut reply = [0; 15];
        stream.read_exact(&mut reply).expect("a reply");
        assert_eq!(&reply, b"HTTP/1.1 200 OK");
    }
    let port = server.port();
    let waiting = std::thread::spawn(move || get(port, "/ready").text());
    drop(idle.pop());
    assert_eq!(waiting.join().expect("the reply came"), "OK\nOK");
}

/// A log in memory.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panicked").clone()).expect("text")
    }

    fn contains(&self, part: &str) -> bool {
        self.text().contains(part)
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Logged;

    fn make_writer(&'a self) -> Logged {
        self.clone()
    }
}

/// Runs `story` with a log and a daemon that answers.
fn with_log(story: impl AsyncFnOnce(&mut DiagnosticServer, &Logged)) {
    let log = Logged::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .finish();
    // The runtime has one thread, so that all its tasks log here.
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (ask, mut requests) = asking();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                answer(request);
            }
        });
        story(&mut DiagnosticServer::new(ask), &log).await;
    });
}

/// Waits, with a deadline, until `reached`.
async fn until(what: &str, log: &Logged, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} did not happen; log:\n{}", log.text());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// `GET path` beside the runtime; none while nobody listens.
async fn get_beside(port: u16, path: &'static str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let reply = tokio::task::spawn_blocking(move || try_exchange(port, &request).ok());
    reply.await.expect("no panic").map(|reply| reply.text())
}

/// A port below those that the kernel gives to connections of other tests, another one at each call.
fn free_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let mut candidates = std::iter::repeat_with(|| {
        let offset = u16::try_from(std::process::id() % 10_000).expect("it is small");
        20_000 + (offset + CALLS.fetch_add(1, Ordering::Relaxed)) % 10_000
    });
    let free = candidates
        .by_ref()
        .take(10_000)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    free.expect("a free port")
}

#[test]
fn it_starts_and_stops_as_docker_logs_it() {
    with_log(async |server, log| {
        let port = free_port();
        server.start(port);
        assert_eq!(server.port(), Some(port));
        while get_beside(port, "/ready").await.is_none() {
            assert!(server.port().is_some(), "{}", log.text());
        }
        assert!(
            log.contains(&format!(
                "Starting the diagnostic server listening on {port} for commands"
            )),
            "{}",
            log.text()
        );
        server.start(free_port());
        assert!(log.contains("The server is already up and running"), "{}", log.text());
        assert_eq!(server.port(), Some(port));
        server.stop();
        assert_eq!(server.port(), None);
        assert!(log.contains("Disabling the diagnostic server"), "{}", log.text());
        // The port is taken over although the old server may still be closing.
        server.start(port);
        until("the second start", log, || {
            log.text().matches("Starting the diagnostic server").count() == 2
        })
        .await;
        while get_beside(port, "/ready").await.is_none() {
            assert!(server.port().is_some(), "{}", log.text());
        }
        server.stop();
        assert!(!log.contains("ListenAndServe"), "{}", log.text());
    });
}

#[test]
fn a_taken_port_is_logged_and_the_server_is_off() {
    with_log(async |server, log| {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("an address").port();
        server.start(port);
        until("the end of the server", log, || server.port().is_none()).await;
        let error = format!("ListenAndServe error: listen tcp 127.0.0.1:{port}: bind: Address already in use");
        assert!(log.contains(&error), "{}", log.text());
        server.stop();
        assert!(!log.contains("Disabling"), "{}", log.text());
        drop(taken);
        server.start(port);
        while get_beside(port, "/ready").await.is_none() {
            assert!(server.port().is_some(), "{}", log.text());
        }
    });
}

#[test]
fn each_request_is_audited() {
    with_log(async |server, log| {
        let port = free_port();
        server.start(port);
        while get_beside(port, "/ready").await.is_none() {
            assert!(server.port().is_some(), "{}", log.text());
        }
        for path in [
            "/nosuch",
            "/networkpeers?nid=n1",
            "/networkpeers",
            "/joinnetwork?nid=n1",
        ] {
            get_beside(port, path).await.expect("it listens");
        }
        let text = log.text();
        for parts in [
            ["INFO", "ready done", "method=\"ready\"", "url=\"/ready\""],
            [
                "INFO",
                "command not implemented done",
                "method=\"notImplemented\"",
                "url=\"/nosuch\"",
            ],
            [
                "INFO",
                "network peers component=",
                "method=\"dbPeers\"",
                "url=\"/networkpeers?nid=n1\"",
            ],
            ["DEBUG", "Form[\"nid\"] = [\"n1\"]", "", ""],
            [
                "INFO",
                "network peers done",
                "component=\"diagnostic\" remoteIP=127.0.0.1:",
                "response=\"total entries: 2\\n0) node1",
            ],
            [
                "ERROR",
                "network peers failed, wrong input",
                "url=\"/networkpeers\"",
                "",
            ],
            [
                "ERROR",
                "join network failed",
                "method=\"dbJoinNetwork\"",
                "error=\"<n1>\"",
            ],
        ] {
            let found = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
            assert!(found, "{parts:?} is not in:\n{text}");
        }
    });
}
