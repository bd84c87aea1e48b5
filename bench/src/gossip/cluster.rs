//! Clusters to start from: all nodes know all, all are in one network, and nobody has anything to tell.

use std::net::SocketAddr;
use std::time::Duration;
use weft_core::id::NetworkId;
use weft_core::simulation::{CALM, Simulation, network, place, secs};

/// The table that is written.
pub(super) const TABLE: &str = "endpoint_table";

/// The network that all are in.
pub(super) fn net() -> NetworkId {
    network("net")
}

/// How many nodes start a second while a cluster is built.
const STARTS_PER_SECOND: u64 = 100;

/// Clusters larger than this are built by exchanging views, not by gossip.
const TOLD_FROM: usize = 100;

/// How long a cluster may take to settle.
const SETTLE_LIMIT: Duration = Duration::from_secs(300);

/// How often it is looked whether all agree: the resolution of what is measured after heals.
pub(super) const LOOK: Duration = Duration::from_millis(10);

/// How many of the nodes the others join.
pub(super) fn bootstraps(size: usize) -> usize {
    (size / 3).clamp(1, 3)
}

/// Joins the cluster as each node does, and the network if `enter`.
pub(super) fn join(simulation: &mut Simulation, node: usize, size: usize, enter: bool) {
    let own = simulation.address(node);
    let members: Vec<SocketAddr> = (0..bootstraps(size)).map(place).filter(|at| *at != own).collect();
    simulation.act(node, |db, now| {
        db.join(now, &members);
        if enter {
            db.join_network(now, &net()).expect("a network that was not joined");
        }
    });
    if enter {
        simulation.watch.member(node);
    }
}

/// A settled cluster. With `enter` all are in the network.
pub(super) fn settled(size: usize, seed: u64, enter: bool) -> Result<Simulation, String> {
    let mut simulation = Simulation::new(seed, CALM);
    simulation.keeps_events = false;
    simulation.checks_framing = size <= 100;
    if size > TOLD_FROM {
        introduce(&mut simulation, size, enter);
    } else {
        for at in 0..size {
            let node = simulation.start(at);
            join(&mut simulation, node, size, enter);
            simulation.run_for(secs(1) / STARTS_PER_SECOND as u32);
        }
    }
    let mut agreement = Agreement::new(&simulation, enter);
    agreement.within(&mut simulation, SETTLE_LIMIT, secs(1))?;
    // What was told of their coming is told often enough.
    while simulation.running().iter().any(|node| simulation.busy(*node)) {
        simulation.run_for(secs(1));
    }
    Ok(simulation)
}

/// Each node exchanges its view with the first one, twice, so that both know all, and tells nobody of it: gossip would bring the same,
/// a million times over.
fn introduce(simulation: &mut Simulation, size: usize, enter: bool) {
    simulation.streams_only = true;
    for at in 0..size {
        let node = simulation.start(at);
        join(simulation, node, size, enter);
        simulation.run_for(Duration::from_millis(2));
    }
    for node in 1..size {
        simulation.act(node, |db, now| db.exchange_views(now, place(0)));
        simulation.run_for(Duration::from_millis(1));
    }
    simulation.run_for(Duration::from_millis(100));
    (0..size).for_each(|node| simulation.hush(node));
    simulation.streams_only = false;
}

/// Whether all views are equal: peers, members of the network, and rows.
pub(super) struct Agreement {
    nodes: Vec<usize>,
    names: Vec<String>,
    members: bool,
    /// The rows that all shall show, in order: key, value, owner.
    rows: Vec<(String, Vec<u8>, String)>,
    /// Who disagreed last: looked at first.
    suspect: usize,
}

impl Agreement {
    /// Of the nodes that run now.
    pub(super) fn new(simulation: &Simulation, members: bool) -> Self {
        let nodes = simulation.running();
        let mut names: Vec<_> = nodes.iter().map(|node| simulation.name(*node).to_string()).collect();
        names.sort();
        Agreement {
            nodes,
            names,
            members,
            rows: Vec::new(),
            suspect: 0,
        }
    }

    /// These rows are expected too.
    pub(super) fn rows(mut self, mut rows: Vec<(String, Vec<u8>, String)>) -> Self {
        rows.sort();
        self.rows = rows;
        self
    }

    fn agrees(&self, simulation: &Simulation, node: usize) -> bool {
        let db = &simulation.nodes[node].db;
        let peers = db.cluster_peers();
        if peers.len() != self.names.len()
            || !peers
                .iter()
                .zip(&self.names)
                .all(|((name, _), other)| name.as_str() == other)
        {
            return false;
        }
        if !self.members {
            return true;
        }
        let members = db.network_peers(&net());
        if members.len() != self.names.len() {
            return false;
        }
        let mut members: Vec<_> = members.into_iter().map(|(name, _)| name).collect();
        members.sort();
        members == self.names && simulation.rows(node, &net(), TABLE) == self.rows
    }

    /// Whether all agree.
    pub(super) fn reached(&mut self, simulation: &Simulation) -> bool {
        let count = self.nodes.len();
        for step in 0..count {
            let place = (self.suspect + step) % count;
            if !self.agrees(simulation, self.nodes[place]) {
                self.suspect = place;
                return false;
            }
        }
        true
    }

    /// Runs until all agree; how long it took.
    pub(super) fn within(
        &mut self,
        simulation: &mut Simulation,
        limit: Duration,
        look: Duration,
    ) -> Result<Duration, String> {
        let start = simulation.now;
        loop {
            let took = simulation.now.saturating_since(start);
            if self.reached(simulation) {
                return Ok(took);
            }
            if took >= limit {
                return Err(format!("{} nodes did not agree within {limit:?}", self.nodes.len()));
            }
            simulation.run_for(look);
        }
    }
}
