//! The kernel's maps, readable: each entry as a line and as JSON with named fields.

mod sockets;

use crate::MapDump;
use crate::golang::Json;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use weft_core::id::MacAddress;
use weft_dataplane::abi::{
    Affinity, Attachment, Backend, BackendKey, Clamp, Counter, Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts, Ip,
    MaglevKey, MaglevPart, MaglevTable, MapType, MemberKey, Network, Node, OverlayAddress, Peer, Service, V4, V6,
    affinity, answer, attachment, backend, clamp, counter, endpoint, flow, fragment, load, maglev, network, node, peer,
    service, socket, unmapped,
};

/// A map, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapView {
    name: String,
    entries: Vec<Entry>,
    max_entries: u32,
    truncated: bool,
}

/// An entry, decoded: its line without line end, and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    line: String,
    fields: Vec<(&'static str, Json)>,
}

/// How the entries of a map are decoded, sorted by key.
type Decode = fn(&[(Vec<u8>, Vec<u8>)]) -> Vec<Entry>;

/// Every map of `weft_dataplane::abi`, by name.
const DECODERS: &[(&str, Decode)] = &[
    (affinity::NAME, |raw| decode(raw, affinity::<V4>)),
    (affinity::NAME6, |raw| decode(raw, affinity::<V6>)),
    (answer::NAME, |raw| decode(raw, answers)),
    (attachment::NAME, |raw| decode(raw, attachment)),
    (backend::NAME, |raw| decode(raw, backend::<V4>)),
    (backend::NAME6, |raw| decode(raw, backend::<V6>)),
    (clamp::NAME, |raw| decode(raw, clamp)),
    (counter::NAME, counters),
    (endpoint::NAME, |raw| decode(raw, endpoint::<V4>)),
    (endpoint::NAME6, |raw| decode(raw, endpoint::<V6>)),
    (flow::NAME, |raw| decode(raw, flow::<V4>)),
    (flow::NAME6, |raw| decode(raw, flow::<V6>)),
    (fragment::NAME, |raw| decode(raw, fragment::<V4>)),
    (fragment::NAME6, |raw| decode(raw, fragment::<V6>)),
    (load::NAME, |raw| decode(raw, load::<V4>)),
    (load::NAME6, |raw| decode(raw, load::<V6>)),
    (maglev::NAME, |raw| decode(raw, maglev_part)),
    (maglev::MEMBERS_NAME, |raw| decode(raw, maglev_member::<V4>)),
    (maglev::MEMBERS_NAME6, |raw| decode(raw, maglev_member::<V6>)),
    (maglev::TABLES_NAME, |raw| decode(raw, maglev_table::<V4>)),
    (maglev::TABLES_NAME6, |raw| decode(raw, maglev_table::<V6>)),
    (socket::NAMESPACES_NAME, |raw| decode(raw, sockets::namespace)),
    (network::NAME, |raw| decode(raw, network)),
    (node::NAME, |raw| decode(raw, node)),
    (peer::NAME, |raw| decode(raw, peer::<V4>)),
    (peer::NAME6, |raw| decode(raw, peer::<V6>)),
    (service::ROTATION_NAME, |raw| decode(raw, rotation::<V4>)),
    (service::ROTATION_NAME6, |raw| decode(raw, rotation::<V6>)),
    (service::NAME, |raw| decode(raw, service::<V4>)),
    (service::NAME6, |raw| decode(raw, service::<V6>)),
    (socket::SOCKETS_NAME, |raw| decode(raw, sockets::socket)),
    (load::WEIGHTS_NAME, |raw| decode(raw, weight::<V4>)),
    (load::WEIGHTS_NAME6, |raw| decode(raw, weight::<V6>)),
];

/// Refuses the name of a map that does not exist, naming those that do.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if DECODERS.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    let names: Vec<&str> = DECODERS.iter().map(|(name, _)| *name).collect();
    Err(format!("map {name:?} does not exist, there are: {}", names.join(", ")))
}

impl MapView {
    /// Decodes a map.
    pub(crate) fn new(dump: MapDump) -> MapView {
        let decode = DECODERS
            .iter()
            .find(|(name, _)| *name == dump.name)
            .map_or(undecoded as Decode, |(_, decode)| *decode);
        MapView {
            entries: decode(&dump.entries),
            name: dump.name,
            max_entries: dump.max_entries,
            truncated: dump.truncated,
        }
    }

