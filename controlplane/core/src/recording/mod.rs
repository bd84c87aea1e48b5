//! What entered a node's gossip, written down so that it can be run again: an operator's incident becomes a test.
//!
//! A recording begins with the state that the node had, and goes on with all that came in after that, in order and with its time:
//! messages (already opened by the keyring: no key is ever in a recording), the node's own commands, and the calls of its timers.
//! The core is deterministic, so running them again gives the same: from time to time, and at the end, the recording says what the
//! node had sent and what it held, and a [`Replay`] compares.
//!
//! It holds names, addresses and rows in the clear.

mod format;
mod replay;
mod tap;
#[cfg(test)]
mod tests;

pub use format::{MAX_FRAME_BYTES, ReadError, Reader};
pub(crate) use format::{decode, encode};
pub use replay::{Difference, Replay, ReplayError, RowTold, Told, Verdict, What};
pub(crate) use tap::Tap;

use crate::id::NetworkId;
use crate::membership::{Opened, StreamId};
use crate::time::Instant;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// How large a recording gets at most. One of three nodes with 10,000 rows records 4 MB of state, and at rest 0.3 MB a minute after it.
pub const MAX_RECORDING_BYTES: usize = 256 << 20;

/// One step of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// What is recorded, first of all.
    Start(Start),
    /// A part of the state that the recording begins with.
    State(Vec<u8>),
    /// Something entered the core.
    Happened(Instant, Happening),
    /// What the node had sent and told so far.
    Check(Instant, Course),
    /// The last frame.
    End(End),
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The version of the weft that recorded.
    pub weft: String,
    /// What the node is called among its users.
    pub node: String,
    /// When, in nanoseconds since 1970.
    pub unix_nanos: i64,
    /// The same on the clock of all frames.
    pub at: Instant,
    /// How long the state is that follows.
    pub state_bytes: u64,
}

/// How a recording ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Instant,
    /// Why.
    pub why: Ending,
    /// What the node had sent and told, and what it held, if nothing was left out before.
    pub last: Option<(Course, State)>,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It was asked to.
    Asked,
    /// The time that was asked for is over.
    Time,
    /// It is as large as it may be.
    Size,
    /// It could not be written as fast as things happened.
    Slow,
    /// The node left the gossip.
    Left,
    /// The daemon stops.
    Stopped,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Asked => f.write_str("it was ended by the user"),
            Ending::Time => f.write_str("its time was over"),
            Ending::Size => write!(
                f,
                "it reached {} MiB, the most that one may have",
                MAX_RECORDING_BYTES >> 20
            ),
            Ending::Slow => f.write_str("it could not be written as fast as things happened"),
            Ending::Left => f.write_str("the node left the gossip"),
            Ending::Stopped => f.write_str("the daemon stopped"),
        }
    }
}

/// What a node sent and told since the recording began: how many effects, and a number over their order and content. What was sent is
/// in it by kind and receiver: its bytes are sealed with a key that the replay does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// How many.
    pub effects: u64,
    /// A digest of all.
    pub digest: u64,
}

/// What a node held, as digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Each part that has a name, in order.
    pub parts: Vec<(String, u64)>,
    /// All of it, timers and queues included.
    pub whole: u64,
}

/// Something that enters the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happening {
    /// A datagram.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// What.
        opened: Opened,
    },
    /// A whole message on an accepted stream.
    StreamRequest {
        /// The stream.
        stream: StreamId,
        /// From where.
        from: SocketAddr,
        /// What.
        opened: Opened,
    },
    /// The whole reply on a stream that the node opened.
    StreamReply {
        /// The stream.
        stream: StreamId,
        /// What.
        opened: Opened,
    },
    /// A stream that the node opened came to nothing.
    StreamFailed {
        /// The stream.
        stream: StreamId,
        /// Why.
        error: String,
    },
    /// A deadline came.
    Timeout,
    /// The node was told to join others.
    Join(Vec<SocketAddr>),
    /// The node was told to leave.
    Leave,
    /// The node takes part in a network.
    JoinNetwork(NetworkId),
    /// The node takes part in a network no more.
    LeaveNetwork(NetworkId),
    /// The node writes a row.
    Create(Written),
    /// The node writes over a row.
    Update(Written),
    /// The node deletes a row.
    Delete(Written),
    /// The keys were replaced; this many there are now.
    Keys(usize),
}

/// A row that a node writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its table.
    pub table: String,
    /// Its network.
    pub network: NetworkId,
    /// Its key.
    pub key: String,
    /// Its value; none of a row that is deleted.
    pub value: Vec<u8>,
}

impl Written {
    pub(crate) fn new(table: &str, network: &NetworkId, key: &str, value: &[u8]) -> Self {
        Written {
            table: table.to_owned(),
            network: network.clone(),
            key: key.to_owned(),
            value: value.to_vec(),
        }
    }

    fn place(&self) -> String {
        format!("{} in table {} of network {}", self.key, self.table, self.network)
    }
}

/// Why a recording does not begin. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// One runs.
    #[error("this node is being recorded already; end that recording first")]
    Running,
    /// There is too much to begin with.
    #[error("the state of this node alone has {bytes} bytes, and a recording may have {MAX_RECORDING_BYTES}")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
    /// The state could not be written.
    #[error("the state of this node cannot be written: {0}")]
    State(String),
}
