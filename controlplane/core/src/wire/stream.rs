//! What is said over TCP: one message each way (`spec/networkdb.md` 3.3.9).

use super::message::{Alive, Message, Ping, Versions, parse_address, parse_meta, parse_versions, write_address};
use super::msgpack::{Reader, write_flag, write_key, write_map, write_number, write_raw};
use super::{WireError, compress, kind};
use crate::id::NodeId;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::SocketAddr;

/// The largest message: what an engine accepts at most (`spec/networkdb.md` 3.2).
pub const MAX_MESSAGE_BYTES: usize = 20 << 20;

/// What a compressed message may unpack to (`spec/networkdb.md` 3.2).
const MAX_UNPACKED_BYTES: usize = 40 << 20;

/// The most nodes in a push/pull: memberlist's own limit (`spec/networkdb.md` 3.2).
const MAX_NODES: u64 = 1_048_576;

/// Whether a whole message has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// The message ends after this many bytes.
    Whole(usize),
    /// More bytes are to be read.
    More,
    /// However many bytes follow, this will be no message.
    Invalid(String),
}

/// Looks at the bytes read so far of one message. Decides without unpacking, and by the lengths alone where the message has them.
pub fn completeness(bytes: &[u8]) -> Completeness {
    match measure(bytes) {
        Ok(length) if length > MAX_MESSAGE_BYTES => Completeness::Invalid(format!(
            "a message has {length} bytes; at most {MAX_MESSAGE_BYTES} are accepted"
        )),
        Ok(length) if length <= bytes.len() => Completeness::Whole(length),
        Ok(_) | Err(WireError::Truncated) if bytes.len() > MAX_MESSAGE_BYTES => {
            Completeness::Invalid(format!("a message has more than {MAX_MESSAGE_BYTES} bytes"))
        }
        Ok(_) | Err(WireError::Truncated) => Completeness::More,
        Err(WireError::Invalid(reason)) => Completeness::Invalid(reason.to_owned()),
    }
}

/// The length of the message at the front; it may be more than there is.
fn measure(bytes: &[u8]) -> Result<usize, WireError> {
    let (&first, body) = bytes.split_first().ok_or(WireError::Truncated)?;
    let mut reader = Reader::new(body);
    let trailing = match first {
        kind::ENCRYPT => reader.be32()? as usize,
        kind::USER => read_user_length(&mut reader)?,
        kind::PUSH_PULL => {
            let header = read_push_pull_header(&mut reader)?;
            for _ in 0..header.nodes {
                reader.skip()?;
            }
            header.user_state_bytes
        }
        kind::PING | kind::ACK | kind::ERR | kind::COMPRESS => {
            reader.skip()?;
            0
        }
        kind::HAS_LABEL => return Err(WireError::Invalid("a message has a label, and this cluster has none")),
        _ => return Err(WireError::Invalid("a message on a stream has an unknown type")),
    };
    (1 + reader.position())
        .checked_add(trailing)
        .ok_or(WireError::Invalid("a length is too large"))
}

/// A message on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamMessage {
    /// Are you there? Asked by TCP when UDP had no answer.
    Ping(Ping),
    /// I am here.
    Ack(u32),
    /// A whole view.
    PushPull(PushPull),
    /// A message of the layer above.
    User(Vec<u8>),
    /// The peer could not read what was sent.
    Err(String),
}

/// A whole view of the members, and of the layer above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushPull {
    /// The sender joins.
    pub join: bool,
    /// The members that it knows.
    pub nodes: Vec<PushNode>,
    /// State of the layer above.
    pub user_state: Vec<u8>,
}

/// A member in a [`PushPull`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushNode {
    /// What an alive message would say.
    pub alive: Alive,
    /// How the sender sees it.
    pub state: NodeState,
}

/// How a node is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NodeState {
    /// It answers.
    Alive,
    /// It did not answer somebody.
    Suspect,
    /// It has failed.
    Dead,
    /// It said goodbye.
    Left,
}

impl NodeState {
    fn from_number(number: u64) -> Option<NodeState> {
        [NodeState::Alive, NodeState::Suspect, NodeState::Dead, NodeState::Left]
            .get(usize::try_from(number).ok()?)
            .copied()
    }
}

struct PushPullHeader {
    join: bool,
    nodes: u64,
    user_state_bytes: usize,
}

/// Compresses a message where that makes it shorter.
pub fn pack(message: Vec<u8>) -> Vec<u8> {
    compress::pack(&message).unwrap_or(message)
}

/// The message without its compression.
pub fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, WireError> {
    match bytes.split_first() {
        None => Err(WireError::Truncated),
        Some((&kind::COMPRESS, body)) => {
            let packed = compress::read_buffer(&mut Reader::new(body))?;
            compress::unpack(packed, MAX_UNPACKED_BYTES).map(Cow::Owned)
        }
        Some(_) => Ok(Cow::Borrowed(bytes)),
    }
}

/// Reads one whole message, compressed or not.
pub fn decode(bytes: &[u8]) -> Result<StreamMessage, WireError> {
    decode_plain(&unpack(bytes)?)
}

