//! Replays what was recorded from a Docker 20.10 engine against the server, whose daemon is a small table in memory.

mod support;

use std::collections::BTreeMap;
use support::{Server, exchange, tell};
use weft_diag::{EntryAddress, NetworkStats, Peer, Request, Row};

const RECORDED: &[u8] = include_bytes!("golden/docker-20.10-diag.txt");
const NODE: &str = "4a027258ed3e";
const NETWORK: &str = "3y0wir9vjtr7b9u0m5wspqhi5";

/// A recorded exchange.
struct Exchange {
    /// `GET /path`.
    request: String,
    content_type: String,
    body: Vec<u8>,
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn recorded() -> Vec<Exchange> {
    let mut exchanges = Vec::new();
    let mut rest = RECORDED;
    while let Some(start) = find(rest, b"### ") {
        rest = &rest[start + 4..];
        let head_end = find(rest, b"\n\n").expect("headers end");
        let head = String::from_utf8(rest[..head_end].to_vec())
            .expect("headers are text")
            .replace('\r', "");
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .expect(name)
                .to_owned()
        };
        let length: usize = field("Content-Length: ").parse().expect("a number");
        let body = rest[head_end + 2..][..length].to_vec();
        rest = &rest[head_end + 2 + length..];
        exchanges.push(Exchange {
            request: head.lines().next().expect("a request").to_owned(),
            content_type: field("Content-Type: "),
            body,
        });
    }
    exchanges
}

/// A table as the engine had it: values stay when deleted, so that a tombstone is told from a key that never was.
#[derive(Default)]
struct Tables {
    entries: BTreeMap<(String, String, String), (Vec<u8>, bool)>,
    networks: Vec<String>,
}

impl Tables {
    /// Filled with the rows that the recording printed raw, which pins how values are rendered in base64.
    fn of_recording() -> Tables {
        let mut tables = Tables {
            networks: vec![NETWORK.to_owned()],
            ..Tables::default()
        };
        for exchange in recorded() {
            let Some(table) = ["overlay_peer_table", "endpoint_table"]
                .into_iter()
                .find(|table| exchange.request == format!("GET /gettable?nid={NETWORK}&tname={table}"))
            else {
                continue;
            };
            for line in String::from_utf8(exchange.body).expect("text").lines().skip(2) {
                let quoted: Vec<&str> = line.split('`').collect();
                let value = base64_of(quoted[3]);
                tables.entries.insert(
                    (table.to_owned(), NETWORK.to_owned(), quoted[1].to_owned()),
                    (value, true),
                );
            }
        }
        tables
    }

    fn key(address: EntryAddress) -> (String, String, String) {
        (address.table, address.network, address.key)
    }

    fn write(&mut self, address: EntryAddress, value: Vec<u8>, new: bool) -> Result<(), String> {
        let EntryAddress { table, network, key } = address.clone();
        let entry = self.entries.entry(Tables::key(address));
        match (entry, new) {
            (std::collections::btree_map::Entry::Vacant(entry), true) => {
                entry.insert((value, true));
                Ok(())
            }
            (std::collections::btree_map::Entry::Occupied(mut entry), false) => {
                entry.insert((value, true));
                Ok(())
            }
            (_, true) => Err(format!(
                "cannot create entry in table {table} with network id {network} and key {key}, already exists"
            )),
            (_, false) => Err(format!(
                "cannot update entry as the entry in table {table} with network id {network} and key {key} does not exist"
            )),
        }
    }

    fn delete(&mut self, address: EntryAddress) -> Result<(), String> {
        let EntryAddress { table, network, key } = address.clone();
        match self.entries.get_mut(&Tables::key(address)) {
            Some((_, live)) if *live => {
                *live = false;
                Ok(())
            }
            _ => Err(format!(
                "cannot delete entry {table} with network id {network} and key {key} does not exist or is already being deleted"
            )),
        }
    }

