//! The command against canned bodies, most of them recorded from a Docker 20.10 engine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RECORDED: &str = include_str!("golden/docker-20.10-diag.txt");
const NETWORK: &str = "3y0wir9vjtr7b9u0m5wspqhi5";

/// The body that the engine gave to a request of the recording.
fn recorded(path: &str) -> String {
    let after = RECORDED
        .split_once(&format!("### GET {path}\n"))
        .expect("it was recorded")
        .1
        .replace("\r\n", "\n");
    after
        .split_once("\n\n")
        .expect("headers end")
        .1
        .lines()
        .next()
        .expect("a body of one line")
        .to_owned()
}

/// An engine that answers each path, query included, with a canned body. Stops when dropped.
struct Engine {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Engine {
    fn start(bodies: &[(&str, &str)]) -> Engine {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let bodies: BTreeMap<String, String> = bodies.iter().map(|(p, b)| ((*p).to_owned(), (*b).to_owned())).collect();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, stopping) = (requests.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                answer(stream.expect("a connection"), &bodies, &seen);
            }
        });
        Engine {
            port,
            requests,
            stop,
            thread: Some(thread),
        }
    }

    /// As the engine of the recording: its peers and both tables, and further bodies.
    fn recorded(more: &[(&str, &str)]) -> Engine {
        let paths = [
            "/clusterpeers?json".to_owned(),
            format!("/networkpeers?nid={NETWORK}&json"),
            format!("/gettable?nid={NETWORK}&tname=endpoint_table&json"),
            format!("/gettable?nid={NETWORK}&tname=overlay_peer_table&json"),
        ];
        let bodies = paths.each_ref().map(|path| recorded(path));
        let mut all = vec![("/ready", "OK\nOK")];
        all.extend(paths.iter().map(String::as_str).zip(bodies.iter().map(String::as_str)));
        all.extend(more);
        Engine::start(&all)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept call.
        let woken = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
        let ended = self.thread.take().filter(|_| woken).map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("it was started").expect("the engine did not panic");
        }
    }
}

fn answer(stream: TcpStream, bodies: &BTreeMap<String, String>, seen: &Mutex<Vec<String>>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    lines.find(String::is_empty).expect("headers end");
    let path = first
        .strip_prefix("GET ")
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1"))
        .expect("GET over HTTP/1.1");
    seen.lock().expect("no panic").push(path.to_owned());
    let (status, body) = match bodies.get(path) {
        Some(body) => ("200 OK", body.as_str()),
        None => ("500 Not canned", ""),
    };
    let length = body.len();
    write!(
        &stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("send");
}

/// What a run of the command left.
struct Ran {
    code: i32,
    stdout: String,
    /// Lines of the log without their times.
    log: Vec<String>,
}

fn run_with(port: u16, args: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_diagnosticClient"))
        .args(["-port", &port.to_string()])
        .args(args)
        .env_remove("DIND_CLIENT")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes())
        .expect("send");
    let (mut stdout, mut stderr) = (String::new(), String::new());
    // The log is far below the size of a pipe's buffer, so that neither pipe blocks the other.
    child
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut stdout)
        .expect("text");
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut stderr)
        .expect("text");
    let code = child.wait().expect("it ends").code().expect("no signal");
    let log = stderr.lines().map(without_time).collect();
    Ran { code, stdout, log }
}

fn run(engine: &Engine, args: &[&str]) -> Ran {
    run_with(engine.port, args, "", &[])
}

/// Checks and removes `time="2026-11-22T04:44:14Z" `.
fn without_time(line: &str) -> String {
    let Some(rest) = line.strip_prefix("time=\"") else {
        return line.to_owned();
    };
    let (time, rest) = rest.split_once("\" ").expect("the time ends");
    assert_eq!(
        (time.len(), &time[4..5], &time[10..11], &time[19..]),
        (20, "-", "T", "Z"),
        "{line}"
    );
    rest.to_owned()
}

fn info(message: &str) -> String {
    format!("level=info msg=\"{message}\"")
}

fn warning(message: &str) -> String {
    format!("level=warning msg=\"{message}\"")
}

fn debug(message: &str) -> String {
    format!("level=debug msg=\"{message}\"")
}

