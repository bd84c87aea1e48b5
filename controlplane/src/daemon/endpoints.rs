//! Endpoints of this node: connecting, disconnecting, and taking over after a restart.

use super::connect::{Maker, clean_up, remove_files};
use super::{Command, Connect, Daemon, LocalEndpoint, NetworkView, Refused, ReplyTo, Watched};
use crate::dataplane::Hook;
use crate::netlink::HOST_INTERFACE_PREFIX;
use crate::netns::Netns;
use crate::resolver::{Resolver, ResolverHandle};
use crate::store::NodeEndpoint;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_core::cluster::settings::Settings;
use weft_core::cluster::{Allocation, Network};
use weft_core::dns::{Decision, Question};
use weft_core::id::{EndpointId, NetworkId};
use weft_core::node::{Endpoint, Input};
use weft_core::record::EndpointRecord;

/// An endpoint whose links exist, on its way to the daemon.
#[derive(Debug)]
pub struct Made {
    pub(super) stored: NodeEndpoint,
    pub(super) ifindex: u32,
    pub(super) netns: Netns,
}

/// A connected endpoint.
struct Connected {
    stored: NodeEndpoint,
    ifindex: u32,
    /// Inode of its namespace; `None` when the namespace could not be opened again after a restart.
    namespace: Option<u64>,
    /// The kernel's cookie of its namespace, where sockets are balanced.
    cookie: Option<u64>,
}

/// The resolver of one namespace, which several endpoints may share.
struct Resolving {
    /// Stops the resolver when dropped.
    _handle: ResolverHandle,
    /// The endpoint that the resolver asks for.
    asks_for: EndpointId,
}

/// All endpoints of this node.
#[derive(Default)]
pub(super) struct Endpoints {
    by_id: BTreeMap<EndpointId, Connected>,
    resolvers: BTreeMap<u64, Resolving>,
    /// Being connected: they hold an address, but are not in `by_id` yet.
    pending: BTreeSet<EndpointId>,
}

impl Endpoints {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &EndpointId> {
        self.by_id.keys()
    }

    /// The host-side interfaces: index and name.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = (u32, String)> {
        self.by_id
            .values()
            .map(|c| (c.ifindex, c.stored.host_interface.clone()))
    }

    pub(super) fn is_held(&self, id: &EndpointId) -> bool {
        self.by_id.contains_key(id) || self.pending.contains(id)
    }

    /// The namespaces that are known, to look whether they are there.
    pub(super) fn namespaces(&self) -> Vec<Watched> {
        let watched = |(id, c): (&EndpointId, &Connected)| {
            Some(Watched {
                endpoint: id.clone(),
                spec: c.stored.netns.clone(),
                inode: c.namespace?,
            })
        };
        self.by_id.iter().filter_map(watched).collect()
    }

    /// What `seat` says of each endpoint, by the cookies of their namespaces.
    pub(super) fn seats<T>(&self, seat: impl Fn(&Network, &Allocation) -> T) -> BTreeMap<u64, Vec<T>> {
        let mut seats: BTreeMap<u64, Vec<T>> = BTreeMap::new();
        for connected in self.by_id.values() {
            let NodeEndpoint {
                network, allocation, ..
            } = &connected.stored;
            if let Some(cookie) = connected.cookie {
                seats.entry(cookie).or_default().push(seat(network, allocation));
            }
        }
        seats
    }

    /// What the node has to publish for each.
    pub(super) fn published(&self) -> Vec<(Network, Endpoint)> {
        self.by_id
            .values()
            .map(|c| (c.stored.network.clone(), published(c)))
            .collect()
    }

    /// The networks that they are on, by name.
    pub(super) fn networks(&self) -> Vec<Network> {
        let mut networks: Vec<Network> = Vec::new();
        for connected in self.by_id.values() {
            let network = &connected.stored.network;
            if !networks.iter().any(|known| known.id == network.id) {
                networks.push(network.clone());
            }
        }
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        networks
    }

    /// Whether an endpoint of this name is on this network.
    pub(super) fn is_connected(&self, network: &str, endpoint: &str) -> bool {
        self.find(network, endpoint).is_some()
    }

    pub(super) fn connect_failed(&mut self, id: &EndpointId) {
        self.pending.remove(id);
    }

    fn find(&self, network: &str, endpoint: &str) -> Option<&EndpointId> {
        let on = |n: &Network| {
            n.name == network || n.id.as_str() == network || (!network.is_empty() && n.id.as_str().starts_with(network))
        };
        let is = |a: &Allocation| a.name == endpoint || a.endpoint.as_str() == endpoint;
        self.by_id
            .iter()
            .find(|(_, c)| on(&c.stored.network) && is(&c.stored.allocation))
            .map(|(id, _)| id)
    }
}

