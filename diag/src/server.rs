//! The server: connections on 127.0.0.1, their limits, starting and stopping.

mod dispatch;

use crate::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// The field `component` of all log lines.
const COMPONENT: &str = "diagnostic";

/// Connections at a time; further ones wait in the kernel's backlog. The tool is for one person looking at one node, and each
/// connection may hold an answer of some megabytes.
const MAX_CONNECTIONS: usize = 64;

/// Bytes of request line and headers. An URL may carry the value of an entry, which is at most some kilobytes of base64.
const MAX_HEADER_BYTES: usize = 128 * 1024;

/// How long a client may take to send a request's headers, or stay idle between requests.
const HEADER_TIME_LIMIT: Duration = Duration::from_secs(30);

/// How long a connection may last: more than the slowest request, so that only a client that does not read is cut off.
const CONNECTION_TIME_LIMIT: Duration = Duration::from_secs(600);

/// How long to wait after the kernel refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Sending = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Sends requests to the daemon; cheap to clone.
#[derive(Clone)]
pub struct Ask(Arc<dyn Fn(Request) -> Sending + Send + Sync>);

impl Ask {
    /// `send` hands a request to the daemon, waiting while its queue is full; it says false when the daemon is stopping.
    pub fn new<F, S>(send: F) -> Ask
    where
        F: Fn(Request) -> S + Send + Sync + 'static,
        S: Future<Output = bool> + Send + 'static,
    {
        Ask(Arc::new(move |request| Box::pin(send(request))))
    }

    /// Hands a request to the daemon; false when it is stopping.
    pub(crate) async fn send(&self, request: Request) -> bool {
        (self.0)(request).await
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

/// The diagnostic server as the daemon switches it on and off. Dropping it stops the server.
///
/// It listens on 127.0.0.1 only, without authentication: whoever may connect to loopback ports of the host may change tables.
#[derive(Debug)]
pub struct DiagnosticServer {
    ask: Ask,
    running: Option<Running>,
    /// Ends when the listener of the server before is closed, so that its port is free.
    closing: Option<oneshot::Receiver<()>>,
}

#[derive(Debug)]
struct Running {
    port: u16,
    /// Dropped to stop the server.
    stop: oneshot::Sender<()>,
    closed: oneshot::Receiver<()>,
    task: JoinHandle<()>,
}

impl DiagnosticServer {
    /// A server that is off.
    pub fn new(ask: Ask) -> DiagnosticServer {
        DiagnosticServer {
            ask,
            running: None,
            closing: None,
        }
    }

    /// Starts listening on 127.0.0.1:`port`. Must be called inside a tokio runtime; returns at once.
    ///
    /// That the port is taken turns up later: it is logged, and the server is off again. While it runs, this only logs so:
    /// as in Docker, the port changes by stopping and starting.
    pub fn start(&mut self, port: u16) {
        if self.port().is_some() {
            tracing::info!(component = COMPONENT, "The server is already up and running");
            return;
        }
        tracing::info!(
            component = COMPONENT,
            "Starting the diagnostic server listening on {port} for commands"
        );
        let (stop, stopped) = oneshot::channel();
        let (close, closed) = oneshot::channel();
        let before = self.closing.take();
        let task = tokio::spawn(run(port, self.ask.clone(), before, stopped, close));
        self.running = Some(Running {
            port,
            stop,
            closed,
            task,
        });
    }

    /// Stops listening; returns at once, so that the daemon can answer the requests in flight. The port may be started again.
    pub fn stop(&mut self) {
        let was_enabled = self.port().is_some();
        if let Some(Running { stop, closed, .. }) = self.running.take() {
            drop(stop);
            self.closing = Some(closed);
        }
        if was_enabled {
            tracing::info!(component = COMPONENT, "Disabling the diagnostic server");
        }
    }

    /// The port, while the server is on.
    pub fn port(&self) -> Option<u16> {
        self.running
            .as_ref()
            .filter(|running| !running.task.is_finished())
            .map(|running| running.port)
    }
}

/// Listens and serves until `stopped` ends; drops `closed` as soon as the port is free again.
async fn run(
    port: u16,
    ask: Ask,
    before: Option<oneshot::Receiver<()>>,
    stopped: oneshot::Receiver<()>,
    closed: oneshot::Sender<()>,
) {
    if let Some(before) = before {
        let _ = before.await;
    }
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Ok(listener) => {
            let connections = accept(listener, ask, async { drop(stopped.await) }).await;
            drop(closed);
            connections.finish().await;
        }
        Err(error) => {
            tracing::error!(
                component = COMPONENT,
                "ListenAndServe error: listen tcp 127.0.0.1:{port}: bind: {error}"
            );
        }
    }
}

/// Serves the API on `listener` until `shutdown` ends, then answers what is in flight and returns.
pub async fn serve(listener: TcpListener, ask: Ask, shutdown: impl Future<Output = ()>) {
    accept(listener, ask, shutdown).await.finish().await;
}

/// Open connections, and the word to finish them.
struct Connections {
    tasks: JoinSet<()>,
    finish: watch::Sender<()>,
}

impl Connections {
    /// Answers what is in flight, then closes.
    async fn finish(mut self) {
        drop(self.finish);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Accepts connections until `shutdown` ends, then closes the listener.
async fn accept(listener: TcpListener, ask: Ask, shutdown: impl Future<Output = ()>) -> Connections {
    let (finish, finished) = watch::channel(());
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return Connections { tasks, finish },
            Some(_) = tasks.join_next() => {}
            accepted = listener.accept(), if tasks.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, remote)) => {
                    tasks.spawn(connection(stream, remote, ask.clone(), finished.clone()));
                }
                Err(error) => {
                    tracing::warn!(component = COMPONENT, %error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Answers the requests of one connection.
async fn connection(stream: TcpStream, remote: SocketAddr, ask: Ask, mut finished: watch::Receiver<()>) {
    let service = hyper::service::service_fn(move |request| dispatch::answer(ask.clone(), remote, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_LIMIT)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let serving = async {
        tokio::select! {
            result = connection.as_mut() => return result,
            _ = finished.changed() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match tokio::time::timeout(CONNECTION_TIME_LIMIT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(component = COMPONENT, remoteIP = %remote, %error, "connection ended"),
        Err(_) => tracing::warn!(component = COMPONENT, remoteIP = %remote, "connection cut off: it lasted too long"),
    }
}
