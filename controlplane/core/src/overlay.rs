//! Where each address lives: peer records, sorted by address, without what cannot be used.
//!
//! **Conflicts.** Two records of one network may claim one address for a moment, when an endpoint moves or an owner failed. The
//! record with the smaller endpoint id counts, on every node alike; when it goes, the other one counts. Both are reported. Only a node
//! that has an endpoint with that address itself prefers its own.

#[cfg(test)]
mod tests;

use crate::id::{MacAddress, NetworkId, NodeId};
use crate::record::PeerRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A row of `overlay_peer_table`, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// The network that it belongs to.
    pub network: NetworkId,
    /// The row's key: the endpoint's id. Text, because other members may write what they like.
    pub endpoint: String,
    /// The node that wrote it.
    pub owner: NodeId,
    /// What it says.
    pub record: PeerRecord,
}

/// A remote endpoint, as the record that counts has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The endpoint's id.
    pub endpoint: String,
    /// The node that wrote the record.
    pub owner: NodeId,
    /// The endpoint's MAC.
    pub mac: MacAddress,
    /// The VTEP behind which it lives, of either family.
    pub vtep: IpAddr,
}

/// Why a record does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another endpoint of the network has the same address.
    Conflict {
        /// The endpoint whose record counts.
        with: String,
    },
    /// Its VTEP is no unicast address that is the same on every link, which is all that the data path can send to.
    Vtep(IpAddr),
    /// Its address is none that an endpoint can have: unspecified, broadcast, multicast or loopback.
    Address,
}

/// A record that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its network.
    pub network: NetworkId,
    /// Its endpoint.
    pub endpoint: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Why.
    pub reason: Reason,
}

/// An address that several endpoints of a network claim, this node's included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// The network.
    pub network: NetworkId,
    /// The address.
    pub ip: Ipv4Addr,
    /// The endpoints and who wrote their records, the one that counts first.
    pub claims: Vec<(String, NodeId)>,
}

impl fmt::Display for Contested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "address {} of network {} is claimed by {} endpoints",
            self.ip,
            self.network,
            self.claims.len()
        )?;
        for (place, (endpoint, owner)) in self.claims.iter().enumerate() {
            let (before, after) = if place == 0 {
                (": ", ", which counts")
            } else {
                ("; ", "")
            };
            write!(f, "{before}{endpoint} of node {owner}{after}")?;
        }
        write!(f, ". Disconnect all but one")
    }
}

/// Where all remote endpoints live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// By network and address.
    pub peers: BTreeMap<NetworkId, BTreeMap<Ipv4Addr, Location>>,
    /// The same by their IPv6 addresses: of the records that count, the first that claims one.
    pub peers6: BTreeMap<NetworkId, BTreeMap<Ipv6Addr, Location>>,
    /// What was left out, by network, address and endpoint.
    pub skipped: Vec<Skipped>,
    /// Addresses that several endpoints claim, by network and address.
    pub contested: Vec<Contested>,
}

impl Overlay {
    /// Sorts the rows, in whatever order they come. Rows whose VTEP is one of `own` are of this node's endpoints and are left
    /// out silently (`spec/overlay-driver.md` 4.8).
    pub fn new(rows: impl IntoIterator<Item = PeerRow>, own: &BTreeSet<IpAddr>) -> Self {
        let mut rows: Vec<PeerRow> = rows.into_iter().collect();
        rows.sort_by(|a, b| order(a).cmp(&order(b)));
        let is_own = |row: &PeerRow| own.contains(&row.record.tunnel_endpoint_ip);
        let mut overlay = Overlay {
            contested: contested(&rows, is_own),
            ..Overlay::default()
        };
        for row in rows.into_iter().filter(|row| !is_own(row)) {
            overlay.add(row);
        }
        overlay
    }

    /// The remote endpoint with this address.
    pub fn locate(&self, network: &NetworkId, ip: Ipv4Addr) -> Option<&Location> {
        self.peers.get(network)?.get(&ip)
    }

    fn add(&mut self, row: PeerRow) {
        let ip = row.record.endpoint_ip.addr();
        let counted = self.locate(&row.network, ip).map(|location| location.endpoint.clone());
        let usable = usable_vtep(row.record.tunnel_endpoint_ip);
        let reason = match (usable, counted) {
            (None, _) => Reason::Vtep(row.record.tunnel_endpoint_ip),
            _ if !is_host(ip) => Reason::Address,
            (_, Some(with)) => Reason::Conflict { with },
            (Some(vtep), None) => {
                let PeerRow {
                    network,
                    endpoint,
                    owner,
                    record,
                } = row;
                let location = Location {
                    endpoint,
                    owner,
                    mac: record.endpoint_mac,
                    vtep,
                };
                if let Some(ip6) = record.endpoint_ip6.map(|net| net.addr()).filter(is_host6) {
                    let known = self.peers6.entry(network.clone()).or_default();
                    known.entry(ip6).or_insert_with(|| location.clone());
                }
                self.peers.entry(network).or_default().insert(ip, location);
                return;
            }
        };
        self.skipped.push(Skipped {
            network: row.network,
            endpoint: row.endpoint,
            ip,
            reason,
        });
    }
}

/// The addresses of more than one of the sorted rows. Rows with addresses that no endpoint can have claim nothing.
fn contested(rows: &[PeerRow], is_own: impl Fn(&PeerRow) -> bool) -> Vec<Contested> {
    let place = |row: &PeerRow| row.record.endpoint_ip.addr();
    let same = |a: &PeerRow, b: &PeerRow| a.network == b.network && place(a) == place(b);
    let mut contested = Vec::new();
    for claimants in rows.chunk_by(same) {
        let mut usable: Vec<_> = claimants
            .iter()
            .filter(|row| is_host(place(row)) && usable_vtep(row.record.tunnel_endpoint_ip).is_some())
            .collect();
        let Some(first) = usable.first().copied().filter(|_| usable.len() > 1) else {
            continue;
        };
        usable.sort_by_key(|row| !is_own(row));
        contested.push(Contested {
            network: first.network.clone(),
            ip: place(first),
            claims: usable
                .into_iter()
                .map(|row| (row.endpoint.clone(), row.owner.clone()))
                .collect(),
        });
    }
    contested
}

fn order(row: &PeerRow) -> (&NetworkId, Ipv4Addr, &str, &NodeId) {
    (&row.network, row.record.endpoint_ip.addr(), &row.endpoint, &row.owner)
}

fn usable_vtep(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    let usable = match &address {
        IpAddr::V4(address) => is_host(*address),
        IpAddr::V6(address) => is_host6(address),
    };
    usable.then_some(address)
}

fn is_host(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.is_loopback())
}

/// What every link has by itself is no address of a host.
fn is_host6(ip: &Ipv6Addr) -> bool {
    let elsewhere = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    !(elsewhere || ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some())
}
