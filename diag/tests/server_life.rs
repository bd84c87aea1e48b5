//! The server's life: starting, stopping, and what it logs meanwhile.

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use support::{PATIENCE, answer, asking, try_exchange};
use tracing_subscriber::fmt::MakeWriter;
use weft_diag::server::DiagnosticServer;

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

/// Only one test at a time: whether a line is logged at all is decided for all threads at once, by whichever comes by it first, and
/// that may be one without a log.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `story` with a log and a daemon that answers.
fn with_log(story: impl AsyncFnOnce(&mut DiagnosticServer, &Logged)) {
    let _alone = alone();
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

/// Waits, with a deadline, until nobody listens on the port.
async fn until_free(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "port {port} is not free");
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
        until_free(port).await;
        server.stop();
        assert_eq!(log.text().matches("Disabling").count(), 2, "{}", log.text());
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

#[test]
fn a_request_in_flight_is_answered_after_the_stop() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (ask, mut requests) = asking();
        let mut server = DiagnosticServer::new(ask);
        let port = free_port();
        server.start(port);
        while get_beside(port, "/ready").await.is_none() {
            assert!(server.port().is_some(), "it listens");
        }
        let reply = tokio::spawn(get_beside(port, "/networkstats?nid=net1"));
        let request = requests.recv().await.expect("the request");
        server.stop();
        until_free(port).await;
        answer(request);
        assert_eq!(
            reply.await.expect("no panic").as_deref(),
            Some("OK\nentries: 3, qlen: 1\n")
        );
    });
}
