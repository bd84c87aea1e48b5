//! memberlist's messages, each a type byte and a msgpack map (`spec/networkdb.md` 3.3.3).

use super::msgpack::{Reader, write_flag, write_key, write_map, write_nil, write_number, write_raw};
use super::{WireError, kind};
use crate::id::NodeId;
use std::net::{IpAddr, SocketAddr};

/// Protocol and delegate versions: least, greatest, spoken, and the same of the delegate.
pub type Versions = [u8; 6];

/// The versions that Docker speaks.
pub const VERSIONS: Versions = [1, 5, 2, 0, 0, 0];

/// The longest meta data of a node: memberlist's own limit.
pub const MAX_META_BYTES: usize = 512;

/// Where a ping came from, so that the answer need not rely on the packet's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Gossip address of the sender.
    pub address: SocketAddr,
    /// Its name.
    pub node: String,
}

/// Are you there?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the ack.
    pub sequence: u32,
    /// Who is meant; anybody if empty.
    pub node: String,
    /// Who asks; old engines do not say.
    pub source: Option<Source>,
}

/// Ping somebody else for me.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndirectPing {
    /// Comes back in the ack or nack.
    pub sequence: u32,
    /// Who is to be pinged.
    pub node: String,
    /// Where it is.
    pub target: SocketAddr,
    /// A nack is wanted if it does not answer.
    pub nack: bool,
    /// Who asks.
    pub source: Option<Source>,
}

/// A node is suspected, or dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accusation {
    /// The life of the node that is meant.
    pub incarnation: u32,
    /// The accused.
    pub node: NodeId,
    /// The accuser; the node itself when it leaves.
    pub from: NodeId,
}

/// A node is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Grows each time the node refutes an accusation.
    pub incarnation: u32,
    /// The node.
    pub node: NodeId,
    /// Where it gossips.
    pub address: SocketAddr,
    /// Empty in Docker's clusters.
    pub meta: Vec<u8>,
    /// What it speaks.
    pub versions: Versions,
}

/// A message of memberlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Are you there?
    Ping(Ping),
    /// Ping somebody else for me.
    IndirectPing(IndirectPing),
    /// I am here: the sequence number of the ping.
    Ack(u32),
    /// The node to be pinged did not answer: the sequence number of the request.
    Nack(u32),
    /// A node is suspected.
    Suspect(Accusation),
    /// A node is alive.
    Alive(Alive),
    /// A node is dead or has left.
    Dead(Accusation),
    /// A message of the layer above.
    User(Vec<u8>),
}

impl Message {
    /// Reads a message that is neither compound, compressed nor checksummed.
    pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
        let (&kind, body) = bytes.split_first().ok_or(WireError::Truncated)?;
        let mut reader = Reader::new(body);
        Ok(match kind {
            kind::PING => Message::Ping(decode_ping(&mut reader)?),
            kind::INDIRECT_PING => Message::IndirectPing(decode_indirect_ping(&mut reader)?),
            kind::ACK => Message::Ack(decode_sequence(&mut reader)?),
            kind::NACK => Message::Nack(decode_sequence(&mut reader)?),
            kind::SUSPECT => Message::Suspect(decode_accusation(&mut reader)?),
            kind::DEAD => Message::Dead(decode_accusation(&mut reader)?),
            kind::ALIVE => Message::Alive(decode_alive(&mut reader)?),
            kind::USER => Message::User(body.to_vec()),
            _ => return Err(WireError::Invalid("a message has an unknown type")),
        })
    }

    /// Writes the message, type byte first.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        match self {
            Message::Ping(ping) => encode_ping(&mut out, ping),
            Message::IndirectPing(ping) => encode_indirect_ping(&mut out, ping),
            Message::Ack(sequence) => {
                out.push(kind::ACK);
                write_map(&mut out, 2);
                write_key(&mut out, "Payload");
                write_nil(&mut out);
                write_key(&mut out, "SeqNo");
                write_number(&mut out, *sequence);
            }
            Message::Nack(sequence) => {
                out.push(kind::NACK);
                write_map(&mut out, 1);
                write_key(&mut out, "SeqNo");
                write_number(&mut out, *sequence);
            }
            Message::Suspect(accusation) => encode_accusation(&mut out, kind::SUSPECT, accusation),
            Message::Dead(accusation) => encode_accusation(&mut out, kind::DEAD, accusation),
            Message::Alive(alive) => encode_alive(&mut out, alive),
            Message::User(bytes) => {
                out.push(kind::USER);
                out.extend_from_slice(bytes);
            }
        }
        out
    }
}

