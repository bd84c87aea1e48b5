//! The table of balanced connections: found, followed through their states, and forgotten when they are over.
//!
//! The kernel alone writes it and needs nobody to keep it clean. What has expired counts as absent; each new connection looks at a few
//! others in turn and takes away what it finds expired. An established connection never goes for a new one.

use super::datagram::Datagram;
use super::family::Family;
use super::maps::{self, FlowEntry};
use super::policy;
use weft_dataplane::abi::flow::{
    ANSWERED, BACKEND_FINISHED, CLIENT_FINISHED, COUNTED, ESTABLISHED, REPLY, RESET, RING_STEPS, TOUCH_TICKS, is_over,
};
use weft_dataplane::abi::{Counter, Flow, FlowKey, Ip};
use weft_dataplane::packet::transport::{ACK, FIN, RST, SYN};

/// A connection, found.
#[derive(Clone, Copy)]
pub(super) struct Found<A: Ip> {
    /// Its entry.
    pub(super) entry: FlowEntry<A>,
    /// What becomes of its packets.
    pub(super) flow: &'static Flow<A>,
}

/// The connection of a packet, unless it has expired.
#[inline(always)]
pub(super) fn find_alive<F: Family>(key: &FlowKey<F::Ip>, now: u32) -> Option<Found<F::Ip>> {
    alive(key, F::flow(key)?, now)
}

/// The connection of an entry, unless it has expired.
#[inline(always)]
pub(super) fn alive<A: Ip>(key: &FlowKey<A>, entry: FlowEntry<A>, now: u32) -> Option<Found<A>> {
    let flow = entry.get();
    (!flow.is_expired(key.is_tcp(), &maps::timeouts(), now)).then_some(Found { entry, flow })
}

/// The connection of a packet, unless it has expired: then it is forgotten.
#[inline(always)]
pub(super) fn find<F: Family>(key: &FlowKey<F::Ip>, now: u32) -> Option<Found<F::Ip>> {
    let entry = F::flow(key)?;
    let flow = entry.get();
    if flow.is_expired(key.is_tcp(), &maps::timeouts(), now) {
        forget::<F>(key, flow);
        maps::count(Counter::FlowExpired);
        return None;
    }
    Some(Found { entry, flow })
}

/// Forgets both directions.
#[inline(always)]
pub(super) fn forget<F: Family>(key: &FlowKey<F::Ip>, flow: &Flow<F::Ip>) {
    if flow.flags & COUNTED != 0 {
        policy::finish::<F>(key, flow);
    }
    if let Some(scratch) = F::scratch() {
        scratch.twin_key = key.twin(flow);
        F::remove_flow(&scratch.twin_key);
    }
    F::remove_flow(key);
}

/// Remembers both directions of a new connection, whose slot is taken; false if the map refused.
#[inline(never)]
pub(super) fn remember<F: Family>(key: &FlowKey<F::Ip>, flow: &Flow<F::Ip>) -> bool {
    let Some(scratch) = F::scratch() else { return false };
    if !F::put_flow(key, flow) {
        return false;
    }
    scratch.twin_key = key.twin(flow);
    // A client that is its own backend and talks from a port to the same port: one entry serves both directions.
    if scratch.twin_key == *key {
        F::know(key);
        return true;
    }
    scratch.twin = flow.twin(key);
    if F::put_flow(&scratch.twin_key, &scratch.twin) {
        // Only now: whoever clears bits looks for connections afterwards.
        F::know(key);
        F::know(&scratch.twin_key);
        return true;
    }
    F::remove_flow(key);
    false
}

/// Notes a packet of the connection: its state, and that it lives, if that is due.
#[inline(always)]
pub(super) fn follow<F: Family>(key: &FlowKey<F::Ip>, found: &Found<F::Ip>, datagram: &Datagram<F::Ip>, now: u32) {
    follow_bits::<F>(key, found, datagram.tcp_flags, now);
}