impl Daemon {
    pub(super) fn connect(&mut self, request: Connect, reply: ReplyTo<Result<LocalEndpoint, Refused>>) {
        let id = match random_endpoint_id() {
            Ok(id) => id,
            Err(error) => {
                let _ = reply.send(Err(Refused::failed(error)));
                return;
            }
        };
        self.endpoints.pending.insert(id.clone());
        let maker = Maker {
            handle: self.handle.clone(),
            netlink: self.netlink.clone(),
            node_name: self.config.node_name.clone(),
            directory: self.config.data_dir.join("endpoints").join(id.as_str()),
            id,
        };
        tokio::spawn(async move {
            let outcome = maker.connect(request).await;
            let _ = reply.send(outcome);
        });
    }

    /// The links exist: the endpoint is remembered, served and published, or the maker is told to undo.
    pub(super) fn connected(&mut self, made: Made, reply: ReplyTo<Result<LocalEndpoint, Refused>>) {
        let id = made.stored.allocation.endpoint.clone();
        let outcome = self.adopt(made);
        self.endpoints.pending.remove(&id);
        // The maps are written before the user hears of success: the first packet finds its way.
        self.flush();
        let _ = reply.send(outcome);
    }

    fn adopt(&mut self, made: Made) -> Result<LocalEndpoint, Refused> {
        let Made {
            mut stored,
            ifindex,
            netns,
        } = made;
        // Its service may have changed while its links were made.
        self.present_settings()
            .update(&mut stored.service, &mut stored.allocation);
        let at = |c: &Connected| (c.stored.network.id.clone(), c.stored.allocation.ip);
        let wanted = (stored.network.id.clone(), stored.allocation.ip);
        // The managers of a swarm reserve one address for each of its nodes, which two endpoints may be told.
        if let Some(holder) = self.endpoints.by_id.values().find(|c| at(c) == wanted) {
            return Err(Refused::conflict(format!(
                "address {} on network {} is that of endpoint {} already",
                wanted.1, stored.network.name, holder.stored.allocation.name
            )));
        }
        let id = stored.allocation.endpoint.clone();
        let namespace = netns.inode();
        self.dataplane
            .attach(Hook::Endpoint, ifindex)
            .map_err(Refused::failed)?;
        let served = self.serve_names(&netns, &id);
        if let Err(refused) = served.and_then(|()| self.store.put_endpoint(&stored).map_err(Refused::failed)) {
            self.release_interface(ifindex);
            self.endpoints.resolvers.retain(|_, r| r.asks_for != id);
            return Err(refused);
        }
        let connected = Connected {
            stored,
            ifindex,
            namespace: Some(namespace),
            cookie: self.cookie_of(&netns),
        };
        let view = local_view(&connected);
        self.publish(&connected);
        tracing::info!(endpoint = view.name, network = %view.network, ip = %view.ip, "connected");
        self.endpoints.by_id.insert(id, connected);
        Ok(view)
    }

