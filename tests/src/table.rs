//! Packet tables: a packet goes into a program, and the case says exactly what comes of it: verdict, packet, counters, connections.
//!
//! ```text
//! case("a datagram to a virtual IP goes to its backend")
//!     .send(Alice, udp_to_vip(VIP, 7))
//!     .to_peer(udp_to_vip(VIP, 7).with_macs(..).with_ips(..))
//!     .counts(&[FlowCreated])
//!     .opens(udp((ALICE.1, 7), (VIP, 53), CAROL.1))
//! ```
//!
//! A table is checked as a whole on one [`Lab`], whose maps are put back after each case; all that differs is told, case by case.

use crate::expect::encapsulated;
use crate::packet::{Datagram, difference, fields};
use crate::programs::{Action, Lab, Outcome, VTEP};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapType};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use weft::dataplane::Hook;
use weft_core::reconcile::{self, Step};
use weft_core::wanted::MapContents;
use weft_dataplane::abi::{
    Counter, Flow, FlowKey, FragmentKey, FragmentPorts, OverlayAddress, Sizes, answer, flow, fragment, service,
};
use weft_dataplane::packet::ipv4;

type Ip = [u8; 4];

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Alice's container.
    Alice,
    /// Bob's container.
    Bob,
    /// The underlay.
    Underlay,
}

/// A packet of a table: bytes, or what is built into them.
pub trait Bytes {
    /// The bytes.
    fn to_bytes(self) -> Vec<u8>;
}

impl Bytes for Vec<u8> {
    fn to_bytes(self) -> Vec<u8> {
        self
    }
}

