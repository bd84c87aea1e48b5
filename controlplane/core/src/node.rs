//! The door: all that can happen to a node, and all that it can do.
//!
//! [`Node`] composes the gossip, the declared networks and the endpoints of this node, and keeps the kernel's maps equal to what
//! follows from them. The caller hands in [`Input`]s and the time, performs the [`Effect`]s, and calls again at
//! [`Node::poll_timeout`]. Commands that have an answer at once (table operations, look-ups) are methods.

mod derive;
mod recording;
mod retired;
#[cfg(test)]
mod tests;

use crate::cluster::Network;
use crate::dns::{Decision, Question, Zones};
use crate::id::{EndpointId, MacAddress, NetworkId, NodeId};
use crate::networkdb::{self, EntryError, Event, JoinNetworkError, LeaveNetworkError, LogLevel, NetworkDb, StreamId};
use crate::reconcile::Step;
use crate::record::{ENDPOINT_TABLE, EndpointRecord, PEER_TABLE, PeerRecord};
use crate::service::maglev::Tables;
use crate::time::{Duration, Instant};
use crate::wanted::{MapContents, Members, Overflow};
use ipnet::Ipv4Net;
use retired::Retired;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use weft_dataplane::abi::Sizes;

/// How long changes of the tables are gathered before the maps are computed: a burst of gossip is one computation, and nobody
/// notices the delay beside gossip's own 200 ms.
const GATHER: Duration = Duration::from_millis(10);

/// How long after a start the node keeps what it found in the kernel about others: until then the tables may not have arrived, and
/// their absence means nothing. Longer than a join with a retry, shorter than a user's patience.
const SETTLE: Duration = Duration::from_secs(15);

/// Once a bulk sync had time to arrive after a successful join, settling ends early.
const SETTLE_AFTER_JOIN: Duration = Duration::from_secs(3);

/// How soon a failed write of maps is tried again.
const MAP_RETRY: Duration = Duration::from_secs(1);

/// What a node is at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The gossip's part.
    pub gossip: networkdb::Config,
    /// This node's VTEP address, as it is gossiped.
    pub vtep: IpAddr,
    /// How large the kernel's maps are.
    pub sizes: Sizes,
}

/// An endpoint of this node, with all that it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id, the key of both records.
    pub id: EndpointId,
    /// Its network, which must be [known](Input::NetworkKnown).
    pub network: NetworkId,
    /// Index of the host-side interface.
    pub ifindex: u32,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its MAC.
    pub mac: MacAddress,
    /// What `endpoint_table` says of it.
    pub record: EndpointRecord,
}

/// All that can happen.
#[derive(Clone, Debug)]
pub enum Input {
    /// Something for the gossip.
    Gossip(networkdb::Input),
    /// The manager told of a network.
    NetworkKnown(Network),
    /// An endpoint was connected: it is published, and its maps are filled.
    Attach(Box<Endpoint>),
    /// An endpoint was disconnected.
    Detach(EndpointId),
    /// How the underlay reaches the VTEPs that were asked for.
    Routes(BTreeMap<IpAddr, weft_dataplane::abi::Node>),
    /// What the kernel's maps hold, read back: at the start, and now and then.
    MapsRead(Box<MapContents>),
    /// Steps could not be performed; what the maps hold is unknown until the next [`Input::MapsRead`].
    MapsFailed,
}

