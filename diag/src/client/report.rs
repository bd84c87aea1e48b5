//! What `-json` prints: all that was found, as one line.

use super::flags::Flags;
use super::{Judged, Peers};
use serde_json::{Value, json};

/// Peers by name, and the entries of the table with their judgement. `network` and `table` are null when they were not asked for.
pub(crate) fn report(flags: &Flags, cluster: &Peers, network: &Peers, judged: &[Judged]) -> Value {
    json!({
        "network": Some(&flags.network).filter(|network| !network.is_empty()),
        "table": flags.table.map(|table| table.name()),
        "clusterPeers": peers(cluster),
        "networkPeers": peers(network),
        "entries": judged.iter().map(entry).collect::<Vec<_>>(),
    })
}

fn peers(peers: &Peers) -> Vec<Value> {
    peers
        .iter()
        .map(|(name, ip)| json!({ "name": name, "ip": ip }))
        .collect()
}

fn entry(judged: &Judged) -> Value {
    json!({
        "key": judged.row.key,
        "owner": judged.row.owner,
        "networkOrphan": judged.network_orphan,
        "clusterOrphan": judged.cluster_orphan,
        "record": judged.record.json(),
    })
}