    /// Publishes the endpoints whose services were changed; whether all that is known is stored.
    pub(super) fn take_settings(&mut self, settings: &Settings) -> bool {
        let changed = self.endpoints.by_id.values().filter_map(|connected| {
            let mut stored = connected.stored.clone();
            let is_newer = settings.update(&mut stored.service, &mut stored.allocation);
            is_newer.then_some(stored)
        });
        let changed: Vec<NodeEndpoint> = changed.collect();
        if changed.is_empty() {
            return true;
        }
        if let Err(error) = self.store.put_endpoints(changed.iter()) {
            tracing::error!(%error, "settings of services not stored, and not published");
            return false;
        }
        tracing::info!(endpoints = changed.len(), "settings of services changed");
        let now = self.now();
        for stored in changed {
            if let Some(connected) = self.endpoints.by_id.get_mut(&stored.allocation.endpoint) {
                connected.stored = stored;
                let endpoint = published(connected);
                self.node.handle(now, Input::Attach(Box::new(endpoint)));
            }
        }
        true
    }

    fn publish(&mut self, connected: &Connected) {
        let now = self.now();
        self.node
            .handle(now, Input::NetworkKnown(connected.stored.network.clone()));
        self.node.handle(now, Input::Attach(Box::new(published(connected))));
    }

    /// Computes and writes the maps now.
    fn flush(&mut self) {
        let now = self.now();
        self.node.derive_now(now);
        self.perform_effects();
        self.tell_namespaces();
    }

    fn release_interface(&mut self, ifindex: u32) {
        if let Err(error) = self.dataplane.detach(Hook::Endpoint, ifindex) {
            tracing::warn!(ifindex, %error, "program not detached");
        }
    }

    /// One resolver for each namespace, however many endpoints it has.
    fn serve_names(&mut self, netns: &Netns, id: &EndpointId) -> Result<(), Refused> {
        let namespace = netns.inode();
        if self.endpoints.resolvers.contains_key(&namespace) {
            return Ok(());
        }
        let handle = self.handle.clone();
        let endpoint = id.clone();
        let lookup = move |question: Question| {
            let handle = handle.clone();
            let endpoint = endpoint.clone();
            async move {
                handle
                    .ask(|reply| Command::Resolve {
                        endpoint,
                        question,
                        reply,
                    })
                    .await
            }
        };
        let resolver =
            Resolver::serve(netns, id.clone(), lookup, Arc::clone(&self.upstreams)).map_err(Refused::failed)?;
        self.endpoints.resolvers.insert(
            namespace,
            Resolving {
                _handle: resolver,
                asks_for: id.clone(),
            },
        );
        Ok(())
    }

    /// Answers a container's question from the networks that its namespace is on.
    pub(super) fn resolve(&self, endpoint: &EndpointId, question: &Question) -> Decision {
        let asked = self
            .endpoints
            .resolvers
            .iter()
            .find(|(_, r)| r.asks_for == *endpoint)
            .map(|(namespace, _)| *namespace);
        let mut networks: Vec<NetworkId> = Vec::new();
        for connected in self
            .endpoints
            .by_id
            .values()
            .filter(|c| asked.is_some() && c.namespace == asked)
        {
            if !networks.contains(&connected.stored.network.id) {
                networks.push(connected.stored.network.id.clone());
            }
        }
        let mut seed = [0; 8];
        // The seed only shuffles an answer: without randomness the order is merely always the same.
        let _ = getrandom::fill(&mut seed);
        self.node.answer(&networks, question, u64::from_le_bytes(seed))
    }

    pub(super) fn disconnect(&mut self, network: String, endpoint: String, reply: ReplyTo<Result<(), Refused>>) {
        let Some(id) = self.endpoints.find(&network, &endpoint).cloned() else {
            let message = format!("endpoint {endpoint} is not connected to network {network} on this node");
            let _ = reply.send(Err(Refused::not_found(message)));
            return;
        };
        let gone = self.let_go(&id);
        let (handle, netlink) = (self.handle.clone(), self.netlink.clone());
        tokio::spawn(async move {
            if let Some(stored) = gone {
                clean_up(&handle, &netlink, &stored).await;
            }
            let _ = reply.send(Ok(()));
        });
    }

