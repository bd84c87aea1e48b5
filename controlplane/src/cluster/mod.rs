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
use weft_core::cluster::settings::Settings;

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

/// What it gets, when there is another set or after [`HOLD`].
#[derive(Debug, Serialize, Deserialize)]
struct KeysAnswer {
    keys: Option<KeySet>,
}

/// How long a request for what is not known yet is held. A manager whose host died shows by its silence only, so not for
/// ever.
const HOLD: Duration = Duration::from_secs(45);

/// What a member sends to `/v1/settings`: the version of the settings that it publishes; nothing at first.
#[derive(Debug, Serialize, Deserialize)]
struct SettingsCall {
    version: Option<u64>,
}

/// What it gets, when there are others or after [`HOLD`].
#[derive(Debug, Serialize, Deserialize)]
struct SettingsAnswer {
    settings: Option<Settings>,
}

/// A refusal on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct RefusalAnswer {
    message: String,
}

/// A list of all allocations of a large cluster is some megabytes; anything beyond this is no answer of ours.
const MAX_BODY: usize = 64 << 20;
