//! `/swarm`: this node in a Docker swarm.

use super::reply::{Body, Refusal, ask, ask_plain, timestamp};
use super::types::{Leave, Swarm, SwarmJoin, SwarmNode};
use crate::daemon::{Handle, JoinRequest, SwarmCommand};
use axum::Json;
use axum::extract::State;

pub(super) async fn status(State(handle): State<Handle>) -> Result<Json<Swarm>, Refusal> {
    let view = ask_plain(&handle, |reply| SwarmCommand::Status(reply).into()).await?;
    let state = match (&view.node_id, &view.status.manager) {
        (None, _) => "inactive",
        (Some(_), Some(_)) => "active",
        (Some(_), None) => "pending",
    };
    let ends = u64::try_from(view.status.certificate_ends)
        .ok()
        .filter(|ends| *ends != 0);
    Ok(Json(Swarm {
        local_node_state: state.to_owned(),
        node_id: view.node_id.unwrap_or_default(),
        cluster_id: view.cluster_id,
        node_addr: view.status.address,
        availability: view.status.availability,
        manager: view.status.manager,
        remote_managers: view.managers,
        certificate_expires: ends.map(|ends| timestamp(ends.saturating_mul(1_000_000_000))),
        error: view.status.problem.or(view.ended).unwrap_or_default(),
    }))
}

pub(super) async fn join(
    State(handle): State<Handle>,
    Body(body): Body<SwarmJoin>,
) -> Result<Json<SwarmNode>, Refusal> {
    let [manager] = &body.remote_addrs[..] else {
        return Err(Refusal::invalid(format!(
            "{} addresses of managers were given: one is wanted",
            body.remote_addrs.len()
        )));
    };
    let request = JoinRequest {
        token: body.join_token,
        manager: manager.clone(),
    };
    let node_id = ask(&handle, |reply| SwarmCommand::Join(request, reply).into()).await?;
    Ok(Json(SwarmNode { node_id }))
}

pub(super) async fn leave(
    State(handle): State<Handle>,
    Body(Leave { force }): Body<Leave>,
) -> Result<Json<SwarmNode>, Refusal> {
    let node_id = ask(&handle, |reply| SwarmCommand::Leave { force, reply }.into()).await?;
    Ok(Json(SwarmNode { node_id }))
}
