//! The server over real connections: what the recording of Docker does not show.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use support::{PATIENCE, Server, answer, exchange, get};

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
fn rows_of_failed_nodes_are_shown_to_who_asks_for_all() {
    let server = Server::start(answer);
    for (path, body) in [
        (
            "/gettable?nid=n&tname=t&owners=all",
            "OK\ntotal entries: 3\n0) k:`k` -> v:`dA==` owner:`node1` state:`alive`\n\
             1) k:`l` -> v:`dA==` owner:`node1` state:`suspect`\n2) k:`m` -> v:`dA==` owner:`node1` state:`failed`\n",
        ),
        (
            "/gettable?nid=n&tname=t&owners=live",
            "FAIL\nError: owners=live is not valid: only owners=all",
        ),
    ] {
        assert_eq!(get(server.port(), path).text(), body, "{path}");
    }
    let json = get(server.port(), "/gettable?nid=n&tname=t&owners=all&json").text();
    let last = r#"{"key":"m","value":"dA==","owner":"node1","state":"failed"}"#;
    assert!(json.contains(last), "{json}");
}

#[test]
fn maps_are_shown() {
    let server = Server::start(answer);
    for (path, body) in [
        (
            "/maps",
            "OK\ntotal entries: 2\npeers        2 of 131072 entries\nnodes        3 of 3 entries, full, 4 left out\n",
        ),
        (
            "/maps?json",
            r#"{"message":"OK","details":{"size":2,"entries":[{"name":"peers","entries":2,"limit":131072,"full":false,"left_out":0},{"name":"nodes","entries":3,"limit":3,"full":true,"left_out":4}]}}"#,
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
            "FAIL\nError: map \"nosuch\" does not exist, there are: affinities, affinities6, answers, attachments, backends, backends6, clamps, counters, endpoints, endpoints6, flows, flows6, fragments, fragments6, loads, loads6, maglev, maglev_members, maglev_members6, maglev_tables, maglev_tables6, namespaces, networks, nodes, peers, peers6, rotations, rotations6, services, services6, sockets, weights, weights6",
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