/// [`follow`], of a packet of which only the TCP control bits matter.
#[inline(always)]
pub(super) fn follow_bits<F: Family>(key: &FlowKey<F::Ip>, found: &Found<F::Ip>, bits: u8, now: u32) {
    let flow = found.flow;
    let news = note::<F>(key, found, bits, now);
    if news != 0 && flow.flags & COUNTED != 0 && is_over(flow.flags | news) {
        policy::finish::<F>(key, flow);
    }
}

/// [`follow`], of a connection that is in no load. A whole word comes back, because the verifier wants every bit of it defined.
#[inline(never)]
pub(super) fn follow_direct<F: Family>(key: &FlowKey<F::Ip>, entry: FlowEntry<F::Ip>, bits: u8, now: u32) -> u32 {
    let flow = entry.get();
    note::<F>(key, &Found { entry, flow }, bits, now)
}

/// What a packet says of its connection, in both entries as far as it is due; what is new in its state.
#[inline(always)]
fn note<F: Family>(key: &FlowKey<F::Ip>, found: &Found<F::Ip>, bits: u8, now: u32) -> u32 {
    let flow = found.flow;
    let news = state(bits, flow.flags, key.is_tcp()) & !flow.flags;
    if news == 0 && now.wrapping_sub(flow.last_seen) <= TOUCH_TICKS {
        return 0;
    }
    touch::<F>(key, found.entry, news, now)
}

/// Notes what is new of a connection, at a packet that comes now, in both directions' entries as far as it is due; what was new.
#[inline(always)]
fn touch<F: Family>(key: &FlowKey<F::Ip>, entry: FlowEntry<F::Ip>, news: u32, now: u32) -> u32 {
    let flow = entry.get();
    let both = news != 0 || maps::timeouts().is_twin_due(key.is_tcp(), flow.flags, flow.last_seen, now);
    entry.see(now);
    if !both {
        return 0;
    }
    entry.add(news);
    let Some(scratch) = F::scratch() else { return news };
    scratch.twin_key = key.twin(flow);
    if let Some(twin) = F::flow(&scratch.twin_key) {
        twin.see(now);
        twin.add(news);
    }
    news
}

/// The flags that a packet brings (RFC 9293 section 3.3.2, seen from between the two).
#[inline(always)]
fn state(bits: u8, flags: u32, tcp: bool) -> u32 {
    let reply = flags & REPLY != 0;
    if !tcp {
        return if reply { ANSWERED } else { 0 };
    }
    let mut news = 0;
    if bits & RST != 0 {
        news |= RESET;
    }
    if bits & FIN != 0 {
        news |= if reply { BACKEND_FINISHED } else { CLIENT_FINISHED };
    }
    if reply {
        news |= ANSWERED;
    } else if flags & ANSWERED != 0 && bits & (SYN | ACK) == ACK {
        news |= ESTABLISHED;
    }
    news
}

/// Looks at the next slots of the ring, takes away connections that have expired, and puts `key` into the first that is free; into the
/// last one looked at if none is: then its connection is known to the table only, and the daemon finds it when it expires.
#[inline(never)]
pub(super) fn take_slot<F: Family>(key: &FlowKey<F::Ip>, now: u32) -> u32 {
    let mut slot = 0;
    for _ in 0..RING_STEPS {
        slot = F::next_slot().unwrap_or(0);
        if is_free::<F>(slot, now) {
            break;
        }
    }
    F::put_ring(slot, key);
    slot
}

/// Whether no living connection is in the slot; takes it out of the table if it has expired.
#[inline(always)]
pub(super) fn is_free<F: Family>(slot: u32, now: u32) -> bool {
    let (Some(key), Some(scratch)) = (F::ring(slot), F::scratch()) else {
        return true;
    };
    scratch.other = *key;
    let key = &scratch.other;
    if key.network == 0 {
        return true;
    }
    let Some(entry) = F::flow(key) else { return true };
    let flow = entry.get();
    if flow.slot != slot || flow.flags & REPLY != 0 {
        return true;
    }
    if !flow.is_expired(key.is_tcp(), &maps::timeouts(), now) {
        return false;
    }
    forget::<F>(key, flow);
    maps::count(Counter::FlowExpired);
    true
}