/// All that is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a datagram from the gossip port.
    Datagram {
        /// To whom.
        to: SocketAddr,
        /// Its payload.
        bytes: Vec<u8>,
    },
    /// Open a TCP connection, send, and read one message if a reply is expected.
    OpenStream {
        /// Names the connection in the answer.
        stream: StreamId,
        /// To whom.
        to: SocketAddr,
        /// What to send.
        bytes: Vec<u8>,
        /// Whether a whole message comes back.
        expects_reply: bool,
    },
    /// Answer an accepted connection, then close it.
    Reply {
        /// Which.
        stream: StreamId,
        /// What to send.
        bytes: Vec<u8>,
    },
    /// Close an accepted connection without an answer.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// A [`Node::join`] ended.
    Joined {
        /// What `join` returned.
        request: u64,
        /// How many hosts were contacted, or why none.
        result: Result<usize, String>,
    },
    /// A [`Node::leave`] ended.
    Left,
    /// Perform these steps on the kernel's maps, in this order.
    Maps(Vec<Step>),
    /// Of connections through virtual IPs, let go of those whose backend is no member any more. Comes when there may be some.
    Members(Members),
    /// Read the kernel's maps back: an [`Input::MapsRead`] is wanted.
    ReadMaps,
    /// Find the routes to exactly these VTEPs: an [`Input::Routes`] is wanted.
    FindRoutes(BTreeSet<IpAddr>),
    /// Somebody else's row says something about a network that this node joined but does not know: ask the manager for it.
    FindNetwork(NetworkId),
    /// More is wanted than the kernel's maps can hold.
    Overflow(Vec<Overflow>),
    /// Tell the operator.
    Log {
        /// How important.
        level: LogLevel,
        /// One line.
        message: String,
    },
}

/// The node.
#[derive(Debug)]
pub struct Node {
    gossip: NetworkDb,
    vtep: IpAddr,
    sizes: Sizes,
    networks: BTreeMap<NetworkId, Network>,
    asked_networks: BTreeSet<NetworkId>,
    endpoints: BTreeMap<EndpointId, Endpoint>,
    routes: BTreeMap<IpAddr, weft_dataplane::abi::Node>,
    asked_routes: BTreeSet<IpAddr>,
    zones: Zones,
    /// Rows that were told to be wrong, so that each is told once.
    rejected: BTreeSet<String>,
    overflow: Vec<Overflow>,
    present: Option<MapContents>,
    /// Maglev tables in use.
    tables: Tables,
    /// The members of virtual IPs at the last computation after settling.
    members: Option<Members>,
    retired: Retired,
    /// When the maps are computed next; `None` while nothing changed.
    due: Option<Instant>,
    /// Until when rows missing from the tables do not remove entries from the maps.
    settling_until: Option<Instant>,
    effects: VecDeque<Effect>,
}

