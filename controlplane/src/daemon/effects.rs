//! Performing what the node wants done.

use super::{Command, Daemon, Leaving, new_node};
use crate::netlink::{HOST_INTERFACE_PREFIX, RouteError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::sleep;
use weft_core::cluster::{Reply, Request};
use weft_core::id::NetworkId;
use weft_core::networkdb::LogLevel;
use weft_core::node::{Effect, Input};
use weft_core::recording::Ending;
use weft_core::wanted::sixteen_bytes;
use weft_dataplane::abi::{Node, node};

/// How often the kernel is asked again for routes that it did not tell, in one search for all of them.
const ROUTE_RETRIES: usize = 10;
/// How long it is left alone before that.
const ROUTE_PAUSE: Duration = Duration::from_millis(50);

impl Daemon {
    pub(super) fn perform_effects(&mut self) {
        while let Some(effect) = self.node.poll_effect() {
            match effect {
                Effect::Datagram { to, bytes } => self.sockets.send(to, &bytes),
                Effect::OpenStream {
                    stream,
                    to,
                    bytes,
                    expects_reply,
                } => {
                    self.sockets.open_stream(stream, to, bytes, expects_reply);
                }
                Effect::Reply { stream, bytes } => self.sockets.answer(stream, Some(bytes)),
                Effect::Close { stream } => self.sockets.answer(stream, None),
                Effect::Joined { request, result } => self.gossip_joined(request, result),
                Effect::Left => self.left(),
                Effect::Maps(steps) => {
                    if let Err(error) = self.dataplane.apply(&steps) {
                        tracing::error!(%error, "map not written; reading the maps back");
                        let now = self.now();
                        self.node.handle(now, Input::MapsFailed);
                    }
                }
                Effect::Members(members) => match self.dataplane.keep_members(&members.ipv4, &members.ipv6) {
                    Ok(0) => {}
                    Ok(connections) => tracing::info!(connections, "let go of: their backends are gone"),
                    Err(error) => tracing::warn!(%error, "connections to backends that are gone stay until they end"),
                },
                Effect::ReadMaps => self.read_maps(),
                Effect::FindRoutes(vteps) => self.find_routes(vteps),
                Effect::FindNetwork(network) => self.find_network(network),
                Effect::Overflow(overflow) => self.capacity.overflow(overflow),
                Effect::Log { level, message } => log(level, &message),
            }
        }
    }

    /// Tells the node what the kernel holds.
    pub(super) fn read_maps(&mut self) {
        let now = self.now();
        match self.dataplane.present() {
            Ok(present) => self.node.handle(now, Input::MapsRead(Box::new(present))),
            Err(error) => {
                tracing::error!(%error, "maps not read back");
                self.node.handle(now, Input::MapsFailed);
            }
        }
    }

    /// Forgets balanced connections that have expired.
    pub(super) fn sweep_flows(&mut self) {
        if let Err(error) = self.dataplane.sweep_flows() {
            tracing::warn!(%error, "expired connections are not forgotten");
        }
    }

    /// Routes or links of the host changed: routes are found again, and endpoints whose interface is gone are let go.
    pub(super) fn underlay_changed(&mut self) {
        self.find_routes(self.node.vteps().clone());
        self.list_interfaces();
        self.look_at_uplink();
    }

    pub(super) fn list_interfaces(&self) {
        let handle = self.handle.clone();
        let netlink = self.netlink.clone();
        let before = self.endpoints.ids().cloned().collect();
        tokio::spawn(async move {
            match netlink.list_endpoints(HOST_INTERFACE_PREFIX).await {
                Ok(present) => {
                    handle.tell(Command::HostInterfaces { before, present }).await;
                }
                Err(error) => tracing::warn!(%error, "interfaces not listed"),
            }
        });
    }

    pub(super) fn find_routes(&self, vteps: BTreeSet<IpAddr>) {
        let handle = self.handle.clone();
        let source = self.vtep;
        let netlink = self.netlink.clone();
        tokio::spawn(async move {
            let mut routes = BTreeMap::new();
            let mut pending = VecDeque::from_iter(vteps);
            let mut retries = ROUTE_RETRIES;
            while let Some(vtep) = pending.pop_front() {
                if vtep.is_ipv4() != source.is_ipv4() {
                    tracing::warn!(%vtep, own = %source, "VTEP of another family than this node's own: give all nodes a data-path-addr of one family");
                    continue;
                }
                match netlink.route_to(vtep).await {
                    Ok(route) => {
                        let node = Node {
                            next_hop: sixteen_bytes(route.next_hop),
                            source: sixteen_bytes(source),
                            ifindex: route.ifindex,
                            mtu: route.mtu,
                            family: if vtep.is_ipv4() { node::IPV4 } else { node::IPV6 },
                            padding: 0,
                        };
                        routes.insert(vtep, node);
                    }
                    // That the kernel did not say is no reason to take a way from the programs.
                    Err(error @ (RouteError::Kernel { .. } | RouteError::Netlink(_))) if retries > 0 => {
                        retries -= 1;
                        tracing::debug!(%vtep, %error, "route not found out, asking again");
                        pending.push_back(vtep);
                        sleep(ROUTE_PAUSE).await;
                    }
                    Err(error) => tracing::warn!(%vtep, %error, "no route to VTEP"),
                }
            }
            handle.tell(Command::Routes(routes)).await;
        });
    }

    fn find_network(&self, id: NetworkId) {
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let request = Request::NetworkInspect {
                network: id.to_string(),
            };
            match handle.ask(|reply| Command::Manager(request, reply)).await {
                Some(Ok(Reply::Network(network))) if network.id == id => {
                    handle.tell(Command::NetworkKnown(Box::new(network))).await;
                }
                // Any text may be joined as a network id (`spec/diag-api.md` 1.5); one that nobody declared has tables, but no maps.
                Some(Ok(_)) | None => {}
                Some(Err(error)) => {
                    tracing::info!(network = %id, %error, "joined network is not declared, its tables fill no maps")
                }
            }
        });
    }

    fn gossip_joined(&mut self, request: u64, result: Result<usize, String>) {
        match &result {
            Ok(hosts) => {
                tracing::info!(hosts, "joined the gossip");
                self.remember_swarm_peers();
            }
            Err(error) => tracing::warn!(%error, "gossip not joined"),
        }
        if let Some(reply) = self.joining.remove(&request) {
            let _ = reply.send(result.map(|_| ()).map_err(|error| super::diagnose::join_error(&error)));
        }
    }

    /// The node has left the gossip: a new one takes its place, under a new name, with the endpoints that are still connected.
    fn left(&mut self) {
        if let Err(error) = self.fresh_node() {
            tracing::error!(%error, "gossip not started again");
            return;
        }
        self.read_maps();
        for leaving in std::mem::take(&mut self.leaving) {
            let _ = match leaving {
                Leaving::Diagnostic(reply) => reply.send(Ok(())).is_ok(),
                Leaving::Cluster(reply) => reply.send(Ok(())).is_ok(),
                Leaving::Swarm(reply, node_id) => reply.send(Ok(node_id)).is_ok(),
            };
        }
    }
}

impl Daemon {
    /// A new node in the gossip, with the endpoints that are connected.
    pub(super) fn fresh_node(&mut self) -> Result<(), String> {
        // The other node's gossip would go on where this one's ends.
        self.end_recording(Ending::Left);
        let now = self.now();
        self.node = new_node(now, &self.config, self.advertise, self.vtep)?;
        self.set_keyring();
        for (network, endpoint) in self.endpoints.published() {
            self.node.handle(now, Input::NetworkKnown(network));
            self.node.handle(now, Input::Attach(Box::new(endpoint)));
        }
        Ok(())
    }
}

fn log(level: LogLevel, message: &str) {
    match level {
        LogLevel::Debug => tracing::debug!("{message}"),
        LogLevel::Info => tracing::info!("{message}"),
        LogLevel::Warn => tracing::warn!("{message}"),
        LogLevel::Error => tracing::error!("{message}"),
    }
}
