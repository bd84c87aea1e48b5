//! Virtual IPs: a connection's packets go to one backend, and the answers come back from the virtual IP.
//!
//! Balancing happens once, on the client's node; the backend's node sees a plain packet of a peer. Addresses change; the client's port
//! does only where another connection of this client has the same two ports at the same backend already.

use super::cursor::Packet;
use super::datagram::Datagram;
use super::family::{Family, Refusal, Trouble};
use super::flows::{self, Found};
use super::verdict::Verdict;
use super::{answer, encap, handover, helper, icmp_error, local, maps, policy};
use weft_dataplane::abi::flow::{BACKEND_FINISHED, CLIENT_FINISHED, COUNTED, DIRECT, REPLY, RESET};
use weft_dataplane::abi::service::POLICY_LEAST_CONNECTIONS;
use weft_dataplane::abi::{Attachment, Counter, Endpoint, Flow, FlowKey, Ip, OverlayAddress, Peer, Service, peer};
use weft_dataplane::packet::ipv4;

/// Where an address of the overlay lives.
///
/// No enum: what the compiler leaves of an unused variant may be a pointer to the stack, which the verifier lets nobody hand out.
#[derive(Clone, Copy)]
pub(super) struct Place {
    kind: Kind,
    there: Option<&'static Peer>,
    here: Option<&'static Endpoint>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Kind {
    /// The client itself.
    Client,
    /// On this node.
    Here,
    /// Behind another node.
    There,
}

impl Place {
    /// The client itself.
    const CLIENT: Place = Place {
        kind: Kind::Client,
        there: None,
        here: None,
    };

    /// Behind another node.
    #[inline(always)]
    pub(super) fn there(peer: &'static Peer) -> Place {
        Place {
            kind: Kind::There,
            there: Some(peer),
            here: None,
        }
    }

    /// On this node.
    #[inline(always)]
    pub(super) fn here(endpoint: &'static Endpoint) -> Place {
        Place {
            kind: Kind::Here,
            there: None,
            here: Some(endpoint),
        }
    }

    /// Whether it is the client itself.
    #[inline(always)]
    pub(super) fn is_client(&self) -> bool {
        self.kind == Kind::Client
    }
}

/// What becomes of a packet of a connection.
pub(super) struct Choice<A: Ip> {
    /// What is written into it.
    pub(super) flow: &'static Flow<A>,
    /// Who gets it.
    pub(super) place: Place,
}

/// How many ports are tried where the client's own is taken.
const PORT_ATTEMPTS: u32 = 4;
/// The ports to translate to: RFC 6056 section 3.2 asks for as many as can be, but the well-known ones have a meaning to some servers.
const FIRST_PORT: u16 = 1024;

/// Sends a packet of a known connection to its backend; `None` if more is to be done, which [`to_backend`] does.
#[inline(always)]
pub(super) fn to_known_backend<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
) -> Option<Verdict> {
    if !datagram.has_ports() || datagram.fragment {
        return None;
    }
    let key = datagram.flow_key(attachment.vni);
    let now = helper::now_ticks();
    let found = flows::find_alive::<F>(&key, now)?;
    if has_ended(datagram, found.flow.flags) {
        return None;
    }
    let place = locate::<F>(attachment, found.flow.destination)?;
    flows::follow::<F>(&key, &found, datagram, now);
    let flow = found.flow;
    Some(go::<F>(packet, attachment, datagram, &Choice { flow, place }))
}

/// Whether a packet opens a new connection on the ports of one that is over.
#[inline(always)]
fn has_ended<A: Ip>(datagram: &Datagram<A>, flags: u32) -> bool {
    datagram.opens() && flags & (CLIENT_FINISHED | BACKEND_FINISHED | RESET) != 0
}

/// Sends a packet for a virtual IP to its connection's backend.
#[inline(always)]
pub(super) fn to_backend<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &mut Datagram<F::Ip>,
    service: &Service,
) -> Verdict {
    if !datagram.is_balanced() {
        return not_balanced::<F>(packet, attachment, datagram, service);
    }
    match decide::<F>(attachment, datagram, service) {
        Ok(choice) => go::<F>(packet, attachment, datagram, &choice),
        Err(Counter::DropVipFragment) => Verdict::Drop(Counter::DropVipFragment),
        Err(counter) => refuse::<F>(packet, attachment, datagram, service, counter),
    }
}

