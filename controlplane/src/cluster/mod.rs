//! Between the nodes of a cluster: the join token, the authority that signs certificates, and TLS to the manager.

mod authority;
pub mod client;
pub mod server;
mod tls;
mod token;

pub use authority::{Authority, CertificateError, der};
pub use token::{JoinToken, TokenError};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use weft_core::cluster::Member;

/// What a joining node sends to `/v1/join`.
#[derive(Debug, Serialize, Deserialize)]
struct JoinCall {
    secret: String,
    name: String,
    address: IpAddr,
    csr: String,
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
struct JoinAnswer {
    certificate: String,
    gossip: Vec<String>,
    member: Member,
}

/// A refusal on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct RefusalAnswer {
    message: String,
}

/// A list of all allocations of a large cluster is some megabytes; anything beyond this is no answer of ours.
const MAX_BODY: usize = 64 << 20;
