//! A member of a real Docker swarm: a worker that runs no containers (`spec/swarm-agent.md`).
//!
//! ```text
//! join.rs       a token becomes an identity                     once
//! agent.rs      a session with one of the managers, for ever    one task, speaks with the daemon by messages
//! session.rs    what happens while a session lives
//! attach.rs     an address on a network
//! ```
//!
//! What the messages mean is decided in the core's `swarm`.

mod agent;
mod attach;
mod certificate;
mod identity;
mod join;
mod rpc;
mod session;
mod tls;
mod token;

pub use agent::{Agent, AgentCommand, Event, Status};
pub use attach::Attached;
pub use identity::{Identity, Joining};
pub use join::join;
pub use token::{JoinToken, TokenError};

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, by the host's clock.
fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A number nobody can foresee. Without randomness from the kernel it is merely always the same.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
