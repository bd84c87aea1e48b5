//! What a node of a Docker swarm keeps, in `node.redb` with the rest.

use super::file::Write;
use super::{NodeStore, StoreError};
use crate::swarm::{Identity, Joining};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use weft_core::id::EndpointId;
use weft_core::swarm::asked::Asked;

const IDENTITY: &str = "swarm-identity";
const JOINING: &str = "swarm-joining";
const ATTACHMENT: &str = "swarm-attachment";
const ASKED: &str = "swarm-asked";
const PEERS: &str = "swarm-peers";
/// There is one of these.
const ONLY: &str = "own";

/// An address that the swarm's managers hold for an endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAttachment {
    /// For whom.
    pub endpoint: EndpointId,
    /// The managers' id for it.
    pub id: String,
    /// The managers list it among this node's tasks.
    pub delivered: bool,
}

impl NodeStore {
    /// This node's place in a swarm, if it is in one.
    pub fn swarm_identity(&self) -> Result<Option<Identity>, StoreError> {
        Ok(self.file.rows(IDENTITY)?.pop())
    }

    /// Writes it; a join on its way has ended with that.
    pub fn put_swarm_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        let put = self.put(format!("{IDENTITY}/{ONLY}"), identity)?;
        self.file.write(&[put, Write::RemoveKind(JOINING)])
    }

    /// A join that was cut short.
    pub fn swarm_joining(&self) -> Result<Option<Joining>, StoreError> {
        Ok(self.file.rows(JOINING)?.pop())
    }

    /// Writes it, or forgets it.
    pub fn put_swarm_joining(&self, joining: Option<&Joining>) -> Result<(), StoreError> {
        let write = match joining {
            Some(joining) => self.put(format!("{JOINING}/{ONLY}"), joining)?,
            None => Write::RemoveKind(JOINING),
        };
        self.file.write(&[write])
    }

    /// The addresses that are held for this node's endpoints.
    pub fn swarm_attachments(&self) -> Result<Vec<StoredAttachment>, StoreError> {
        self.file.rows(ATTACHMENT)
    }

    /// Remembers one.
    pub fn put_swarm_attachment(&self, attachment: &StoredAttachment) -> Result<(), StoreError> {
        let put = self.put(format!("{ATTACHMENT}/{}", attachment.endpoint), attachment)?;
        self.file.write(&[put])
    }

    /// Forgets one.
    pub fn remove_swarm_attachment(&self, endpoint: &EndpointId) -> Result<(), StoreError> {
        self.file.write(&[Write::Remove(format!("{ATTACHMENT}/{endpoint}"))])
    }

    /// The addresses that were asked for, and whose answer did not come.
    pub fn swarm_asked(&self) -> Result<Vec<Asked>, StoreError> {
        self.file.rows(ASKED)
    }

    /// Remembers one.
    pub fn put_swarm_asked(&self, asked: &Asked) -> Result<(), StoreError> {
        let put = self.put(format!("{ASKED}/{}", asked.endpoint), asked)?;
        self.file.write(&[put])
    }

    /// Forgets one.
    pub fn remove_swarm_asked(&self, endpoint: &EndpointId) -> Result<(), StoreError> {
        self.file.write(&[Write::Remove(format!("{ASKED}/{endpoint}"))])
    }

    /// Whom the gossip knew last.
    pub fn swarm_peers(&self) -> Result<Vec<SocketAddr>, StoreError> {
        Ok(self.file.rows(PEERS)?.pop().unwrap_or_default())
    }

    /// Remembers them.
    pub fn put_swarm_peers(&self, peers: &[SocketAddr]) -> Result<(), StoreError> {
        let put = self.put(format!("{PEERS}/{ONLY}"), &peers)?;
        self.file.write(&[put])
    }

    /// Forgets the swarm.
    pub fn forget_swarm(&self) -> Result<(), StoreError> {
        self.file.write(&[
            Write::RemoveKind(IDENTITY),
            Write::RemoveKind(JOINING),
            Write::RemoveKind(ATTACHMENT),
            Write::RemoveKind(ASKED),
            Write::RemoveKind(PEERS),
        ])
    }
}
