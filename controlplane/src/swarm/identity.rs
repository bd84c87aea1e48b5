//! What a node keeps of its place in a swarm; the store holds it, for root only.

use serde::{Deserialize, Serialize};
use std::fmt;
use weft_core::swarm::keys::GossipKey;
use weft_core::swarm::proto::Peer;

/// A node of a swarm.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// 25 characters.
    pub node_id: String,
    /// 25 characters.
    pub cluster_id: String,
    /// Its private key, PEM.
    pub key_pem: String,
    /// Its certificate and, while the root is rotated, an intermediate one, PEM.
    pub certificate_pem: String,
    /// The trusted certificates, PEM.
    pub root_pem: String,
    /// The managers as told last.
    pub managers: Vec<Peer>,
    /// The gossip's keys as told last, oldest first: with them the gossip goes on while no manager is there.
    pub keys: Vec<GossipKey>,
}

/// A join on its way. Each accepted request makes a node in the swarm, so one that was cut short is gone on with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// Digest of the token that it was begun with, hex.
    pub digest: String,
    /// The signing request, PEM.
    pub csr_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
    /// The node that was made, once it is known.
    pub node_id: Option<String>,
}

/// The keys are no reader's business.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {})", self.node_id, self.cluster_id)
    }
}

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Joining({})", self.node_id.as_deref().unwrap_or("not yet a node"))
    }
}
