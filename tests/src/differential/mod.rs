//! Programs and model side by side: random packets on random maps must leave the same packet, verdict, counters and connections.
//!
//! A sequence is some maps and some packets, one after the other. One that differs is made as short as it can be and told as a packet
//! table has it.

mod random;
mod told;

pub use random::Numbers;

use crate::model::{Address, Change, Members, Origin, Output, Policy, Way, World};
use crate::packet::Ip;
use crate::policies::{self, Member};
use crate::programs::{Action, Lab};
use crate::table;
use std::collections::BTreeMap;
use weft::dataplane::{Dataplane, Hook};
use weft_core::reconcile::{self, Entry, Step};
use weft_core::wanted::MapContents;
use weft_dataplane::abi::{
    self, Attachment, Backend, BackendKey, Counter, Endpoint, Flow, FlowKey, MapType, Network, Node, OverlayAddress,
    Peer, Service, Sizes, V6, flow, mapped, node,
};

/// Packets in a sequence. No container may be sent so many errors that the programs send it no more.
const LENGTH: usize = 24;

/// A time without packets takes so long: longer than the affinity of any random virtual IP.
pub(crate) const SILENCE_SECONDS: u32 = 181;

/// How often a difference must come again to be one: points in time are not in the model, so a run that was held up may differ.
const ATTEMPTS: usize = 3;

/// What happens on a node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A packet comes.
    Packet(Origin, Vec<u8>),
    /// A time without packets passes.
    Silence,
    /// Virtual IPs have other backends or policies, and these members.
    Services(Box<Balancing>),
}

/// All that a node knows of virtual IPs.
#[derive(Clone, Debug, Default)]
pub struct Balancing {
    /// Backends.
    pub services: BTreeMap<Address, Vec<Ip>>,
    /// Policies.
    pub policies: BTreeMap<Address, Policy>,
    /// Members.
    pub members: Members,
}

/// Maps, and what happens then.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// What the node knows at first.
    pub world: World,
    /// What happens.
    pub events: Vec<Event>,
}

/// The first difference of a sequence.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which event.
    index: usize,
    expected: (Output, Known),
    got: (Output, Known),
}

/// What the programs remember.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    connections: BTreeMap<Way, Change>,
    loads: BTreeMap<Member, u32>,
    affinities: BTreeMap<Member, Ip>,
}

impl Known {
    fn to_model(world: &World) -> Known {
        let backend = |(client, (backend, _)): (&Member, &(Ip, bool))| (*client, *backend);
        Known {
            connections: world.connections.clone(),
            loads: world.loads.clone(),
            affinities: world.affinities.iter().map(backend).collect(),
        }
    }

    /// Points in time are not compared: the model's count.
    fn to_programs(connections: BTreeMap<Way, Change>, dataplane: &Dataplane, world: &World) -> Known {
        Known {
            connections: with_times_of(connections, world),
            loads: policies::loads(dataplane),
            affinities: policies::affinities(dataplane),
        }
    }
}

/// How many packets went through both, and what became of them.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Packets.
    pub packets: u64,
    /// How often each counter was met.
    pub counted: BTreeMap<Counter, u64>,
}

/// Sends at least so many packets through both; an error is the text of the first sequence that differs, made short.
pub fn run(seed: u64, packets: u64, mut progress: impl FnMut(&Summary)) -> Result<Summary, String> {
    let mut lab = Lab::new();
    let mut summary = Summary::default();
    let mut number = seed;
    while summary.packets < packets {
        let sequence = random::sequence(&mut Numbers::new(number), &lab, LENGTH);
        if compare(&mut lab, &sequence, &mut summary).is_some()
            && (1..ATTEMPTS).all(|_| differs(&mut lab, &sequence).is_some())
        {
            let short = shrink(&mut lab, sequence);
            let difference = differs(&mut lab, &short);
            return Err(told::text(number, &short, difference.as_ref(), &lab));
        }
        number += 1;
        progress(&summary);
    }
    Ok(summary)
}

