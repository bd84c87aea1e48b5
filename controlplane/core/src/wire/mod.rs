//! How gossip is written as bytes: memberlist's messages and NetworkDB's (`spec/networkdb.md` 3.3 and 3.5).
//!
//! Every decoder here is total: any bytes give a value or a [`WireError`], and what is allocated stays in proportion to what came in.

pub mod compress;
pub mod gossip;
pub mod keyring;
pub mod message;
pub mod msgpack;
pub mod packet;
mod protobuf;
pub mod stream;

#[cfg(test)]
mod tests;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside of the message.
    #[error("the message is cut short")]
    Truncated,
    /// A part has a wrong shape.
    #[error("{0}")]
    Invalid(&'static str),
}

/// The first byte of every memberlist message (`spec/networkdb.md` 3.3.2).
pub mod kind {
    /// Are you there?
    pub const PING: u8 = 0;
    /// Ask somebody else whether it is there.
    pub const INDIRECT_PING: u8 = 1;
    /// I am here.
    pub const ACK: u8 = 2;
    /// A node is suspected of having failed.
    pub const SUSPECT: u8 = 3;
    /// A node is alive.
    pub const ALIVE: u8 = 4;
    /// A node has failed, or has left.
    pub const DEAD: u8 = 5;
    /// The sender's whole view (TCP).
    pub const PUSH_PULL: u8 = 6;
    /// Several messages in one datagram.
    pub const COMPOUND: u8 = 7;
    /// A message of the layer above.
    pub const USER: u8 = 8;
    /// A compressed message.
    pub const COMPRESS: u8 = 9;
    /// An encrypted stream (TCP).
    pub const ENCRYPT: u8 = 10;
    /// The asked-for node did not answer.
    pub const NACK: u8 = 11;
    /// A checksum in front of a datagram.
    pub const HAS_CRC: u8 = 12;
    /// The peer could not read (TCP).
    pub const ERR: u8 = 13;
    /// A label in front; Docker's is always empty, so it is never there.
    pub const HAS_LABEL: u8 = 244;
}
