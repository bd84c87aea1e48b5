//! One connection to a manager, and the calls that a worker may make on it (`spec/swarm-agent.md` 8.3, 8.5).
//!
//! TLS is done here, because tonic's insists on a protocol negotiation that older managers do not answer. HTTP/2 keep-alive pings are
//! off: managers close a connection that pings more often than every five minutes; heartbeats tell whether it lives.

use hyper_util::rt::TokioIo;
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;
use weft_core::swarm::proto;

/// For a connection, a call, and the first message of a session: as Docker's own agent has it.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no connection: one line.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody answers there.
    #[error("{0}")]
    Unreachable(#[source] std::io::Error),
    /// It takes too long.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The manager's certificate is of no trusted root.
    #[error("its certificate is not of this swarm: {0}")]
    Untrusted(rustls::Error),
    /// The manager's certificate is of another time.
    #[error("its certificate is not valid at this host's time, so one of the two clocks is wrong: {0}")]
    Clock(rustls::Error),
    /// Something else than a manager answers.
    #[error("no swarm manager answers there: {0}")]
    Handshake(String),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct CallError {
    /// gRPC's code.
    pub code: i32,
    /// The manager's words, or what happened to the connection.
    pub message: String,
}

impl From<Status> for CallError {
    fn from(status: Status) -> CallError {
        // What happened to a connection is told by the innermost cause.
        let mut message = status.message().to_owned();
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&status);
        while let Some(error) = cause {
            message = error.to_string();
            cause = error.source();
        }
        CallError {
            code: status.code().into(),
            message,
        }
    }
}

/// A connection. Clones share it; it is closed with the last.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    channel: Channel,
}

impl Connection {
    /// Connects to a manager whose certificate must be of this name.
    pub(super) async fn open(
        address: &str,
        tls: Arc<ClientConfig>,
        name: &'static str,
    ) -> Result<Connection, ConnectError> {
        timeout(DEADLINE, connect(address, tls, name))
            .await
            .unwrap_or(Err(ConnectError::Deadline))
    }

    pub(super) async fn root_certificate(&self) -> Result<Vec<u8>, CallError> {
        let answer: proto::GetRootCaCertificateResponse = self
            .call(
                "/docker.swarmkit.v1.CA/GetRootCACertificate",
                proto::GetRootCaCertificateRequest {},
            )
            .await?;
        Ok(answer.certificate)
    }

    /// A node is made, or its certificate renewed; its id.
    pub(super) async fn issue(&self, request: proto::IssueNodeCertificateRequest) -> Result<String, CallError> {
        let answer: proto::IssueNodeCertificateResponse = self
            .call("/docker.swarmkit.v1.NodeCA/IssueNodeCertificate", request)
            .await?;
        Ok(answer.node_id)
    }

    /// Waits until the certificate is issued or refused, or the deadline.
    pub(super) async fn certificate_status(
        &self,
        node_id: &str,
    ) -> Result<proto::NodeCertificateStatusResponse, CallError> {
        let request = proto::NodeCertificateStatusRequest {
            node_id: node_id.to_owned(),
        };
        self.call("/docker.swarmkit.v1.NodeCA/NodeCertificateStatus", request)
            .await
    }

    /// Registers the node; the first message comes soon, or the session is dead.
    pub(super) async fn session(
        &self,
        request: proto::SessionRequest,
    ) -> Result<(proto::SessionMessage, Streaming<proto::SessionMessage>), CallError> {
        let begin = async {
            let mut stream = self.stream("/docker.swarmkit.v1.Dispatcher/Session", request).await?;
            match stream.message().await? {
                Some(first) => Ok((first, stream)),
                None => Err(ended("the session ended before it began")),
            }
        };
        timeout(DEADLINE, begin).await.unwrap_or_else(|_| Err(late()))
    }

    /// When the next one is due.
    pub(super) async fn heartbeat(&self, session_id: &str) -> Result<Duration, CallError> {
        let request = proto::HeartbeatRequest {
            session_id: session_id.to_owned(),
        };
        let answer: proto::HeartbeatResponse = self.call("/docker.swarmkit.v1.Dispatcher/Heartbeat", request).await?;
        let period = answer.period.unwrap_or_default();
        let seconds = u64::try_from(period.seconds).unwrap_or(0);
        Ok(Duration::new(seconds, u32::try_from(period.nanos).unwrap_or(0)))
    }

