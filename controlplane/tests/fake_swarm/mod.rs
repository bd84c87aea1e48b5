//! A swarm manager in the test's own process: TLS as managers have it, without an answer to ALPN, and gRPC whose calls the test answers.
#![allow(dead_code, clippy::unwrap_used)]

mod daemon;

pub(crate) use daemon::*;

use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use weft_core::swarm::proto::{HeartbeatResponse, Period};

/// How long a call is waited for, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the test answers a call with.
pub(crate) enum Answer {
    /// A message.
    Message(Vec<u8>),
    /// A gRPC error: code and words.
    Error(i32, &'static str),
    /// Messages, until the sender is dropped.
    Stream(mpsc::UnboundedReceiver<Vec<u8>>),
}

/// A call that waits for its answer.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) body: Bytes,
    /// Whether the caller showed a certificate.
    pub(crate) is_member: bool,
    answer: oneshot::Sender<Answer>,
}

impl Call {
    pub(crate) fn request<M: Message + Default>(&self) -> M {
        M::decode(self.body.as_ref()).expect("a message")
    }

    pub(crate) fn answer(self, message: &impl Message) {
        self.send(Answer::Message(message.encode_to_vec()));
    }

    pub(crate) fn refuse(self, code: i32, words: &'static str) {
        self.send(Answer::Error(code, words));
    }

    /// Answers with a stream that begins with this message; more go through the sender.
    pub(crate) fn stream(self, first: &impl Message) -> mpsc::UnboundedSender<Vec<u8>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(first.encode_to_vec()).expect("it is not read yet");
        self.send(Answer::Stream(receiver));
        sender
    }

    fn send(self, answer: Answer) {
        // A caller that went away needs no answer.
        let _ = self.answer.send(answer);
    }
}

/// The manager. Heartbeats are answered by itself, the way [`FakeManager::heartbeats`] says.
pub(crate) struct FakeManager {
    pub(crate) address: SocketAddr,
    pub(crate) root_pem: String,
    authority: Issuer<'static, KeyPair>,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    calls: mpsc::UnboundedReceiver<Call>,
    heartbeats: Arc<Mutex<Option<(i32, &'static str)>>>,
    server: JoinHandle<()>,
}

impl Drop for FakeManager {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeManager {
    pub(crate) async fn start() -> FakeManager {
        let (root, authority) = root();
        let acceptor = acceptor(root.der(), &authority, named("manager1", &MANAGER_NAMES));
        let acceptor = Arc::new(Mutex::new(acceptor));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, calls) = mpsc::unbounded_channel();
        let heartbeats = Arc::new(Mutex::new(None));
        let server = tokio::spawn(serve(listener, Arc::clone(&acceptor), sender, Arc::clone(&heartbeats)));
        FakeManager {
            address,
            root_pem: root.pem(),
            authority,
            acceptor,
            calls,
            heartbeats,
            server,
        }
    }

    /// The root is rotated to its end: its certificate, and this manager's, are new. Returns the new root's key in a certificate of the
    /// old root.
    pub(crate) fn rotate(&mut self) -> String {
        let (root, authority) = root();
        let crossed = ca_params()
            .signed_by(authority.key(), &self.authority)
            .expect("a certificate");
        *self.acceptor.lock().unwrap() = acceptor(root.der(), &authority, named("manager1", &MANAGER_NAMES));
        self.root_pem = root.pem();
        self.authority = authority;
        crossed.pem()
    }

    /// From now on the manager's certificate begins to be valid tomorrow, as for a host whose clock is late.
    pub(crate) fn be_early(&self) {
        let mut params = named("manager1", &MANAGER_NAMES);
        params.not_before = time::OffsetDateTime::now_utc() + time::Duration::DAY;
        let pem = CertificateDer::from_pem_slice(self.root_pem.as_bytes()).expect("a root");
        *self.acceptor.lock().unwrap() = acceptor(&pem, &self.authority, params);
    }

    /// The next call, which must be of this method.
    pub(crate) async fn expect(&mut self, method: &str) -> Call {
        let next = tokio::time::timeout(PATIENCE, self.calls.recv()).await;
        let call = next.unwrap_or_else(|_| panic!("no call of {method}"));
        let call = call.expect("the server runs");
        assert_eq!(call.method, method);
        call
    }

    /// Whether no call waits for an answer.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }

