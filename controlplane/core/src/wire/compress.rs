//! Compressed messages: LZW as in GIF, least significant bit first, literals of 8 bits (`spec/networkdb.md` 3.3.5).
//!
//! Sending compressed is a choice, receiving it is a duty. What is gained and what it costs was measured on tables' and members'
//! own messages: packing takes 15 to 20 ns a byte, ten times what encryption takes. One row or one member's message (50 to 200
//! bytes) grows or stays; three messages of members (230 bytes) lose a seventh, a full datagram a third to a half, a view of a
//! hundred members two thirds, a bulk sync more than half. So [`pack`] leaves alone what is short, and what is so long that packing
//! it would keep everything else waiting.

use super::msgpack::{Reader, write_key, write_map, write_number, write_raw};
use super::{WireError, kind};
use weezl::{BitOrder, LzwStatus, decode, encode};

/// How much is unpacked at a time.
const CHUNK_BYTES: usize = 8192;

/// Shorter messages are not packed: at best they lose a few dozen bytes, of a packet that is sent anyway.
const WORTHWHILE_BYTES: usize = 256;

/// Longer messages are not packed: this takes 20 ms already, and a probe waits half a second for its answer at most.
const TOLERABLE_BYTES: usize = 1 << 20;

/// The message compressed, type byte first; `None` if that does not make it shorter, or is not worth its time.
pub fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    if !(WORTHWHILE_BYTES..=TOLERABLE_BYTES).contains(&plain.len()) {
        return None;
    }
    let mut out = Vec::with_capacity(plain.len());
    out.push(kind::COMPRESS);
    write_map(&mut out, 2);
    write_key(&mut out, "Algo");
    write_number(&mut out, 0);
    write_key(&mut out, "Buf");
    write_raw(&mut out, &lzw(plain)?);
    (out.len() < plain.len()).then_some(out)
}

/// The bytes packed, however long that gets.
pub(super) fn lzw(plain: &[u8]) -> Option<Vec<u8>> {
    encode::Encoder::new(BitOrder::Lsb, 8).encode(plain).ok()
}

/// The head of a compressed message, after its type byte: the compressed bytes, still packed. Reads the map `Algo`, `Buf`.
pub fn read_buffer<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let (mut algorithm, mut buffer) = (0, None);
    reader.map(|key, value| {
        match key {
            b"Algo" => algorithm = value.number()?,
            b"Buf" => buffer = value.raw()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    match (algorithm, buffer) {
        (0, Some(buffer)) => Ok(buffer),
        (0, None) => Err(WireError::Invalid("a compressed message has no content")),
        _ => Err(WireError::Invalid("a message is compressed by an unknown algorithm")),
    }
}

/// Unpacks at most `limit` bytes; more are an error.
pub fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, WireError> {
    let mut decoder = decode::Decoder::new(BitOrder::Lsb, 8);
    let mut unpacked = Vec::new();
    let mut chunk = [0; CHUNK_BYTES];
    let mut rest = packed;
    loop {
        let step = decoder.decode_bytes(rest, &mut chunk);
        rest = rest.get(step.consumed_in..).unwrap_or_default();
        let fresh = chunk.get(..step.consumed_out).unwrap_or_default();
        if unpacked.len() + fresh.len() > limit {
            return Err(WireError::Invalid(
                "a compressed message unpacks to more than is allowed",
            ));
        }
        unpacked.extend_from_slice(fresh);
        match step.status {
            Ok(LzwStatus::Done) => return Ok(unpacked),
            Ok(LzwStatus::Ok) if step.consumed_in > 0 || step.consumed_out > 0 => {}
            Ok(_) => return Err(WireError::Invalid("a compressed message has no end")),
            Err(_) => return Err(WireError::Invalid("a compressed message has a code that cannot be")),
        }
    }
}