    pub(super) async fn assignments(
        &self,
        session_id: &str,
    ) -> Result<Streaming<proto::AssignmentsMessage>, CallError> {
        let request = proto::AssignmentsRequest {
            session_id: session_id.to_owned(),
        };
        let begin = self.stream("/docker.swarmkit.v1.Dispatcher/Assignments", request);
        timeout(DEADLINE, begin).await.unwrap_or_else(|_| Err(late()))
    }

    pub(super) async fn update_tasks(&self, request: proto::UpdateTaskStatusRequest) -> Result<(), CallError> {
        let done: Result<proto::Empty, CallError> = self
            .call("/docker.swarmkit.v1.Dispatcher/UpdateTaskStatus", request)
            .await;
        done.map(drop)
    }

    /// Id of the task that holds the address.
    pub(super) async fn attach(&self, request: proto::AttachNetworkRequest) -> Result<String, CallError> {
        let answer: proto::AttachNetworkResponse = self
            .call("/docker.swarmkit.v1.ResourceAllocator/AttachNetwork", request)
            .await?;
        Ok(answer.attachment_id)
    }

    /// Gives an address back; one that is not there any more is given back.
    pub(super) async fn detach(&self, attachment_id: &str) -> Result<(), CallError> {
        let request = proto::DetachNetworkRequest {
            attachment_id: attachment_id.to_owned(),
        };
        let done: Result<proto::Empty, CallError> = self
            .call("/docker.swarmkit.v1.ResourceAllocator/DetachNetwork", request)
            .await;
        match done {
            Err(error) if error.code != i32::from(Code::NotFound) => Err(error),
            _ => Ok(()),
        }
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut client = self.client();
        let call = async {
            client.ready().await.map_err(|error| ended(&innermost(&error)))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = client
                .unary(Request::new(request), PathAndQuery::from_static(path), codec)
                .await?;
            Ok(answer.into_inner())
        };
        timeout(DEADLINE, call).await.unwrap_or_else(|_| Err(late()))
    }

    async fn stream<Q, A>(&self, path: &'static str, request: Q) -> Result<Streaming<A>, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut client = self.client();
        client.ready().await.map_err(|error| ended(&innermost(&error)))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = client
            .server_streaming(Request::new(request), PathAndQuery::from_static(path), codec)
            .await?;
        Ok(answer.into_inner())
    }

    fn client(&self) -> tonic::client::Grpc<Channel> {
        // All assignments of a node come in one message, however large.
        tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }
}

async fn connect(address: &str, tls: Arc<ClientConfig>, name: &'static str) -> Result<Connection, ConnectError> {
    let tcp = TcpStream::connect(address).await.map_err(ConnectError::Unreachable)?;
    tcp.set_nodelay(true).map_err(ConnectError::Unreachable)?;
    let name = ServerName::try_from(name).map_err(|error| ConnectError::Handshake(error.to_string()))?;
    let stream = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(|error| handshake_failed(&error))?;
    // The channel asks for a connection once; when this one ends, so does the channel.
    let mut only = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = only.take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection ended")) }
    });
    let channel = Endpoint::from_static("http://swarm-manager")
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConnectError::Handshake(innermost(&error)))?;
    Ok(Connection { channel })
}

fn handshake_failed(error: &std::io::Error) -> ConnectError {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(
            time @ rustls::Error::InvalidCertificate(
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
            ),
        ) => ConnectError::Clock(time.clone()),
        Some(untrusted @ rustls::Error::InvalidCertificate(_)) => ConnectError::Untrusted(untrusted.clone()),
        _ => ConnectError::Handshake(error.to_string()),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn ended(message: &str) -> CallError {
    CallError {
        code: Code::Unavailable.into(),
        message: message.to_owned(),
    }
}

fn late() -> CallError {
    CallError {
        code: Code::DeadlineExceeded.into(),
        message: format!("no answer within {} s", DEADLINE.as_secs()),
    }
}
