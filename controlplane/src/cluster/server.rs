//! The manager's ear: TLS on the cluster port.

use super::authority::node_name;
use super::tls::{TlsError, server_config};
use super::{HOLD, JoinAnswer, JoinCall, KeysAnswer, KeysCall, MAX_BODY, RefusalAnswer, SettingsAnswer, SettingsCall};
use crate::daemon::{Command, Handle, KeysCommand, Refused, RefusedKind, SettingsCommand};
use crate::store::Identity;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use weft_core::cluster::MAX_MEMBERS;

/// Connections served at once: every member holds two, waiting for new gossip keys and for new settings of services; beside that they
/// ask rarely and briefly.
const MAX_CONNECTIONS: usize = 2 * MAX_MEMBERS + 256;

/// Who does not get through the handshake in this time does not get in.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who does not send a request in this time is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests are small.
const MAX_REQUEST: usize = 1 << 20;
const _: () = assert!(MAX_REQUEST < MAX_BODY);

/// Binds the cluster port; the error names it.
pub fn bind(listen: SocketAddr) -> Result<TcpListener, String> {
    let bound = std::net::TcpListener::bind(listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("cluster-port: TCP {listen} is in use; stop the other program or choose another cluster-port or listen-addr")
        }
        _ => format!("cannot listen on TCP {listen} for the cluster: {error}"),
    })
}

/// Prepares TLS with the manager's identity.
pub fn acceptor(identity: &Identity) -> Result<TlsAcceptor, TlsError> {
    Ok(TlsAcceptor::from(Arc::new(server_config(identity)?)))
}

/// Serves nodes until the task is aborted.
pub async fn serve(listener: TcpListener, acceptor: TlsAcceptor, handle: Handle) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cluster connection not accepted");
                // Out of file descriptors, say: accepting again at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let acceptor = acceptor.clone();
        let handle = handle.clone();
        tokio::spawn(async move {
            let _permit = permit;
            connection(tcp, from, acceptor, handle).await;
        });
    }
}

async fn connection(tcp: TcpStream, from: SocketAddr, acceptor: TlsAcceptor, handle: Handle) {
    let tls = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "cluster handshake");
            return;
        }
        Err(_) => {
            tracing::debug!(%from, "cluster handshake timed out");
            return;
        }
    };
    let node = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(node_name);
    let service = service_fn(move |request| {
        let handle = handle.clone();
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(request, node, &handle).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(tls), service).await {
        tracing::debug!(%from, %error, "cluster connection");
    }
}

async fn answer(request: HttpRequest<Incoming>, node: Option<String>, handle: &Handle) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let outcome = match (path.as_str(), node) {
        ("/v1/join", _) => admit(request, handle).await.and_then(|admission| json(&admission)),
        ("/v1/request", Some(node)) => forward(request, node, handle).await.and_then(|reply| json(&reply)),
        ("/v1/keys", Some(node)) => keys(request, node, handle).await.and_then(|answer| json(&answer)),
        ("/v1/settings", Some(node)) => settings(request, node, handle).await.and_then(|answer| json(&answer)),
        ("/v1/request" | "/v1/keys" | "/v1/settings", None) => Err(invalid(
            "a certificate of this cluster is wanted; join it first".to_owned(),
        )),
        _ => Err(Refused {
            kind: RefusedKind::NotFound,
            message: format!("{path}: no such path"),
        }),
    };
    let (status, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(refused) => {
            let status = StatusCode::from_u16(refused.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (
                status,
                serde_json::to_vec(&RefusalAnswer {
                    message: refused.message,
                })
                .unwrap_or_default(),
            )
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

async fn admit(request: HttpRequest<Incoming>, handle: &Handle) -> Result<JoinAnswer, Refused> {
    let JoinCall {
        secret,
        name,
        address,
        csr,
    } = body(request).await?;
    let admission = handle
        .ask(|reply| Command::Admit {
            secret,
            name,
            address,
            csr,
            reply,
        })
        .await
        .unwrap_or_else(|| Err(stopping()))?;
    Ok(JoinAnswer {
        certificate: admission.certificate,
        gossip: admission.gossip,
        member: admission.member,
        keys: admission.keys,
    })
}

/// Waits for other keys than the applied ones, for a while.
async fn keys(request: HttpRequest<Incoming>, node: String, handle: &Handle) -> Result<KeysAnswer, Refused> {
    let KeysCall { applied } = body(request).await?;
    let asked = handle.ask(|reply| Command::Keys(KeysCommand::Follow { node, applied, reply }));
    match timeout(HOLD, asked).await {
        Ok(Some(outcome)) => outcome.map(|keys| KeysAnswer { keys: Some(keys) }),
        Ok(None) => Err(stopping()),
        Err(_) => Ok(KeysAnswer { keys: None }),
    }
}

/// Waits for other settings of services than those of the version, for a while.
async fn settings(request: HttpRequest<Incoming>, node: String, handle: &Handle) -> Result<SettingsAnswer, Refused> {
    let SettingsCall { version } = body(request).await?;
    let follow = |reply| SettingsCommand::Follow { node, version, reply };
    let asked = handle.ask(|reply| Command::Settings(follow(reply)));
    match timeout(HOLD, asked).await {
        Ok(Some(outcome)) => outcome.map(|settings| SettingsAnswer {
            settings: Some(settings),
        }),
        Ok(None) => Err(stopping()),
        Err(_) => Ok(SettingsAnswer { settings: None }),
    }
}

async fn forward(
    request: HttpRequest<Incoming>,
    node: String,
    handle: &Handle,
) -> Result<weft_core::cluster::Reply, Refused> {
    let request = body(request).await?;
    handle
        .ask(|reply| Command::FromNode { node, request, reply })
        .await
        .unwrap_or_else(|| Err(stopping()))
}

async fn body<T: DeserializeOwned>(request: HttpRequest<Incoming>) -> Result<T, Refused> {
    let bytes = timeout(HEADER_TIMEOUT, Limited::new(request.into_body(), MAX_REQUEST).collect())
        .await
        .map_err(|_| invalid("the request did not arrive in time".to_owned()))?
        .map_err(|error| invalid(format!("the request could not be read: {error}")))?;
    serde_json::from_slice(&bytes.to_bytes())
        .map_err(|error| invalid(format!("the request is not understood: {error}")))
}

fn json(answer: &impl Serialize) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(answer).map_err(|error| Refused {
        kind: RefusedKind::Failed,
        message: error.to_string(),
    })
}

fn invalid(message: String) -> Refused {
    Refused {
        kind: RefusedKind::Invalid,
        message,
    }
}

fn stopping() -> Refused {
    Refused {
        kind: RefusedKind::Unavailable,
        message: "the manager is stopping".to_owned(),
    }
}