impl Node {
    /// A node that knows nobody.
    pub fn new(now: Instant, config: Config) -> Self {
        Node {
            gossip: NetworkDb::new(now, config.gossip),
            vtep: config.vtep,
            sizes: config.sizes,
            networks: BTreeMap::new(),
            asked_networks: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            routes: BTreeMap::new(),
            asked_routes: BTreeSet::new(),
            zones: Zones::new(),
            rejected: BTreeSet::new(),
            overflow: Vec::new(),
            present: None,
            tables: Tables::default(),
            members: None,
            retired: Retired::default(),
            due: None,
            settling_until: Some(now + SETTLE),
            effects: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Gossip(input) => self.gossip.handle(now, input),
            Input::NetworkKnown(network) => {
                self.asked_networks.remove(&network.id);
                self.networks.insert(network.id.clone(), network);
                self.touch(now);
            }
            Input::Attach(endpoint) => self.attach(now, *endpoint),
            Input::Detach(id) => self.detach(now, &id),
            Input::Routes(routes) => {
                if routes != self.routes {
                    self.routes = routes;
                    self.touch(now);
                }
            }
            Input::MapsRead(present) => {
                self.present = Some(*present);
                // The manager may have been away when it was asked.
                self.asked_networks.clear();
                self.touch(now);
            }
            Input::MapsFailed => {
                self.present = None;
                self.due = Some(now + MAP_RETRY);
            }
        }
        self.collect(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.gossip.poll_timeout().is_some_and(|at| at <= now) {
            self.gossip.handle_timeout(now);
        }
        self.collect(now);
        if self.settling_until.is_some_and(|at| at <= now) {
            self.settling_until = None;
            self.touch(now);
        }
        if self.retired_end().is_some_and(|at| at <= now) {
            self.due.get_or_insert(now);
        }
        if self.due.is_some_and(|at| at <= now) {
            self.due = None;
            self.derive(now);
        }
    }

    /// When a virtual IP is to be taken out of the maps; not before it is known what they hold.
    fn retired_end(&self) -> Option<Instant> {
        self.present.as_ref().and_then(|_| self.retired.next_end())
    }

    /// Computes the maps now, for a caller that wants them written before it goes on.
    pub fn derive_now(&mut self, now: Instant) {
        self.collect(now);
        if self.due.take().is_some() {
            self.derive(now);
        }
    }

    /// When [`Node::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [
            self.gossip.poll_timeout(),
            self.due,
            self.settling_until,
            self.retired_end(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Joins the gossip through these members; [`Effect::Joined`] tells the outcome.
    pub fn join(&mut self, now: Instant, members: &[SocketAddr]) -> u64 {
        let request = self.gossip.join(now, members);
        self.collect(now);
        request
    }

    /// Leaves the gossip; [`Effect::Left`] tells when it is done.
    pub fn leave(&mut self, now: Instant) {
        self.gossip.leave(now);
        self.collect(now);
    }

    /// Takes part in a network's tables without an endpoint on it (`/joinnetwork`).
    pub fn join_network(&mut self, now: Instant, network: &NetworkId) -> Result<(), JoinNetworkError> {
        let joined = self.gossip.join_network(now, network);
        self.touch(now);
        self.collect(now);
        joined
    }

    /// Takes no longer part in a network's tables (`/leavenetwork`).
    pub fn leave_network(&mut self, now: Instant, network: &NetworkId) -> Result<(), LeaveNetworkError> {
        let left = self.gossip.leave_network(now, network);
        self.touch(now);
        self.collect(now);
        left
    }

    /// Writes a new row, owned by this node.
    pub fn create_entry(
        &mut self,
        now: Instant,
        table: &str,
        network: &NetworkId,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), EntryError> {
        self.gossip.create_entry(now, table, network, key, value)?;
        self.touch(now);
        self.collect(now);
        Ok(())
    }

    /// Writes over a row, which becomes this node's.
    pub fn update_entry(
        &mut self,
        now: Instant,
        table: &str,
        network: &NetworkId,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), EntryError> {
        self.gossip.update_entry(now, table, network, key, value)?;
        self.touch(now);
        self.collect(now);
        Ok(())
    }

    /// Deletes a row.
    pub fn delete_entry(
        &mut self,
        now: Instant,
        table: &str,
        network: &NetworkId,
        key: &str,
    ) -> Result<(), EntryError> {
        self.gossip.delete_entry(now, table, network, key)?;
        self.touch(now);
        self.collect(now);
        Ok(())
    }

    /// Gossips with these keys from now on.
    pub fn set_keyring(&mut self, now: Instant, keyring: networkdb::Keyring) {
        self.gossip.set_keyring(now, keyring);
        self.collect(now);
    }

    /// The gossip, to look at.
    pub fn gossip(&self) -> &NetworkDb {
        &self.gossip
    }

    /// The gossip's name for this node.
    pub fn name(&self) -> &NodeId {
        self.gossip.name()
    }

    /// The nodes of the gossip, this one included.
    pub fn peers(&self) -> Vec<(NodeId, IpAddr)> {
        self.gossip.cluster_peers()
    }

    /// The endpoints of this node.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// The networks known here.
    pub fn network(&self, id: &NetworkId) -> Option<&Network> {
        self.networks.get(id)
    }

    /// Answers a container that is on these networks, in this order. `seed` shuffles the answer.
    pub fn answer(&self, networks: &[NetworkId], question: &Question, seed: u64) -> Decision {
        self.zones.answer(question, networks, seed)
    }

    /// What did not fit into the kernel's maps at the last computation.
    pub fn overflow(&self) -> &[Overflow] {
        &self.overflow
    }

    fn attach(&mut self, now: Instant, endpoint: Endpoint) {
        if !self.gossip.joined_networks().any(|id| *id == endpoint.network)
            && let Err(error) = self.gossip.join_network(now, &endpoint.network)
        {
            self.log(LogLevel::Warn, error.to_string());
        }
        self.publish(now, &endpoint);
        self.endpoints.insert(endpoint.id.clone(), endpoint);
        self.touch(now);
    }

    fn publish(&mut self, now: Instant, endpoint: &Endpoint) {
        let Some(network) = self.networks.get(&endpoint.network) else {
            self.log(
                LogLevel::Error,
                format!(
                    "endpoint {} is on network {}, which is not known",
                    endpoint.id, endpoint.network
                ),
            );
            return;
        };
        let peer = PeerRecord {
            endpoint_ip: Ipv4Net::new(endpoint.ip, network.subnet.prefix_len()).unwrap_or_else(|_| endpoint.ip.into()),
            endpoint_mac: endpoint.mac,
            tunnel_endpoint_ip: self.vtep,
            endpoint_ip6: network.ipv6_net_of(endpoint.ip),
        };
        for (table, value) in [(PEER_TABLE, peer.encode()), (ENDPOINT_TABLE, endpoint.record.encode())] {
            let key = endpoint.id.as_str();
            // A row of an earlier incarnation of this node may have come back by bulk sync before this one was written.
            let written = match self.gossip.get_entry(table, &endpoint.network, key) {
                Ok(_) => self.gossip.update_entry(now, table, &endpoint.network, key, value),
                Err(_) => self.gossip.create_entry(now, table, &endpoint.network, key, value),
            };
            if let Err(error) = written {
                self.log(LogLevel::Error, error.to_string());
            }
        }
    }

    fn detach(&mut self, now: Instant, id: &EndpointId) {
        let Some(endpoint) = self.endpoints.remove(id) else {
            return;
        };
        for table in [ENDPOINT_TABLE, PEER_TABLE] {
            if let Err(error) = self.gossip.delete_entry(now, table, &endpoint.network, id.as_str()) {
                self.log(LogLevel::Warn, error.to_string());
            }
        }
        if !self.endpoints.values().any(|other| other.network == endpoint.network)
            && let Err(error) = self.gossip.leave_network(now, &endpoint.network)
        {
            self.log(LogLevel::Warn, error.to_string());
        }
        self.touch(now);
    }

    /// Something changed that the maps may follow from.
    fn touch(&mut self, now: Instant) {
        self.due.get_or_insert(now + GATHER);
    }

    fn log(&mut self, level: LogLevel, message: String) {
        self.effects.push_back(Effect::Log { level, message });
    }

    /// Takes over what the gossip wants done.
    fn collect(&mut self, now: Instant) {
        while let Some(effect) = self.gossip.poll_effect() {
            let effect = match effect {
                networkdb::Effect::Datagram { to, bytes } => Effect::Datagram { to, bytes },
                networkdb::Effect::OpenStream {
                    stream,
                    to,
                    bytes,
                    expects_reply,
                } => Effect::OpenStream {
                    stream,
                    to,
                    bytes,
                    expects_reply,
                },
                networkdb::Effect::Reply { stream, bytes } => Effect::Reply { stream, bytes },
                networkdb::Effect::Close { stream } => Effect::Close { stream },
                networkdb::Effect::Joined { request, result } => {
                    if let (Ok(_), Some(until)) = (&result, self.settling_until) {
                        self.settling_until = Some(until.min(now + SETTLE_AFTER_JOIN));
                    }
                    Effect::Joined { request, result }
                }
                networkdb::Effect::Left => Effect::Left,
                networkdb::Effect::Log { level, message } => Effect::Log { level, message },
                networkdb::Effect::Event(event) => {
                    if matches!(event, Event::EntrySet { .. } | Event::EntryGone { .. }) {
                        self.touch(now);
                    }
                    continue;
                }
            };
            self.effects.push_back(effect);
        }
    }

    /// The VTEPs whose routes matter: to be found again when the underlay changes.
    pub fn vteps(&self) -> &BTreeSet<IpAddr> {
        &self.asked_routes
    }
}
