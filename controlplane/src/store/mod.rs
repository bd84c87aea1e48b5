//! What survives a restart: the cluster's declared state on the manager, and each node's own facts.

mod embedded;
mod file;
mod node;
mod swarm;
#[cfg(test)]
mod tests;

pub use embedded::ClusterStore;
pub use node::{Identity, ManagerSecrets, NodeEndpoint, NodeStore};
pub use swarm::StoredAttachment;

use std::path::PathBuf;
use weft_core::cluster::Change;

/// Where declared state is kept.
pub trait Store: Send {
    /// All rows, as the changes that write them.
    fn load(&self) -> Result<Vec<Change>, StoreError>;
    /// Writes all of these or none, and returns when they are on disk.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;
}

/// Why the store cannot be used: one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or the file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database in it.
    #[error("{path}: {reason}; if it is damaged, move it away and join the cluster again")]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another daemon has it open.
    #[error("{path} is in use by {}: each daemon needs a data-dir of its own", crate::lock::holder(*pid))]
    InUse {
        /// Which file.
        path: PathBuf,
        /// The other's process, if the kernel tells.
        pid: Option<u32>,
    },
    /// Written by a newer version.
    #[error("{path} has format {found}, this weftd knows format {known}: use the newer weftd that wrote it")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// The file's format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A row that is not what it should be.
    #[error("{path}: row {row} is damaged: {reason}")]
    Row {
        /// Which file.
        path: PathBuf,
        /// Which row.
        row: String,
        /// Why.
        reason: String,
    },
}
