//! The complete content that the kernel's maps should have.

use std::collections::BTreeMap;
use weft_dataplane::abi::{Attachment, Backend, BackendKey, Endpoint, Network, Node, OverlayAddress, Peer, Service};

/// The control maps, whole. What the kernel itself writes (flows, rotations, counters) is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapContents {
    /// `attachments`: host-side ifindex.
    pub attachments: BTreeMap<u32, Attachment>,
    /// `networks`: VNI.
    pub networks: BTreeMap<u32, Network>,
    /// `endpoints`.
    pub endpoints: BTreeMap<OverlayAddress, Endpoint>,
    /// `peers`.
    pub peers: BTreeMap<OverlayAddress, Peer>,
    /// `nodes`: VTEP address.
    pub nodes: BTreeMap<[u8; 4], Node>,
    /// `services`.
    pub services: BTreeMap<OverlayAddress, Service>,
    /// `backends`.
    pub backends: BTreeMap<BackendKey, Backend>,
}
