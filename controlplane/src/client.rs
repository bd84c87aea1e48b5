//! Talking to a daemon's API over its unix socket, for the command line and for tests.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// The lists of a large cluster are some megabytes.
const MAX_BODY: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("Cannot connect to the weft daemon at unix://{socket}: {source}. Is weftd running?")]
    Connect {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The daemon's words.
        message: String,
    },
    /// Something else answered, or the daemon ended meanwhile.
    #[error("unix://{socket}: {message}")]
    Broken {
        /// Where.
        socket: PathBuf,
        /// What happened.
        message: String,
    },
}

/// A daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Names the socket; the first request connects.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into() }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.call(Method::GET, path, None).await?;
        self.parse(&body)
    }

    /// `POST` with an answer.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let answer = self.call(Method::POST, path, Some(self.json(body)?)).await?;
        self.parse(&answer)
    }

    /// `POST` without an answer.
    pub async fn tell(&self, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.call(Method::POST, path, Some(self.json(body)?)).await.map(drop)
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    fn json(&self, body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
        serde_json::to_vec(body).map_err(|error| self.broken(error))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.broken(format!("the answer is not understood: {error}")))
    }

    fn broken(&self, error: impl ToString) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            message: error.to_string(),
        }
    }

    /// `POST` with an answer that comes piece by piece.
    pub async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Streamed, ClientError> {
        let (response, driver) = self.send(Method::POST, path, Some(self.json(body)?)).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(status, &self.whole(response).await?));
        }
        Ok(Streamed {
            client: self.clone(),
            body: response.into_body(),
            _driver: driver,
        })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, ClientError> {
        let (response, _driver) = self.send(method, path, body).await?;
        let status = response.status();
        let body = self.whole(response).await?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(refusal(status, &body))
        }
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok(body.map_err(|error| self.broken(error))?.to_bytes())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(Response<Incoming>, Driver), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect {
                socket: self.socket.clone(),
                source,
            })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        let driver = Driver(tokio::spawn(connection));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "weft")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| self.broken(error))?;
        let response = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        Ok((response, driver))
    }
}

/// Drives a connection until it is dropped.
#[derive(Debug)]
struct Driver(JoinHandle<Result<(), hyper::Error>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that comes piece by piece.
#[derive(Debug)]
pub struct Streamed {
    client: Client,
    body: Incoming,
    _driver: Driver,
}

impl Streamed {
    /// The next piece; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.client.broken(error))?;
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let message = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    ClientError::Refused {
        status: status.as_u16(),
        message,
    }
}

/// A text as one segment of a path (RFC 3986 section 2.1): everything but unreserved characters is escaped.
pub fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
