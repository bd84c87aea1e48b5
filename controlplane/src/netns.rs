//! Run this inside that network namespace.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How a user names a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetnsSpec {
    /// A name under `/run/netns`, as `ip netns add` makes it.
    Name(String),
    /// A path to a namespace file.
    Path(PathBuf),
    /// The namespace of a process.
    Pid(u32),
}