/// Reads one whole message without compression.
pub fn decode_plain(bytes: &[u8]) -> Result<StreamMessage, WireError> {
    let (&kind, body) = bytes.split_first().ok_or(WireError::Truncated)?;
    let mut reader = Reader::new(body);
    Ok(match kind {
        kind::USER => {
            let length = read_user_length(&mut reader)?;
            StreamMessage::User(reader.take(length)?.to_vec())
        }
        kind::PUSH_PULL => StreamMessage::PushPull(decode_push_pull(&mut reader)?),
        kind::ERR => StreamMessage::Err(decode_error(&mut reader)?),
        kind::PING | kind::ACK => match Message::decode(bytes)? {
            Message::Ping(ping) => StreamMessage::Ping(ping),
            Message::Ack(sequence) => StreamMessage::Ack(sequence),
            _ => return Err(WireError::Invalid("a message on a stream has an unknown type")),
        },
        kind::ENCRYPT => {
            return Err(WireError::Invalid(
                "the peer encrypts its gossip, and this cluster does not",
            ));
        }
        _ => return Err(WireError::Invalid("a message on a stream has an unknown type")),
    })
}

fn read_user_length(reader: &mut Reader<'_>) -> Result<usize, WireError> {
    let mut length = 0;
    reader.map(|key, value| {
        match key {
            b"UserMsgLen" => length = value.number32()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(length as usize)
}

fn read_push_pull_header(reader: &mut Reader<'_>) -> Result<PushPullHeader, WireError> {
    let mut header = PushPullHeader {
        join: false,
        nodes: 0,
        user_state_bytes: 0,
    };
    reader.map(|key, value| {
        match key {
            b"Join" => header.join = value.flag()?,
            b"Nodes" => header.nodes = value.number()?,
            b"UserStateLen" => header.user_state_bytes = value.number32()? as usize,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    if header.nodes > MAX_NODES {
        return Err(WireError::Invalid("a push/pull has more than 1048576 nodes"));
    }
    Ok(header)
}

fn decode_push_pull(reader: &mut Reader<'_>) -> Result<PushPull, WireError> {
    let header = read_push_pull_header(reader)?;
    let mut nodes = Vec::new();
    for _ in 0..header.nodes {
        // A member that cannot be one (a name with a slash, say) must not hide the others.
        nodes.extend(decode_push_node(reader)?);
    }
    let user_state = reader.take(header.user_state_bytes)?.to_vec();
    Ok(PushPull {
        join: header.join,
        nodes,
        user_state,
    })
}

fn decode_push_node(reader: &mut Reader<'_>) -> Result<Option<PushNode>, WireError> {
    let (mut incarnation, mut name, mut address, mut port) = (0, "", None, 0);
    let (mut meta, mut state, mut versions) = (Vec::new(), 0, Versions::default());
    reader.map(|key, value| {
        match key {
            b"Incarnation" => incarnation = value.number32()?,
            b"Name" => name = value.text()?,
            b"Addr" => address = parse_address(value.bytes()?),
            b"Port" => port = value.number16()?,
            b"Meta" => meta = parse_meta(value.bytes()?)?,
            b"State" => state = value.number()?,
            b"Vsn" => versions = parse_versions(value.bytes()?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    let (Ok(node), Some(address), Some(state)) = (NodeId::new(name), address, NodeState::from_number(state)) else {
        return Ok(None);
    };
    let address = SocketAddr::new(address, port);
    Ok(Some(PushNode {
        alive: Alive {
            incarnation,
            node,
            address,
            meta,
            versions,
        },
        state,
    }))
}

fn decode_error(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let mut error = "";
    reader.map(|key, value| {
        match key {
            b"Error" => error = value.text()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(error.to_owned())
}

/// Writes a push/pull. `Nodes` and `UserStateLen` go out in the unsigned form, as older engines send them.
pub fn encode_push_pull(message: &PushPull) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 112 * message.nodes.len() + message.user_state.len());
    out.push(kind::PUSH_PULL);
    write_map(&mut out, 3);
    write_key(&mut out, "Join");
    write_flag(&mut out, message.join);
    write_key(&mut out, "Nodes");
    write_number(&mut out, message.nodes.len() as u32);
    write_key(&mut out, "UserStateLen");
    write_number(&mut out, message.user_state.len() as u32);
    message.nodes.iter().for_each(|node| encode_push_node(&mut out, node));
    out.extend_from_slice(&message.user_state);
    out
}

fn encode_push_node(out: &mut Vec<u8>, node: &PushNode) {
    write_map(out, 7);
    write_key(out, "Addr");
    write_address(out, node.alive.address.ip());
    write_key(out, "Incarnation");
    write_number(out, node.alive.incarnation);
    write_key(out, "Meta");
    write_raw(out, &node.alive.meta);
    write_key(out, "Name");
    write_raw(out, node.alive.node.as_str().as_bytes());
    write_key(out, "Port");
    write_number(out, node.alive.address.port().into());
    write_key(out, "State");
    write_number(out, node.state as u32);
    write_key(out, "Vsn");
    write_raw(out, &node.alive.versions);
}

/// Writes a message of the layer above.
pub fn encode_user(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + message.len());
    out.push(kind::USER);
    write_map(&mut out, 1);
    write_key(&mut out, "UserMsgLen");
    write_number(&mut out, message.len() as u32);
    out.extend_from_slice(message);
    out
}

/// Writes an error for a peer whose message could not be read.
pub fn encode_error(error: &str) -> Vec<u8> {
    let mut out = vec![kind::ERR];
    write_map(&mut out, 1);
    write_key(&mut out, "Error");
    write_raw(&mut out, error.as_bytes());
    out
}
