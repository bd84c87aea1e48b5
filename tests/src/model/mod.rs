//! A model of the data plane in plain Rust, to compare the programs with: written from the RFCs, from what weft promises and from
//! the vocabulary of its maps, not from the programs. It is meant to be read, so it is slow and straight.
//!
//! What it leaves open is the outer UDP source port, which no RFC fixes, and points in time: a connection is fresh or
//! stale.

mod clamp;
mod container;
mod error;
mod policy;
mod quoted;
mod read;
mod service;
mod underlay;

use crate::packet::{Ip, Mac};
use crate::programs::Action;
use std::collections::{BTreeMap, BTreeSet};
use weft_dataplane::abi::Counter;

/// An address means something only together with its network.
pub type Address = (u32, Ip);

/// What a container's interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The network that it is on.
    pub vni: u32,
    /// Its address.
    pub ip: Ip,
    /// Its MAC.
    pub mac: Mac,
}

/// A connection in one direction, as its packets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The network.
    pub vni: u32,
    /// IANA protocol number.
    pub protocol: u8,
    /// Source address and port.
    pub source: (Ip, u16),
    /// Destination address and port.
    pub destination: (Ip, u16),
}

/// What becomes of the packets of a [`Way`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The new source address and port.
    pub source: (Ip, u16),
    /// The new destination address and port.
    pub destination: (Ip, u16),
    /// Whether they come from the backend.
    pub reply: bool,
    /// Whether it is no balanced connection, but one beside such a one.
    pub direct: bool,
    /// Whether the backend has answered.
    pub answered: bool,
    /// Whether the client has acknowledged that, in TCP.
    pub established: bool,
    /// Whether the client has sent a FIN.
    pub client_finished: bool,
    /// Whether the backend has sent a FIN.
    pub backend_finished: bool,
    /// Whether either side has sent a RST.
    pub reset: bool,
    /// Whether no packet came for minutes.
    pub stale: bool,
    /// Whether it is in its backend's load; of the direction from the client.
    pub counted: bool,
}

/// How a virtual IP chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The number that stands in `services`.
    pub kind: u32,
    /// A client keeps its backend for so long; 0: it does not.
    pub affinity_seconds: u32,
    /// The Maglev table; empty if there is none.
    pub table: Vec<Ip>,
    /// Weights other than 1.
    pub weights: BTreeMap<Ip, u32>,
}

/// The members of virtual IPs, and whether each takes new connections.
pub type Members = BTreeMap<Address, BTreeMap<Ip, bool>>;

/// A packet that comes in fragments: network, protocol, source, destination, identification.
pub type Fragmented = (u32, u8, Ip, Ip, u16);

/// What a node knows.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The address and MAC that stand for the gateway of every network, and the MAC for every virtual IP.
    pub gateway: (Mac, Ip),
    /// MAC of the uplink.
    pub uplink: Mac,
    /// UDP port of the data path.
    pub port: u16,
    /// The networks.
    pub networks: BTreeSet<u32>,
    /// Those whose TCP connections are told what fits, with the MTU.
    pub clamps: BTreeMap<u32, u32>,
    /// The containers' interfaces by their index.
    pub attachments: BTreeMap<u32, Attachment>,
    /// MACs of the endpoints of this node.
    pub endpoints: BTreeMap<Address, Mac>,
    /// VTEPs and MACs of the endpoints of other nodes.
    pub peers: BTreeMap<Address, (Ip, Mac)>,
    /// The ways to VTEPs: outer source address and MTU.
    pub nodes: BTreeMap<Ip, (Ip, u32)>,
    /// The virtual IPs with their backends.
    pub services: BTreeMap<Address, Vec<Ip>>,
    /// How those choose that do not take one backend after the other.
    pub policies: BTreeMap<Address, Policy>,
    /// How many connections each backend has open, of virtual IPs that choose by it.
    pub loads: BTreeMap<(Address, Ip), u32>,
    /// Which backend each client had last, and whether that is long ago, of virtual IPs with affinity.
    pub affinities: BTreeMap<(Address, Ip), (Ip, bool)>,
    /// How many connections each virtual IP has had.
    pub turns: BTreeMap<Address, usize>,
    /// The balanced connections.
    pub connections: BTreeMap<Way, Change>,
    /// The ports of packets in fragments.
    pub fragments: BTreeMap<Fragmented, (u16, u16)>,
    /// The port that a connection gets whose own is taken: any that is free will do.
    pub other_port: Option<u16>,
    /// What was counted beside a packet's end.
    pub(crate) counted: Vec<Counter>,
}

/// What comes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The kernel's action.
    pub action: Action,
    /// The packet afterwards. The source port of an outer header that was put on is zero.
    pub packet: Vec<u8>,
    /// What was counted.
    pub counted: BTreeMap<Counter, u64>,
    /// Whether an outer header was put on.
    pub encapsulated: bool,
}

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A container, by the interface of this index.
    Container(u32),
    /// The underlay.
    Underlay,
}

impl World {
    /// Whether an endpoint stands behind a virtual IP.
    pub fn is_backend(&self, vni: u32, ip: Ip) -> bool {
        let mut of_network = self.services.iter().filter(|((network, _), _)| *network == vni);
        of_network.any(|(_, backends)| backends.contains(&ip))
    }

    /// The members of virtual IPs are these now: what was balanced to others is forgotten.
    pub fn keep_members(&mut self, members: &Members) {
        policy::keep(self, members);
    }

    /// What comes of a packet.
    pub fn process(&mut self, origin: Origin, packet: &[u8]) -> Output {
        let end = match origin {
            Origin::Container(ifindex) => container::process(self, ifindex, packet),
            Origin::Underlay => underlay::process(self, packet),
        };
        let mut counted = BTreeMap::new();
        for counter in end.counted.into_iter().chain(self.counted.drain(..)) {
            *counted.entry(counter).or_insert(0) += 1;
        }
        Output {
            action: end.action,
            packet: end.packet,
            encapsulated: counted.contains_key(&Counter::Encapsulated),
            counted,
        }
    }
}

/// How a packet ends.
struct End {
    action: Action,
    packet: Vec<u8>,
    counted: Vec<Counter>,
}

impl End {
    fn dropped(packet: &[u8], reason: Counter) -> Self {
        End {
            action: Action::Drop,
            packet: packet.to_vec(),
            counted: vec![reason],
        }
    }

    fn passed(packet: &[u8], counted: &[Counter]) -> Self {
        End {
            action: Action::Pass,
            packet: packet.to_vec(),
            counted: counted.to_vec(),
        }
    }

    fn redirected(packet: Vec<u8>, counter: Counter) -> Self {
        End {
            action: Action::Redirect,
            packet,
            counted: vec![counter],
        }
    }

    fn counting(mut self, counter: Counter) -> Self {
        self.counted.push(counter);
        self
    }
}
