//! What goes into [`NetworkDb`](super::NetworkDb) and what comes out.

use crate::id::{NetworkId, NodeId};
use crate::membership::{Keyring, LogLevel, StreamId};
use std::net::{IpAddr, SocketAddr};

/// The largest datagram unless configured otherwise: memberlist's own default, which fits into an Ethernet frame with room for
/// tunnels below.
pub const PACKET_BUDGET_BYTES: usize = 1400;

/// What weft's nodes tell about themselves, so that they know each other among Docker's, which tell nothing and ignore it.
pub const META: &[u8] = b"weft/1";

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name; made anew at each start (`spec/networkdb.md` 3.1).
    pub name: NodeId,
    /// Where others reach its gossip: an address and the real port.
    pub advertise: SocketAddr,
    /// Where its choices come from.
    pub seed: u64,
    /// The largest datagram, in bytes.
    pub packet_budget: usize,
    /// The keys that encrypt the gossip; none at all for gossip in the clear.
    pub keyring: Keyring,
    /// What the node tells about itself, at most 512 bytes.
    pub meta: Vec<u8>,
}

impl Config {
    /// The defaults.
    pub fn new(name: NodeId, advertise: SocketAddr, seed: u64) -> Self {
        Config {
            name,
            advertise,
            seed,
            packet_budget: PACKET_BUDGET_BYTES,
            keyring: Keyring::default(),
            meta: META.to_vec(),
        }
    }
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A datagram.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// One whole message on an accepted stream; [`Effect::Reply`] or [`Effect::Close`] follows.
    StreamRequest {
        /// The stream, as the caller numbers it.
        stream: StreamId,
        /// From where.
        from: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// The whole reply on a stream of [`Effect::OpenStream`].
    StreamReply {
        /// The stream.
        stream: StreamId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A stream of [`Effect::OpenStream`] was refused, timed out, closed early, or had an invalid reply.
    StreamFailed {
        /// The stream.
        stream: StreamId,
        /// Why, as a user should read it.
        error: String,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram.
    Datagram {
        /// Whereto.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Open a stream, send, and read one message if a reply is expected; within 10 seconds.
    OpenStream {
        /// The stream: numbered from zero.
        stream: StreamId,
        /// Whereto.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
        /// Whether the peer answers.
        expects_reply: bool,
    },
    /// Answer an accepted stream, then close it.
    Reply {
        /// The stream.
        stream: StreamId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close an accepted stream without an answer.
    Close {
        /// The stream.
        stream: StreamId,
    },
    /// Something changed.
    Event(Event),
    /// A [`join`](super::NetworkDb::join) is over.
    Joined {
        /// What `join` returned.
        request: u64,
        /// How many hosts were contacted, or why none was: the list of errors of `/join` (`spec/diag-api.md` 1.5).
        result: Result<usize, String>,
    },
    /// [`leave`](super::NetworkDb::leave) is over: the sockets may close.
    Left,
    /// Something to tell.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// One line.
        message: String,
    },
}

/// A change of what this node sees, made here or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry appeared, came back, or has a new value or owner.
    EntrySet {
        /// Its network.
        network: NetworkId,
        /// Its table.
        table: String,
        /// Its key.
        key: String,
        /// Its value.
        value: Vec<u8>,
        /// Who wrote it.
        owner: NodeId,
    },
    /// An entry was deleted, or its owner failed or left.
    EntryGone {
        /// Its network.
        network: NetworkId,
        /// Its table.
        table: String,
        /// Its key.
        key: String,
        /// Its last value.
        value: Vec<u8>,
        /// Who wrote that.
        owner: NodeId,
    },
    /// A node came, or came back.
    NodeUp {
        /// Its name.
        name: NodeId,
        /// Its address.
        address: IpAddr,
    },
    /// A node failed or left.
    NodeDown {
        /// Its name.
        name: NodeId,
        /// Its address.
        address: IpAddr,
        /// It left of its own will, or came back under another name.
        left: bool,
    },
}

/// An entry that is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// Who wrote it.
    pub owner: &'a NodeId,
    /// How the owner stands.
    pub owner_state: OwnerState,
}

/// How the owner of an entry stands, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerState {
    /// It answers.
    Alive,
    /// It does not answer, and may yet say that it is alive.
    Suspect,
    /// It is taken as failed: its entries are kept for its return and hidden.
    Failed,
    /// Another node took its place: its entries show until the other's had time to arrive.
    Replaced,
}

/// What was counted since the start, and how much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams received.
    pub datagrams: u64,
    /// Messages in datagrams that could not be read.
    pub refused_messages: u64,
    /// Streams whose message could not be read.
    pub refused_streams: u64,
    /// Datagrams and streams in the clear, though this node has keys.
    pub refused_plaintext: u64,
    /// Encrypted datagrams and streams that no key of this node opens.
    pub refused_keys: u64,
    /// NetworkDB messages that could not be read or name what cannot be.
    pub refused_gossip: u64,
    /// New entries not taken because there are too many.
    pub refused_entries: u64,
    /// Messages that were to be gossiped and had to go for newer ones because a queue was full.
    pub dropped_messages: u64,
    /// Times that this node had to say that it is alive after all.
    pub refutations: u64,
    /// Probes that found no answer on any way.
    pub failed_probes: u64,
    /// Times that this node asked another one whether both know the same.
    pub comparisons: u64,
    /// Networks of which a peer that asked knew something else.
    pub differences: u64,
    /// Entries and attachments sent to peers that lacked them.
    pub repaired: u64,
    /// Entries held, tombstones and hidden ones included.
    pub entries: usize,
    /// Table messages waiting to be gossiped, own and relayed.
    pub queued: usize,
}