impl Bytes for &[u8] {
    fn to_bytes(self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Bytes for Datagram {
    fn to_bytes(self) -> Vec<u8> {
        Datagram::bytes(&self)
    }
}

impl Bytes for &Datagram {
    fn to_bytes(self) -> Vec<u8> {
        Datagram::bytes(self)
    }
}

/// What happens in a case before its packet.
#[derive(Clone, Debug)]
enum Before {
    Packet(From, Vec<u8>),
    Maps(Vec<Step>),
    Age,
}

/// The packet after the program.
#[derive(Clone, Debug)]
enum After {
    Same,
    Exactly(Vec<u8>),
    /// The frame to a peer, in VXLAN to the VTEP. The outer source port is any of the range.
    InVxlan(Datagram, Ip),
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    before: Vec<Before>,
    from: From,
    packet: Vec<u8>,
    action: Action,
    after: After,
    counted: Vec<Counter>,
    connections: BTreeSet<String>,
}

/// A case of this name. Unless it says otherwise its packet is dropped, uncounted and unchanged.
pub fn case(name: impl Into<String>) -> Case {
    Case {
        name: name.into(),
        before: Vec::new(),
        from: From::Alice,
        packet: Vec::new(),
        action: Action::Drop,
        after: After::Same,
        counted: Vec::new(),
        connections: BTreeSet::new(),
    }
}

impl Case {
    /// Before it, the maps are changed.
    pub fn given(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.before.push(Before::Maps(steps.into_iter().collect()));
        self
    }

    /// Before it, this packet went through; what became of it is another case's matter.
    pub fn after(mut self, from: From, packet: impl Bytes) -> Self {
        self.before.push(Before::Packet(from, packet.to_bytes()));
        self
    }

    /// Before it, so much time passed that a connection without packets is over.
    pub fn after_silence(mut self) -> Self {
        self.before.push(Before::Age);
        self
    }

    /// The packet.
    pub fn send(mut self, from: From, packet: impl Bytes) -> Self {
        self.from = from;
        self.packet = packet.to_bytes();
        self
    }

    /// It goes to a peer, as this frame in VXLAN.
    pub fn to_peer(mut self, frame: Datagram) -> Self {
        self.action = Action::Redirect;
        self.after = After::InVxlan(frame, VTEP.1);
        self.counts(&[Counter::Encapsulated])
    }

    /// It is delivered to an endpoint of this node, from another endpoint of this node.
    pub fn to_neighbor(self, frame: impl Bytes) -> Self {
        self.redirected(frame).counts(&[Counter::DeliveredLocally])
    }

    /// It is taken out of VXLAN and delivered.
    pub fn delivered(self, frame: impl Bytes) -> Self {
        self.redirected(frame).counts(&[Counter::Delivered])
    }

    /// It is handed to a device with these bytes.
    pub fn redirected(mut self, frame: impl Bytes) -> Self {
        self.action = Action::Redirect;
        self.after = After::Exactly(frame.to_bytes());
        self
    }

    /// It is dropped, as it came, for this reason.
    pub fn dropped(mut self, reason: Counter) -> Self {
        self.action = Action::Drop;
        self.after = After::Same;
        self.counts(&[reason])
    }

    /// It is passed on untouched to whoever else is on the host.
    pub fn passed(mut self) -> Self {
        self.action = Action::Pass;
        self.after = After::Same;
        self
    }

    /// It is counted here too.
    pub fn counts(mut self, counters: &[Counter]) -> Self {
        self.counted.extend(counters);
        self
    }

    /// A connection is remembered, in both directions.
    pub fn opens(mut self, connection: Connection) -> Self {
        self.connections
            .extend(connection.entries().map(|entry| format!("+ {entry}")));
        self
    }

    /// A connection is forgotten, in both directions.
    pub fn closes(mut self, connection: Connection) -> Self {
        self.connections
            .extend(connection.entries().map(|entry| format!("- {entry}")));
        self
    }

    /// A connection goes to another backend: the entries of both directions are replaced.
    pub fn moves(mut self, from: Connection, to: Connection) -> Self {
        let (old, new): (BTreeSet<String>, BTreeSet<String>) = (from.entries().collect(), to.entries().collect());
        self.connections
            .extend(old.difference(&new).map(|entry| format!("- {entry}")));
        self.connections
            .extend(new.difference(&old).map(|entry| format!("+ {entry}")));
        self
    }

    /// The entry that translates answers of a connection is forgotten.
    pub fn forgets_answers_of(mut self, connection: Connection) -> Self {
        self.connections.insert(format!("- {}", connection.reply()));
        self
    }

    /// Runs the case and puts the maps back; tells what differs, nothing if all is as it says.
    fn failures(&self, lab: &mut Lab) -> String {
        for before in &self.before {
            match before {
                Before::Packet(from, packet) => drop(send(lab, *from, packet)),
                Before::Maps(steps) => lab.apply(steps),
                Before::Age => crate::expect::age_flows(lab),
            }
        }
        let before = connections(lab);
        let outcome = send(lab, self.from, &self.packet);
        let after = connections(lab);
        let text = self.compare(&outcome, &before, &after);
        if text.is_empty() {
            return text;
        }
        let mut failure = format!("case {:?}:\n{text}  the packet was:\n", self.name);
        for (name, value) in fields(&self.packet) {
            let _ = writeln!(failure, "    {name}: {value}");
        }
        failure
    }

    fn compare(&self, outcome: &Outcome, before: &BTreeSet<String>, after: &BTreeSet<String>) -> String {
        let mut text = String::new();
        if outcome.action != self.action {
            let _ = writeln!(text, "  verdict: expected {:?}, got {:?}", self.action, outcome.action);
        }
        let mut counted: BTreeMap<Counter, u64> = BTreeMap::new();
        for counter in &self.counted {
            *counted.entry(*counter).or_insert(0) += 1;
        }
        if outcome.counted != counted {
            let names = |counts: &BTreeMap<Counter, u64>| {
                let names: Vec<String> = counts
                    .iter()
                    .map(|(counter, n)| format!("{}+{n}", counter.name()))
                    .collect();
                names.join(" ")
            };
            let (expected, got) = (names(&counted), names(&outcome.counted));
            let _ = writeln!(text, "  counters: expected {expected}, got {got}");
        }
        let expected = match &self.after {
            After::Same => self.packet.clone(),
            After::Exactly(bytes) => bytes.clone(),
            After::InVxlan(..) if outcome.action != Action::Redirect || outcome.packet.len() < 36 => {
                self.packet.clone()
            }
            After::InVxlan(frame, vtep) => encapsulated(frame, outcome, *vtep),
        };
        for line in difference(&expected, &outcome.packet).lines() {
            let _ = writeln!(text, "  {}", line.trim_start());
        }
        let changed: BTreeSet<String> = after
            .difference(before)
            .map(|entry| format!("+ {entry}"))
            .chain(before.difference(after).map(|entry| format!("- {entry}")))
            .collect();
        for missing in self.connections.difference(&changed) {
            let _ = writeln!(text, "  connections: expected {missing}");
        }
        for other in changed.difference(&self.connections) {
            let _ = writeln!(text, "  connections: unexpected {other}");
        }
        text
    }
}

fn send(lab: &Lab, from: From, packet: &[u8]) -> Outcome {
    match from {
        From::Alice => lab.run(Hook::Endpoint, lab.alice, packet),
        From::Bob => lab.run(Hook::Endpoint, lab.bob, packet),
        From::Underlay => lab.run(Hook::Uplink, lab.uplink, packet),
    }
}

/// A balanced connection of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    protocol: u8,
    client: (Ip, u16),
    vip: (Ip, u16),
    backend: Ip,
    /// Whom the backend sees as its client.
    seen: Ip,
}

/// A TCP connection from a client through a virtual IP to a backend.
pub fn tcp(client: (Ip, u16), vip: (Ip, u16), backend: Ip) -> Connection {
    Connection {
        protocol: ipv4::TCP,
        client,
        vip,
        backend,
        // A client that is its own backend sees the virtual IP as the other end.
        seen: if backend == client.0 { vip.0 } else { client.0 },
    }
}

/// The same over UDP.
pub fn udp(client: (Ip, u16), vip: (Ip, u16), backend: Ip) -> Connection {
    Connection {
        protocol: ipv4::UDP,
        ..tcp(client, vip, backend)
    }
}

impl Connection {
    /// Its entries. A client that talks to itself from a port to the same port has one for both directions.
    fn entries(self) -> impl Iterator<Item = String> {
        BTreeSet::from([self.forward(), self.reply()]).into_iter()
    }