fn start(engine: &Engine) -> Vec<String> {
    vec![
        info(&format!("Connecting to 127.0.0.1:{} checking ready", engine.port)),
        info("Fetch cluster peers"),
    ]
}

#[test]
fn a_healthy_table_of_docker_is_shown() {
    let engine = Engine::recorded(&[]);
    let ran = run(&engine, &["-v", "-net", NETWORK, "-t", "overlay"]);
    let mut expected = start(&engine);
    let peer = [debug("Parsing JSON response"), debug("name:4a027258ed3e ip:127.0.0.1")];
    expected.extend(peer.clone());
    expected.push(info(&format!("Fetch peers network:\\\"{NETWORK}\\\"")));
    expected.extend(peer);
    expected.push(info("Fetch overlay_peer_table table and check owners"));
    expected.push(debug("Parsing data structures"));
    for (key, host) in [
        ("6574cf2f5523a9b5c6a5cef25678ac069e7062abf73d27e56439033c48eb63a4", 2),
        ("2c8aee508c99735a02f725bab448cdc6eab8b7615c58e93db9d8d8f8b4df147e", 3),
        ("41b5fc5be4bd104cf84661a77ae81d75461d58a0ec5116d705475826f95eb6b1", 7),
        ("47721d1cbd55f772a44fbab0e458db14802f7819eefb51eb677c04de96b8f2c8", 6),
        ("4ce5325d8693224eac5a04878c5b03cbb987edcf6b2fa7167e6b79cd59a90746", 5),
    ] {
        expected.push(debug(&format!(
            "key:{key} value:{{EndpointIP:10.0.1.{host}/24 EndpointMAC:02:42:0a:00:01:0{host} TunnelEndpointIP:127.0.0.1}} owner:4a027258ed3e"
        )));
    }
    assert_eq!((ran.code, ran.stdout.as_str(), ran.log), (0, "", expected));
    let wanted = ["/ready", "/clusterpeers?json"].map(str::to_owned).into_iter().chain([
        format!("/networkpeers?nid={NETWORK}&json"),
        format!("/gettable?nid={NETWORK}&tname=overlay_peer_table&json"),
    ]);
    assert_eq!(engine.requests(), wanted.collect::<Vec<_>>());
}

