//! NetworkDB's messages: protobuf, version 3 (`spec/networkdb.md` 3.5).

use super::WireError;
use super::protobuf::count_fields;
use prost::Message;

/// The most fields of a message that is read. An empty element of a list takes two bytes on the wire and sixty in memory, and a
/// stream unpacks to 40 MiB; as many bytes of real elements, the smallest of which has 90, stay below this.
const MAX_FIELDS: usize = 1 << 19;

/// The largest message with lists of numbers, each of which takes a byte at least on the wire and eight in memory: all items that one
/// message may have, in their longest form.
const MAX_LISTS_BYTES: usize = 2 << 20;

/// The envelope of every NetworkDB message.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GossipMessage {
    /// What `data` is.
    #[prost(enumeration = "MessageType", tag = "1")]
    pub r#type: i32,
    /// The message itself.
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

/// What an envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum MessageType {
    /// Nothing; never sent.
    Invalid = 0,
    /// [`NetworkEvent`].
    NetworkEvent = 1,
    /// [`TableEvent`].
    TableEvent = 2,
    /// [`NetworkPushPull`].
    PushPull = 3,
    /// [`BulkSyncMessage`].
    BulkSync = 4,
    /// [`CompoundMessage`].
    Compound = 5,
    /// [`NodeEvent`].
    NodeEvent = 6,
    /// [`DigestMessage`]. This and what follows is spoken among weft's nodes only.
    Digest = 100,
    /// [`BucketsMessage`].
    Buckets = 101,
    /// [`SummaryMessage`].
    Summary = 102,
    /// [`WantedMessage`].
    Wanted = 103,
    /// [`RowsMessage`].
    Rows = 104,
}

/// What happened to a node, or to a node's part in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Presence {
    /// Nothing; never sent.
    Invalid = 0,
    /// It takes part.
    Join = 1,
    /// It does not any more.
    Leave = 2,
}

/// A node came to the cluster or leaves it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NodeEvent {
    /// Which of both.
    #[prost(enumeration = "Presence", tag = "1")]
    pub r#type: i32,
    /// Network clock of the node.
    #[prost(uint64, tag = "2")]
    pub l_time: u64,
    /// The node.
    #[prost(string, tag = "3")]
    pub node_name: String,
}

/// A node came to a network or leaves it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NetworkEvent {
    /// Which of both.
    #[prost(enumeration = "Presence", tag = "1")]
    pub r#type: i32,
    /// Network clock of the node.
    #[prost(uint64, tag = "2")]
    pub l_time: u64,
    /// The node.
    #[prost(string, tag = "3")]
    pub node_name: String,
    /// The network.
    #[prost(string, tag = "4")]
    pub network_id: String,
}

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Change {
    /// Nothing; never sent.
    Invalid = 0,
    /// It is new.
    Create = 1,
    /// It has a new value.
    Update = 2,
    /// It is gone.
    Delete = 3,
}

/// A change of one entry.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TableEvent {
    /// What happened.
    #[prost(enumeration = "Change", tag = "1")]
    pub r#type: i32,
    /// Table clock of the writer.
    #[prost(uint64, tag = "2")]
    pub l_time: u64,
    /// The writer, who owns the entry now.
    #[prost(string, tag = "3")]
    pub node_name: String,
    /// The network.
    #[prost(string, tag = "4")]
    pub network_id: String,
    /// The table.
    #[prost(string, tag = "5")]
    pub table_name: String,
    /// The key.
    #[prost(string, tag = "6")]
    pub key: String,
    /// The value; of a deleted entry, its last one.
    #[prost(bytes = "vec", tag = "7")]
    pub value: Vec<u8>,
    /// How many seconds a deleted entry is still to be remembered.
    #[prost(int32, tag = "8")]
    pub residual_reap_time: i32,
}

/// One attachment in a [`NetworkPushPull`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NetworkEntry {
    /// The network.
    #[prost(string, tag = "1")]
    pub network_id: String,
    /// Network clock of the node at its last change.
    #[prost(uint64, tag = "2")]
    pub l_time: u64,
    /// The node.
    #[prost(string, tag = "3")]
    pub node_name: String,
    /// It has left the network.
    #[prost(bool, tag = "4")]
    pub leaving: bool,
}

/// All attachments that a node knows, sent with memberlist's push/pull.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NetworkPushPull {
    /// Network clock of the sender.
    #[prost(uint64, tag = "1")]
    pub l_time: u64,
    /// The attachments.
    #[prost(message, repeated, tag = "2")]
    pub networks: Vec<NetworkEntry>,
    /// The sender.
    #[prost(string, tag = "3")]
    pub node_name: String,
}