    /// From now on heartbeats fail with this code and these words, or succeed.
    pub(crate) fn heartbeats(&self, failure: Option<(i32, &'static str)>) {
        *self.heartbeats.lock().expect("not poisoned") = failure;
    }

    /// Signs a request as managers do: its key, and all else their own words. `unit` is `swarm-worker` or `swarm-manager`.
    pub(crate) fn issue(&self, csr_pem: &[u8], unit: &str) -> String {
        let csr = std::str::from_utf8(csr_pem).expect("PEM");
        let mut request = CertificateSigningRequestParams::from_pem(csr).expect("a request that rcgen can verify");
        request.params = named("node1", &[unit, "node1"]);
        let name = &mut request.params.distinguished_name;
        name.push(DnType::OrganizationName, "swarm1");
        name.push(DnType::OrganizationalUnitName, unit);
        request.signed_by(&self.authority).expect("a certificate").pem()
    }

    /// A token for this manager's swarm.
    pub(crate) fn token(&self) -> String {
        let mut number: Vec<u8> = Sha256::digest(self.root_pem.as_bytes()).to_vec();
        let mut digits = Vec::new();
        for _ in 0..50 {
            let mut rest = 0_u32;
            for byte in &mut number {
                let value = rest * 256 + u32::from(*byte);
                *byte = u8::try_from(value / 36).expect("below 256");
                rest = value % 36;
            }
            digits.push(char::from_digit(rest, 36).expect("below 36"));
        }
        let digest: String = digits.iter().rev().collect();
        format!("SWMTKN-1-{digest}-{}", "s".repeat(25))
    }
}

/// The names in a manager's certificate.
const MANAGER_NAMES: [&str; 3] = ["swarm-manager", "manager1", "swarm-ca"];

fn ca_params() -> CertificateParams {
    let mut params = named("swarm-ca", &[]);
    params.extended_key_usages.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn root() -> (rcgen::Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let root = ca_params().self_signed(&key).expect("a root");
    (root, Issuer::new(ca_params(), key))
}

fn named(name: &str, alternatives: &[&str]) -> CertificateParams {
    let alternatives: Vec<String> = alternatives.iter().map(|text| (*text).to_owned()).collect();
    let mut params = CertificateParams::new(alternatives).expect("names");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Asks for a certificate, and does without one; offers no protocol of ALPN.
fn acceptor(
    root: &CertificateDer<'static>,
    authority: &Issuer<'static, KeyPair>,
    params: CertificateParams,
) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a chain");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(
    listener: TcpListener,
    acceptor: Arc<Mutex<TlsAcceptor>>,
    calls: mpsc::UnboundedSender<Call>,
    heartbeats: Arc<Mutex<Option<(i32, &'static str)>>>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let acceptor = acceptor.lock().unwrap().clone();
        let (calls, heartbeats) = (calls.clone(), Arc::clone(&heartbeats));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let is_member = tls.get_ref().1.peer_certificates().is_some();
            let handle = service_fn(move |request| handle(request, is_member, calls.clone(), Arc::clone(&heartbeats)));
            // A connection ends as its caller likes.
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), handle)
                .await;
        });
    }
}

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn handle(
    request: Request<Incoming>,
    is_member: bool,
    calls: mpsc::UnboundedSender<Call>,
    heartbeats: Arc<Mutex<Option<(i32, &'static str)>>>,
) -> Result<Reply, hyper::Error> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await?.to_bytes();
    if method == "Heartbeat" {
        let failure = *heartbeats.lock().expect("not poisoned");
        let period = Some(Period {
            seconds: 0,
            nanos: 50_000_000,
        });
        return Ok(reply(match failure {
            Some((code, words)) => Answer::Error(code, words),
            None => Answer::Message(HeartbeatResponse { period }.encode_to_vec()),
        }));
    }
    let (answer, answered) = oneshot::channel();
    let call = Call {
        method,
        // gRPC's frame: whether it is compressed, and how long it is.
        body: body.slice(5..),
        is_member,
        answer,
    };
    let _ = calls.send(call);
    Ok(reply(answered.await.unwrap_or(Answer::Error(14, "the test ended"))))
}

fn reply(answer: Answer) -> Reply {
    let body = match answer {
        Answer::Message(message) => {
            let frames = [Ok(Frame::data(framed(&message))), Ok(Frame::trailers(status(0, "")))];
            StreamBody::new(stream::iter(frames)).boxed_unsync()
        }
        Answer::Error(code, words) => {
            StreamBody::new(stream::iter([Ok(Frame::trailers(status(code, words)))])).boxed_unsync()
        }
        Answer::Stream(messages) => StreamBody::new(stream::unfold(Some(messages), next_frame)).boxed_unsync(),
    };
    let builder = Response::builder().header("content-type", "application/grpc");
    builder.body(body).expect("a response")
}

type Messages = mpsc::UnboundedReceiver<Vec<u8>>;

async fn next_frame(messages: Option<Messages>) -> Option<(Result<Frame<Bytes>, Infallible>, Option<Messages>)> {
    let mut messages = messages?;
    Some(match messages.recv().await {
        Some(message) => (Ok(Frame::data(framed(&message))), Some(messages)),
        None => (Ok(Frame::trailers(status(0, ""))), None),
    })
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a short message");
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

fn status(code: i32, words: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", hyper::header::HeaderValue::from_static(words));
    trailers
}
