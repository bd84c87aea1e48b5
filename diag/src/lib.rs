//! Asking a running node: the diagnostic server of Docker's network diagnostic API, and more.
//!
//! A [`Request`] and its reply slot is all that the daemon sees of it. [`server`] turns HTTP into requests and answers into
//! Docker's texts; [`client`] is the command `diagnosticClient`, which also asks Docker engines.

pub mod client;
mod forms;
mod golang;
mod handlers;
mod maps;
mod reply;
mod routes;
pub mod server;

use std::net::IpAddr;
use tokio::sync::oneshot;

/// Where an answer goes.
pub type ReplyTo<T> = oneshot::Sender<T>;

/// A node as peers lists print it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Gossip name, or `orphan-<name>` for a member of a network that is no live node.
    pub name: String,
    /// Its address, unless unknown.
    pub ip: Option<IpAddr>,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// Gossip name of the node that wrote it.
    pub owner: String,
}

/// How the writer of a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// It answers.
    Alive,
    /// It does not answer, and may yet.
    Suspect,
    /// It failed: its rows are kept for its return, and only `owners=all` shows them.
    Failed,
    /// Another node, mostly its own next life, took its place: its rows stay until the other's had time to arrive.
    Replaced,
}

/// `/networkstats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkStats {
    /// Entries over all tables, tombstones included.
    pub entries: i64,
    /// Table messages waiting to be gossiped.
    pub queue_len: i64,
}

/// Which entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryAddress {
    /// Table.
    pub table: String,
    /// Network id, whole.
    pub network: String,
    /// Key.
    pub key: String,
}

/// The raw content of an eBPF map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapDump {
    /// Its name, as `weft_dataplane::abi` has it.
    pub name: String,
    /// The most entries that it may hold.
    pub max_entries: u32,
    /// Key and value as the kernel has them. Of a per-CPU map, the sum over the CPUs.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// More entries were there than one answer carries.
    pub truncated: bool,
}

/// What the server asks of the daemon. Errors are the texts of `spec/diag-api.md` 1.5, ready to print.
#[derive(Debug)]
pub enum Request {
    /// `/clusterpeers`.
    ClusterPeers(ReplyTo<Vec<Peer>>),
    /// `/networkpeers`.
    NetworkPeers(String, ReplyTo<Vec<Peer>>),
    /// `/join`: each member as the user wrote it (`ip`, `ip:port`, `host`).
    Join(Vec<String>, ReplyTo<Result<(), String>>),
    /// `/leave`: this node leaves the gossip cluster.
    Leave(ReplyTo<Result<(), String>>),
    /// `/joinnetwork`.
    JoinNetwork(String, ReplyTo<Result<(), String>>),
    /// `/leavenetwork`.
    LeaveNetwork(String, ReplyTo<Result<(), String>>),
    /// `/createentry`.
    CreateEntry(EntryAddress, Vec<u8>, ReplyTo<Result<(), String>>),
    /// `/updateentry`.
    UpdateEntry(EntryAddress, Vec<u8>, ReplyTo<Result<(), String>>),
    /// `/deleteentry`.
    DeleteEntry(EntryAddress, ReplyTo<Result<(), String>>),
    /// `/getentry`.
    GetEntry(EntryAddress, ReplyTo<Result<Vec<u8>, String>>),
    /// `/gettable`: table, network.
    GetTable(String, String, ReplyTo<Vec<Row>>),
    /// `/gettable` with `owners=all`: table, network. Failed nodes' rows too, each with how its writer stands.
    GetTableOfAll(String, String, ReplyTo<Vec<(Row, OwnerState)>>),
    /// `/networkstats`; `None` when the node is not attached to the network.
    NetworkStats(String, ReplyTo<Option<NetworkStats>>),
    /// `/maps`: name, limit and number of entries of each map.
    Maps(ReplyTo<Result<Vec<MapSummary>, String>>),
    /// `/maps/<name>`; the error names the maps there are.
    Map(String, ReplyTo<Result<MapDump, String>>),
}

/// A line of `/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSummary {
    /// Its name.
    pub name: String,
    /// How many entries it holds.
    pub entries: u64,
    /// The most entries that it may hold.
    pub max_entries: u32,
    /// How many more it should hold, if it were larger.
    pub left_out: u64,
}