fn differs(lab: &mut Lab, sequence: &Sequence) -> Option<Difference> {
    compare(lab, sequence, &mut Summary::default())
}

/// Runs a sequence through both, up to the first difference.
fn compare(lab: &mut Lab, sequence: &Sequence, summary: &mut Summary) -> Option<Difference> {
    table::put_back(lab, &contents(&sequence.world, lab));
    policies::put(lab, &sequence.world.policies);
    let mut world = sequence.world.clone();
    let mut start = 0;
    for part in sequence
        .events
        .split_inclusive(|event| !matches!(event, Event::Packet(..)))
    {
        let uplink = lab.uplink;
        let (model, counts) = (&mut world, &mut *summary);
        if let Some(difference) = lab.enter(|dataplane| compare_part(dataplane, uplink, model, part, start, counts)) {
            return Some(difference);
        }
        match part.last() {
            Some(Event::Silence) => {
                crate::expect::age_flows(lab);
                world.connections.values_mut().for_each(|change| change.stale = true);
                world.affinities.values_mut().for_each(|(_, stale)| *stale = true);
            }
            Some(Event::Services(balancing)) => change_services(lab, &mut world, balancing),
            _ => {}
        }
        start += part.len();
    }
    None
}

fn compare_part(
    dataplane: &Dataplane,
    uplink: u32,
    world: &mut World,
    events: &[Event],
    start: usize,
    summary: &mut Summary,
) -> Option<Difference> {
    let mut before = counters(dataplane);
    for (index, event) in events.iter().enumerate() {
        let Event::Packet(origin, packet) = event else { continue };
        let (hook, ifindex) = match origin {
            Origin::Container(ifindex) => (Hook::Endpoint, *ifindex),
            Origin::Underlay => (Hook::Uplink, uplink),
        };
        let result = dataplane
            .test_run(hook, ifindex, packet)
            .unwrap_or_else(|error| panic!("the kernel refused the test run: {error:?}: {packet:02x?}"));
        let after = counters(dataplane);
        let counted = after
            .iter()
            .map(|(counter, count)| (*counter, count - before[counter]))
            .filter(|(_, count)| *count != 0)
            .collect();
        before = after;
        let connections = connections(dataplane);
        world.other_port = translated_port(&connections, world);
        let mut expected = world.process(*origin, packet);
        if expected.encapsulated {
            take_port(&mut expected.packet, &result.packet);
        }
        let got = Output {
            action: Action::of(result.action),
            packet: result.packet,
            counted,
            encapsulated: expected.encapsulated,
        };
        summary.packets += 1;
        for (counter, count) in &got.counted {
            *summary.counted.entry(*counter).or_insert(0) += count;
        }
        let known = Known::to_programs(connections, dataplane, world);
        let wanted = Known::to_model(world);
        if got != expected || known != wanted {
            return Some(Difference {
                index: start + index,
                expected: (expected, wanted),
                got: (got, known),
            });
        }
    }
    None
}

/// The port that a new connection has got because its own was taken: the model does not choose it, but says whether it may be.
fn translated_port(connections: &BTreeMap<Way, Change>, world: &World) -> Option<u16> {
    let new = connections
        .iter()
        .filter(|(way, _)| !world.connections.contains_key(way));
    let mut ports = new
        .filter(|(way, change)| !change.reply && change.source.1 != way.source.1)
        .map(|(_, change)| change.source.1);
    ports.next()
}

/// Gives programs and model other virtual IPs, as the daemon does.
fn change_services(lab: &mut Lab, world: &mut World, balancing: &Balancing) {
    world.services.clone_from(&balancing.services);
    world.policies.clone_from(&balancing.policies);
    let wanted = contents(world, lab);
    let present = lab.dataplane.present().unwrap_or_else(|error| panic!("{error}"));
    lab.apply(&reconcile::steps(&wanted, &present, &Sizes::DEFAULT));
    policies::put(lab, &world.policies);
    let stay = balancing
        .members
        .iter()
        .map(|((vni, vip), members)| (OverlayAddress::new(*vni, *vip), members.clone()))
        .collect();
    let kept = lab.dataplane.keep_members(&stay, &BTreeMap::new());
    kept.unwrap_or_else(|error| panic!("{error}"));
    // The daemon takes the position with the virtual IP.
    world.turns.retain(|vip, _| world.services.contains_key(vip));
    world.keep_members(&balancing.members);
}

