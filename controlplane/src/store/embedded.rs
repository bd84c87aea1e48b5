//! The manager's store of declared state: `cluster.redb`.

use super::file::{RowFile, Write};
use super::{Store, StoreError};
use std::path::Path;
use weft_core::cluster::{Allocation, Change, Member, Network, Service};

const FILE: &str = "cluster.redb";
const NETWORK: &str = "network";
const SERVICE: &str = "service";
const ALLOCATION: &str = "allocation";
const MEMBER: &str = "member";

/// Declared state in one file, one transaction per commit.
#[derive(Debug)]
pub struct ClusterStore {
    file: RowFile,
}

impl ClusterStore {
    /// Opens or makes the file in the data directory.
    pub fn open(data_dir: &Path) -> Result<ClusterStore, StoreError> {
        Ok(ClusterStore {
            file: RowFile::open(data_dir, FILE)?,
        })
    }

    /// Removes the file: the declared state is gone.
    pub fn remove(data_dir: &Path) -> Result<(), StoreError> {
        let path = data_dir.join(FILE);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StoreError::File { path, source }),
            _ => Ok(()),
        }
    }
}

impl Store for ClusterStore {
    fn load(&self) -> Result<Vec<Change>, StoreError> {
        let mut changes = Vec::new();
        changes.extend(self.file.rows::<Network>(NETWORK)?.into_iter().map(Change::PutNetwork));
        changes.extend(self.file.rows::<Service>(SERVICE)?.into_iter().map(Change::PutService));
        changes.extend(
            self.file
                .rows::<Allocation>(ALLOCATION)?
                .into_iter()
                .map(Change::PutAllocation),
        );
        changes.extend(self.file.rows::<Member>(MEMBER)?.into_iter().map(Change::PutMember));
        Ok(changes)
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let writes: Result<Vec<Write>, serde_json::Error> = changes.iter().map(write).collect();
        self.file.write(&writes.map_err(|error| self.file.broken(error))?)
    }
}

fn write(change: &Change) -> Result<Write, serde_json::Error> {
    Ok(match change {
        Change::PutNetwork(network) => Write::put(format!("{NETWORK}/{}", network.id), network)?,
        Change::RemoveNetwork(id) => Write::Remove(format!("{NETWORK}/{id}")),
        Change::PutService(service) => Write::put(format!("{SERVICE}/{}", service.id), service)?,
        Change::RemoveService(id) => Write::Remove(format!("{SERVICE}/{id}")),
        Change::PutAllocation(allocation) => Write::put(format!("{ALLOCATION}/{}", allocation.endpoint), allocation)?,
        Change::RemoveAllocation(id) => Write::Remove(format!("{ALLOCATION}/{id}")),
        Change::PutMember(member) => Write::put(format!("{MEMBER}/{}", member.id), member)?,
        Change::RemoveMember(id) => Write::Remove(format!("{MEMBER}/{id}")),
    })
}