/// Which backend gets the packet.
#[inline(never)]
fn decide<F: Family>(
    attachment: &Attachment,
    datagram: &mut Datagram<F::Ip>,
    service: &Service,
) -> Result<Choice<F::Ip>, Counter> {
    if datagram.fragment && !know_ports::<F>(attachment.vni, datagram) {
        return Err(Counter::DropVipFragment);
    }
    let key = datagram.flow_key(attachment.vni);
    find_or_choose::<F>(attachment, datagram, service, &key)
}

/// Translates the packet and hands it to whoever it is for now.
#[inline(never)]
pub(super) fn go<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    choice: &Choice<F::Ip>,
) -> Verdict {
    let flow = choice.flow;
    if let Some(peer) = choice.place.there {
        return to_peer::<F>(packet, attachment, datagram, flow, peer);
    }
    if F::translate(packet, datagram, flow).is_err() {
        return Verdict::Drop(Counter::DropTruncated);
    }
    match choice.place.here {
        Some(endpoint) => local::deliver(packet, endpoint.ifindex, endpoint.mac, None, Counter::DeliveredLocally),
        None => answer::back(packet, attachment, Counter::DeliveredLocally),
    }
}

#[inline(always)]
fn to_peer<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    flow: &Flow<F::Ip>,
    peer: &Peer,
) -> Verdict {
    // Before the translation: of a packet that does not fit the sender is told as it knows it.
    let node = match encap::way(packet, datagram.header_length + datagram.transport_length, peer) {
        Ok(node) => node,
        Err(refused) => return encap::tell::<F>(packet, attachment, datagram, refused),
    };
    match F::translate(packet, datagram, flow) {
        Ok(()) => encap::send_by::<F>(packet, attachment, datagram, peer, node),
        Err(_) => Verdict::Drop(Counter::DropTruncated),
    }
}

/// Finds out or notes the ports of a fragment; false if the first one did not come by.
#[inline(always)]
fn know_ports<F: Family>(vni: u32, datagram: &mut Datagram<F::Ip>) -> bool {
    let key = datagram.fragment_key(vni);
    if datagram.is_first() {
        let ports = weft_dataplane::abi::FragmentPorts {
            source: datagram.ports.source,
            destination: datagram.ports.destination,
        };
        F::put_fragment(&key, &ports);
        return true;
    }
    let Some(ports) = F::fragment(&key) else { return false };
    datagram.ports.source = ports.source;
    datagram.ports.destination = ports.destination;
    true
}

/// A virtual IP is as alive as its backends: it answers a ping exactly when it has one. It speaks no other protocol.
#[inline(always)]
fn not_balanced<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    service: &Service,
) -> Verdict {
    if datagram.protocol == F::ICMP {
        if service.backend_count > 0
            && let Some(answered) = F::echo(packet, attachment, datagram)
        {
            return answered;
        }
        return match icmp_error::from_client::<F>(packet, attachment, datagram) {
            Ok(choice) => go::<F>(packet, attachment, datagram, &choice),
            Err(counter) => Verdict::Drop(counter),
        };
    }
    let refusal = Refusal {
        from: datagram.destination,
        trouble: Trouble::Protocol,
        reason: Counter::DropVipProtocol,
    };
    F::unreachable(packet, attachment, datagram, &refusal)
}

/// Nobody takes the packet. If that is for good the client is told, as by a host on which nobody listens.
#[inline(always)]
fn refuse<F: Family>(
    packet: &mut Packet,
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    service: &Service,
    reason: Counter,
) -> Verdict {
    let tcp = datagram.protocol == ipv4::TCP;
    // An opened connection has lost its backend; a new one that met a backend of which nothing is known yet may try again.
    let lost = reason == Counter::DropBackendGone && tcp && !datagram.opens();
    if !lost && service.backend_count != 0 {
        return Verdict::Drop(reason);
    }
    if tcp {
        return F::reset(packet, attachment, datagram, reason);
    }
    let refusal = Refusal {
        from: datagram.destination,
        trouble: Trouble::Port,
        reason,
    };
    F::unreachable(packet, attachment, datagram, &refusal)
}

/// The packet's connection and where its backend lives.
#[inline(always)]
fn find_or_choose<F: Family>(
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    service: &Service,
    key: &FlowKey<F::Ip>,
) -> Result<Choice<F::Ip>, Counter> {
    let now = helper::now_ticks();
    if let Some(found) = flows::find::<F>(key, now) {
        let flow = found.flow;
        if !has_ended(datagram, flow.flags) {
            if let Some(place) = locate::<F>(attachment, flow.destination) {
                flows::follow::<F>(key, &found, datagram, now);
                return Ok(Choice { flow, place });
            }
            if datagram.protocol != ipv4::UDP && !datagram.opens() {
                return Err(Counter::DropBackendGone);
            }
        }
        // Late packets of the old backend are not of the new connection.
        flows::forget::<F>(key, flow);
    }
    choose::<F>(attachment, service, key, now)
}

