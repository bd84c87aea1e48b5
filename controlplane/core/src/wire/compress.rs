//! Compressed messages: LZW as in GIF, least significant bit first, literals of 8 bits (`spec/networkdb.md` 3.3.5).

use super::WireError;
use super::msgpack::Reader;
use weezl::{BitOrder, LzwStatus, decode};

/// How much is unpacked at a time.
const CHUNK_BYTES: usize = 8192;

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
