//! Steps that change the kernel's maps.

use weft_dataplane::abi::{Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service};

/// An entry of a control map, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of `attachments`.
    Attachment(u32, Attachment),
    /// Of `networks`.
    Network(u32, Network),
    /// Of `endpoints`.
    Endpoint(OverlayAddress, Endpoint),
    /// Of `peers`.
    Peer(OverlayAddress, Peer),
    /// Of `nodes`.
    Node([u8; 4], Node),
    /// Of `services`.
    Service(OverlayAddress, Service),
    /// Of `backends`.
    Backend(BackendKey, Backend),
}

/// The key of an entry of a control map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKey {
    /// Of `attachments`.
    Attachment(u32),
    /// Of `networks`.
    Network(u32),
    /// Of `endpoints`.
    Endpoint(OverlayAddress),
    /// Of `peers`.
    Peer(OverlayAddress),
    /// Of `nodes`.
    Node([u8; 4]),
    /// Of `services`.
    Service(OverlayAddress),
    /// Of `backends`.
    Backend(BackendKey),
}

/// One write to a control map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the entry, whether or not its key is there.
    Put(Entry),
    /// Remove the entry, if it is there.
    Remove(EntryKey),
}