    /// Disconnects all endpoints, for a node that leaves its cluster.
    pub(super) fn let_all_go(&mut self) -> Vec<NodeEndpoint> {
        let ids: Vec<EndpointId> = self.endpoints.ids().cloned().collect();
        ids.iter().filter_map(|id| self.let_go(id)).collect()
    }

    /// Takes an endpoint out of the tables, the maps and the store. Its links and its address are the caller's to clean up.
    fn let_go(&mut self, id: &EndpointId) -> Option<NodeEndpoint> {
        let connected = self.endpoints.by_id.remove(id)?;
        let now = self.now();
        self.node.handle(now, Input::Detach(id.clone()));
        self.flush();
        self.release_interface(connected.ifindex);
        self.stop_names(&connected);
        if let Err(error) = self.store.remove_endpoint(id) {
            tracing::error!(endpoint = %id, %error, "endpoint not forgotten");
        }
        tracing::info!(
            endpoint = connected.stored.allocation.name,
            network = connected.stored.network.name,
            "disconnected"
        );
        Some(connected.stored)
    }

    /// The resolver goes with the last endpoint of its namespace.
    fn stop_names(&mut self, gone: &Connected) {
        let Some(namespace) = gone.namespace else { return };
        if self.endpoints.by_id.values().all(|c| c.namespace != Some(namespace)) {
            self.endpoints.resolvers.remove(&namespace);
        }
    }

    /// Endpoints whose host-side interface is gone went with their namespace.
    pub(super) fn host_interfaces(&mut self, before: &[EndpointId], present: &[(String, u32)]) {
        let is_gone = |c: &Connected| {
            !present
                .iter()
                .any(|(name, index)| *name == c.stored.host_interface && *index == c.ifindex)
        };
        let gone = before
            .iter()
            .filter(|id| self.endpoints.by_id.get(id).is_some_and(is_gone));
        let gone = gone.cloned().collect();
        self.let_gone(gone, "interface is gone, endpoint disconnected");
    }

    /// Lets go of endpoints that ended by themselves.
    pub(super) fn let_gone(&mut self, gone: Vec<EndpointId>, why: &str) {
        for id in gone {
            let Some(stored) = self.let_go(&id) else { continue };
            tracing::warn!(
                endpoint = stored.allocation.name,
                interface = stored.host_interface,
                "{why}"
            );
            let (handle, netlink) = (self.handle.clone(), self.netlink.clone());
            tokio::spawn(async move { clean_up(&handle, &netlink, &stored).await });
        }
    }

    /// Takes over the endpoints of an earlier run, and removes what it left half-made.
    pub(super) async fn restore_endpoints(&mut self) -> Result<(), String> {
        let stored = self.store.endpoints().map_err(|error| error.to_string())?;
        let present = self
            .netlink
            .list_endpoints(HOST_INTERFACE_PREFIX)
            .await
            .map_err(|error| error.to_string())?;
        for (name, _) in present
            .iter()
            .filter(|(name, _)| !stored.iter().any(|s| s.host_interface == *name))
        {
            tracing::warn!(interface = name, "interface of no endpoint, removed");
            self.netlink
                .remove_endpoint(name)
                .await
                .map_err(|error| error.to_string())?;
        }
        self.detach_strays(&present).await?;
        for endpoint in stored {
            match present.iter().find(|(name, _)| *name == endpoint.host_interface) {
                Some((_, ifindex)) => self.restore(endpoint, *ifindex),
                None => {
                    tracing::warn!(
                        endpoint = endpoint.allocation.name,
                        "interface is gone, endpoint forgotten"
                    );
                    let id = &endpoint.allocation.endpoint;
                    self.store.remove_endpoint(id).map_err(|error| error.to_string())?;
                    remove_files(&endpoint);
                }
            }
        }
        self.flush();
        Ok(())
    }

