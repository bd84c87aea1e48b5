//! What a replay tells: a line for each thing that happened, then what the node held; or all of it as JSON.

use crate::Failure;
use crate::output::{json, line, table};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json as object};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_core::id::NetworkId;
use weft_core::networkdb::{HeldRow, NetworkDb, OwnerState};
use weft_core::recording::{Difference, Replay, RowTold, Start, Told, Verdict, What};
use weft_core::time::Duration;

/// Tells as the replay goes on.
pub(super) struct Output {
    json: bool,
    begun: bool,
    timeline: Vec<Value>,
    /// How often each refusal was told of; as lines, each comes once.
    refusals: BTreeMap<(Option<SocketAddr>, String), u64>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Output {
            json,
            begun: false,
            timeline: Vec::new(),
            refusals: BTreeMap::new(),
        }
    }

    pub(super) fn tell(&mut self, replay: &Replay, told: Vec<Told>) -> Result<(), Failure> {
        if let (false, false, Some(start), Some(gossip)) = (self.json, self.begun, replay.start(), replay.gossip()) {
            self.begun = true;
            let (node, name, weft, at) = (&start.node, gossip.name(), &start.weft, date(start));
            line(&format!(
                "Recorded on {node}, {name} in the gossip, by weft {weft}, at {at}"
            ))?;
        }
        for Told { at, what } in told {
            if self.json {
                self.timeline.push(entry(at, &what));
            } else if self.is_new(&what) {
                line(&format!("{:>+10.3} s  {}", at.as_secs_f64(), words(&what)))?;
            }
        }
        Ok(())
    }

    fn is_new(&mut self, what: &What) -> bool {
        let What::Refused { from, why } = what else { return true };
        let count = self.refusals.entry((*from, why.clone())).or_default();
        *count += 1;
        *count == 1
    }

    /// The state at the end, and whether it is the node's. `cut_off` bytes are behind the last whole frame.
    pub(super) fn end(&mut self, replay: &Replay, cut_off: usize) -> Result<(), Failure> {
        let (Some(start), Some(gossip)) = (replay.start(), replay.gossip()) else {
            return Ok(());
        };
        if self.json {
            return json(&self.document(replay, start, gossip, cut_off));
        }
        self.tell(replay, Vec::new())?;
        for ((from, why), count) in &self.refusals {
            if *count > 1 {
                line(&format!("Refused {count} times: {}", refusal(*from, why)))?;
            }
        }
        line(&format!(
            "After {:.3} s and {} happenings:",
            replay.length().as_secs_f64(),
            replay.happenings()
        ))?;
        show(gossip)?;
        if let Some(ending) = replay.ending() {
            line(&format!("The recording ended: {ending}"))?;
        }
        line(&verdict(replay, start, cut_off))
    }

    fn document(&mut self, replay: &Replay, start: &Start, gossip: &NetworkDb, cut_off: usize) -> Value {
        let differences = match replay.verdict() {
            Verdict::Differs(differences) => differences.iter().map(difference).collect(),
            Verdict::Same | Verdict::Unknown => Vec::new(),
        };
        object!({
            "Recorded": {
                "Node": start.node,
                "GossipName": gossip.name(),
                "Version": start.weft,
                "At": date(start),
            },
            "Seconds": replay.length().as_secs_f64(),
            "Happenings": replay.happenings(),
            "Timeline": std::mem::take(&mut self.timeline),
            "Nodes": gossip.standings().map(|(name, address, standing)| object!({
                "Name": name,
                "Address": address,
                "State": standing.as_str(),
                "This": name == gossip.name(),
            })).collect::<Vec<_>>(),
            "Networks": networks(gossip),
            "Ending": replay.ending().map(|ending| ending.to_string()),
            "CutOffBytes": cut_off,
            "Verdict": match replay.verdict() {
                Verdict::Same => "same",
                Verdict::Differs(_) => "differs",
                Verdict::Unknown => "unknown",
            },
            "Differences": differences,
        })
    }
}

fn date(start: &Start) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(start.unix_nanos.into()).ok();
    let text = at.and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_else(|| "an unknown time".to_owned())
}

/// The networks that the node takes part in, and those of which it holds rows.
fn known_networks(gossip: &NetworkDb) -> BTreeSet<NetworkId> {
    let rows = gossip.all_rows().map(|row| row.network.clone());
    gossip.joined_networks().cloned().chain(rows).collect()
}

fn networks(gossip: &NetworkDb) -> Vec<Value> {
    let mut tables: BTreeMap<&NetworkId, BTreeMap<&str, Vec<Value>>> = BTreeMap::new();
    for row in gossip.all_rows() {
        let rows = tables.entry(row.network).or_default().entry(row.table).or_default();
        rows.push(object!({
            "Key": row.key,
            "Owner": row.owner,
            "OwnerState": owner_state(&row),
            "Value": STANDARD.encode(row.value),
        }));
    }
    let network = |network: NetworkId| {
        let peers = gossip.network_peers(&network);
        let peers = peers
            .into_iter()
            .map(|(name, ip)| object!({ "Name": name, "Address": ip }));
        let tables = tables.remove(&network).unwrap_or_default();
        let tables: Map<String, Value> = tables
            .into_iter()
            .map(|(table, rows)| (table.to_owned(), Value::Array(rows)))
            .collect();
        object!({ "ID": network, "Peers": peers.collect::<Vec<_>>(), "Tables": tables })
    };
    known_networks(gossip).into_iter().map(network).collect()
}

