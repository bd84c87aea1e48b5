//! The bytes of a recording: eight that name it, a version, then frames: length, checksum, and the frame in MessagePack.

use super::Frame;
use rmp_serde::config::BytesMode;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a recording begins with.
const MAGIC: [u8; 8] = *b"weft-rec";

/// The version that is written, and the latest that is read.
const VERSION: u32 = 1;

/// Before the first frame.
const HEAD_BYTES: usize = MAGIC.len() + 4;

/// Before each frame's content.
const FRAME_HEAD_BYTES: usize = 8;

/// The largest frame: the largest message on a stream (20 MiB), and what tells of it.
pub const MAX_FRAME_BYTES: usize = 24 << 20;

/// Why a recording cannot be read, or not further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Something else.
    #[error("this is not a recording of weft")]
    Foreign,
    /// Made by a later weft.
    #[error(
        "this recording has format {version}, and this weft reads formats up to {VERSION}; replay it with the weft that made it"
    )]
    Version {
        /// Its version.
        version: u32,
    },
    /// A frame says that it is larger than any can be.
    #[error("frame {frame} of this recording says that it has {bytes} bytes, and none has more than {MAX_FRAME_BYTES}")]
    TooLarge {
        /// Which, from 1.
        frame: u64,
        /// What it says.
        bytes: u32,
    },
    /// The bytes are not those that were written.
    #[error("frame {frame} of this recording is damaged: its checksum is wrong")]
    Damaged {
        /// Which, from 1.
        frame: u64,
    },
    /// The bytes have no meaning.
    #[error("frame {frame} of this recording cannot be read: {error}")]
    Unreadable {
        /// Which, from 1.
        frame: u64,
        /// Why.
        error: String,
    },
}

/// A value as MessagePack, with names, so that what is added later is passed over.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut bytes)
        .with_struct_map()
        .with_bytes(BytesMode::ForceIterables);
    value.serialize(&mut serializer).map_err(|error| error.to_string())?;
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

/// What stands before the first frame.
pub(super) fn head() -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_be_bytes());
    head
}

/// Writes a frame; false if it is too large or cannot be written, and then nothing is.
pub(super) fn write(out: &mut Vec<u8>, frame: &Frame) -> bool {
    let Some(body) = encode(frame).ok().filter(|body| body.len() <= MAX_FRAME_BYTES) else {
        return false;
    };
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    out.extend_from_slice(&body);
    true
}

/// Reads a recording as it comes, in pieces of any size. Holds one frame and what was pushed beyond it.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    /// How much of the buffer has been read.
    read: usize,
    frames: u64,
    begun: bool,
}

impl Reader {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of the recording.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame; `None` if its end has not been pushed yet. Nothing can be read after an error.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        if !self.begun && !self.begin()? {
            return Ok(None);
        }
        let frame = self.frames + 1;
        let rest = self.buffer.get(self.read..).unwrap_or_default();
        let Some((head, body)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() else {
            return Ok(None);
        };
        let [a, b, c, d, checksum @ ..] = *head;
        let bytes = u32::from_be_bytes([a, b, c, d]);
        if bytes as usize > MAX_FRAME_BYTES {
            return Err(ReadError::TooLarge { frame, bytes });
        }
        let Some(body) = body.get(..bytes as usize) else {
            return Ok(None);
        };
        if crc32fast::hash(body) != u32::from_be_bytes(checksum) {
            return Err(ReadError::Damaged { frame });
        }
        let read = decode(body).map_err(|error| ReadError::Unreadable { frame, error })?;
        self.read += FRAME_HEAD_BYTES + body.len();
        self.frames = frame;
        Ok(Some(read))
    }

    fn begin(&mut self) -> Result<bool, ReadError> {
        let begins = self.buffer.iter().zip(MAGIC).all(|(byte, wanted)| *byte == wanted);
        if !begins {
            return Err(ReadError::Foreign);
        }
        let Some((_, [a, b, c, d])) = self
            .buffer
            .first_chunk::<HEAD_BYTES>()
            .and_then(|head| head.split_last_chunk::<4>())
        else {
            return Ok(false);
        };
        let version = u32::from_be_bytes([*a, *b, *c, *d]);
        if version == 0 || version > VERSION {
            return Err(ReadError::Version { version });
        }
        self.read = HEAD_BYTES;
        self.begun = true;
        Ok(true)
    }

    /// How many frames were read.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// How many bytes were pushed and belong to no whole frame. After the last push: the recording ends in the middle of one, if any.
    pub fn unread(&self) -> usize {
        self.buffer.len() - self.read
    }
}