    /// Programs of an earlier run on interfaces that carry no endpoint, or on an uplink that is not ours any more.
    async fn detach_strays(&mut self, endpoints: &[(String, u32)]) -> Result<(), String> {
        let uplink = self.uplink.ifindex;
        let attached = self.dataplane.attached().map_err(|error| error.to_string())?;
        for (hook, ifindex) in attached {
            let stays = match hook {
                Hook::Uplink => ifindex == uplink,
                Hook::Endpoint => endpoints.iter().any(|(_, index)| *index == ifindex),
            };
            if !stays {
                tracing::info!(?hook, ifindex, "program of an earlier run detached");
                self.dataplane
                    .detach(hook, ifindex)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn restore(&mut self, stored: NodeEndpoint, ifindex: u32) {
        let id = stored.allocation.endpoint.clone();
        if let Err(error) = self.dataplane.attach(Hook::Endpoint, ifindex) {
            tracing::error!(endpoint = stored.allocation.name, %error, "program not attached");
        }
        // A process id may be another's by now, and a path another namespace's.
        let netns = Netns::open(&stored.netns)
            .ok()
            .filter(|netns| netns.inode() == stored.netns_inode);
        let namespace = match &netns {
            Some(netns) => match self.serve_names(netns, &id) {
                Ok(()) => Some(netns.inode()),
                Err(error) => {
                    tracing::error!(endpoint = stored.allocation.name, %error, "no resolver in the namespace");
                    None
                }
            },
            None => {
                tracing::warn!(
                    endpoint = stored.allocation.name,
                    "namespace not found again: its packets go on, its names do not"
                );
                None
            }
        };
        let connected = Connected {
            stored,
            ifindex,
            namespace,
            cookie: netns.and_then(|netns| self.cookie_of(&netns)),
        };
        self.publish(&connected);
        self.endpoints.by_id.insert(id, connected);
    }

    pub(super) fn view(&self, network: &NetworkId) -> NetworkView {
        let on = self
            .endpoints
            .by_id
            .values()
            .filter(|c| c.stored.network.id == *network);
        let peers = self.node.gossip().network_peers(network);
        NetworkView {
            endpoints: on.map(local_view).collect(),
            peers: peers.into_iter().filter_map(|(name, ip)| Some((name, ip?))).collect(),
        }
    }
}

fn published(connected: &Connected) -> Endpoint {
    let NodeEndpoint {
        network,
        service,
        allocation,
        ..
    } = &connected.stored;
    let mut task_aliases = allocation.aliases.clone();
    task_aliases.push(allocation.endpoint.as_str()[..12].to_owned());
    Endpoint {
        id: allocation.endpoint.clone(),
        network: network.id.clone(),
        ifindex: connected.ifindex,
        ip: allocation.ip,
        mac: allocation.mac,
        record: EndpointRecord {
            task_aliases,
            ..EndpointRecord::declared(network, service.as_ref(), allocation)
        },
    }
}

fn local_view(connected: &Connected) -> LocalEndpoint {
    let stored = &connected.stored;
    LocalEndpoint {
        id: stored.allocation.endpoint.clone(),
        network: stored.network.id.clone(),
        name: stored.allocation.name.clone(),
        ip: local_ip(stored),
        ip6: stored.network.ipv6_net_of(stored.allocation.ip),
        mac: stored.allocation.mac,
        netns: stored.netns.clone(),
        interface: stored.interface.clone(),
        host_interface: stored.host_interface.clone(),
        resolv_conf: stored.resolv_conf.clone(),
    }
}

pub(super) fn local_ip(stored: &NodeEndpoint) -> ipnet::Ipv4Net {
    // The prefix length of a network is at most 32, so this cannot fail; a single address is what it would fall back to.
    ipnet::Ipv4Net::new(stored.allocation.ip, stored.network.subnet.prefix_len())
        .unwrap_or_else(|_| stored.allocation.ip.into())
}

fn random_endpoint_id() -> Result<EndpointId, String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes from the kernel: {error}"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    EndpointId::new(text).map_err(|error| error.to_string())
}