/// Four bytes for IPv4, sixteen for IPv6 (`spec/networkdb.md` 3.1).
pub(super) fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => write_raw(out, &address.octets()),
        IpAddr::V6(address) => write_raw(out, &address.octets()),
    }
}

/// An address of four or sixteen bytes; an IPv4 address in sixteen is the same as in four.
pub(super) fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| IpAddr::from(sixteen).to_canonical())
}

/// Versions of six bytes; a shorter or longer field is no statement at all.
pub(super) fn parse_versions(bytes: &[u8]) -> Versions {
    bytes.try_into().unwrap_or_default()
}

pub(super) fn parse_meta(bytes: &[u8]) -> Result<Vec<u8>, WireError> {
    if bytes.len() > MAX_META_BYTES {
        return Err(WireError::Invalid("meta data of a node is longer than 512 bytes"));
    }
    Ok(bytes.to_vec())
}

fn node_id(text: &str) -> Result<NodeId, WireError> {
    NodeId::new(text).map_err(|_| WireError::Invalid("a node name is not valid"))
}

#[derive(Default)]
struct SourceFields<'a> {
    address: &'a [u8],
    port: u16,
    node: &'a str,
}

impl SourceFields<'_> {
    fn source(&self) -> Option<Source> {
        let address = parse_address(self.address).filter(|_| self.port != 0)?;
        Some(Source {
            address: SocketAddr::new(address, self.port),
            node: self.node.to_owned(),
        })
    }
}

