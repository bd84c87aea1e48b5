//! A sequence that differs, in words: what differs, then the case as a packet table has it.

use super::{Difference, Event, Sequence};
use crate::model::{Change, Origin, Way};
use crate::packet::{difference as packet_difference, fields};
use crate::programs::Lab;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use weft_dataplane::abi::Counter;

pub(super) fn text(seed: u64, sequence: &Sequence, difference: Option<&Difference>, lab: &Lab) -> String {
    let mut text = format!("programs and model differ with --seed {seed}; made short:\n");
    if let Some(difference) = difference {
        differing(&mut text, difference);
    }
    let world = &sequence.world;
    let _ = writeln!(text, "the maps:");
    let _ = writeln!(text, "  networks {:?}, gateway {}", world.networks, ip(world.gateway.1));
    for (vni, mtu) in &world.clamps {
        let _ = writeln!(text, "  the MSS of VNI {vni} is clamped to an MTU of {mtu}");
    }
    for (ifindex, attachment) in &world.attachments {
        let name = interface(*ifindex, lab);
        let _ = writeln!(text, "  {name} is {} of VNI {}", ip(attachment.ip), attachment.vni);
    }
    for (vni, address) in world.endpoints.keys() {
        let _ = writeln!(text, "  endpoint {} of VNI {vni}", ip(*address));
    }
    for ((vni, address), (vtep, _)) in &world.peers {
        let _ = writeln!(text, "  peer {} of VNI {vni} behind {}", ip(*address), ip(*vtep));
    }
    for (vtep, (_, mtu)) in &world.nodes {
        let _ = writeln!(text, "  node {} with MTU {mtu}", ip(*vtep));
    }
    for ((vni, vip), backends) in &world.services {
        let backends: Vec<String> = backends.iter().copied().map(ip).collect();
        let _ = writeln!(
            text,
            "  virtual IP {} of VNI {vni} with [{}], policy {:?}",
            ip(*vip),
            backends.join(", "),
            world.policies.get(&(*vni, *vip))
        );
    }
    let _ = writeln!(text, "the case:\n  case(\"of seed {seed}\")");
    for (index, event) in sequence.events.iter().enumerate() {
        let last = index + 1 == sequence.events.len();
        match event {
            Event::Silence => {
                let _ = writeln!(text, "    .after_silence()");
            }
            Event::Services(balancing) => {
                let _ = writeln!(text, "    .given({balancing:?})");
            }
            Event::Packet(origin, packet) => {
                let verb = if last { "send" } else { "after" };
                let from = match origin {
                    Origin::Container(ifindex) => interface(*ifindex, lab),
                    Origin::Underlay => "Underlay",
                };
                let bytes: Vec<String> = packet.iter().map(|byte| format!("{byte:#04x}")).collect();
                let _ = writeln!(text, "    .{verb}(From::{from}, vec![{}])", bytes.join(", "));
                for (name, value) in fields(packet) {
                    let _ = writeln!(text, "      // {name}: {value}");
                }
            }
        }
    }
    text
}

fn differing(text: &mut String, difference: &Difference) {
    let ((expected, wanted), (got, present)) = (&difference.expected, &difference.got);
    if expected.action != got.action {
        let _ = writeln!(text, "  verdict: expected {:?}, got {:?}", expected.action, got.action);
    }
    if expected.counted != got.counted {
        let (expected, got) = (names(&expected.counted), names(&got.counted));
        let _ = writeln!(text, "  counters: expected {expected}, got {got}");
    }
    text.push_str(&packet_difference(&expected.packet, &got.packet));
    if (&wanted.loads, &wanted.affinities) != (&present.loads, &present.affinities) {
        let _ = writeln!(text, "  loads: expected {:?}, got {:?}", wanted.loads, present.loads);
        let (expected, got) = (&wanted.affinities, &present.affinities);
        let _ = writeln!(text, "  affinities: expected {expected:?}, got {got:?}");
    }
    let (wanted, present) = (&wanted.connections, &present.connections);
    for (way, change) in wanted.iter().filter(|(way, change)| present.get(way) != Some(change)) {
        let _ = writeln!(text, "  connections: expected {}", connection(way, change));
    }
    for (way, change) in present.iter().filter(|(way, change)| wanted.get(way) != Some(change)) {
        let _ = writeln!(text, "  connections: got {}", connection(way, change));
    }
}

fn names(counted: &BTreeMap<Counter, u64>) -> String {
    let names: Vec<String> = counted
        .iter()
        .map(|(counter, count)| format!("{}+{count}", counter.name()))
        .collect();
    names.join(" ")
}

fn connection(way: &Way, change: &Change) -> String {
    format!(
        "VNI {} protocol {} {}:{} > {}:{} becomes {} > {}{}{}",
        way.vni,
        way.protocol,
        ip(way.source.0),
        way.source.1,
        ip(way.destination.0),
        way.destination.1,
        end(change.source),
        end(change.destination),
        if change.reply { " reply" } else { "" },
        state(change)
    )
}

fn end((address, port): ([u8; 4], u16)) -> String {
    format!("{}:{port}", ip(address))
}

fn state(change: &Change) -> String {
    let words = [
        (change.direct, " direct"),
        (change.answered, " answered"),
        (change.established, " established"),
        (change.client_finished, " client-finished"),
        (change.backend_finished, " backend-finished"),
        (change.reset, " reset"),
        (change.stale, " stale"),
        (change.counted, " counted"),
    ];
    words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect()
}

fn interface(ifindex: u32, lab: &Lab) -> &'static str {
    if ifindex == lab.alice { "Alice" } else { "Bob" }
}

fn ip(address: [u8; 4]) -> String {
    Ipv4Addr::from(address).to_string()
}
