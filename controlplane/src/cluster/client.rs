//! Asking the manager, from another node.

use super::authority::{MANAGER_NAME, signing_request};
use super::tls::{MISMATCH, PinnedAuthority, TlsError, joiner_config, member_config};
use super::{
    HOLD, JoinAnswer, JoinCall, JoinToken, KeysAnswer, KeysCall, MAX_BODY, RefusalAnswer, SettingsAnswer, SettingsCall,
};
use crate::daemon::{Refused, RefusedKind};
use crate::store::Identity;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request as HttpRequest, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{ServerName, UnixTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use weft_core::cluster::keys::KeySet;
use weft_core::cluster::settings::Settings;
use weft_core::cluster::{Reply, Request};

/// A request that takes longer found no manager: everything it decides takes milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the manager as a member of its cluster.
#[derive(Debug)]
pub struct ManagerClient {
    manager: String,
    tls: Arc<ClientConfig>,
}

impl ManagerClient {
    /// A client that trusts this identity's authority.
    pub fn new(identity: &Identity) -> Result<ManagerClient, TlsError> {
        Ok(ManagerClient {
            manager: identity.manager.clone(),
            tls: Arc::new(member_config(identity)?),
        })
    }

    /// Asks, and waits for the answer. A connection a request: they are rare, and none can go stale.
    pub async fn request(&self, request: &Request) -> Result<Reply, Refused> {
        call(&self.manager, &self.tls, "/v1/request", request, REQUEST_TIMEOUT).await
    }

    /// Acknowledges the gossip keys of this version, and waits for others; nothing if there are none for a while.
    pub async fn keys(&self, applied: Option<u64>) -> Result<Option<KeySet>, Refused> {
        let patience = HOLD + REQUEST_TIMEOUT;
        let answer: KeysAnswer = call(&self.manager, &self.tls, "/v1/keys", &KeysCall { applied }, patience).await?;
        Ok(answer.keys)
    }

    /// Waits for other settings of services than those of this version; nothing if there are none for a while.
    pub async fn settings(&self, version: Option<u64>) -> Result<Option<Settings>, Refused> {
        let patience = HOLD + REQUEST_TIMEOUT;
        let call_body = SettingsCall { version };
        let answer: SettingsAnswer = call(&self.manager, &self.tls, "/v1/settings", &call_body, patience).await?;
        Ok(answer.settings)
    }
}

/// What a join brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// This node's place in the cluster.
    pub identity: Identity,
    /// The keys of its gossip.
    pub keys: KeySet,
}

/// Joins the cluster that the token is for: what the node needs to be a member.
pub async fn join(
    token: &str,
    manager: &str,
    default_port: u16,
    name: &str,
    address: IpAddr,
) -> Result<Joined, Refused> {
    let token: JoinToken = token
        .parse()
        .map_err(|error: super::TokenError| refused(RefusedKind::Invalid, error.to_string()))?;
    let manager = with_port(manager, default_port)?;
    let (csr, key_pem) = signing_request(name).map_err(|error| refused(RefusedKind::Failed, error.to_string()))?;
    let pin = Arc::new(PinnedAuthority::new(token.digest));
    let tls = Arc::new(joiner_config(&pin).map_err(|error| refused(RefusedKind::Failed, error.to_string()))?);
    let joining = JoinCall {
        secret: token.secret,
        name: name.to_owned(),
        address,
        csr,
    };
    let answer: JoinAnswer = call(&manager, &tls, "/v1/join", &joining, REQUEST_TIMEOUT).await?;
    let Some(authority) = pin.certificate() else {
        return Err(refused(
            RefusedKind::Failed,
            format!("manager {manager} showed no certificate"),
        ));
    };
    let gossip_peers = answer
        .gossip
        .iter()
        .filter_map(|peer| peer.parse::<SocketAddr>().ok())
        .collect();
    let identity = Identity {
        node_name: name.to_owned(),
        member_id: answer.member.id,
        manager,
        ca_pem: pem(&authority),
        certificate_pem: answer.certificate,
        key_pem,
        gossip_peers,
    };
    Ok(Joined {
        identity,
        keys: answer.keys,
    })
}

/// Where to connect to: what the user named, with a port. IPv6 addresses may come with brackets or, without a port, bare.
pub(crate) fn with_port(manager: &str, default_port: u16) -> Result<String, Refused> {
    let bare = manager
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(manager);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, default_port).to_string());
    }
    if let Ok(address) = manager.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    let (host, port) = match manager.split_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)),
        None => (manager, Some(default_port)),
    };
    let is_name = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    match port {
        Some(port) if is_name => Ok(format!("{host}:{port}")),
        _ => Err(refused(
            RefusedKind::Invalid,
            format!(
                "manager {manager:?} is not valid: HOST or HOST:PORT is wanted, as 192.0.2.1:2377 or [2001:db8::1]:2377"
            ),
        )),
    }
}

