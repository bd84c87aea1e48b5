//! Which backend a new connection gets, and how much each has to do.

use super::{Change, Policy, Way, World};
use crate::packet::Ip;
use weft_dataplane::abi::load::two_slots;
use weft_dataplane::abi::service::{POLICY_LEAST_CONNECTIONS, POLICY_MAGLEV};
use weft_dataplane::packet::{Ports, hash};

/// The backend of a new connection to a virtual IP with these backends, of which there is one at least.
pub(super) fn choose(world: &mut World, way: Way, backends: &[Ip]) -> Ip {
    let vip = (way.vni, way.destination.0);
    let policy = world.policies.get(&vip).cloned().unwrap_or_default();
    let client = (vip, way.source.0);
    if policy.affinity_seconds != 0
        && let Some((backend, stale)) = world.affinities.get_mut(&client)
        && !*stale
    {
        return *backend;
    }
    let backend = by_policy(world, way, &policy, backends);
    if policy.affinity_seconds != 0 {
        world.affinities.insert(client, (backend, false));
    }
    backend
}

fn by_policy(world: &mut World, way: Way, policy: &Policy, backends: &[Ip]) -> Ip {
    if policy.kind == POLICY_MAGLEV && !policy.table.is_empty() {
        // All nodes must agree on the hash, so it is a part of what weft promises.
        let ports = Ports {
            source: way.source.1.to_be_bytes(),
            destination: way.destination.1.to_be_bytes(),
        };
        let hash = hash::flow(way.source.0, way.destination.0, ports, way.protocol);
        return policy.table[hash as usize % policy.table.len()];
    }
    let vip = (way.vni, way.destination.0);
    let turn = world.turns.entry(vip).or_insert(0);
    let now = *turn;
    *turn += 1;
    if policy.kind != POLICY_LEAST_CONNECTIONS {
        return backends[now % backends.len()];
    }
    let [first, second] = two_slots(now as u32, backends.len() as u32).map(|slot| backends[slot as usize]);
    let burden = |ip: Ip| {
        let weight = policy.weights.get(&ip).copied().unwrap_or(1);
        let load = world.loads.get(&(vip, ip)).copied().unwrap_or(0);
        f64::from(load) / f64::from(weight)
    };
    if burden(first) <= burden(second) { first } else { second }
}

/// A new connection to a virtual IP is in the load of its backend, if that virtual IP balances by it.
pub(super) fn begin(world: &mut World, way: Way, change: &mut Change) {
    let vip = (way.vni, way.destination.0);
    let policy = world.policies.get(&vip).map_or(0, |policy| policy.kind);
    if policy == POLICY_LEAST_CONNECTIONS {
        change.counted = true;
        *world.loads.entry((vip, change.destination.0)).or_insert(0) += 1;
    }
}

/// A connection is over: its backend has one less, once.
pub(super) fn finish(world: &mut World, way: Way, change: &Change) {
    let (client, vip, backend) = if change.reply {
        (super::service::twin(way, change), change.source.0, way.source.0)
    } else {
        (way, way.destination.0, change.destination.0)
    };
    let Some(entry) = world.connections.get_mut(&client) else {
        return;
    };
    if !std::mem::take(&mut entry.counted) {
        return;
    }
    let member = ((way.vni, vip), backend);
    if let Some(load) = world.loads.get_mut(&member) {
        *load -= 1;
        if *load == 0 {
            world.loads.remove(&member);
        }
    }
}

/// Forgets what was balanced to backends that are no members any more.
pub(super) fn keep(world: &mut World, members: &super::Members) {
    let stays = |vip: super::Address, ip: Ip| members.get(&vip).and_then(|of| of.get(&ip)).copied();
    world
        .affinities
        .retain(|(vip, _), (backend, _)| stays(*vip, *backend) == Some(true));
    let lost: Vec<(Way, Change)> = world
        .connections
        .iter()
        .filter(|(way, change)| {
            !change.reply && !change.direct && stays((way.vni, way.destination.0), change.destination.0).is_none()
        })
        .map(|(way, change)| (*way, *change))
        .collect();
    for (way, change) in lost {
        super::service::forget(world, way, &change);
    }
    world.loads.retain(|(vip, ip), _| stays(*vip, *ip).is_some());
}
