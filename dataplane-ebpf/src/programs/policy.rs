//! Which backend of a virtual IP a new connection gets.

use super::family::Family;
use super::frame::Aligned;
use super::helper;
use super::members::{self, Choosing};
use weft_dataplane::abi::flow::{COUNTED, REPLY, ticks_of_seconds};
use weft_dataplane::abi::load::{is_lighter, two_slots};
use weft_dataplane::abi::service::{POLICY_LEAST_CONNECTIONS, POLICY_MAGLEV};
use weft_dataplane::abi::{
    Affinity, Backend, BackendKey, Flow, FlowKey, MaglevKey, MemberKey, OverlayAddress, Service, maglev,
};
use weft_dataplane::packet::Ports;

/// An affinity of longer than a day means nothing; the product below stays within a word.
const MAX_AFFINITY_SECONDS: u32 = 24 * 3600;

/// Chooses the backend of a new connection to a virtual IP that has one, into [`Choosing::backend`]; false if there is none after all.
#[inline(never)]
pub(super) fn choose<F: Family>(
    choosing: &mut Choosing<F::Ip>,
    vni: u32,
    service: &Service,
    key: &FlowKey<F::Ip>,
    now: u32,
) -> bool {
    if service.affinity_seconds == 0 {
        return by_policy::<F>(choosing, vni, service, key);
    }
    choosing.member = MemberKey {
        vip: key.destination,
        ip: key.source,
        vni: vni.into(),
    };
    let seconds = match service.affinity_seconds {
        seconds if seconds > MAX_AFFINITY_SECONDS => MAX_AFFINITY_SECONDS,
        seconds => seconds,
    };
    if let Some(entry) = F::affinity(&choosing.member) {
        let affinity = entry.get();
        if affinity.holds(ticks_of_seconds(seconds), now) {
            choosing.backend = Backend { ip: affinity.backend };
            entry.see(now);
            return true;
        }
    }
    if !by_policy::<F>(choosing, vni, service, key) {
        return false;
    }
    choosing.member = MemberKey {
        vip: key.destination,
        ip: key.source,
        vni: vni.into(),
    };
    choosing.affinity = Affinity {
        backend: choosing.backend.ip,
        last_seen: now,
        padding: 0,
    };
    F::put_affinity(&choosing.member, &choosing.affinity);
    true
}

#[inline(always)]
fn by_policy<F: Family>(choosing: &mut Choosing<F::Ip>, vni: u32, service: &Service, key: &FlowKey<F::Ip>) -> bool {
    if service.policy == POLICY_MAGLEV && by_client::<F>(choosing, vni, key) {
        return true;
    }
    let vip = OverlayAddress::new(vni, key.destination);
    let turn = F::next_rotation(&vip).unwrap_or_else(helper::random);
    if service.policy == POLICY_LEAST_CONNECTIONS {
        return by_load::<F>(choosing, vni, service, key.destination, turn);
    }
    match turn.checked_rem(service.backend_count) {
        Some(slot) => take_slot::<F>(choosing, vni, key.destination, slot),
        None => false,
    }
}

/// The backend of a slot.
#[inline(always)]
fn take_slot<F: Family>(choosing: &mut Choosing<F::Ip>, vni: u32, vip: F::Ip, slot: u32) -> bool {
    let key = Aligned(BackendKey { vni, vip, slot });
    match F::backend(&key.0) {
        Some(backend) => {
            choosing.backend = *backend;
            true
        }
        None => false,
    }
}

/// The backend that the client's address and ports mean.
#[inline(always)]
fn by_client<F: Family>(choosing: &mut Choosing<F::Ip>, vni: u32, key: &FlowKey<F::Ip>) -> bool {
    let Some(table) = F::maglev_table(&OverlayAddress::new(vni, key.destination)) else {
        return false;
    };
    let ports = Ports {
        source: key.source_port,
        destination: key.destination_port,
    };
    let hash = F::hash_of(key.source, key.destination, ports, key.network as u8);
    let Some(entry) = hash.checked_rem(table.size) else {
        return false;
    };
    let mut at = MaglevKey {
        name: table.name,
        index: entry / maglev::PART,
        padding: 0,
    };
    let Some(part) = members::maglev_part(&at) else {
        return false;
    };
    let Some(member) = part.members.get((entry % maglev::PART) as usize) else {
        return false;
    };
    at.index = u32::from(*member);
    match F::maglev_member(&at) {
        Some(backend) => {
            choosing.backend = *backend;
            true
        }
        None => false,
    }
}

/// Of two backends the one that has less to do.
#[inline(always)]
fn by_load<F: Family>(choosing: &mut Choosing<F::Ip>, vni: u32, service: &Service, vip: F::Ip, turn: u32) -> bool {
    let [first, second] = two_slots(turn, service.backend_count);
    if !take_slot::<F>(choosing, vni, vip, first) {
        return false;
    }
    if first == second {
        return true;
    }
    choosing.member = MemberKey {
        vip,
        ip: choosing.backend.ip,
        vni: vni.into(),
    };
    let (load, weight) = (F::load(&choosing.member), F::weight(&choosing.member));
    let key = Aligned(BackendKey { vni, vip, slot: second });
    let Some(other) = F::backend(&key.0) else { return true };
    choosing.member.ip = other.ip;
    let (other_load, other_weight) = (F::load(&choosing.member), F::weight(&choosing.member));
    if !is_lighter(load, weight, other_load, other_weight) {
        choosing.backend = *other;
    }
    true
}

/// A connection that is remembered now is in the load of its backend.
#[inline(never)]
pub(super) fn begin<F: Family>(key: &FlowKey<F::Ip>, flow: &Flow<F::Ip>) {
    if let Some(choosing) = F::choosing() {
        choosing.member = MemberKey {
            vip: key.destination,
            ip: flow.destination,
            vni: key.vni().into(),
        };
        F::load_more(&choosing.member);
    }
}

/// A connection, of which `key` and `flow` are either direction, is over: it is in its backend's load no longer.
#[inline(never)]
pub(super) fn finish<F: Family>(key: &FlowKey<F::Ip>, flow: &Flow<F::Ip>) {
    let (Some(choosing), Some(scratch)) = (F::choosing(), F::scratch()) else {
        return;
    };
    let (vip, ip);
    if flow.flags & REPLY != 0 {
        scratch.twin_key = key.twin(flow);
        (vip, ip) = (flow.source, key.source);
    } else {
        scratch.twin_key = *key;
        (vip, ip) = (key.destination, flow.destination);
    }
    choosing.member = MemberKey {
        vip,
        ip,
        vni: key.vni().into(),
    };
    if F::flow(&scratch.twin_key).is_some_and(|entry| entry.take(COUNTED)) {
        F::load_less(&choosing.member);
    }
}
