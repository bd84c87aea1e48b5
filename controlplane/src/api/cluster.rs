//! `/cluster`, `/nodes`, `/info` and `/version`.

use super::reply::{Body, Refusal, ask, ask_plain, timestamp};
use super::types::{Feature, FlowTimeouts, Info, Init, Join, Keys, Leave, MapUse, Node, RotateKeys, Token};
use crate::daemon::{Command, Handle, JoinRequest, KeysCommand, Refused};
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use weft_core::cluster::keys::{KeysView, parse_key};
use weft_core::networkdb::Key;
use weft_dataplane::abi::ABI_VERSION;

pub(super) async fn init(State(handle): State<Handle>, Body(body): Body<Init>) -> Result<Json<Token>, Refusal> {
    let key = gossip_key(body.gossip_key)?;
    let join_token = ask(&handle, |reply| Command::ClusterInit(key, reply)).await?;
    Ok(Json(Token { join_token }))
}

pub(super) async fn keys(State(handle): State<Handle>) -> Result<Json<Keys>, Refusal> {
    let view = ask(&handle, |reply| Command::Keys(KeysCommand::View(reply))).await?;
    Ok(Json(shown(view)))
}

pub(super) async fn rotate_keys(
    State(handle): State<Handle>,
    Body(body): Body<RotateKeys>,
) -> Result<Json<Keys>, Refusal> {
    let key = gossip_key(body.gossip_key)?;
    let view = ask(&handle, |reply| Command::Keys(KeysCommand::Rotate(key, reply))).await?;
    Ok(Json(shown(view)))
}

pub(super) async fn rotate_token(State(handle): State<Handle>) -> Result<Json<Token>, Refusal> {
    let join_token = ask(&handle, |reply| Command::Keys(KeysCommand::RotateToken(reply))).await?;
    Ok(Json(Token { join_token }))
}

fn gossip_key(text: Option<String>) -> Result<Option<Key>, Refusal> {
    let key = text.map(|text| parse_key(&text)).transpose();
    key.map_err(|error| Refused::invalid(format!("gossip key: {error}")).into())
}

fn shown(view: KeysView) -> Keys {
    Keys {
        version: view.version,
        phase: view.phase.map(|phase| phase.as_str().to_owned()),
        fingerprints: view.fingerprints,
        rotated: view.rotated.map(timestamp),
        next_in_seconds: view.due.map(|due| due.as_secs()),
        waiting_for: view.waiting_for,
    }
}

pub(super) async fn token(State(handle): State<Handle>) -> Result<Json<Token>, Refusal> {
    let join_token = ask(&handle, Command::ClusterToken).await?;
    Ok(Json(Token { join_token }))
}

pub(super) async fn join(State(handle): State<Handle>, Body(body): Body<Join>) -> Result<(), Refusal> {
    let request = JoinRequest {
        token: body.join_token,
        manager: body.remote_addr,
    };
    ask(&handle, |reply| Command::ClusterJoin(request, reply)).await
}

pub(super) async fn leave(State(handle): State<Handle>, Body(Leave { force }): Body<Leave>) -> Result<(), Refusal> {
    ask(&handle, |reply| Command::ClusterLeave { force, reply }).await
}

pub(super) async fn nodes(State(handle): State<Handle>) -> Result<Json<Vec<Node>>, Refusal> {
    let nodes = ask(&handle, Command::Nodes).await?;
    let view = |node: crate::daemon::NodeView| Node {
        id: node.member.id,
        hostname: node.member.name,
        status: if node.ready { "ready" } else { "down" }.to_owned(),
        role: node.member.role,
        address: node.member.address,
        this: node.this,
    };
    Ok(Json(nodes.into_iter().map(view).collect()))
}

pub(super) async fn info(State(handle): State<Handle>) -> Result<Json<Info>, Refusal> {
    let info = ask_plain(&handle, Command::Info).await?;
    Ok(Json(Info {
        name: info.node_name,
        role: info.role,
        manager: info.manager,
        swarm_node_id: info.swarm_node_id,
        gossip_name: info.gossip_name,
        gossip_peers: info.gossip_peers,
        gossip_keys: info.gossip_keys,
        gossip_refused_plaintext: info.gossip.refused_plaintext,
        gossip_refused_keys: info.gossip.refused_keys,
        gossip_dropped_messages: info.gossip.dropped_messages,
        gossip_comparisons: info.gossip.comparisons,
        gossip_differences: info.gossip.differences,
        gossip_repaired: info.gossip.repaired,
        endpoints: info.endpoints,
        features: info.features.iter().map(feature).collect(),
        uplink: info.uplink,
        maps: info.maps.into_iter().map(map_use).collect(),
        flow_timeouts: FlowTimeouts {
            tcp_opening: info.timeouts.tcp_opening,
            tcp_established: info.timeouts.tcp_established,
            tcp_finished: info.timeouts.tcp_finished,
            tcp_reset: info.timeouts.tcp_reset,
            udp: info.timeouts.udp,
            udp_answered: info.timeouts.udp_answered,
        },
        flows_refused: info.flows_refused,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

fn feature(choice: &crate::dataplane::Choice) -> Feature {
    Feature {
        name: choice.feature.name().to_owned(),
        choice: choice.way().to_owned(),
        why: choice.why.clone(),
    }
}

fn map_use(map: crate::daemon::MapUse) -> MapUse {
    MapUse {
        name: map.name,
        setting: map.setting.to_owned(),
        entries: map.entries,
        limit: map.limit,
        left_out: map.left_out,
    }
}

pub(super) async fn version() -> Json<Value> {
    Json(
        json!({ "Version": env!("CARGO_PKG_VERSION"), "AbiVersion": ABI_VERSION, "Os": std::env::consts::OS, "Arch": std::env::consts::ARCH }),
    )
}
