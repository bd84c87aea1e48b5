//! The diagnostic server's requests, answered from the node.

use super::Daemon;
use std::net::{IpAddr, SocketAddr};
use tokio::net::lookup_host;
use weft_core::id::NetworkId;
use weft_core::networkdb::{OwnerState, Row};
use weft_diag::{EntryAddress, NetworkStats, Peer, ReplyTo, Request};

/// Who waits for a network's entries to be here.
pub(super) struct Syncing {
    network: NetworkId,
    reply: ReplyTo<Result<(), String>>,
}

impl Daemon {
    /// As in Docker, `/joinnetwork` answers when the network's tables are here (`spec/diag-api.md` 1.5).
    fn diagnose_join_network(&mut self, network: &str, reply: ReplyTo<Result<(), String>>) {
        let now = self.now();
        let joined = network_id(network).and_then(|id| {
            let joined = self.node.join_network(now, &id).map_err(|error| error.to_string());
            joined.map(|()| id)
        });
        match joined {
            Ok(network) => self.syncing.push(Syncing { network, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Answers those whose network is synced, or gave up: the core waits for an answer of each peer for a limited time.
    pub(super) fn answer_synced(&mut self) {
        let synced = |syncing: &mut Syncing| self.node.gossip().is_synced(&syncing.network);
        for Syncing { reply, .. } in self.syncing.extract_if(.., synced) {
            // Nobody waits for the answer any more when sending it fails.
            let _ = reply.send(Ok(()));
        }
    }

    pub(super) fn diagnose(&mut self, request: Request) {
        let now = self.now();
        // Nobody waits for the answer any more when sending it fails.
        let _ = match request {
            Request::ClusterPeers(reply) => {
                let peers = self.node.peers().into_iter().map(|(name, ip)| Peer {
                    name: name.to_string(),
                    ip: Some(ip),
                });
                reply.send(peers.collect()).is_ok()
            }
            Request::NetworkPeers(network, reply) => {
                let peers = network_id(&network)
                    .map(|id| self.node.gossip().network_peers(&id))
                    .unwrap_or_default();
                reply
                    .send(peers.into_iter().map(|(name, ip)| Peer { name, ip }).collect())
                    .is_ok()
            }
            Request::Join(members, reply) => {
                self.diagnose_join(members, reply);
                true
            }
            Request::Leave(reply) => {
                self.leaving.push(super::Leaving::Diagnostic(reply));
                self.node.leave(now);
                true
            }
            Request::JoinNetwork(network, reply) => {
                self.diagnose_join_network(&network, reply);
                true
            }
            Request::LeaveNetwork(network, reply) => reply
                .send(network_id(&network).and_then(|id| self.node.leave_network(now, &id).map_err(|e| e.to_string())))
                .is_ok(),
            Request::CreateEntry(at, value, reply) => reply
                .send(entry(&at).and_then(|id| {
                    self.node
                        .create_entry(now, &at.table, &id, &at.key, value)
                        .map_err(|e| e.to_string())
                }))
                .is_ok(),
            Request::UpdateEntry(at, value, reply) => reply
                .send(entry(&at).and_then(|id| {
                    self.node
                        .update_entry(now, &at.table, &id, &at.key, value)
                        .map_err(|e| e.to_string())
                }))
                .is_ok(),
            Request::DeleteEntry(at, reply) => reply
                .send(entry(&at).and_then(|id| {
                    self.node
                        .delete_entry(now, &at.table, &id, &at.key)
                        .map_err(|e| e.to_string())
                }))
                .is_ok(),
            Request::GetEntry(at, reply) => {
                let value = entry(&at).and_then(|id| {
                    self.node
                        .gossip()
                        .get_entry(&at.table, &id, &at.key)
                        .map(<[u8]>::to_vec)
                        .map_err(|e| e.to_string())
                });
                reply.send(value).is_ok()
            }
            Request::GetTable(table, network, reply) => {
                let rows = match network_id(&network) {
                    Ok(id) => self.node.gossip().rows(&id, &table).map(diagnostic_row).collect(),
                    Err(_) => Vec::new(),
                };
                reply.send(rows).is_ok()
            }
            Request::GetTableOfAll(table, network, reply) => {
                let rows = match network_id(&network) {
                    Ok(id) => self.node.gossip().rows_of_all(&id, &table).map(marked_row).collect(),
                    Err(_) => Vec::new(),
                };
                reply.send(rows).is_ok()
            }
            Request::NetworkStats(network, reply) => {
                let stats = network_id(&network)
                    .ok()
                    .and_then(|id| self.node.gossip().network_stats(&id));
                let stats = stats.map(|(entries, queue)| NetworkStats {
                    entries: count(entries),
                    queue_len: count(queue),
                });
                reply.send(stats).is_ok()
            }
            Request::Maps(reply) => reply.send(self.map_summaries()).is_ok(),
            Request::Map(name, reply) => reply
                .send(self.dataplane.dump(&name).map_err(|e| e.to_string()))
                .is_ok(),
        };
    }

    /// Resolves what the user wrote outside the loop, then joins.
    fn diagnose_join(&self, members: Vec<String>, reply: ReplyTo<Result<(), String>>) {
        let handle = self.handle.clone();
        let (gossip_port, own) = (self.config.gossip_port, self.advertise);
        tokio::spawn(async move {
            let mut addresses = Vec::new();
            let mut unresolved = Vec::new();
            for member in members {
                match resolve(&member, gossip_port, own).await {
                    Some(address) => addresses.push(address),
                    None => unresolved.push(member),
                }
            }
            if addresses.is_empty() {
                let _ = reply.send(Err(join_error(&lookup_errors(&unresolved))));
                return;
            }
            handle
                .tell(super::Command::GossipJoin {
                    members: addresses,
                    reply: Some(reply),
                })
                .await;
        });
    }
}

/// `ip`, `ip:port`, `host`, `[v6]:port`, with an optional `name/` in front (`spec/diag-api.md` 1.5). Of a host's addresses, one of
/// the family that this node advertises.
pub(super) async fn resolve(member: &str, default_port: u16, own: IpAddr) -> Option<SocketAddr> {
    let address = member.rsplit_once('/').map_or(member, |(_, address)| address);
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Some(address);
    }
    if address.is_empty() {
        return None;
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()?),
        _ => (address, default_port),
    };
    let mut addresses = lookup_host((host.trim_matches(['[', ']']), port)).await.ok()?;
    addresses.find(|address| address.is_ipv4() == own.is_ipv4())
}

/// The words of Docker's engine (`spec/diag-api.md` 1.5).
pub(super) fn join_error(error: &str) -> String {
    format!("/join error in the DB join could not join node to memberlist: {error}")
}

fn lookup_errors(unresolved: &[String]) -> String {
    let count = unresolved.len();
    let noun = if count == 1 { "error" } else { "errors" };
    let list: String = unresolved
        .iter()
        .map(|m| format!("\t* Failed to resolve {m}: lookup {m}: no such host\n"))
        .collect();
    format!("{count} {noun} occurred:\n{list}\n")
}

fn network_id(text: &str) -> Result<NetworkId, String> {
    NetworkId::new(text).map_err(|error| error.to_string())
}

fn entry(at: &EntryAddress) -> Result<NetworkId, String> {
    network_id(&at.network)
}

fn diagnostic_row(row: Row<'_>) -> weft_diag::Row {
    weft_diag::Row {
        key: row.key.to_owned(),
        value: row.value.to_vec(),
        owner: row.owner.to_string(),
    }
}

fn marked_row(row: Row<'_>) -> (weft_diag::Row, weft_diag::OwnerState) {
    let state = match row.owner_state {
        OwnerState::Alive => weft_diag::OwnerState::Alive,
        OwnerState::Suspect => weft_diag::OwnerState::Suspect,
        OwnerState::Failed => weft_diag::OwnerState::Failed,
        OwnerState::Replaced => weft_diag::OwnerState::Replaced,
    };
    (diagnostic_row(row), state)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
