//! One redb file of rows: text key -> JSON.

use super::StoreError;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Raised when rows change their meaning.
const FORMAT: u32 = 1;

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");
const FORMAT_KEY: &str = "format";

/// A file of rows. Keys are `kind/id`.
#[derive(Debug)]
pub(super) struct RowFile {
    path: PathBuf,
    database: Database,
}

/// One write of a transaction.
pub(super) enum Write {
    Put(String, Vec<u8>),
    Remove(String),
    RemoveKind(&'static str),
}

impl Write {
    pub(super) fn put(key: String, value: &impl Serialize) -> Result<Write, serde_json::Error> {
        Ok(Write::Put(key, serde_json::to_vec(value)?))
    }
}

impl RowFile {
    /// Opens the file, making it and its directory when they are not there. Only root reads it: it holds keys.
    pub(super) fn open(directory: &Path, name: &str) -> Result<RowFile, StoreError> {
        let path = directory.join(name);
        let io = |source| StoreError::File {
            path: path.clone(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(io)?;
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
                path: path.clone(),
                pid: crate::lock::holder_of_file(&path),
            },
            other => StoreError::Database {
                path: path.clone(),
                reason: other.to_string(),
            },
        })?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(io)?;
        let file = RowFile { path, database };
        file.check_format()?;
        Ok(file)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(|e| self.broken(e))?;
        {
            let mut meta = transaction.open_table(META).map_err(|e| self.broken(e))?;
            let found = meta
                .get(FORMAT_KEY)
                .map_err(|e| self.broken(e))?
                .map(|format| format.value());
            match found {
                Some(found) if found > FORMAT => {
                    return Err(StoreError::Newer {
                        path: self.path.clone(),
                        found,
                        known: FORMAT,
                    });
                }
                Some(_) => {}
                None => {
                    meta.insert(FORMAT_KEY, FORMAT).map_err(|e| self.broken(e))?;
                }
            }
            transaction.open_table(ROWS).map_err(|e| self.broken(e))?;
        }
        transaction.commit().map_err(|e| self.broken(e))
    }

    /// All rows of a kind, in the order of their keys.
    pub(super) fn rows<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, StoreError> {
        let transaction = self.database.begin_read().map_err(|e| self.broken(e))?;
        let table = transaction.open_table(ROWS).map_err(|e| self.broken(e))?;
        let mut rows = Vec::new();
        // '0' is the character after '/': the range is exactly the keys that begin with `kind/`.
        for row in table
            .range(format!("{kind}/").as_str()..format!("{kind}0").as_str())
            .map_err(|e| self.broken(e))?
        {
            let (key, value) = row.map_err(|e| self.broken(e))?;
            let row = serde_json::from_slice(value.value()).map_err(|error| StoreError::Row {
                path: self.path.clone(),
                row: key.value().to_owned(),
                reason: error.to_string(),
            })?;
            rows.push(row);
        }
        Ok(rows)
    }

    /// Performs all writes or none, durably.
    pub(super) fn write(&self, writes: &[Write]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(|e| self.broken(e))?;
        {
            let mut table = transaction.open_table(ROWS).map_err(|e| self.broken(e))?;
            for write in writes {
                match write {
                    Write::Put(key, value) => drop(
                        table
                            .insert(key.as_str(), value.as_slice())
                            .map_err(|e| self.broken(e))?,
                    ),
                    Write::Remove(key) => drop(table.remove(key.as_str()).map_err(|e| self.broken(e))?),
                    Write::RemoveKind(kind) => {
                        let (from, to) = (format!("{kind}/"), format!("{kind}0"));
                        table
                            .retain_in(from.as_str()..to.as_str(), |_, _| false)
                            .map_err(|e| self.broken(e))?;
                    }
                }
            }
        }
        transaction.commit().map_err(|e| self.broken(e))
    }

    pub(super) fn broken(&self, error: impl std::fmt::Display) -> StoreError {
        StoreError::Database {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}