/// Chooses the next backend and remembers the choice, in both directions.
#[inline(always)]
fn choose<F: Family>(
    attachment: &Attachment,
    service: &Service,
    key: &FlowKey<F::Ip>,
    now: u32,
) -> Result<Choice<F::Ip>, Counter> {
    if service.backend_count == 0 {
        return Err(Counter::DropNoBackend);
    }
    let choosing = F::choosing().ok_or(Counter::DropNoBackend)?;
    if !policy::choose::<F>(choosing, attachment.vni, service, key, now) {
        return Err(Counter::DropNoBackend);
    }
    let backend = choosing.backend;
    let place = locate::<F>(attachment, backend.ip).ok_or(Counter::DropBackendGone)?;
    let flow = F::new_flow().ok_or(Counter::DropFlowTableFull)?;
    *flow = Flow {
        last_seen: now,
        flags: if service.policy == POLICY_LEAST_CONNECTIONS {
            COUNTED
        } else {
            0
        },
        source: if place.is_client() {
            // The client is its own backend: it must not see itself as the other end, so the virtual IP is.
            key.destination
        } else {
            key.source
        },
        destination: backend.ip,
        source_port: key.source_port,
        destination_port: key.destination_port,
        slot: 0,
    };
    flow.source_port = port_of(free_port::<F>(key, flow, now))?;
    flow.slot = flows::take_slot::<F>(key, now);
    if !flows::remember::<F>(key, flow) {
        return Err(Counter::DropFlowTableFull);
    }
    if flow.flags & COUNTED != 0 {
        policy::begin::<F>(key, flow);
    }
    maps::count(Counter::FlowCreated);
    Ok(Choice { flow, place })
}

/// The source port of a new connection at its backend: the client's own, or another if that is taken by another connection between
/// the same two; [`NO_PORT`] if no free one was found. A whole word, because the verifier wants every bit of what is returned defined.
#[inline(never)]
fn free_port<F: Family>(key: &FlowKey<F::Ip>, flow: &Flow<F::Ip>, now: u32) -> u32 {
    let Some(scratch) = F::scratch() else { return NO_PORT };
    let mut port = key.source_port;
    scratch.twin_key = key.twin(flow);
    for _ in 0..PORT_ATTEMPTS {
        scratch.twin_key.destination_port = port;
        let Some(entry) = F::flow(&scratch.twin_key) else {
            return u32::from(u16::from_ne_bytes(port));
        };
        let other = entry.get();
        let ours = other.destination == key.source
            && other.source == key.destination
            && other.destination_port == key.source_port
            && other.source_port == key.destination_port;
        if ours || other.is_expired(key.is_tcp(), &maps::timeouts(), now) {
            return u32::from(u16::from_ne_bytes(port));
        }
        let span = u32::from(u16::MAX - FIRST_PORT) + 1;
        port = (FIRST_PORT + (helper::random() % span) as u16).to_be_bytes();
    }
    NO_PORT
}

/// What [`free_port`] gives when it found none: no port.
const NO_PORT: u32 = u32::MAX;

#[inline(always)]
fn port_of(found: u32) -> Result<[u8; 2], Counter> {
    match found {
        NO_PORT => Err(Counter::DropNoFreePort),
        port => Ok((port as u16).to_ne_bytes()),
    }
}

/// Where an address lives.
#[inline(always)]
pub(super) fn locate<F: Family>(attachment: &Attachment, ip: F::Ip) -> Option<Place> {
    if ip == F::own(attachment) {
        return Some(Place::CLIENT);
    }
    let address = OverlayAddress::new(attachment.vni, ip);
    if let Some(peer) = F::peer(&address) {
        return Some(Place::there(peer));
    }
    F::endpoint(&address).map(Place::here)
}

/// Whether [`translate_reply`], or what translates errors, may have something to do.
#[inline(always)]
pub(super) fn may_be_reply<F: Family>(vni: u32, datagram: &Datagram<F::Ip>) -> bool {
    if datagram.fragment || datagram.protocol == F::ICMP || handover::may_be() {
        return true;
    }
    datagram.has_ports() && F::flow(&datagram.flow_key(vni)).is_some()
}

