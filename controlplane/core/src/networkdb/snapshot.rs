//! The whole of a node's gossip, written down and read back, and the tap that writes down what enters it.
//!
//! Keys, counters and what is about to be sent are not in it. What is read back goes on exactly as the node would have, without keys.

use super::nodes::NodeState;
use super::{Input, NetworkDb, OwnerState};
use crate::id::{NetworkId, NodeId};
use crate::membership::MAX_COUNT;
use crate::recording::{End, Ending, Happening, Start, StartError, State, Tap, decode, encode};
use crate::time::Instant;
use crate::wire::stream::NodeState as MemberState;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

/// How a node stands, in the words of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It answers.
    Alive,
    /// It did not answer.
    Suspect,
    /// It is taken as failed.
    Failed,
    /// It left.
    Left,
}

impl Standing {
    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Alive => "alive",
            Standing::Suspect => "suspect",
            Standing::Failed => "failed",
            Standing::Left => "left",
        }
    }
}

/// A row that is held, with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRow<'a> {
    /// Its network.
    pub network: &'a NetworkId,
    /// Its table.
    pub table: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Its value.
    pub value: &'a [u8],
    /// Who wrote it.
    pub owner: &'a NodeId,
    /// How the owner stands.
    pub owner_state: OwnerState,
}

impl NetworkDb {
    /// From now on all that enters is written down, until [`finish_recording`](Self::finish_recording).
    pub fn start_recording(&mut self, now: Instant, weft: &str, node: &str, unix_nanos: i64) -> Result<(), StartError> {
        if self.tap.is_some() {
            return Err(StartError::Running);
        }
        let state = encode(self).map_err(StartError::State)?;
        let start = Start {
            weft: weft.to_owned(),
            node: node.to_owned(),
            unix_nanos,
            at: now,
            state_bytes: state.len() as u64,
        };
        self.tap = Some(Box::new(Tap::new(start, &state, self.effects.len())?));
        Ok(())
    }

    /// Whether a recording is under way.
    pub fn is_recording(&self) -> bool {
        self.tap.is_some()
    }

    /// What was written down since the last call.
    pub fn take_recorded(&mut self) -> Vec<u8> {
        self.tap.as_mut().map(|tap| tap.take()).unwrap_or_default()
    }

