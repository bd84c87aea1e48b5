//! A server on a free port of loopback, and a client that shows every byte.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use weft_diag::server::{Ask, serve};
use weft_diag::{MapDump, MapSummary, NetworkStats, OwnerState, Peer, ReplyTo, Request, Row};

/// The longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A serving API; stops when dropped.
pub(crate) struct Server {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Serves with `answer` as the daemon.
    pub(crate) fn start(mut answer: impl FnMut(Request) + Send + 'static) -> Server {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .expect("a free port");
                tell.send(listener.local_addr().expect("an address").port())
                    .expect("the test waits");
                let (ask, mut requests) = asking();
                let serving = serve(listener, ask, async { drop(stopped.await) });
                let daemon = async {
                    while let Some(request) = requests.recv().await {
                        answer(request);
                    }
                };
                tokio::join!(serving, daemon);
            });
        });
        let port = told.recv_timeout(PATIENCE).expect("the server listens");
        Server {
            port,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("it was started").expect("the server did not panic");
        }
    }
}

/// A way to ask, and where the requests arrive.
pub(crate) fn asking() -> (Ask, mpsc::Receiver<Request>) {
    let (send, receive) = mpsc::channel(16);
    let ask = Ask::new(move |request| {
        let send = send.clone();
        async move { send.send(request).await.is_ok() }
    });
    (ask, receive)
}

/// A reply, taken apart.
#[derive(Debug)]
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl HttpReply {
    /// The value of a header, empty when it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        value.unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a text body")
    }
}

/// Answers a request of the server.
pub(crate) fn tell<T>(reply: ReplyTo<T>, answer: T) {
    // A caller that went away meanwhile needs no answer.
    let _ = reply.send(answer);
}

/// Sends bytes and reads the reply until the server closes.
pub(crate) fn exchange(port: u16, request: &str) -> HttpReply {
    try_exchange(port, request).expect("a reply within the limit")
}

/// The same, where the server may be away.
pub(crate) fn try_exchange(port: u16, request: &str) -> std::io::Result<HttpReply> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(cut)?;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("headers are text");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status line");
    Ok(HttpReply {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    })
}

/// `GET path`.
pub(crate) fn get(port: u16, path: &str) -> HttpReply {
    exchange(
        port,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
}

/// Answers each request with something that shows its parameters.
pub(crate) fn answer(request: Request) {
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
        Request::GetTableOfAll(table, _, reply) => {
            let row = |key: &str| Row {
                key: key.to_owned(),
                value: table.clone().into_bytes(),
                owner: "node1".to_owned(),
            };
            let states = [OwnerState::Alive, OwnerState::Suspect, OwnerState::Failed];
            tell(reply, ["k", "l", "m"].map(row).into_iter().zip(states).collect());
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
                left_out: 0,
            };
            let full = MapSummary {
                name: "nodes".to_owned(),
                entries: 3,
                max_entries: 3,
                left_out: 4,
            };
            tell(reply, Ok(vec![map, full]));
        }
        Request::Map(name, reply) => tell(reply, Ok(peers_map(name))),
    }
}

fn peers_map(name: String) -> MapDump {
    use weft_dataplane::abi::{MapType, OverlayAddress, Peer, mapped};
    let key = OverlayAddress {
        vni: 4097,
        ip: [10, 0, 1, 3],
    };
    let value = Peer {
        vtep: mapped([192, 168, 0, 2]),
        mac: [2, 0x42, 10, 0, 1, 3],
        flags: 0,
    };
    let entries = vec![(key.as_bytes().to_vec(), value.as_bytes().to_vec())];
    MapDump {
        name,
        max_entries: 131_072,
        entries,
        truncated: false,
    }
}