fn decode_ping(reader: &mut Reader<'_>) -> Result<Ping, WireError> {
    let (mut sequence, mut node, mut source) = (0, "", SourceFields::default());
    reader.map(|key, value| {
        match key {
            b"SeqNo" => sequence = value.number32()?,
            b"Node" => node = value.text()?,
            b"SourceAddr" => source.address = value.bytes()?,
            b"SourcePort" => source.port = value.number16()?,
            b"SourceNode" => source.node = value.text()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(Ping {
        sequence,
        node: node.to_owned(),
        source: source.source(),
    })
}

fn decode_indirect_ping(reader: &mut Reader<'_>) -> Result<IndirectPing, WireError> {
    let (mut sequence, mut node, mut source) = (0, "", SourceFields::default());
    let (mut nack, mut target, mut port) = (false, None, 0);
    reader.map(|key, value| {
        match key {
            b"SeqNo" => sequence = value.number32()?,
            b"Node" => node = value.text()?,
            b"Nack" => nack = value.flag()?,
            b"Target" => target = parse_address(value.bytes()?),
            b"Port" => port = value.number16()?,
            b"SourceAddr" => source.address = value.bytes()?,
            b"SourcePort" => source.port = value.number16()?,
            b"SourceNode" => source.node = value.text()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    let target = target.ok_or(WireError::Invalid("an indirect ping has no target address"))?;
    Ok(IndirectPing {
        sequence,
        node: node.to_owned(),
        target: SocketAddr::new(target, port),
        nack,
        source: source.source(),
    })
}

fn decode_sequence(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    let mut sequence = None;
    reader.map(|key, value| {
        match key {
            b"SeqNo" => sequence = Some(value.number32()?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(sequence.unwrap_or_default())
}

fn decode_accusation(reader: &mut Reader<'_>) -> Result<Accusation, WireError> {
    let (mut incarnation, mut node, mut from) = (0, "", "");
    reader.map(|key, value| {
        match key {
            b"Incarnation" => incarnation = value.number32()?,
            b"Node" => node = value.text()?,
            b"From" => from = value.text()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(Accusation {
        incarnation,
        node: node_id(node)?,
        from: node_id(from)?,
    })
}

fn decode_alive(reader: &mut Reader<'_>) -> Result<Alive, WireError> {
    let (mut incarnation, mut node, mut address, mut port) = (0, "", None, 0);
    let (mut meta, mut versions) = (Vec::new(), Versions::default());
    reader.map(|key, value| {
        match key {
            b"Incarnation" => incarnation = value.number32()?,
            b"Node" => node = value.text()?,
            b"Addr" => address = parse_address(value.bytes()?),
            b"Port" => port = value.number16()?,
            b"Meta" => meta = parse_meta(value.bytes()?)?,
            b"Vsn" => versions = parse_versions(value.bytes()?),
            _ => value.skip()?,
        }
        Ok(())
    })?;
    let address = address.ok_or(WireError::Invalid("a node's address is neither 4 nor 16 bytes"))?;
    Ok(Alive {
        incarnation,
        node: node_id(node)?,
        address: SocketAddr::new(address, port),
        meta,
        versions,
    })
}

fn encode_source(out: &mut Vec<u8>, source: Option<&Source>) {
    let Some(source) = source else { return };
    write_key(out, "SourceAddr");
    write_address(out, source.address.ip());
    write_key(out, "SourceNode");
    write_raw(out, source.node.as_bytes());
    write_key(out, "SourcePort");
    write_number(out, source.address.port().into());
}

fn encode_ping(out: &mut Vec<u8>, ping: &Ping) {
    out.push(kind::PING);
    write_map(out, if ping.source.is_some() { 5 } else { 2 });
    write_key(out, "Node");
    write_raw(out, ping.node.as_bytes());
    write_key(out, "SeqNo");
    write_number(out, ping.sequence);
    encode_source(out, ping.source.as_ref());
}

fn encode_indirect_ping(out: &mut Vec<u8>, ping: &IndirectPing) {
    out.push(kind::INDIRECT_PING);
    write_map(out, if ping.source.is_some() { 8 } else { 5 });
    write_key(out, "Nack");
    write_flag(out, ping.nack);
    write_key(out, "Node");
    write_raw(out, ping.node.as_bytes());
    write_key(out, "Port");
    write_number(out, ping.target.port().into());
    write_key(out, "SeqNo");
    write_number(out, ping.sequence);
    encode_source(out, ping.source.as_ref());
    write_key(out, "Target");
    write_address(out, ping.target.ip());
}

fn encode_accusation(out: &mut Vec<u8>, kind: u8, accusation: &Accusation) {
    out.push(kind);
    write_map(out, 3);
    write_key(out, "From");
    write_raw(out, accusation.from.as_str().as_bytes());
    write_key(out, "Incarnation");
    write_number(out, accusation.incarnation);
    write_key(out, "Node");
    write_raw(out, accusation.node.as_str().as_bytes());
}

fn encode_alive(out: &mut Vec<u8>, alive: &Alive) {
    out.push(kind::ALIVE);
    write_map(out, 6);
    write_key(out, "Addr");
    write_address(out, alive.address.ip());
    write_key(out, "Incarnation");
    write_number(out, alive.incarnation);
    write_key(out, "Meta");
    write_raw(out, &alive.meta);
    write_key(out, "Node");
    write_raw(out, alive.node.as_str().as_bytes());
    write_key(out, "Port");
    write_number(out, alive.address.port().into());
    write_key(out, "Vsn");
    write_raw(out, &alive.versions);
}