/// RFC 7468: base64 in lines of 64 characters.
fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

async fn call<T: DeserializeOwned>(
    manager: &str,
    tls: &Arc<ClientConfig>,
    path: &str,
    body: &impl Serialize,
    patience: Duration,
) -> Result<T, Refused> {
    let body = serde_json::to_vec(body).map_err(|error| refused(RefusedKind::Failed, error.to_string()))?;
    let exchange = timeout(patience, exchange(manager, Arc::clone(tls), path, body)).await;
    let (status, answer) =
        exchange.unwrap_or_else(|_| Err(away(manager, &format!("no answer within {} s", patience.as_secs()))))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&answer).map_err(|error| {
            refused(
                RefusedKind::Failed,
                format!("manager {manager} answered what is not understood here: {error}"),
            )
        });
    }
    let message = serde_json::from_slice::<RefusalAnswer>(&answer).map_or_else(
        |_| format!("manager {manager} answered {status}"),
        |refusal| refusal.message,
    );
    Err(refused(RefusedKind::from_status(status.as_u16()), message))
}

async fn exchange(
    manager: &str,
    tls: Arc<ClientConfig>,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), Refused> {
    let tcp = TcpStream::connect(manager)
        .await
        .map_err(|error| away(manager, &error.to_string()))?;
    let name = ServerName::try_from(MANAGER_NAME).map_err(|error| refused(RefusedKind::Failed, error.to_string()))?;
    let tls = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| handshake_failed(manager, &error, &error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
        .await
        .map_err(|error| away(manager, &error.to_string()))?;
    let mut driver = tokio::spawn(connection);
    let outcome = async {
        let request = HttpRequest::post(path)
            .header("host", MANAGER_NAME)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| refused(RefusedKind::Failed, error.to_string()))?;
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                // The connection may have ended before the request went out: then it knows why.
                let ended = if error.is_canceled() {
                    (&mut driver).await.ok().and_then(Result::err)
                } else {
                    None
                };
                let cause = ended.unwrap_or(error);
                return Err(handshake_failed(manager, &cause, &describe(&cause)));
            }
        };
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| away(manager, &error.to_string()))?;
        Ok((status, body.to_bytes()))
    };
    let outcome = outcome.await;
    driver.abort();
    outcome
}

/// With TLS 1.3 a refused client certificate shows only when the answer is read: the cause tells more than hyper's own words.
fn describe(error: &hyper::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn handshake_failed(manager: &str, error: &(dyn Error + 'static), words: &str) -> Refused {
    if words.contains(MISMATCH) {
        let message = format!(
            "manager {manager} is not of the cluster that the join token is for: {MISMATCH}; take the token from `weft cluster join-token` on that manager"
        );
        return refused(RefusedKind::Invalid, message);
    }
    match tls_error(error).and_then(|error| wrong_time(manager, error)) {
        Some(message) => refused(RefusedKind::Unavailable, message),
        None => away(manager, words),
    }
}

/// What TLS said, wherever among the causes it is.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error's source is that of what it wraps, so what it wraps would be passed over.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| wrapped.downcast_ref()) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// One of both certificates is not valid at this time, so a clock is wrong, or the certificate is old.
fn wrong_time(manager: &str, error: &rustls::Error) -> Option<String> {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let (what, limit) = match error {
        rustls::Error::InvalidCertificate(NotValidYet) => ("is not valid yet", None),
        rustls::Error::InvalidCertificate(NotValidYetContext { not_before, .. }) => {
            ("is not valid before", Some(*not_before))
        }
        rustls::Error::InvalidCertificate(Expired) => ("has expired", None),
        rustls::Error::InvalidCertificate(ExpiredContext { not_after, .. }) => ("has expired at", Some(*not_after)),
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired) => {
            return Some(format!(
                "manager {manager} refused this node's certificate: by its clock it has expired, or is not valid yet; compare the clocks of both hosts"
            ));
        }
        _ => return None,
    };
    let limit = limit.map(|limit| format!(" {}", date(limit))).unwrap_or_default();
    let now = date(UnixTime::now());
    Some(format!(
        "the certificate of manager {manager} {what}{limit}, and this host's clock says {now}: set the clock that is wrong"
    ))
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let date = time::OffsetDateTime::from_unix_timestamp(seconds).ok();
    let text = date.and_then(|date| date.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

fn away(manager: &str, error: &str) -> Refused {
    refused(RefusedKind::Unavailable, format!("manager {manager} is away: {error}"))
}

fn refused(kind: RefusedKind, message: String) -> Refused {
    Refused { kind, message }
}

#[cfg(test)]
mod tests;