    fn get(&self, address: EntryAddress) -> Result<Vec<u8>, String> {
        let EntryAddress { table, network, key } = address.clone();
        match self.entries.get(&Tables::key(address)) {
            Some((value, true)) => Ok(value.clone()),
            Some(_) => Err(format!(
                "entry in table {table} network id {network} and key {key} deleted and pending garbage collection"
            )),
            None => Err(format!(
                "could not get entry in table {table} with network id {network} and key {key}"
            )),
        }
    }

    fn rows(&self, table: &str, network: &str) -> Vec<Row> {
        let live = self
            .entries
            .iter()
            .filter(|((t, n, _), (_, live))| t == table && n == network && *live);
        live.map(|((_, _, key), (value, _))| Row {
            key: key.clone(),
            value: value.clone(),
            owner: NODE.to_owned(),
        })
        .collect()
    }

    fn peers(&self, network: &str) -> Vec<Peer> {
        let ip = "127.0.0.1".parse().ok();
        let present = self.networks.iter().any(|n| n == network);
        present
            .then(|| Peer {
                name: NODE.to_owned(),
                ip,
            })
            .into_iter()
            .collect()
    }

    fn leave(&mut self, network: &str) -> Result<(), String> {
        match self.networks.iter().position(|n| n == network) {
            Some(at) => {
                self.networks.remove(at);
                Ok(())
            }
            None => Err(format!("could not find network {network} while trying to leave")),
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::ClusterPeers(reply) => tell(reply, self.peers(NETWORK)),
            Request::NetworkPeers(network, reply) => tell(reply, self.peers(&network)),
            Request::Join(members, reply) => tell(reply, Err(join_error(&members))),
            Request::Leave(reply) => tell(reply, Ok(())),
            Request::JoinNetwork(network, reply) => {
                self.networks.push(network);
                tell(reply, Ok(()));
            }
            Request::LeaveNetwork(network, reply) => tell(reply, self.leave(&network)),
            Request::CreateEntry(address, value, reply) => tell(reply, self.write(address, value, true)),
            Request::UpdateEntry(address, value, reply) => tell(reply, self.write(address, value, false)),
            Request::DeleteEntry(address, reply) => tell(reply, self.delete(address)),
            Request::GetEntry(address, reply) => tell(reply, self.get(address)),
            Request::GetTable(table, network, reply) => tell(reply, self.rows(&table, &network)),
            Request::GetTableOfAll(_, _, reply) => tell(reply, Vec::new()),
            Request::NetworkStats(network, reply) => {
                let entries = self.entries.keys().filter(|(_, n, _)| *n == network).count() as i64;
                tell(reply, (entries > 0).then_some(NetworkStats { entries, queue_len: 0 }));
            }
            Request::Maps(reply) => tell(reply, Err("no maps here".to_owned())),
            Request::Map(name, reply) => tell(reply, Err(format!("no map {name} here"))),
        }
    }
}

fn join_error(members: &[String]) -> String {
    let reason = match members {
        [none] if none.is_empty() => "Failed to resolve : lookup : no such host".to_owned(),
        members => {
            let member = &members[0];
            format!("Failed to join {member}: dial tcp {member}:7946: connect: connection refused")
        }
    };
    format!("/join error in the DB join could not join node to memberlist: 1 error occurred:\n\t* {reason}\n\n")
}

/// Decodes with a decoder other than the server's.
fn base64_of(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("recorded base64")
}

