//! Datagrams: checksum around compression around one message or a compound of several (`spec/networkdb.md` 3.3.4 to 3.3.8).

use super::message::Message;
use super::msgpack::Reader;
use super::{WireError, compress, kind};

/// What one compressed datagram may unpack to, over all its parts. A sender packs at most one datagram of 64 KiB; the rest is
/// for compounds inside.
const MAX_UNPACKED_BYTES: usize = 256 * 1024;

/// How deep checksum, compression and compounds may nest. Real senders nest three.
const MAX_DEPTH: u32 = 5;

/// How many bytes the checksum takes.
pub const CRC_BYTES: usize = 5;

/// How many bytes the head of a compound takes.
pub const COMPOUND_BYTES: usize = 2;

/// How many bytes a compound takes for each message.
pub const COMPOUND_PART_BYTES: usize = 2;

/// How many messages a compound holds: its count is one byte.
pub const COMPOUND_PARTS: usize = 255;

/// What a datagram held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The messages that could be read, in order.
    pub messages: Vec<Message>,
    /// Why others could not.
    pub errors: Vec<WireError>,
}

/// Reads a plain datagram.
pub fn unpack(bytes: &[u8]) -> Unpacked {
    let mut unpacked = Unpacked::default();
    let mut allowance = MAX_UNPACKED_BYTES;
    unpack_nested(bytes, MAX_DEPTH, &mut allowance, &mut unpacked);
    unpacked
}

fn unpack_nested(bytes: &[u8], depth: u32, allowance: &mut usize, unpacked: &mut Unpacked) {
    if let Err(error) = try_unpack(bytes, depth, allowance, unpacked) {
        unpacked.errors.push(error);
    }
}

fn try_unpack(bytes: &[u8], depth: u32, allowance: &mut usize, unpacked: &mut Unpacked) -> Result<(), WireError> {
    let depth = depth
        .checked_sub(1)
        .ok_or(WireError::Invalid("a datagram is nested too deep"))?;
    let (&first, body) = bytes.split_first().ok_or(WireError::Truncated)?;
    let mut reader = Reader::new(body);
    match first {
        kind::HAS_CRC => {
            let checksum = reader.be32()?;
            if crc32fast::hash(reader.rest()) != checksum {
                return Err(WireError::Invalid("the checksum of a datagram is wrong"));
            }
            try_unpack(reader.rest(), depth, allowance, unpacked)
        }
        kind::COMPRESS => {
            let content = compress::unpack(compress::read_buffer(&mut reader)?, *allowance)?;
            *allowance -= content.len();
            try_unpack(&content, depth, allowance, unpacked)
        }
        kind::COMPOUND => {
            let count = reader.byte()?;
            let lengths = (0..count).map(|_| reader.be16()).collect::<Result<Vec<_>, _>>()?;
            for length in lengths {
                unpack_nested(reader.take(length.into())?, depth, allowance, unpacked);
            }
            Ok(())
        }
        _ => {
            unpacked.messages.push(Message::decode(bytes)?);
            Ok(())
        }
    }
}

/// Writes a datagram of encoded messages, at most [`COMPOUND_PARTS`] of at most 65535 bytes each, compressed where that makes it
/// shorter. A checksum goes in front if `checksum`: a receiver that speaks protocol 5 checks it.
pub fn pack(parts: &[Vec<u8>], checksum: bool) -> Vec<u8> {
    let length: usize = parts.iter().map(Vec::len).sum();
    let mut body = Vec::with_capacity(length + COMPOUND_BYTES + COMPOUND_PART_BYTES * parts.len());
    if let [only] = parts {
        body.extend_from_slice(only);
    } else {
        body.extend_from_slice(&[kind::COMPOUND, parts.len() as u8]);
        parts
            .iter()
            .for_each(|part| body.extend_from_slice(&(part.len() as u16).to_be_bytes()));
        parts.iter().for_each(|part| body.extend_from_slice(part));
    }
    let body = compress::pack(&body).unwrap_or(body);
    if !checksum {
        return body;
    }
    let mut out = Vec::with_capacity(CRC_BYTES + body.len());
    out.push(kind::HAS_CRC);
    out.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}
