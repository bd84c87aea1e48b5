//! From the tables to names and maps: everything that follows from the state is computed anew, whole.

mod balanced;
#[cfg(test)]
mod tests;

use super::{Effect, Endpoint, Node};
use crate::dns::Zones;
use crate::id::NetworkId;
use crate::networkdb::{LogLevel, OwnerState};
use crate::overlay::{Overlay, PeerRow};
use crate::reconcile;
use crate::record::{ENDPOINT_TABLE, EndpointRecord, PEER_TABLE, PeerRecord};
use crate::service::{EndpointRow, Services};
use crate::time::Instant;
use crate::wanted::{self, Inputs, LocalAttachment, MapContents, Members, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use weft_dataplane::abi::{Ip, OverlayAddress, Peer, Sizes, V6};

impl Node {
    /// Computes names, services and maps anew from the tables, and the steps from what the kernel has.
    pub(super) fn derive(&mut self, now: Instant) {
        let mut rejected = BTreeSet::new();
        let (peers, endpoints) = self.decode_tables(&mut rejected);
        let own = BTreeSet::from([self.vtep]);
        let overlay = Overlay::new(peers, &own);
        rejected.extend(overlay.contested.iter().map(ToString::to_string));
        self.log_rejected(rejected);
        let services = Services::new(endpoints);
        self.zones = Zones::new();
        for (id, on_network) in &services.networks {
            if let Some(network) = self.networks.get(id) {
                self.zones
                    .set(id.clone(), network.name.clone(), on_network.names.clone());
            }
        }
        let (wanted, vteps) = self.compute(&overlay, &services);
        if vteps != self.asked_routes {
            self.asked_routes.clone_from(&vteps);
            self.effects.push_back(Effect::FindRoutes(vteps));
        }
        if wanted.overflows != self.overflow {
            self.overflow.clone_from(&wanted.overflows);
            self.effects.push_back(Effect::Overflow(wanted.overflows));
        }
        let Some(present) = &self.present else {
            self.effects.push_back(Effect::ReadMaps);
            return;
        };
        let mut target = if self.settling_until.is_some() {
            keep_others(wanted.contents, present, &self.sizes)
        } else {
            wanted.contents
        };
        self.retired.add_to(now, &mut target, present, self.sizes.services);
        let steps = reconcile::steps(&target, present, &self.sizes);
        let members = wanted.members.with_refusing(&target);
        if !steps.is_empty() {
            self.present = Some(target);
            self.effects.push_back(Effect::Maps(steps));
        }
        self.tell_members(members);
    }

    /// Tells of members when connections may have to go, and when it is first known who is a member.
    fn tell_members(&mut self, members: Members) {
        if self.settling_until.is_some() {
            return;
        }
        let is_news = self.members.as_ref().is_none_or(|known| known.lost_something(&members));
        if is_news {
            self.effects.push_back(Effect::Members(members.clone()));
        }
        self.members = Some(members);
    }

    fn compute(&mut self, overlay: &Overlay, services: &Services) -> (Wanted, BTreeSet<IpAddr>) {
        let attachment = |e: &Endpoint| LocalAttachment {
            endpoint: e.id.clone(),
            network: e.network.clone(),
            ifindex: e.ifindex,
            ip: e.ip,
            mac: e.mac,
        };
        let attachments: Vec<LocalAttachment> = self.endpoints.values().map(attachment).collect();
        let joined: BTreeSet<NetworkId> = self.gossip.joined_networks().cloned().collect();
        let inputs = Inputs {
            networks: &self.networks,
            joined: &joined,
            attachments: &attachments,
            overlay,
            services,
            routes: &self.routes,
        };
        let wanted = wanted::wanted(&inputs, &self.sizes, &mut self.tables);
        (wanted, wanted::vteps(&inputs))
    }

    /// The records of all networks that this node takes part in and knows. Also asks for those that it does not know.
    fn decode_tables(&mut self, rejected: &mut BTreeSet<String>) -> (Vec<PeerRow>, Vec<EndpointRow>) {
        let (mut peers, mut endpoints) = (Vec::new(), Vec::new());
        let mut outgoing = Vec::new();
        let mut unknown = Vec::new();
        for id in self.gossip.joined_networks() {
            if !self.networks.contains_key(id) {
                unknown.push(id.clone());
                continue;
            }
            for row in self.gossip.rows(id, PEER_TABLE) {
                let (network, endpoint, owner) = (id.clone(), row.key.to_owned(), row.owner.clone());
                match PeerRecord::decode(row.value) {
                    Ok(record) => {
                        let rows = match row.owner_state {
                            OwnerState::Replaced => &mut outgoing,
                            _ => &mut peers,
                        };
                        rows.push(PeerRow {
                            network,
                            endpoint,
                            owner,
                            record,
                        });
                    }
                    Err(error) => {
                        rejected.insert(format!("{PEER_TABLE} row {endpoint} of node {owner}: {error}"));
                    }
                }
            }
            for row in self.gossip.rows(id, ENDPOINT_TABLE) {
                let (network, endpoint, owner) = (id.clone(), row.key.to_owned(), row.owner.clone());
                match EndpointRecord::decode(row.value) {
                    Ok(record) => endpoints.push(EndpointRow {
                        network,
                        endpoint,
                        owner,
                        record,
                    }),
                    Err(error) => {
                        rejected.insert(format!("{ENDPOINT_TABLE} row {endpoint} of node {owner}: {error}"));
                    }
                }
            }
        }
        self.ask_for(unknown);
        add_outgoing(&mut peers, outgoing);
        (peers, endpoints)
    }

    /// Tells once of what cannot be used, and again if it comes back.
    fn log_rejected(&mut self, rejected: BTreeSet<String>) {
        for message in rejected.difference(&self.rejected) {
            self.effects.push_back(Effect::Log {
                level: LogLevel::Warn,
                message: message.clone(),
            });
        }
        self.rejected = rejected;
    }

    fn ask_for(&mut self, unknown: Vec<NetworkId>) {
        for id in unknown {
            if self.asked_networks.insert(id.clone()) {
                self.effects.push_back(Effect::FindNetwork(id));
            }
        }
    }
}

/// What a replaced node wrote counts where nobody claims the same address.
fn add_outgoing(peers: &mut Vec<PeerRow>, mut outgoing: Vec<PeerRow>) {
    if outgoing.is_empty() {
        return;
    }
    let place = |row: &PeerRow| (row.network.clone(), row.record.endpoint_ip.addr());
    let claimed: BTreeSet<_> = peers.iter().map(place).collect();
    outgoing.retain(|row| !claimed.contains(&place(row)));
    peers.append(&mut outgoing);
}

/// While the tables may still be on their way, what the kernel knows of others on this node's networks stays: entries are added and
/// replaced, none goes.
fn keep_others(mut wanted: MapContents, present: &MapContents, sizes: &Sizes) -> MapContents {
    let networks: BTreeSet<u32> = wanted.networks.keys().copied().collect();
    keep_peers(&networks, &mut wanted.peers, &present.peers);
    keep_peers(&networks, &mut wanted.peers6, &present.peers6);
    let peers = wanted.peers.values().chain(wanted.peers6.values());
    let vteps: BTreeSet<V6> = peers.map(|peer| peer.vtep).collect();
    for (vtep, node) in present.nodes.iter().filter(|(vtep, _)| vteps.contains(*vtep)) {
        wanted.nodes.entry(*vtep).or_insert(*node);
    }
    balanced::keep(&networks, &mut wanted, present, sizes);
    wanted
}

type OfAddress<A, V> = BTreeMap<OverlayAddress<A>, V>;

fn keep_peers<A: Ip>(networks: &BTreeSet<u32>, wanted: &mut OfAddress<A, Peer>, present: &OfAddress<A, Peer>) {
    for (address, peer) in present.iter().filter(|(address, _)| networks.contains(&address.vni())) {
        wanted.entry(*address).or_insert(*peer);
    }
}