/// The order of rows is random in Docker: rows are compared sorted, their indices apart.
fn without_order(body: &[u8], json: bool) -> (Vec<u8>, Vec<String>) {
    let text: String = body.iter().map(|&b| char::from(b)).collect();
    if json {
        let mut entries: Vec<String> = text
            .split("},{")
            .map(|e| e.trim_end_matches(['}', ']']).to_owned())
            .collect();
        let head = entries[0].find("entries\":[{").map_or(0, |at| at + 11);
        let first = entries[0].split_off(head);
        let head = std::mem::replace(&mut entries[0], first);
        entries.sort();
        return (head.into_bytes(), entries);
    }
    let mut rows: Vec<String> = Vec::new();
    for part in text.split_inclusive("`\n") {
        match rows.last_mut() {
            // A raw value may begin with a line end.
            Some(row) if !row.contains("owner:`") => row.push_str(part),
            _ => rows.push(part.to_owned()),
        }
    }
    let mut head = String::new();
    if rows.len() > 1 {
        let start = rows[0].find("0) k:").expect("a first row");
        let first = rows[0].split_off(start);
        head = std::mem::replace(&mut rows[0], first);
        for (index, row) in rows.iter_mut().enumerate() {
            *row = row
                .strip_prefix(&format!("{index}) "))
                .expect("indices count up")
                .to_owned();
        }
        rows.sort();
    }
    (head.into_bytes(), rows)
}

/// What differs from 20.10 by intent.
fn expected(exchange: &Exchange) -> Option<Vec<u8>> {
    let is_json = exchange.request.contains("json");
    match exchange.request.as_str() {
        // The paths are in order, without /stackdump and with weft's own.
        request if request.starts_with("GET /help") => {
            let paths = "/\n/clusterpeers\n/createentry\n/deleteentry\n/getentry\n/gettable\n/help\n/join\n/joinnetwork\n/leave\n\
                         /leavenetwork\n/maps\n/maps/<name>\n/networkpeers\n/networkstats\n/ready\n/updateentry\n";
            let escaped = paths
                .replace('\n', "\\n")
                .replace('<', "\\u003c")
                .replace('>', "\\u003e");
            let json = format!(r#"{{"message":"OK","details":{{"info":"{escaped}"}}}}"#);
            Some(if is_json {
                json.into_bytes()
            } else {
                format!("OK\n{paths}").into_bytes()
            })
        }
        // Docker's documentation has it, Docker's engines do not.
        "GET /leave?members=127.0.0.9" => Some(b"OK".to_vec()),
        _ => None,
    }
}

#[test]
fn every_recorded_request_is_answered_alike() {
    let mut tables = Tables::of_recording();
    let server = Server::start(move |request| tables.answer(request));
    let recorded = recorded();
    assert_eq!(recorded.len(), 57, "exchanges in the recording");
    for exchange in recorded {
        let (method, path) = exchange.request.split_once(' ').expect("method and path");
        let (path, form) = match path.strip_suffix(" form") {
            Some(path) => (
                path,
                format!("nid={NETWORK}&tname=test_table&key=form&value=aGVsbG8%3D"),
            ),
            None => (path, String::new()),
        };
        let reply = exchange_with(&server, method, path, &form);
        assert_eq!(reply.status, 200, "{}", exchange.request);
        let by_intent = expected(&exchange);
        assert_eq!(
            reply.header("content-type"),
            exchange.content_type,
            "{}",
            exchange.request
        );
        if let Some(body) = by_intent {
            assert_eq!(
                String::from_utf8_lossy(&reply.body),
                String::from_utf8_lossy(&body),
                "{}",
                exchange.request
            );
            continue;
        }
        let is_json = exchange.content_type == "application/json";
        assert_eq!(
            without_order(&reply.body, is_json),
            without_order(&exchange.body, is_json),
            "{}",
            exchange.request
        );
        assert_eq!(reply.body.len(), exchange.body.len(), "{}", exchange.request);
        assert_eq!(
            reply.header("content-length"),
            exchange.body.len().to_string(),
            "{}",
            exchange.request
        );
    }
}

fn exchange_with(server: &Server, method: &str, path: &str, form: &str) -> support::HttpReply {
    let content_type = if form.is_empty() {
        "text/plain"
    } else {
        "application/x-www-form-urlencoded; charset=utf-8"
    };
    let length = form.len();
    exchange(
        server.port(),
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{form}"
        ),
    )
}