fn with_times_of(mut connections: BTreeMap<Way, Change>, world: &World) -> BTreeMap<Way, Change> {
    for (way, change) in &mut connections {
        change.stale = world.connections.get(way).is_some_and(|change| change.stale);
    }
    connections
}

/// The outer source port may be any of the dynamic range (RFC 7348 section 5).
fn take_port(expected: &mut [u8], got: &[u8]) {
    const PORT: std::ops::Range<usize> = 34..36;
    if let (Some(to), Some(from)) = (expected.get_mut(PORT), got.get(PORT))
        && from[0] >= 0xc0
    {
        to.copy_from_slice(from);
    }
}

fn counters(dataplane: &Dataplane) -> BTreeMap<Counter, u64> {
    dataplane
        .counters()
        .unwrap_or_else(|error| panic!("{error}"))
        .into_iter()
        .collect()
}

/// What the flow table holds, without points in time.
fn connections(dataplane: &Dataplane) -> BTreeMap<Way, Change> {
    let dump = dataplane.dump(flow::NAME).unwrap_or_else(|error| panic!("{error}"));
    let port = u16::from_be_bytes;
    let entry = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let key = FlowKey::from_bytes(key).expect("a key of the map");
        let value = Flow::from_bytes(value).expect("a value of the map");
        let way = Way {
            vni: key.vni(),
            protocol: key.network as u8,
            source: (key.source, port(key.source_port)),
            destination: (key.destination, port(key.destination_port)),
        };
        let change = Change {
            source: (value.source, port(value.source_port)),
            destination: (value.destination, port(value.destination_port)),
            reply: value.flags & flow::REPLY != 0,
            direct: value.flags & flow::DIRECT != 0,
            answered: value.flags & flow::ANSWERED != 0,
            established: value.flags & flow::ESTABLISHED != 0,
            client_finished: value.flags & flow::CLIENT_FINISHED != 0,
            backend_finished: value.flags & flow::BACKEND_FINISHED != 0,
            reset: value.flags & flow::RESET != 0,
            stale: false,
            counted: value.flags & (flow::COUNTED | flow::REPLY) == flow::COUNTED,
        };
        (way, change)
    };
    dump.entries.iter().map(entry).collect()
}

