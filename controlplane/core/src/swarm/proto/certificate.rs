//! `CA` and `NodeCA`: what to trust, and a certificate for this node.

use prost::Message;

/// `CA.GetRootCACertificate` asks for nothing.
#[derive(Clone, PartialEq, Message)]
pub struct GetRootCaCertificateRequest {}

/// The certificates to trust.
#[derive(Clone, PartialEq, Message)]
pub struct GetRootCaCertificateResponse {
    /// PEM; the join token holds the digest of exactly these bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub certificate: Vec<u8>,
}

/// `NodeCA.IssueNodeCertificate`: with a token it makes a node, without one it renews the certificate of the connection.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub struct IssueNodeCertificateRequest {
    /// Signing request, PEM.
    #[prost(bytes = "vec", tag = "2")]
    pub csr: Vec<u8>,
    /// The whole join token.
    #[prost(string, tag = "3")]
    pub token: String,
    /// One of [`availability`]; heard only with a token.
    #[prost(int32, tag = "4")]
    pub availability: i32,
}

/// Whether tasks may be placed on a node.
pub mod availability {
    /// Yes.
    pub const ACTIVE: i32 = 0;
    /// None is, and those that run are moved away.
    pub const DRAIN: i32 = 2;
}

/// Whose certificate will be issued.
#[derive(Clone, PartialEq, Message)]
pub struct IssueNodeCertificateResponse {
    /// 25 characters.
    #[prost(string, tag = "1")]
    pub node_id: String,
}

/// `NodeCA.NodeCertificateStatus`: answered when the certificate is issued or refused.
#[derive(Clone, PartialEq, Message)]
pub struct NodeCertificateStatusRequest {
    /// The node.
    #[prost(string, tag = "1")]
    pub node_id: String,
}

/// How the issuing ended.
#[derive(Clone, PartialEq, Message)]
pub struct NodeCertificateStatusResponse {
    /// Its state.
    #[prost(message, optional, tag = "1")]
    pub status: Option<IssuanceStatus>,
    /// What was issued.
    #[prost(message, optional, tag = "2")]
    pub certificate: Option<Certificate>,
}

/// State of a certificate.
#[derive(Clone, PartialEq, Message)]
pub struct IssuanceStatus {
    /// One of [`issuance`].
    #[prost(int32, tag = "1")]
    pub state: i32,
    /// Why it failed.
    #[prost(string, tag = "2")]
    pub err: String,
}

/// States of an issuance.
pub mod issuance {
    /// The certificate is there.
    pub const ISSUED: i32 = 3;
    /// It was refused.
    pub const FAILED: i32 = 4;
    /// The root is being rotated: a new one is to be asked for.
    pub const ROTATE: i32 = 5;
}

/// A node's certificate, as the managers hold it.
#[derive(Clone, PartialEq, Message)]
pub struct Certificate {
    /// One of [`role`].
    #[prost(int32, tag = "1")]
    pub role: i32,
    /// The signing request that it answers, PEM.
    #[prost(bytes = "vec", tag = "2")]
    pub csr: Vec<u8>,
    /// Its state.
    #[prost(message, optional, tag = "3")]
    pub status: Option<IssuanceStatus>,
    /// The chain, PEM.
    #[prost(bytes = "vec", tag = "4")]
    pub certificate: Vec<u8>,
}

/// Roles of a node.
pub mod role {
    /// Runs tasks.
    pub const WORKER: i32 = 0;
    /// Holds the swarm's state.
    pub const MANAGER: i32 = 1;
}

impl std::fmt::Debug for IssueNodeCertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssueNodeCertificateRequest")
    }
}