/// If the packet, which is about to be delivered on this node, answers a balanced connection, it comes from the virtual IP.
#[inline(always)]
pub(super) fn translate_reply<F: Family>(
    packet: &mut Packet,
    vni: u32,
    datagram: &Datagram<F::Ip>,
) -> Result<(), Counter> {
    if datagram.fragment {
        return translate_fragment::<F>(packet, vni, datagram);
    }
    if !datagram.has_ports() {
        return Ok(());
    }
    answer_from_vip::<F>(packet, vni, datagram)
}

#[inline(never)]
fn translate_fragment<F: Family>(packet: &mut Packet, vni: u32, datagram: &Datagram<F::Ip>) -> Result<(), Counter> {
    let mut datagram = *datagram;
    // Without its first one a fragment is delivered as it is: the receiver then waits for it, too.
    if !datagram.is_balanced() || !know_ports::<F>(vni, &mut datagram) {
        return Ok(());
    }
    answer_from_vip::<F>(packet, vni, &datagram)
}

#[inline(never)]
fn answer_from_vip<F: Family>(packet: &mut Packet, vni: u32, datagram: &Datagram<F::Ip>) -> Result<(), Counter> {
    let key = datagram.flow_key(vni);
    let Some(entry) = F::flow(&key) else {
        return Ok(());
    };
    if entry.get().flags & REPLY == 0 {
        return Ok(());
    }
    let now = helper::now_ticks();
    let Some(found) = flows::find::<F>(&key, now) else {
        return Ok(());
    };
    if datagram.opens() {
        // A new conversation between the same two ports, not an answer.
        flows::forget::<F>(&key, found.flow);
        return Ok(());
    }
    flows::follow::<F>(&key, &found, datagram, now);
    F::translate(packet, datagram, found.flow).map_err(|_| Counter::DropTruncated)
}

/// Whether [`beside`] may have something to do.
#[inline(always)]
pub(super) fn may_be_beside<F: Family>(attachment: &Attachment, datagram: &Datagram<F::Ip>, flags: u16) -> bool {
    if flags & peer::BACKEND == 0 || !datagram.has_ports() || datagram.fragment {
        return false;
    }
    let key = datagram.flow_key(attachment.vni);
    F::flow(&key).is_some()
        || (datagram.protocol == ipv4::UDP || datagram.opens()) && F::flow(&key.opposite()).is_some()
}

/// A client talks to an endpoint that stands behind a virtual IP, and not by way of that one. If a balanced connection of this client
/// has the same two ports, its answers would look alike: the direct one gets another port.
#[inline(never)]
pub(super) fn beside<F: Family>(
    attachment: &Attachment,
    datagram: &Datagram<F::Ip>,
    flags: u16,
) -> Result<Option<&'static Flow<F::Ip>>, Counter> {
    if flags & peer::BACKEND == 0 || !datagram.has_ports() || datagram.fragment {
        return Ok(None);
    }
    let key = datagram.flow_key(attachment.vni);
    let now = helper::now_ticks();
    if let Some(found) = flows::find::<F>(&key, now) {
        return known_direct::<F>(&key, &found, datagram, now);
    }
    if datagram.protocol == ipv4::TCP && !datagram.opens() {
        return Ok(None);
    }
    let flow = F::new_flow().ok_or(Counter::DropFlowTableFull)?;
    *flow = Flow {
        last_seen: now,
        flags: DIRECT,
        source: key.source,
        destination: key.destination,
        source_port: key.source_port,
        destination_port: key.destination_port,
        slot: 0,
    };
    flow.source_port = port_of(free_port::<F>(&key, flow, now))?;
    if flow.source_port == key.source_port {
        return Ok(None);
    }
    flow.slot = flows::take_slot::<F>(&key, now);
    if !flows::remember::<F>(&key, flow) {
        return Err(Counter::DropFlowTableFull);
    }
    Ok(Some(flow))
}

#[inline(always)]
fn known_direct<F: Family>(
    key: &FlowKey<F::Ip>,
    found: &Found<F::Ip>,
    datagram: &Datagram<F::Ip>,
    now: u32,
) -> Result<Option<&'static Flow<F::Ip>>, Counter> {
    if found.flow.flags & DIRECT == 0 || found.flow.flags & REPLY != 0 {
        // The answer of a backend to its client.
        return Ok(None);
    }
    flows::follow_direct::<F>(key, found.entry, datagram.tcp_flags, now);
    Ok(Some(found.flow))
}