/// Why a network cannot be joined (`spec/diag-api.md` 1.5).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinNetworkError {
    /// Nothing changed.
    #[error("networkdb: network {0} is already joined")]
    AlreadyJoined(NetworkId),
    /// Nothing changed.
    #[error(
        "networkdb: network {network} cannot be joined: {limit} networks are joined already, the most that a node takes"
    )]
    TooMany {
        /// The network.
        network: NetworkId,
        /// The limit.
        limit: usize,
    },
}

/// Why a network cannot be left (`spec/diag-api.md` 1.5). Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not find network {0} while trying to leave")]
pub struct LeaveNetworkError(pub NetworkId);

/// Which entry an [`EntryError`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryName {
    /// Its table.
    pub table: String,
    /// Its network.
    pub network: NetworkId,
    /// Its key.
    pub key: String,
}

/// Why an entry cannot be read or written (`spec/diag-api.md` 1.5). Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Create: it exists.
    #[error("cannot create entry in table {} with network id {} and key {}, already exists", .0.table, .0.network, .0.key)]
    Exists(EntryName),
    /// Update: there is none.
    #[error("cannot update entry as the entry in table {} with network id {} and key {} does not exist", .0.table, .0.network, .0.key)]
    NothingToUpdate(EntryName),
    /// Delete: there is none.
    #[error("cannot delete entry {} with network id {} and key {} does not exist or is already being deleted", .0.table, .0.network, .0.key)]
    NothingToDelete(EntryName),
    /// Get: there is none.
    #[error("could not get entry in table {} with network id {} and key {}", .0.table, .0.network, .0.key)]
    Missing(EntryName),
    /// Get: it was deleted.
    #[error("entry in table {} network id {} and key {} deleted and pending garbage collection", .0.table, .0.network, .0.key)]
    Deleted(EntryName),
    /// Get: its owner failed.
    #[error("entry in table {} network id {} and key {} is owned by a failed node and hidden until it returns", .0.table, .0.network, .0.key)]
    Hidden(EntryName),
    /// A name that cannot be one.
    #[error("{what} {value:?} is not valid: at most {limit} bytes without '/'")]
    InvalidName {
        /// Table or key.
        what: &'static str,
        /// What was given.
        value: String,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Table, network, key and value do not fit into one gossip packet.
    #[error("the value of entry {} in table {} has {bytes} bytes; at most {limit} fit into a gossip packet with its names", name.key, name.table)]
    TooLarge {
        /// Which entry.
        name: EntryName,
        /// Size of the value.
        bytes: usize,
        /// What would fit.
        limit: usize,
    },
    /// The tables are full.
    #[error("entry {} in table {} is not taken: {limit} entries are held already", name.key, name.table)]
    TooMany {
        /// Which entry.
        name: EntryName,
        /// The limit.
        limit: usize,
    },
}