    fn forward(self) -> String {
        let (client, vip) = (self.client, self.vip);
        entry(self.protocol, client, vip, (self.seen, client.1), (self.backend, vip.1))
    }

    fn reply(self) -> String {
        let (client, vip) = (self.client, self.vip);
        entry(self.protocol, (self.backend, vip.1), (self.seen, client.1), vip, client)
    }
}

fn entry(
    protocol: u8,
    source: (Ip, u16),
    destination: (Ip, u16),
    to_source: (Ip, u16),
    to_destination: (Ip, u16),
) -> String {
    let end = |(ip, port): (Ip, u16)| format!("{}:{port}", Ipv4Addr::from(ip));
    let name = if protocol == ipv4::TCP { "tcp" } else { "udp" };
    format!(
        "{name} {} > {} becomes {} > {}",
        end(source),
        end(destination),
        end(to_source),
        end(to_destination)
    )
}

/// What the flow table holds, an entry a line, without times and states.
fn connections(lab: &Lab) -> BTreeSet<String> {
    let port = u16::from_be_bytes;
    lab.flows()
        .iter()
        .map(|(key, flow)| {
            let (source_port, destination_port) = (port(key.source_port), port(key.destination_port));
            entry(
                key.network as u8,
                (key.source, source_port),
                (key.destination, destination_port),
                (flow.source, port(flow.source_port)),
                (flow.destination, port(flow.destination_port)),
            )
        })
        .collect()
}

/// Checks all cases of a table; panics with all that differ, and how many are right. Gives their number.
#[track_caller]
pub fn check(cases: &[Case]) -> usize {
    let mut lab = Lab::new();
    let initial = lab.dataplane.present().unwrap_or_else(|error| panic!("{error}"));
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases of a table have one name");
    let mut failures = Vec::new();
    for case in cases {
        let failure = case.failures(&mut lab);
        if !failure.is_empty() {
            failures.push(failure);
        }
        put_back(&mut lab, &initial);
    }
    assert!(
        failures.is_empty(),
        "{} of {} cases differ:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
    cases.len()
}

/// Makes the maps what they were at first, and forgets what the programs remembered.
pub fn put_back(lab: &mut Lab, initial: &MapContents) {
    let present = lab.dataplane.present().unwrap_or_else(|error| panic!("{error}"));
    lab.apply(&reconcile::steps(initial, &present, &Sizes::DEFAULT));
    clear::<FlowKey, Flow>(&lab.dataplane.pin_of(flow::NAME));
    clear::<FragmentKey, FragmentPorts>(&lab.dataplane.pin_of(fragment::NAME));
    clear::<OverlayAddress, u32>(&lab.dataplane.pin_of(service::ROTATION_NAME));
    clear::<u32, u64>(&lab.dataplane.pin_of(answer::NAME));
    crate::policies::put_back(lab, &BTreeMap::new());
}

/// Removes all entries of a pinned hash map.
pub fn clear<K: Pod, V: Pod>(pin: &Path) {
    let mut map = pinned::<K, V>(pin);
    let keys: Vec<K> = map.keys().filter_map(Result::ok).collect();
    for key in keys {
        map.remove(&key)
            .unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
    }
}

/// A pinned hash map.
pub fn pinned<K: Pod, V: Pod>(pin: &Path) -> HashMap<MapData, K, V> {
    let map = MapData::from_pin(pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
    let kind = map.info().and_then(|info| info.map_type());
    let map = match kind.unwrap_or_else(|error| panic!("{}: {error}", pin.display())) {
        MapType::LruHash => Map::LruHashMap(map),
        _ => Map::HashMap(map),
    };
    map.try_into()
        .unwrap_or_else(|error| panic!("{}: {error}", pin.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Payload;
    use crate::programs::{ALICE, BOB, CAROL, VIP};

    fn told(case: &Case, outcome: &Outcome, changed: &[String]) -> String {
        case.compare(outcome, &BTreeSet::new(), &changed.iter().cloned().collect())
    }

    #[test]
    fn all_that_differs_is_told() {
        let packet = Datagram::new(ALICE, BOB, Payload::Udp(1, 2, vec![3]));
        let case =
            case("x")
                .send(From::Alice, &packet)
                .to_neighbor(&packet)
                .opens(udp((ALICE.1, 1), (VIP, 2), CAROL.1));
        let right = Outcome {
            action: Action::Redirect,
            packet: packet.bytes(),
            counted: [(Counter::DeliveredLocally, 1)].into(),
        };
        let entries: Vec<String> = udp((ALICE.1, 1), (VIP, 2), CAROL.1).entries().collect();
        assert_eq!(told(&case, &right, &entries), "");
        let wrong = Outcome {
            action: Action::Drop,
            packet: packet.clone().with_ips(ALICE.1, CAROL.1).bytes(),
            counted: [(Counter::DropNoRoute, 2)].into(),
        };
        let text = told(&case, &wrong, &["udp other".to_owned()]);
        let expected = [
            "verdict: expected Redirect, got Drop",
            "counters: expected delivered_locally+1, got drop_no_route+2",
            "ip.destination: expected 10.0.1.3, got 10.0.1.4",
            "connections: expected + udp 10.0.1.2:1 > 10.0.1.100:2 becomes 10.0.1.2:1 > 10.0.1.4:2",
            "connections: expected + udp 10.0.1.4:2 > 10.0.1.2:1 becomes 10.0.1.100:2 > 10.0.1.2:1",
            "connections: unexpected + udp other",
        ];
        for line in expected {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert_eq!(text.lines().count(), expected.len(), "{text}");
    }

    #[test]
    fn a_connection_that_moves_replaces_both_directions() {
        let (old, new) = (udp((ALICE.1, 1), (VIP, 2), CAROL.1), udp((ALICE.1, 1), (VIP, 2), BOB.1));
        let case = case("x").moves(old, new);
        let signs: Vec<&str> = case.connections.iter().map(|entry| &entry[..1]).collect();
        assert_eq!(signs, ["+", "+", "-", "-"]);
    }
}