    /// Whether the recording is as large as it may be, and should end.
    pub fn recording_is_full(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.is_full())
    }

    /// Ends the recording; returns the rest of it. `whole`: all that was taken before is kept, so that what the node held can be
    /// compared.
    pub fn finish_recording(&mut self, now: Instant, why: Ending, whole: bool) -> Vec<u8> {
        let Some(tap) = self.tap.take() else {
            return Vec::new();
        };
        let last = whole.then(|| (tap.course(&self.effects), self.digests()));
        tap.end(End { at: now, why, last })
    }

    /// Writes down what is about to enter, if that is wanted.
    pub(super) fn record(&mut self, now: Instant, what: impl FnOnce() -> Happening) {
        if let Some(tap) = &mut self.tap {
            tap.happened(now, what(), &self.effects);
        }
    }

    /// What came in, opened with this node's keys.
    pub(super) fn open(&self, input: Input) -> Happening {
        let keyring = self.membership.keyring();
        match input {
            Input::Datagram { from, bytes } => Happening::Datagram {
                from,
                opened: keyring.open_datagram(&bytes),
            },
            Input::StreamRequest { stream, from, bytes } => Happening::StreamRequest {
                stream,
                from,
                opened: keyring.open_stream(&bytes),
            },
            Input::StreamReply { stream, bytes } => Happening::StreamReply {
                stream,
                opened: keyring.open_stream(&bytes),
            },
            Input::StreamFailed { stream, error } => Happening::StreamFailed { stream, error },
        }
    }

    /// Reads a state that was written down. It has no keys, and must not get any: it would draw nonces that others may have drawn.
    pub(crate) fn restored(state: &[u8]) -> Result<NetworkDb, String> {
        let db: NetworkDb = decode(state)?;
        let asked = db.own.values().all(|own| (own.asked as u64) < MAX_COUNT);
        let queues = |own: &super::OwnNetwork| own.local.is_plausible() && own.relay.is_plausible();
        if asked && db.own.values().all(queues) && db.cluster.is_plausible() && db.membership.is_plausible() {
            Ok(db)
        } else {
            Err("it has numbers that no node can have".to_owned())
        }
    }

    /// Lets enter what was written down. What the node was told to do and refused then, it refuses now.
    pub(crate) fn repeat(&mut self, now: Instant, what: Happening) {
        match what {
            Happening::Timeout => self.handle_timeout(now),
            Happening::Join(members) => {
                self.join(now, &members);
            }
            Happening::Leave => self.leave(now),
            Happening::JoinNetwork(network) => self.join_network(now, &network).unwrap_or_default(),
            Happening::LeaveNetwork(network) => self.leave_network(now, &network).unwrap_or_default(),
            Happening::Create(row) => {
                let written = self.create_entry(now, &row.table, &row.network, &row.key, row.value);
                written.unwrap_or_default();
            }
            Happening::Update(row) => {
                let written = self.update_entry(now, &row.table, &row.network, &row.key, row.value);
                written.unwrap_or_default();
            }
            Happening::Delete(row) => {
                let deleted = self.delete_entry(now, &row.table, &row.network, &row.key);
                deleted.unwrap_or_default();
            }
            // A replay has no keys.
            Happening::Keys(_) => {}
            came_in => self.handle_opened(now, came_in),
        }
    }

    /// What is held, as digests: by part, so that what differs has a name, and as a whole.
    pub(crate) fn digests(&self) -> State {
        let mut parts: BTreeMap<String, Digest> = BTreeMap::new();
        let members = parts.entry("members".to_owned()).or_default();
        for (name, address, standing) in self.standings() {
            members.add(format_args!("{name} {address:?} {}", standing.as_str()));
        }
        for (network, nodes) in &self.members {
            let members = parts.entry(format!("the members of network {network}")).or_default();
            nodes.iter().for_each(|node| members.add(format_args!("{node}")));
        }
        for (network, table, key, entry) in self.tables.all() {
            let digest = parts.entry(format!("table {table} of network {network}")).or_default();
            let until = if entry.visible() { Instant::ZERO } else { entry.until };
            let (time, owner, until) = (entry.time, &entry.owner, until.since_origin().as_nanos());
            digest.add(format_args!(
                "{key} {time} {owner} {} {} {until}",
                entry.deleted, entry.hidden
            ));
            entry.value.iter().for_each(|byte| digest.byte(*byte));
        }
        let mut whole = Digest::default();
        if let Ok(bytes) = encode(self) {
            bytes.iter().for_each(|byte| whole.byte(*byte));
        }
        State {
            parts: parts.into_iter().map(|(name, digest)| (name, digest.0)).collect(),
            whole: whole.0,
        }
    }

    /// All nodes that are remembered, this one included, by name, with their address and how they stand.
    pub fn standings(&self) -> impl Iterator<Item = (&NodeId, SocketAddr, Standing)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|(node, record)| Some((node, record.address, self.standing(node)?)))
    }

    /// How a node stands, if it is remembered.
    pub fn standing(&self, node: &NodeId) -> Option<Standing> {
        let suspect = || {
            let member = self.membership.member(node);
            member.is_some_and(|member| member.state == MemberState::Suspect)
        };
        Some(match self.node_state(node)? {
            NodeState::Active if suspect() => Standing::Suspect,
            NodeState::Active => Standing::Alive,
            NodeState::Failed => Standing::Failed,
            NodeState::Left => Standing::Left,
        })
    }

    /// The members that are suspected now.
    pub fn suspects(&self) -> impl Iterator<Item = &NodeId> {
        self.membership.suspects()
    }

    /// All rows that are not deleted, those of failed nodes included, by network, table and key.
    pub fn all_rows(&self) -> impl Iterator<Item = HeldRow<'_>> {
        let rows = self.tables.all();
        rows.filter(|(.., entry)| !entry.deleted)
            .map(|(network, table, key, entry)| HeldRow {
                network,
                table,
                key,
                value: &entry.value,
                owner: &entry.owner,
                owner_state: self.owner_state(entry),
            })
    }
}

/// FNV-1a.
#[derive(Clone, Copy, Debug)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a digest does not fail.
        let _ = self.write_fmt(text);
        self.byte(0);
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        text.bytes().for_each(|byte| self.byte(byte));
        Ok(())
    }
}