fn show(gossip: &NetworkDb) -> Result<(), Failure> {
    let nodes = gossip.standings().map(|(name, address, standing)| {
        let this = if name == gossip.name() { " *" } else { "" };
        vec![
            format!("{name}{this}"),
            address.to_string(),
            standing.as_str().to_owned(),
        ]
    });
    table(&["NODE", "ADDRESS", "STATE"], &nodes.collect::<Vec<_>>())?;
    let mut peers = Vec::new();
    for network in known_networks(gossip) {
        let members = gossip.network_peers(&network);
        let members: Vec<_> = members.into_iter().map(|(name, _)| name).collect();
        peers.push(vec![network.to_string(), members.join(", ")]);
    }
    table(&["NETWORK", "MEMBERS"], &peers)?;
    let rows = gossip.all_rows().map(|row| {
        vec![
            row.network.to_string(),
            row.table.to_owned(),
            row.key.to_owned(),
            row.owner.to_string(),
            owner_state(&row).to_owned(),
            row.value.len().to_string(),
        ]
    });
    let headings = ["NETWORK", "TABLE", "KEY", "OWNER", "OWNER STATE", "BYTES"];
    table(&headings, &rows.collect::<Vec<_>>())
}

fn owner_state(row: &HeldRow<'_>) -> &'static str {
    match row.owner_state {
        OwnerState::Alive => "alive",
        OwnerState::Suspect => "suspect",
        OwnerState::Failed => "failed",
        OwnerState::Replaced => "replaced",
    }
}

fn verdict(replay: &Replay, start: &Start, cut_off: usize) -> String {
    let here = env!("CARGO_PKG_VERSION");
    let other = if start.weft == here {
        String::new()
    } else {
        format!(" (weft {} recorded, weft {here} replays)", start.weft)
    };
    match replay.verdict() {
        Verdict::Same => "The replay arrived at the same state as recorded.".to_owned(),
        Verdict::Differs(differences) => {
            let differences: Vec<_> = differences.iter().map(difference).collect();
            format!(
                "The replay differs from what was recorded{other}: {}",
                differences.join("; ")
            )
        }
        Verdict::Unknown if replay.ending().is_none() => {
            let cut_off = match cut_off {
                0 => "its end is missing".to_owned(),
                bytes => format!("it is cut off, {bytes} bytes behind the last whole frame were not read"),
            };
            format!("The recording is not whole, {cut_off}; up to there nothing differs.")
        }
        Verdict::Unknown => "Nothing differs; what the node held at the end is not in the recording.".to_owned(),
    }
}

fn difference(difference: &Difference) -> String {
    match difference {
        Difference::Course(at) => format!("what was sent and told differs by {:+.3} s", at.as_secs_f64()),
        Difference::Part(part) => part.clone(),
        Difference::Rest => "timers or queues".to_owned(),
    }
}

fn refusal(from: Option<SocketAddr>, why: &str) -> String {
    match from {
        Some(from) => format!("gossip from {from}: {why}"),
        None => format!("an answer: {why}"),
    }
}

fn row_words(verb: &str, row: &RowTold) -> String {
    let RowTold {
        network,
        table,
        key,
        value,
        owner,
    } = row;
    format!(
        "row {verb}: {key} in table {table} of network {network}, {} bytes by {owner}",
        value.len()
    )
}

fn words(what: &What) -> String {
    match what {
        What::NodeUp { name, address } => format!("node up: {name} at {address}"),
        What::NodeSuspect(name) => format!("node suspected: {name}"),
        What::NodeCleared(name) => format!("node not suspected any more: {name}"),
        What::NodeDown { name, left: true } => format!("node left: {name}"),
        What::NodeDown { name, left: false } => format!("node failed: {name}"),
        What::RowCreated(row) => row_words("created", row),
        What::RowUpdated(row) => row_words("updated", row),
        What::RowGone(row) => row_words("gone", row),
        What::Command(command) => format!("this node: {command}"),
        What::Refused { from, why } => format!("refused: {}", refusal(*from, why)),
        What::Logged(message) => format!("log: {message}"),
    }
}

fn entry(at: Duration, what: &What) -> Value {
    let row = |event: &str, row: &RowTold| {
        object!({
            "Event": event,
            "Network": row.network,
            "Table": row.table,
            "Key": row.key,
            "Owner": row.owner,
            "Value": STANDARD.encode(&row.value),
        })
    };
    let mut entry = match what {
        What::NodeUp { name, address } => object!({ "Event": "node-up", "Node": name, "Address": address }),
        What::NodeSuspect(name) => object!({ "Event": "node-suspect", "Node": name }),
        What::NodeCleared(name) => object!({ "Event": "node-cleared", "Node": name }),
        What::NodeDown { name, left: true } => object!({ "Event": "node-left", "Node": name }),
        What::NodeDown { name, left: false } => object!({ "Event": "node-failed", "Node": name }),
        What::RowCreated(told) => row("row-created", told),
        What::RowUpdated(told) => row("row-updated", told),
        What::RowGone(told) => row("row-gone", told),
        What::Command(command) => object!({ "Event": "command", "Command": command }),
        What::Refused { from, why } => object!({ "Event": "refused", "From": from, "Why": why }),
        What::Logged(message) => object!({ "Event": "log", "Message": message }),
    };
    entry["At"] = object!(at.as_secs_f64());
    entry
}