#[test]
fn service_records_of_docker_are_decoded() {
    let engine = Engine::recorded(&[]);
    let ran = run(&engine, &["-v", "-net", NETWORK, "-t", "sd"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.log.contains(&debug(
            "key:6574cf2f5523a9b5c6a5cef25678ac069e7062abf73d27e56439033c48eb63a4 value:{Name:c1 ServiceName: ServiceID: \
             VirtualIP:<nil> EndpointIP:10.0.1.2 IngressPorts:[] Aliases:[] TaskAliases:[foo c89493bc0ee7] \
             ServiceDisabled:false} owner:4a027258ed3e"
        )),
        "{:#?}",
        ran.log
    );
}

#[test]
fn json_goes_to_standard_output() {
    let engine = Engine::recorded(&[]);
    let ran = run(&engine, &["-json", "-net", NETWORK, "-t", "sd", "-timeout=20s"]);
    assert_eq!(ran.code, 0);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(value["table"], "endpoint_table");
    assert_eq!(
        value["clusterPeers"][0],
        serde_json::json!({ "name": "4a027258ed3e", "ip": "127.0.0.1" })
    );
    let entries = value["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), 4);
    let web = entries
        .iter()
        .find(|entry| entry["record"]["endpointIP"] == "10.0.1.7")
        .expect("a task of web");
    assert_eq!(
        (&web["networkOrphan"], &web["record"]["serviceName"]),
        (&false.into(), &"web".into())
    );
    assert_eq!(ran.stdout.lines().count(), 1);
}

/// Two entries: of a node that left the network, and of one that left the cluster; and one that is no base64.
const ORPHANS: &str = r#"{"message":"OK","details":{"size":3,"entries":[{"key":"k1","value":"","owner":"gone"},{"key":"k2","value":"*","owner":"x"},{"key":"k 3","value":"","owner":"elsewhere"}]}}"#;
const ONE_PEER: &str = r#"{"message":"OK","details":{"size":1,"entries":[{"-=name":"here","ip":"unknown"}]}}"#;
const TWO_PEERS: &str = r#"{"message":"OK","details":{"size":2,"entries":[{"-=name":"here","ip":"10.0.0.1"},{"-=name":"elsewhere","ip":""}]}}"#;

fn with_orphans() -> Engine {
    Engine::start(&[
        ("/ready", "OK\nOK"),
        ("/clusterpeers?json", TWO_PEERS),
        ("/networkpeers?nid=n%20%261&json", ONE_PEER),
        ("/gettable?nid=n%20%261&tname=endpoint_table&json", ORPHANS),
        (
            "/deleteentry?nid=n%20%261&tname=endpoint_table&key=k1&json",
            r#"{"message":"OK","details":null}"#,
        ),
        (
            "/deleteentry?nid=n%20%261&tname=endpoint_table&key=k%203&json",
            r#"{"message":"FAIL","details":{"error":"cannot delete"}}"#,
        ),
    ])
}

fn orphan_log(engine: &Engine) -> Vec<String> {
    let mut expected = start(engine);
    expected.extend([
        info("Fetch peers network:\\\"n &1\\\""),
        info("Fetch endpoint_table table and check owners"),
        warning("The element with key:k1 does not belong to any node on this network"),
        warning("The element with key:k1 does not belong to any node on this cluster"),
        "level=error msg=\"Failed decoding entry\" error=\"illegal base64 data at input byte 0\"".to_owned(),
        warning("The element with key:k 3 does not belong to any node on this network"),
    ]);
    expected
}

const QUESTION: &str = "The following keys:[k1 k 3] results as orphan, do you want to proceed with the deletion (this operation is irreversible)? [Yes/No]";

#[test]
fn orphans_are_warned_of() {
    let engine = with_orphans();
    let ran = run(&engine, &["-net", "n &1", "-t", "sd"]);
    assert_eq!((ran.code, ran.log), (0, orphan_log(&engine)));
}

#[test]
fn orphans_are_deleted_on_yes_only() {
    for no in ["", "yes\n", "Yes \n", "No\nYes\n"] {
        let engine = with_orphans();
        let ran = run_with(engine.port, &["-r", "-net", "n &1", "-t", "sd"], no, &[]);
        let mut expected = orphan_log(&engine);
        expected.extend([warning(QUESTION), info("Deletion skipped")]);
        assert_eq!((ran.code, ran.log), (0, expected), "{no:?}");
        assert_eq!(engine.requests().len(), 4, "{no:?}");
    }
    for yes in ["Yes\n", "Yes"] {
        let engine = with_orphans();
        let ran = run_with(engine.port, &["-r", "-net", "n &1", "-t", "sd"], yes, &[]);
        let mut expected = orphan_log(&engine);
        expected.push(warning(QUESTION));
        expected.push(
            "level=error msg=\"Failed deleting entry k:k 3\" error=\"the server answered FAIL: cannot delete\""
                .to_owned(),
        );
        assert_eq!((ran.code, ran.log), (0, expected), "{yes:?}");
        assert_eq!(
            engine.requests()[4..],
            [
                "/deleteentry?nid=n%20%261&tname=endpoint_table&key=k1&json",
                "/deleteentry?nid=n%20%261&tname=endpoint_table&key=k%203&json"
            ]
        );
    }
}

#[test]
fn joining_needs_the_environment() {
    let engine = Engine::recorded(&[]);
    let ran = run(&engine, &["-a", "-net", NETWORK]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.log,
        [
            "level=fatal msg=\"you are not using the client in docker in docker mode, the use of the -a flag can be disruptive, \
          please remove it (doc:https://github.com/moby/moby/blob/master/daemon/libnetwork/cmd/diagnostic/README.md)\""
        ]
    );
    assert!(engine.requests().is_empty());
}

#[test]
fn joining_comes_first_and_leaving_last() {
    let join = format!("/joinnetwork?nid={NETWORK}");
    let leave = format!("/leavenetwork?nid={NETWORK}");
    let engine = Engine::recorded(&[(&join, "OK"), (&leave, "FAIL\nError: no")]);
    let ran = run_with(engine.port, &["-a", "-net", NETWORK], "", &[("DIND_CLIENT", "")]);
    let mut expected = start(&engine);
    expected.extend([
        info(&format!("Joining the network:\\\"{NETWORK}\\\"")),
        info(&format!("Fetch peers network:\\\"{NETWORK}\\\"")),
        info(&format!("Leaving the network:\\\"{NETWORK}\\\"")),
        "level=fatal msg=\"Server not ready FAIL\\nError: no\"".to_owned(),
    ]);
    assert_eq!((ran.code, ran.log), (1, expected));
    assert_eq!(
        engine.requests()[2..],
        [join, format!("/networkpeers?nid={NETWORK}&json"), leave]
    );
}

#[test]
fn failures_end_the_run() {
    let ready = ("/ready", "OK\nOK");
    let none = r#"{"message":"OK","details":{"size":0,"entries":null}}"#;
    for (bodies, last) in [
        (
            &[("/ready", "starting")][..],
            "level=fatal msg=\"Server not ready starting\"",
        ),
        (
            &[ready, ("/clusterpeers?json", "")],
            "level=fatal msg=\"Failed the json unmarshalling\" error=\"EOF",
        ),
        (
            &[
                ready,
                (
                    "/clusterpeers?json",
                    r#"{"message":"not implemented","details":{"usage":"u"}}"#,
                ),
            ],
            "level=fatal msg=\"Failed the json unmarshalling\" error=\"the server answered not implemented: u\"",
        ),
        (
            &[
                ready,
                ("/clusterpeers?json", none),
                ("/networkpeers?nid=n&json", none),
                ("/gettable?nid=n&tname=endpoint_table&json", "x"),
            ],
            "level=fatal msg=\"Failed the json unmarshalling\" error=",
        ),
    ] {
        let engine = Engine::start(bodies);
        let ran = run(&engine, &["-net", "n", "-t", "sd", "-json"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{:?}", ran.log);
        assert!(ran.log.last().expect("a line").starts_with(last), "{:?}", ran.log);
    }
}

#[test]
fn an_empty_network_is_warned_of() {
    let none = r#"{"message":"OK","details":{"size":0,"entries":null}}"#;
    let engine = Engine::start(&[
        ("/ready", "OK"),
        ("/clusterpeers?json", none),
        ("/networkpeers?nid=n&json", none),
    ]);
    let ran = run(&engine, &["-net", "n"]);
    assert_eq!(ran.code, 0);
    assert_eq!(
        ran.log.last().expect("a line"),
        &warning(
            "There is no peer on network \\\"n\\\", check the network ID, and verify that is the non truncated version"
        )
    );
}

#[test]
fn a_server_that_is_away_is_told() {
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("an address").port()
    };
    let ran = run_with(port, &[], "", &[]);
    assert_eq!((ran.code, ran.log.len()), (1, 2), "{:?}", ran.log);
    let start =
        format!("level=fatal msg=\"The connection failed\" error=\"Get \\\"http://127.0.0.1:{port}/ready\\\": ");
    assert!(ran.log[1].starts_with(&start), "{:?}", ran.log);
    assert!(ran.log[1].contains("refused"), "{:?}", ran.log);
}

#[test]
fn addresses_that_are_none_are_refused() {
    for (args, reason) in [
        (["-port", "99999"], "port 99999 is not between 1 and 65535"),
        (["-port", "-1"], "port -1 is not between 1 and 65535"),
        (["-ip", "a/b"], "\\\"a/b\\\" is no host name or IP address"),
        (["-ip", ""], "\\\"\\\" is no host name or IP address"),
    ] {
        let ran = run_with(1, &args, "", &[]);
        assert_eq!(ran.code, 1);
        assert!(ran.log[1].ends_with(&format!(": {reason}\"")), "{:?}", ran.log);
    }
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let ran = run_with(port, &["-timeout", "50ms"], "", &[]);
    assert_eq!(ran.code, 1, "{:?}", ran.log);
    assert!(
        ran.log[1].contains("The connection failed") && ran.log[1].contains("timeout"),
        "{:?}",
        ran.log
    );
}

#[test]
fn wrong_flags_print_the_usage() {
    let ran = run_with(1, &["-zz"], "", &[]);
    assert_eq!(ran.code, 2);
    assert_eq!(ran.log[0], "flag provided but not defined: -zz");
    assert!(
        ran.log[1].starts_with("Usage of ") && ran.log[1].ends_with("diagnosticClient:"),
        "{:?}",
        ran.log
    );
    let help = run_with(1, &["-h"], "", &[]);
    assert_eq!((help.code, &help.log[..]), (0, &ran.log[1..]));
}