/// The maps of a world.
fn contents(world: &World, lab: &Lab) -> MapContents {
    let mut contents = MapContents::default();
    let at = |(vni, ip): (u32, Ip)| OverlayAddress::new(vni, ip);
    let mut entries = Vec::new();
    for vni in &world.networks {
        let network = Network {
            gateway: world.gateway.1,
            gateway_mac: world.gateway.0,
            prefix_len: 24,
            padding: 0,
        };
        entries.push(Entry::Network(*vni, network));
    }
    for (vni, mtu) in &world.clamps {
        entries.push(Entry::Clamp(*vni, abi::Clamp { mtu: *mtu }));
    }
    for (ifindex, attachment) in &world.attachments {
        let attachment = Attachment {
            vni: attachment.vni,
            ip: attachment.ip,
            gateway: world.gateway.1,
            mac: attachment.mac,
            gateway_mac: world.gateway.0,
            ip6: V6::UNSPECIFIED,
            gateway6: V6::UNSPECIFIED,
        };
        entries.push(Entry::Attachment(*ifindex, attachment));
    }
    for (address, mac) in &world.endpoints {
        let endpoint = Endpoint {
            ifindex: lab.bob,
            mac: *mac,
            flags: backend_flag(world, *address),
        };
        entries.push(Entry::Endpoint(at(*address), endpoint));
    }
    for (address, (vtep, mac)) in &world.peers {
        let peer = Peer {
            vtep: mapped(*vtep),
            mac: *mac,
            flags: backend_flag(world, *address),
        };
        entries.push(Entry::Peer(at(*address), peer));
    }
    for (vtep, (source, mtu)) in &world.nodes {
        let node = Node {
            next_hop: mapped(*vtep),
            source: mapped(*source),
            ifindex: lab.uplink,
            mtu: *mtu,
            family: node::IPV4,
            padding: 0,
        };
        entries.push(Entry::Node(mapped(*vtep), node));
    }
    for ((vni, vip), backends) in &world.services {
        for (slot, ip) in backends.iter().enumerate() {
            let key = BackendKey {
                vni: *vni,
                vip: *vip,
                slot: slot as u32,
            };
            entries.push(Entry::Backend(key, Backend { ip: *ip }));
        }
        let service = Service {
            backend_count: backends.len() as u32,
            policy: world.policies.get(&(*vni, *vip)).map_or(0, |policy| policy.kind),
            affinity_seconds: world
                .policies
                .get(&(*vni, *vip))
                .map_or(0, |policy| policy.affinity_seconds),
        };
        entries.push(Entry::Service(at((*vni, *vip)), service));
    }
    for entry in entries {
        reconcile::apply(&Step::Put(entry), &mut contents);
    }
    contents
}

/// Who stands behind a virtual IP is marked.
fn backend_flag(world: &World, (vni, ip): (u32, Ip)) -> u16 {
    if world.is_backend(vni, ip) {
        abi::peer::BACKEND
    } else {
        0
    }
}

/// The shortest sequence that can be got out of one that differs, by leaving events and entries away.
fn shrink(lab: &mut Lab, mut sequence: Sequence) -> Sequence {
    loop {
        let Some(difference) = differs(lab, &sequence) else {
            return sequence;
        };
        sequence.events.truncate(difference.index + 1);
        let shorter = candidates(&sequence)
            .into_iter()
            .find(|candidate| differs(lab, candidate).is_some());
        match shorter {
            Some(shorter) => sequence = shorter,
            None => return sequence,
        }
    }
}

/// The sequence with one thing less.
fn candidates(sequence: &Sequence) -> Vec<Sequence> {
    let mut candidates = Vec::new();
    for index in 0..sequence.events.len() {
        let mut less = sequence.clone();
        less.events.remove(index);
        candidates.push(less);
    }
    macro_rules! without_each {
        ($($map:ident),+) => {
            $(for key in sequence.world.$map.keys() {
                let mut less = sequence.clone();
                less.world.$map.remove(key);
                candidates.push(less);
            })+
        };
    }
    without_each!(services, peers, endpoints, nodes, attachments);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_and_event_can_be_left_away() {
        let mut world = World::default();
        world.services.insert((1, [1; 4]), vec![]);
        world.peers.insert((1, [2; 4]), ([3; 4], [4; 6]));
        let packet = Event::Packet(Origin::Underlay, vec![0; 14]);
        let sequence = Sequence {
            world,
            events: vec![packet, Event::Silence],
        };
        let sizes: Vec<(usize, usize, usize)> = candidates(&sequence)
            .iter()
            .map(|less| (less.events.len(), less.world.services.len(), less.world.peers.len()))
            .collect();
        assert_eq!(sizes, [(1, 1, 1), (1, 1, 1), (2, 0, 1), (2, 1, 0)]);
    }

    #[test]
    fn only_a_port_of_the_dynamic_range_is_taken_over() {
        let mut expected = vec![0; 40];
        let mut got = vec![7; 40];
        take_port(&mut expected, &got);
        assert_eq!(expected, vec![0; 40]);
        got[34] = 0xc0;
        take_port(&mut expected, &got);
        assert_eq!(expected[34..36], [0xc0, 7]);
        take_port(&mut expected[..20], &got);
    }
}
