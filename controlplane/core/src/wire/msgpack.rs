//! The msgpack profile of Go memberlist: the old raw type for strings and bytes alike (`spec/networkdb.md` 3.3.1).

use super::WireError;
use rmp::Marker;

/// How deep unknown values may nest. memberlist's own messages are two levels deep.
const MAX_DEPTH: u32 = 16;

/// Reads values off the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, position: 0 }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let taken = self.rest().get(..length).ok_or(WireError::Truncated)?;
        self.position += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, WireError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A big-endian 16-bit number without a marker.
    pub fn be16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A big-endian 32-bit number without a marker.
    pub fn be32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    fn marker(&mut self) -> Result<Marker, WireError> {
        self.byte().map(Marker::from_u8)
    }

    /// A map: `field` is called for each key and must read or [skip](Self::skip) the value.
    pub fn map(&mut self, mut field: impl FnMut(&[u8], &mut Self) -> Result<(), WireError>) -> Result<(), WireError> {
        let length = match self.marker()? {
            Marker::FixMap(length) => u32::from(length),
            Marker::Map16 => u32::from(self.be16()?),
            Marker::Map32 => self.be32()?,
            _ => return Err(WireError::Invalid("a map was expected")),
        };
        for _ in 0..length {
            let key = self.raw()?.unwrap_or_default();
            field(key, self)?;
        }
        Ok(())
    }

    /// Bytes; `None` for nil.
    pub fn raw(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let length = match self.marker()? {
            Marker::Null => return Ok(None),
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 | Marker::Bin8 => usize::from(self.byte()?),
            Marker::Str16 | Marker::Bin16 => usize::from(self.be16()?),
            Marker::Str32 | Marker::Bin32 => self.be32()? as usize,
            _ => return Err(WireError::Invalid("a string or bytes were expected")),
        };
        self.take(length).map(Some)
    }

    /// Bytes; empty for nil.
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        self.raw().map(Option::unwrap_or_default)
    }

    /// A text; empty for nil.
    pub fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Invalid("a text is not UTF-8"))
    }

    /// A number that is not negative, in the unsigned or the signed form; zero for nil.
    pub fn number(&mut self) -> Result<u64, WireError> {
        let signed = match self.marker()? {
            Marker::Null => 0,
            Marker::FixPos(number) => i64::from(number),
            Marker::U8 => i64::from(self.byte()?),
            Marker::U16 => i64::from(self.be16()?),
            Marker::U32 => i64::from(self.be32()?),
            Marker::U64 => return self.array().map(u64::from_be_bytes),
            Marker::FixNeg(number) => i64::from(number),
            Marker::I8 => i64::from(i8::from_be_bytes(self.array()?)),
            Marker::I16 => i64::from(i16::from_be_bytes(self.array()?)),
            Marker::I32 => i64::from(i32::from_be_bytes(self.array()?)),
            Marker::I64 => i64::from_be_bytes(self.array()?),
            _ => return Err(WireError::Invalid("a number was expected")),
        };
        u64::try_from(signed).map_err(|_| WireError::Invalid("a number is negative"))
    }

    /// A number of 32 bits.
    pub fn number32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.number()?).map_err(|_| WireError::Invalid("a number is larger than 32 bits"))
    }

    /// A number of 16 bits.
    pub fn number16(&mut self) -> Result<u16, WireError> {
        u16::try_from(self.number()?).map_err(|_| WireError::Invalid("a number is larger than 16 bits"))
    }

    /// True or false; false for nil.
    pub fn flag(&mut self) -> Result<bool, WireError> {
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False | Marker::Null => Ok(false),
            _ => Err(WireError::Invalid("true or false was expected")),
        }
    }

    /// Passes over one value of any kind.
    pub fn skip(&mut self) -> Result<(), WireError> {
        self.skip_nested(MAX_DEPTH)
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), WireError> {
        let depth = depth
            .checked_sub(1)
            .ok_or(WireError::Invalid("values are nested too deep"))?;
        let (length, nested) = match self.marker()? {
            Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => (0, 0),
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 => (2, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixStr(length) => (usize::from(length), 0),
            Marker::Str8 | Marker::Bin8 => (usize::from(self.byte()?), 0),
            Marker::Str16 | Marker::Bin16 => (usize::from(self.be16()?), 0),
            Marker::Str32 | Marker::Bin32 => (self.be32()? as usize, 0),
            Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::FixExt4 => (5, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            // A type byte follows the length.
            Marker::Ext8 => (1 + usize::from(self.byte()?), 0),
            Marker::Ext16 => (1 + usize::from(self.be16()?), 0),
            Marker::Ext32 => (1_usize.saturating_add(self.be32()? as usize), 0),
            Marker::FixArray(length) => (0, u64::from(length)),
            Marker::Array16 => (0, u64::from(self.be16()?)),
            Marker::Array32 => (0, u64::from(self.be32()?)),
            Marker::FixMap(length) => (0, 2 * u64::from(length)),
            Marker::Map16 => (0, 2 * u64::from(self.be16()?)),
            Marker::Map32 => (0, 2 * u64::from(self.be32()?)),
            Marker::Reserved => return Err(WireError::Invalid("a value has an unknown type")),
        };
        self.take(length)?;
        // Each nested value takes a byte at least, so the bytes bound the loop whatever the length says.
        for _ in 0..nested {
            self.skip_nested(depth)?;
        }
        Ok(())
    }
}

/// Writes the head of a map with at most 15 keys; the keys must follow in ascending order.
pub fn write_map(out: &mut Vec<u8>, keys: u8) {
    debug_assert!(keys < 16);
    out.push(0x80 | (keys & 0x0f));
}

/// Writes a string or bytes.
pub fn write_raw(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..32 => out.push(0xa0 | length as u8),
        length @ 32..0x1_0000 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

/// Writes the key of a map.
pub fn write_key(out: &mut Vec<u8>, key: &str) {
    write_raw(out, key.as_bytes());
}

/// Writes nil.
pub fn write_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

/// Writes true or false.
pub fn write_flag(out: &mut Vec<u8>, flag: bool) {
    out.push(if flag { 0xc3 } else { 0xc2 });
}

/// Writes a number in its shortest unsigned form.
pub fn write_number(out: &mut Vec<u8>, number: u32) {
    match number {
        0..0x80 => out.push(number as u8),
        0x80..0x100 => out.extend_from_slice(&[0xcc, number as u8]),
        0x100..0x1_0000 => {
            out.push(0xcd);
            out.extend_from_slice(&(number as u16).to_be_bytes());
        }
        _ => {
            out.push(0xce);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
}