    /// A line that counts, then a line an entry.
    pub(crate) fn text(&self) -> String {
        let more = if self.truncated { ", more are in the map" } else { "" };
        let mut text = format!(
            "total entries: {}, limit {}{more}\n",
            self.entries.len(),
            self.max_entries
        );
        for entry in &self.entries {
            text.push_str(&entry.line);
            text.push('\n');
        }
        text
    }

    /// Name, size, limit, and the entries with their fields.
    pub(crate) fn json(&self) -> Json {
        let entries: Vec<Json> = self
            .entries
            .iter()
            .map(|entry| Json::Object(entry.fields.clone()))
            .collect();
        Json::Object(vec![
            ("name", Json::text(&self.name)),
            ("size", number(u64::try_from(entries.len()).unwrap_or(u64::MAX))),
            ("limit", number(self.max_entries)),
            ("truncated", Json::Bool(self.truncated)),
            ("entries", Json::list_or_null(entries)),
        ])
    }
}

/// Decodes and sorts by key; entries whose bytes do not fit come last, in hex.
fn decode<K: MapType + Ord, V: MapType>(raw: &[(Vec<u8>, Vec<u8>)], describe: fn(&K, &V) -> Entry) -> Vec<Entry> {
    let mut typed: Vec<(K, V)> = Vec::with_capacity(raw.len());
    let mut odd = Vec::new();
    for (key, value) in raw {
        match (K::from_bytes(key), V::from_bytes(value)) {
            (Some(key), Some(value)) => typed.push((key, value)),
            _ => odd.push((key.clone(), value.clone())),
        }
    }
    typed.sort_by_key(|(key, _)| *key);
    typed
        .iter()
        .map(|(key, value)| describe(key, value))
        .chain(undecoded(&odd))
        .collect()
}

