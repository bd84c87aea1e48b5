//! The API as bytes over its socket: this knows nothing of the library's own client.

use super::{DEADLINE, SmallDaemon};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// One request; gives status and body.
pub(crate) fn http(daemon: &SmallDaemon, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

pub(crate) fn call(daemon: &SmallDaemon, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let (status, answer) = http(daemon, method, path, &body);
    let answer = if answer.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&answer).expect(&answer)
    };
    (status, answer)
}

pub(crate) fn get(daemon: &SmallDaemon, path: &str) -> Value {
    let (status, answer) = call(daemon, "GET", path, Value::Null);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A network `net1` with a service `web` and the endpoints `c1` and `web.1`.
pub(crate) fn furnished() -> SmallDaemon {
    let daemon = SmallDaemon::manager();
    for (path, body) in [
        (
            "/networks/create",
            json!({"Name": "net1", "Driver": "overlay", "Labels": {"tier": "front"}}),
        ),
        (
            "/services/create",
            json!({"Name": "web", "TaskTemplate": {"Networks": [{"Target": "net1"}]}}),
        ),
    ] {
        let (status, answer) = call(&daemon, "POST", path, body);
        assert_eq!(status, 201, "{answer}");
    }
    for body in [
        json!({"Netns": "c1", "Name": "c1"}),
        json!({"Pid": 7, "Name": "web.1", "Service": "web"}),
    ] {
        let (status, answer) = call(&daemon, "POST", "/networks/net1/connect", body);
        assert_eq!(status, 200, "{answer}");
    }
    daemon
}