/// All entries of some networks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BulkSyncMessage {
    /// Table clock of the sender.
    #[prost(uint64, tag = "1")]
    pub l_time: u64,
    /// The receiver is to answer with its own.
    #[prost(bool, tag = "2")]
    pub unsolicited: bool,
    /// The sender.
    #[prost(string, tag = "3")]
    pub node_name: String,
    /// The networks.
    #[prost(string, repeated, tag = "4")]
    pub networks: Vec<String>,
    /// An encoded [`GossipMessage`] that holds a [`CompoundMessage`].
    #[prost(bytes = "vec", tag = "5")]
    pub payload: Vec<u8>,
}

/// The question whether the receiver knows the same of some networks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DigestMessage {
    /// The sender.
    #[prost(string, tag = "1")]
    pub node_name: String,
    /// The networks.
    #[prost(message, repeated, tag = "2")]
    pub networks: Vec<NetworkDigest>,
}

/// A number for all that is known of a network.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NetworkDigest {
    /// The network.
    #[prost(string, tag = "1")]
    pub network_id: String,
    /// The number.
    #[prost(fixed64, tag = "2")]
    pub total: u64,
}

/// A number for each bucket of a network.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BucketsMessage {
    /// The sender.
    #[prost(string, tag = "1")]
    pub node_name: String,
    /// The network.
    #[prost(string, tag = "2")]
    pub network_id: String,
    /// The numbers, in the order of the buckets.
    #[prost(fixed64, repeated, tag = "3")]
    pub sums: Vec<u64>,
}

/// What is known of a network in some buckets: three lists of equal length.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SummaryMessage {
    /// The sender.
    #[prost(string, tag = "1")]
    pub node_name: String,
    /// The network.
    #[prost(string, tag = "2")]
    pub network_id: String,
    /// The buckets, a bit each.
    #[prost(fixed64, tag = "3")]
    pub buckets: u64,
    /// Hashes of the names.
    #[prost(fixed64, repeated, tag = "4")]
    pub keys: Vec<u64>,
    /// Lamport times.
    #[prost(uint64, repeated, tag = "5")]
    pub times: Vec<u64>,
    /// Hashes of the contents.
    #[prost(fixed64, repeated, tag = "6")]
    pub contents: Vec<u64>,
}

/// What the sender lacks of a network.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WantedMessage {
    /// The sender.
    #[prost(string, tag = "1")]
    pub node_name: String,
    /// The network.
    #[prost(string, tag = "2")]
    pub network_id: String,
    /// Hashes of the names.
    #[prost(fixed64, repeated, tag = "3")]
    pub keys: Vec<u64>,
}

/// What the receiver lacks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RowsMessage {
    /// The sender.
    #[prost(string, tag = "1")]
    pub node_name: String,
    /// Table clock of the sender.
    #[prost(uint64, tag = "2")]
    pub l_time: u64,
    /// An encoded [`GossipMessage`] that holds a [`CompoundMessage`].
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
}

/// Several messages in one.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CompoundMessage {
    /// The messages.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<SimpleMessage>,
}

/// One message of a [`CompoundMessage`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SimpleMessage {
    /// An encoded [`GossipMessage`].
    #[prost(bytes = "vec", tag = "1")]
    pub payload: Vec<u8>,
}

/// Reads a message, unless reading it would take far more memory than it has bytes.
pub fn read<T: Message + Default>(bytes: &[u8]) -> Result<T, WireError> {
    if count_fields(bytes)? > MAX_FIELDS {
        return Err(WireError::Invalid("a message has too many fields"));
    }
    T::decode(bytes).map_err(|_| WireError::Invalid("a message is not the protobuf message that it should be"))
}

/// Reads a message that has lists of numbers.
pub fn read_lists<T: Message + Default>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_LISTS_BYTES {
        return Err(WireError::Invalid(
            "a message with lists of numbers has more than 2 MiB",
        ));
    }
    read(bytes)
}

/// Wraps a message into its envelope.
pub fn envelope(kind: MessageType, message: &impl Message) -> Vec<u8> {
    GossipMessage {
        r#type: kind.into(),
        data: message.encode_to_vec(),
    }
    .encode_to_vec()
}

/// Packs encoded envelopes into one.
pub fn compound(envelopes: Vec<Vec<u8>>) -> Vec<u8> {
    let messages = envelopes.into_iter().map(|payload| SimpleMessage { payload }).collect();
    envelope(MessageType::Compound, &CompoundMessage { messages })
}