/// Entries in hex.
fn undecoded(raw: &[(Vec<u8>, Vec<u8>)]) -> Vec<Entry> {
    let mut hex: Vec<(String, String)> = raw.iter().map(|(key, value)| (hex(key), hex(value))).collect();
    hex.sort();
    let describe = |(key, value): (String, String)| Entry {
        line: format!("undecoded key {key} value {value}"),
        fields: vec![("key", Json::text(key)), ("value", Json::text(value))],
    };
    hex.into_iter().map(describe).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn number(value: impl Into<i128>) -> Json {
    Json::Number(value.into())
}

fn ip<A: Ip>(address: A) -> String {
    match unmapped(address.mapped()) {
        Some(address) => Ipv4Addr::from(address).to_string(),
        None => Ipv6Addr::from(address.mapped().octets()).to_string(),
    }
}

fn mac(address: [u8; 6]) -> String {
    MacAddress(address).to_string()
}

fn attachment(ifindex: &u32, value: &Attachment) -> Entry {
    let Attachment { vni, .. } = value;
    let (address, gateway) = (ip(value.ip), ip(value.gateway));
    let (own_mac, gateway_mac) = (mac(value.mac), mac(value.gateway_mac));
    let mut line =
        format!("ifindex {ifindex} -> vni {vni} {address} mac {own_mac} gateway {gateway} mac {gateway_mac}");
    let mut fields = vec![
        ("ifindex", number(*ifindex)),
        ("vni", number(*vni)),
        ("ip", Json::text(address)),
        ("mac", Json::text(own_mac)),
        ("gateway", Json::text(gateway)),
        ("gateway_mac", Json::text(gateway_mac)),
    ];
    if value.ip6 != V6::UNSPECIFIED {
        let (address, gateway) = (ip(value.ip6), ip(value.gateway6));
        let _ = write!(line, " ip6 {address} gateway {gateway}");
        fields.extend([("ip6", Json::text(address)), ("gateway6", Json::text(gateway))]);
    }
    Entry { line, fields }
}

fn network(vni: &u32, value: &Network) -> Entry {
    let (gateway, gateway_mac) = (ip(value.gateway), mac(value.gateway_mac));
    Entry {
        line: format!("vni {vni} -> gateway {gateway}/{} mac {gateway_mac}", value.prefix_len),
        fields: vec![
            ("vni", number(*vni)),
            ("gateway", Json::text(gateway)),
            ("prefix_len", number(value.prefix_len)),
            ("gateway_mac", Json::text(gateway_mac)),
        ],
    }
}

fn clamp(vni: &u32, value: &Clamp) -> Entry {
    Entry {
        line: format!("vni {vni} -> mtu {}", value.mtu),
        fields: vec![("vni", number(*vni)), ("mtu", number(value.mtu))],
    }
}

fn endpoint<A: Ip>(key: &OverlayAddress<A>, value: &Endpoint) -> Entry {
    let (address, own_mac) = (ip(key.ip), mac(value.mac));
    Entry {
        line: format!("vni {} {address} -> ifindex {} mac {own_mac}", key.vni(), value.ifindex),
        fields: vec![
            ("vni", number(key.vni())),
            ("ip", Json::text(address)),
            ("ifindex", number(value.ifindex)),
            ("mac", Json::text(own_mac)),
        ],
    }
}

fn peer<A: Ip>(key: &OverlayAddress<A>, value: &Peer) -> Entry {
    let (address, vtep, own_mac) = (ip(key.ip), ip(value.vtep), mac(value.mac));
    Entry {
        line: format!("vni {} {address} -> vtep {vtep} mac {own_mac}", key.vni()),
        fields: vec![
            ("vni", number(key.vni())),
            ("ip", Json::text(address)),
            ("vtep", Json::text(vtep)),
            ("mac", Json::text(own_mac)),
        ],
    }
}

fn node(vtep: &V6, value: &Node) -> Entry {
    let (vtep, next_hop, source) = (ip(*vtep), ip(value.next_hop), ip(value.source));
    let Node { ifindex, mtu, .. } = value;
    Entry {
        line: format!("vtep {vtep} -> next hop {next_hop} ifindex {ifindex} source {source} mtu {mtu}"),
        fields: vec![
            ("vtep", Json::text(vtep)),
            ("next_hop", Json::text(next_hop)),
            ("ifindex", number(*ifindex)),
            ("source", Json::text(source)),
            ("mtu", number(*mtu)),
        ],
    }
}

fn service<A: Ip>(key: &OverlayAddress<A>, value: &Service) -> Entry {
    let vip = ip(key.ip);
    let policy = match value.policy {
        service::POLICY_ROUND_ROBIN => "round-robin".to_owned(),
        service::POLICY_MAGLEV => "maglev".to_owned(),
        service::POLICY_LEAST_CONNECTIONS => "least-connections".to_owned(),
        unknown => format!("unknown policy {unknown}"),
    };
    let affinity = match value.affinity_seconds {
        0 => String::new(),
        seconds => format!(", a client's backend for {seconds} s"),
    };
    Entry {
        line: format!(
            "vni {} vip {vip} -> {} backends, {policy}{affinity}",
            key.vni(),
            value.backend_count
        ),
        fields: vec![
            ("vni", number(key.vni())),
            ("vip", Json::text(vip)),
            ("backend_count", number(value.backend_count)),
            ("policy", Json::text(policy)),
            ("affinity_seconds", number(value.affinity_seconds)),
        ],
    }
}

/// Something that is known of a backend or a client of a virtual IP: network, virtual IP and address, then a word and its value.
fn of_member<A: Ip>(key: &MemberKey<A>, who: &'static str, what: &'static str, value: u32, unit: &str) -> Entry {
    let vip = key.network_vip();
    let (vni, vip, address) = (vip.vni(), ip(vip.ip), ip(key.ip));
    Entry {
        line: format!("vni {vni} vip {vip} {who} {address} -> {value} {unit}"),
        fields: vec![
            ("vni", number(vni)),
            ("vip", Json::text(vip)),
            (who, Json::text(address)),
            (what, number(value)),
        ],
    }
}

fn load<A: Ip>(key: &MemberKey<A>, open: &u32) -> Entry {
    of_member(key, "backend", "open", *open, "open connections")
}

fn weight<A: Ip>(key: &MemberKey<A>, weight: &u32) -> Entry {
    of_member(key, "backend", "weight", *weight, "times the weight of others")
}

fn affinity<A: Ip>(key: &MemberKey<A>, value: &Affinity<A>) -> Entry {
    let vip = key.network_vip();
    let (vni, vip, client, backend) = (vip.vni(), ip(vip.ip), ip(key.ip), ip(value.backend));
    let last_seen_ms = milliseconds(value.last_seen);
    Entry {
        line: format!(
            "vni {vni} vip {vip} client {client} -> {backend}, last seen {}.{:03} s after boot",
            last_seen_ms / 1000,
            last_seen_ms % 1000
        ),
        fields: vec![
            ("vni", number(vni)),
            ("vip", Json::text(vip)),
            ("client", Json::text(client)),
            ("backend", Json::text(backend)),
            ("last_seen_ms", number(last_seen_ms)),
        ],
    }
}

fn maglev_table<A: Ip>(key: &OverlayAddress<A>, value: &MaglevTable) -> Entry {
    let (vip, table) = (ip(key.ip), table_name(value.name));
    Entry {
        line: format!("vni {} vip {vip} -> table {table} of {} entries", key.vni(), value.size),
        fields: vec![
            ("vni", number(key.vni())),
            ("vip", Json::text(vip)),
            ("table", Json::text(table)),
            ("size", number(value.size)),
        ],
    }
}

fn maglev_part(key: &MaglevKey, value: &MaglevPart) -> Entry {
    let table = table_name(key.name);
    let members: Vec<String> = value.members.iter().map(u16::to_string).collect();
    Entry {
        line: format!("table {table} part {} -> members {}", key.index, members.join(" ")),
        fields: vec![
            ("table", Json::text(table)),
            ("part", number(key.index)),
            ("members", Json::list_or_null(value.members.map(number).to_vec())),
        ],
    }
}

fn maglev_member<A: Ip>(key: &MaglevKey, value: &Backend<A>) -> Entry {
    let (table, address) = (table_name(key.name), ip(value.ip));
    Entry {
        line: format!("table {table} member {} -> {address}", key.index),
        fields: vec![
            ("table", Json::text(table)),
            ("member", number(key.index)),
            ("ip", Json::text(address)),
        ],
    }
}

fn table_name(name: u64) -> String {
    format!("{name:016x}")
}

/// Ticks since boot in milliseconds.
fn milliseconds(ticks: u32) -> u64 {
    u64::from(ticks) * (1 << flow::TICK_SHIFT) / 1_000_000
}

fn answers(ifindex: &u32, paid_until_ns: &u64) -> Entry {
    let (seconds, milliseconds) = (paid_until_ns / 1_000_000_000, paid_until_ns / 1_000_000 % 1000);
    Entry {
        line: format!("ifindex {ifindex} -> ICMP errors paid until {seconds}.{milliseconds:03} s after boot"),
        fields: vec![("ifindex", number(*ifindex)), ("paid_until_ns", number(*paid_until_ns))],
    }
}

fn rotation<A: Ip>(key: &OverlayAddress<A>, balanced: &u32) -> Entry {
    let vip = ip(key.ip);
    Entry {
        line: format!("vni {} vip {vip} -> {balanced} connections balanced", key.vni()),
        fields: vec![
            ("vni", number(key.vni())),
            ("vip", Json::text(vip)),
            ("balanced", number(*balanced)),
        ],
    }
}

fn backend<A: Ip>(key: &BackendKey<A>, value: &Backend<A>) -> Entry {
    let (vip, address) = (ip(key.vip), ip(value.ip));
    Entry {
        line: format!("vni {} vip {vip} slot {} -> {address}", key.vni, key.slot),
        fields: vec![
            ("vni", number(key.vni)),
            ("vip", Json::text(vip)),
            ("slot", number(key.slot)),
            ("ip", Json::text(address)),
        ],
    }
}

/// Protocol, source and destination of a flow.
fn conversation<A: Ip>(key: &FlowKey<A>) -> (String, [(&'static str, Json); 6]) {
    let protocol = match key.network & 0xff {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    };
    let (from_port, to_port) = (
        u16::from_be_bytes(key.source_port),
        u16::from_be_bytes(key.destination_port),
    );
    let (from, to) = (ip(key.source), ip(key.destination));
    let line = format!(
        "vni {} {protocol} {} to {}",
        key.vni(),
        with_port(&from, from_port),
        with_port(&to, to_port)
    );
    let fields = [
        ("vni", number(key.vni())),
        ("protocol", Json::text(protocol)),
        ("source", Json::text(from)),
        ("source_port", number(from_port)),
        ("destination", Json::text(to)),
        ("destination_port", number(to_port)),
    ];
    (line, fields)
}

/// An address with its port, as URLs have it (RFC 3986 section 3.2.2).
fn with_port(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

fn flow<A: Ip>(key: &FlowKey<A>, value: &Flow<A>) -> Entry {
    let (line, conversation) = conversation(key);
    let (new_from_port, new_to_port) = (
        u16::from_be_bytes(value.source_port),
        u16::from_be_bytes(value.destination_port),
    );
    let (new_from, new_to) = (ip(value.source), ip(value.destination));
    let reply = value.flags & flow::REPLY != 0;
    let state = state(key.is_tcp(), value.flags);
    let last_seen_ms = milliseconds(value.last_seen);
    let mut fields = conversation.to_vec();
    fields.extend([
        ("new_source", Json::text(&new_from)),
        ("new_source_port", number(new_from_port)),
        ("new_destination", Json::text(&new_to)),
        ("new_destination_port", number(new_to_port)),
        ("reply", Json::Bool(reply)),
        ("direct", Json::Bool(value.flags & flow::DIRECT != 0)),
        ("state", Json::text(state)),
        ("last_seen_ms", number(last_seen_ms)),
    ]);
    Entry {
        line: format!(
            "{line} -> {} to {}{}, {state}, last seen {}.{:03} s after boot",
            with_port(&new_from, new_from_port),
            with_port(&new_to, new_to_port),
            if reply { ", reply" } else { "" },
            last_seen_ms / 1000,
            last_seen_ms % 1000,
        ),
        fields,
    }
}

/// The state of a balanced connection, in the words of connection tracking.
fn state(tcp: bool, flags: u32) -> &'static str {
    let answered = flags & flow::ANSWERED != 0;
    if !tcp {
        return if answered { "answered" } else { "unanswered" };
    }
    if flags & flow::RESET != 0 {
        "reset"
    } else if flags & (flow::CLIENT_FINISHED | flow::BACKEND_FINISHED) != 0 {
        "finished"
    } else if flags & flow::ESTABLISHED != 0 {
        "established"
    } else {
        "opening"
    }
}

fn fragment<A: Ip>(key: &FragmentKey<A>, ports: &FragmentPorts) -> Entry {
    let (from, to) = (ip(key.source), ip(key.destination));
    let (from_port, to_port) = (u16::from_be_bytes(ports.source), u16::from_be_bytes(ports.destination));
    let (vni, protocol) = (key.network >> 8, key.network & 0xff);
    Entry {
        line: format!(
            "vni {vni} protocol {protocol} {from} to {to} packet {:08x} -> ports {from_port} to {to_port}",
            key.identification
        ),
        fields: vec![
            ("vni", number(vni)),
            ("protocol", number(protocol)),
            ("source", Json::text(from)),
            ("destination", Json::text(to)),
            ("identification", number(key.identification)),
            ("source_port", number(from_port)),
            ("destination_port", number(to_port)),
        ],
    }
}

/// All counters that have a name, also those at zero; others only when they counted.
fn counters(raw: &[(Vec<u8>, Vec<u8>)]) -> Vec<Entry> {
    let mut odd = Vec::new();
    let mut packets = std::collections::BTreeMap::new();
    for (key, value) in raw {
        match (
            u32::from_bytes(key),
            <[u8; 8]>::try_from(value.as_slice()).map(u64::from_ne_bytes),
        ) {
            (Some(index), Ok(count)) => {
                packets.insert(index, count);
            }
            _ => odd.push((key.clone(), value.clone())),
        }
    }
    let named = Counter::ALL
        .iter()
        .map(|&counter| (counter as u32, counter.name(), counter.description().trim()));
    let mut entries: Vec<Entry> = named
        .map(|(index, name, description)| counter(index, name, packets.remove(&index).unwrap_or(0), description))
        .collect();
    let unnamed = packets.into_iter().filter(|(_, count)| *count > 0);
    entries.extend(unnamed.map(|(index, count)| counter(index, "unnamed", count, "counted by a newer data plane")));
    entries.extend(undecoded(&odd));
    entries
}

fn counter(index: u32, name: &str, packets: u64, description: &str) -> Entry {
    Entry {
        line: format!("{index:>2} {name:<24} {packets:>12}  {description}"),
        fields: vec![
            ("index", number(index)),
            ("name", Json::text(name)),
            ("packets", number(packets)),
            ("description", Json::text(description)),
        ],
    }
}

#[cfg(test)]
mod tests;
