//! How many fields a protobuf message has, told without reading them.

use super::WireError;
use super::msgpack::Reader;

/// The fields at the top level of a message; what is inside of them is not looked at.
pub(super) fn count_fields(bytes: &[u8]) -> Result<usize, WireError> {
    let mut reader = Reader::new(bytes);
    let mut fields = 0;
    while !reader.rest().is_empty() {
        let tag = varint(&mut reader)?;
        match tag & 7 {
            0 => {
                varint(&mut reader)?;
            }
            1 => {
                reader.take(8)?;
            }
            2 => {
                let length = varint(&mut reader)?;
                reader.take(usize::try_from(length).map_err(|_| WireError::Truncated)?)?;
            }
            5 => {
                reader.take(4)?;
            }
            // Groups are of a time before this protocol.
            _ => return Err(WireError::Invalid("a field has an unknown form")),
        }
        fields += 1;
    }
    Ok(fields)
}

/// Seven bits a byte, the least first, at most ten bytes.
fn varint(reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = reader.byte()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(WireError::Invalid("a number has more than ten bytes"))
}
