//! What a node knows of itself: `node.redb`.

use super::StoreError;
use super::file::{RowFile, Write};
use crate::netns::NetnsSpec;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use weft_core::cluster::keys::{KeyRow, KeySet};
use weft_core::cluster::{Allocation, Network, Service};
use weft_core::id::EndpointId;

const IDENTITY: &str = "identity";
const SECRETS: &str = "secrets";
const ENDPOINT: &str = "endpoint";
/// A worker's gossip keys.
const KEYS: &str = "keys";
/// The manager's, with the state of their rotation.
const ROTATION: &str = "rotation";
/// There is one identity, and one set of secrets.
const ONLY: &str = "own";

/// This node's place in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name that the manager knows it by.
    pub node_name: String,
    /// The id that the manager gave it.
    pub member_id: String,
    /// The manager: `ip:port`.
    pub manager: String,
    /// Certificate of the cluster's authority, PEM.
    pub ca_pem: String,
    /// This node's certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
    /// Gossip addresses to join after a restart.
    pub gossip_peers: Vec<SocketAddr>,
}

/// What only the manager holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerSecrets {
    /// Private key of the cluster's authority, PEM.
    pub ca_key_pem: String,
    /// The secret part of the join token.
    pub join_secret: String,
    /// The one before, to tell whoever still has it what is wrong with it.
    #[serde(default)]
    pub replaced_secret: Option<String>,
}

/// An endpoint of this node, with all that is needed to take it over while the manager is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEndpoint {
    /// Its network, as the manager told it.
    pub network: Network,
    /// Its service, as the manager told it.
    pub service: Option<Service>,
    /// Its address.
    pub allocation: Allocation,
    /// The namespace, as the user named it.
    pub netns: NetnsSpec,
    /// The namespace's inode: a name may name another one later.
    pub netns_inode: u64,
    /// The interface inside the namespace.
    pub interface: String,
    /// The interface on the host.
    pub host_interface: String,
    /// Where its `resolv.conf` was written.
    pub resolv_conf: PathBuf,
}

/// The node's own facts in one file.
#[derive(Debug)]
pub struct NodeStore {
    pub(super) file: RowFile,
}

impl NodeStore {
    /// Its file in the data directory.
    pub const FILE: &str = "node.redb";

    /// Opens or makes the file in the data directory.
    pub fn open(data_dir: &Path) -> Result<NodeStore, StoreError> {
        Ok(NodeStore {
            file: RowFile::open(data_dir, Self::FILE)?,
        })
    }

    /// This node's place in a cluster, if it is in one.
    pub fn identity(&self) -> Result<Option<Identity>, StoreError> {
        Ok(self.file.rows(IDENTITY)?.pop())
    }

    /// What the manager holds, if this node is it.
    pub fn manager_secrets(&self) -> Result<Option<ManagerSecrets>, StoreError> {
        Ok(self.file.rows(SECRETS)?.pop())
    }

    /// Writes the identity, and the secrets of a manager.
    pub fn put_identity(&self, identity: &Identity, secrets: Option<&ManagerSecrets>) -> Result<(), StoreError> {
        let mut writes = vec![self.put(format!("{IDENTITY}/{ONLY}"), identity)?];
        if let Some(secrets) = secrets {
            writes.push(self.put(format!("{SECRETS}/{ONLY}"), secrets)?);
        }
        self.file.write(&writes)
    }

    /// A worker's gossip keys.
    pub fn key_set(&self) -> Result<Option<KeySet>, StoreError> {
        Ok(self.file.rows(KEYS)?.pop())
    }

    /// Writes a worker's gossip keys.
    pub fn put_key_set(&self, set: &KeySet) -> Result<(), StoreError> {
        self.file.write(&[self.put(format!("{KEYS}/{ONLY}"), set)?])
    }

    /// The manager's gossip keys, and how far their rotation is.
    pub fn key_row(&self) -> Result<Option<KeyRow>, StoreError> {
        Ok(self.file.rows(ROTATION)?.pop())
    }

    /// Writes them.
    pub fn put_key_row(&self, row: &KeyRow) -> Result<(), StoreError> {
        self.file.write(&[self.put(format!("{ROTATION}/{ONLY}"), row)?])
    }

    /// Forgets identity, secrets, keys and endpoints.
    pub fn forget_cluster(&self) -> Result<(), StoreError> {
        self.file.write(&[
            Write::RemoveKind(IDENTITY),
            Write::RemoveKind(SECRETS),
            Write::RemoveKind(KEYS),
            Write::RemoveKind(ROTATION),
            Write::RemoveKind(ENDPOINT),
        ])
    }

    /// The endpoints of this node.
    pub fn endpoints(&self) -> Result<Vec<NodeEndpoint>, StoreError> {
        self.file.rows(ENDPOINT)
    }

    /// Remembers an endpoint.
    pub fn put_endpoint(&self, endpoint: &NodeEndpoint) -> Result<(), StoreError> {
        let write = self.put(format!("{ENDPOINT}/{}", endpoint.allocation.endpoint), endpoint)?;
        self.file.write(&[write])
    }

    /// Remembers several endpoints, all or none.
    pub fn put_endpoints<'a>(&self, endpoints: impl Iterator<Item = &'a NodeEndpoint>) -> Result<(), StoreError> {
        let write = |e: &NodeEndpoint| self.put(format!("{ENDPOINT}/{}", e.allocation.endpoint), e);
        let writes = endpoints.map(write).collect::<Result<Vec<_>, _>>()?;
        self.file.write(&writes)
    }

    /// Forgets an endpoint.
    pub fn remove_endpoint(&self, id: &EndpointId) -> Result<(), StoreError> {
        self.file.write(&[Write::Remove(format!("{ENDPOINT}/{id}"))])
    }

    pub(super) fn put(&self, key: String, value: &impl Serialize) -> Result<Write, StoreError> {
        Write::put(key, value).map_err(|error| self.file.broken(error))
    }
}
