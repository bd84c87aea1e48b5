//! Between the nodes of a cluster: the join token, the authority that signs certificates, and TLS to the manager.

mod authority;
pub mod client;
pub mod server;
mod tls;
pub(crate) mod token;

pub use authority::{Authority, CertificateError, der};
pub use token::{JoinToken, TokenError};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;
use weft_core::cluster::Member;
use weft_core::cluster::keys::KeySet;

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
    keys: KeySet,
}

/// What a member sends to `/v1/keys`: the version of the keys that it uses.
#[derive(Debug, Serialize, Deserialize)]
struct KeysCall {
    applied: Option<u64>,
}

/// What it gets, when there is another set or after [`KEYS_HOLD`].
#[derive(Debug, Serialize, Deserialize)]
struct KeysAnswer {
    keys: Option<KeySet>,
}

/// How long a request for other keys than the applied ones is held. A manager whose host died shows by its silence only, so not for
/// ever.
const KEYS_HOLD: Duration = Duration::from_secs(45);

/// A refusal on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct RefusalAnswer {
    message: String,
}

/// A list of all allocations of a large cluster is some megabytes; anything beyond this is no answer of ours.
const MAX_BODY: usize = 64 << 20;
