//! `/services` and `/tasks`.

use super::reply::{Body, Params, Refusal, ask, ask_manager, timestamp};
use super::types::{
    EndpointSpec, EndpointUpdate, NetworkTarget, Service, ServiceCreate, ServiceCreated, ServiceEndpoint, ServiceSpec,
    ServiceUpdate, ServiceUpdated, Task, TaskTemplate, Version, VirtualIp,
};
use crate::daemon::{Command, Handle};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::collections::BTreeMap;
use weft_core::cluster::{self, Allocation, EndpointMode, Network, Reply, Request};
use weft_core::id::NetworkId;

pub(super) async fn list(State(handle): State<Handle>) -> Result<Json<Vec<Service>>, Refusal> {
    let networks = networks(&handle).await?;
    match ask_manager(&handle, Request::ServiceList).await? {
        Reply::Services(services) => Ok(Json(services.iter().map(|s| service(s, &networks)).collect())),
        other => Err(Refusal::unexpected(&other)),
    }
}

pub(super) async fn inspect(State(handle): State<Handle>, Path(name): Path<String>) -> Result<Json<Service>, Refusal> {
    let networks = networks(&handle).await?;
    match ask_manager(&handle, Request::ServiceInspect { service: name }).await? {
        Reply::Service(found) => Ok(Json(service(&found, &networks))),
        other => Err(Refusal::unexpected(&other)),
    }
}

pub(super) async fn create(
    State(handle): State<Handle>,
    Body(body): Body<ServiceCreate>,
) -> Result<(StatusCode, Json<ServiceCreated>), Refusal> {
    let request = Request::ServiceCreate {
        name: body.name,
        networks: body
            .task_template
            .networks
            .into_iter()
            .map(|network| network.target)
            .collect(),
        mode: body.endpoint_spec.mode,
        policy: body.endpoint_spec.policy.unwrap_or_default(),
        affinity: body.endpoint_spec.affinity.unwrap_or(0),
    };
    match ask_manager(&handle, request).await? {
        Reply::Service(service) => Ok((
            StatusCode::CREATED,
            Json(ServiceCreated {
                id: service.id.to_string(),
            }),
        )),
        other => Err(Refusal::unexpected(&other)),
    }
}

/// Of which version of a service an update is; Docker wants to be told, here it may be left out.
#[derive(Debug, Default, Deserialize)]
pub(super) struct OfVersion {
    /// `Version.Index` of the service as it was looked at.
    version: Option<String>,
}

impl OfVersion {
    fn version(self) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.version else { return Ok(None) };
        let wrong = |_| {
            Refusal::invalid(format!(
                "version {text:?} is no number: Version.Index of the service is wanted"
            ))
        };
        text.parse().map(Some).map_err(wrong)
    }
}

pub(super) async fn update(
    State(handle): State<Handle>,
    Path(service): Path<String>,
    Params(of): Params<OfVersion>,
    Body(body): Body<ServiceUpdate>,
) -> Result<Json<ServiceUpdated>, Refusal> {
    let EndpointUpdate { policy, affinity } = body.endpoint_spec;
    let request = Request::ServiceUpdate {
        service,
        policy,
        affinity,
        weights: body.weights,
        version: of.version()?,
    };
    match ask_manager(&handle, request).await? {
        Reply::Service(_) => Ok(Json(ServiceUpdated::default())),
        other => Err(Refusal::unexpected(&other)),
    }
}

pub(super) async fn remove(State(handle): State<Handle>, Path(service): Path<String>) -> Result<StatusCode, Refusal> {
    ask_manager(&handle, Request::ServiceRemove { service }).await?;
    Ok(StatusCode::OK)
}

/// Which tasks.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TaskFilter {
    /// Of one service: id, name or unique id prefix.
    service: Option<String>,
}

pub(super) async fn tasks(
    State(handle): State<Handle>,
    Params(filter): Params<TaskFilter>,
) -> Result<Json<Vec<Task>>, Refusal> {
    let only = match filter.service {
        None => None,
        Some(name) => match ask_manager(&handle, Request::ServiceInspect { service: name }).await? {
            Reply::Service(service) => Some(service.id),
            other => return Err(Refusal::unexpected(&other)),
        },
    };
    let ready: BTreeMap<String, bool> = ask(&handle, Command::Nodes)
        .await?
        .into_iter()
        .map(|node| (node.member.name, node.ready))
        .collect();
    match ask_manager(&handle, Request::AllocationList).await? {
        Reply::Allocations(all) => {
            let wanted = |a: &&Allocation| a.service.is_some() && (only.is_none() || a.service == only);
            Ok(Json(all.iter().filter(wanted).map(|a| task(a, &ready)).collect()))
        }
        other => Err(Refusal::unexpected(&other)),
    }
}

async fn networks(handle: &Handle) -> Result<BTreeMap<NetworkId, Network>, Refusal> {
    match ask_manager(handle, Request::NetworkList).await? {
        Reply::Networks(networks) => Ok(networks
            .into_iter()
            .map(|network| (network.id.clone(), network))
            .collect()),
        other => Err(Refusal::unexpected(&other)),
    }
}

fn service(service: &cluster::Service, networks: &BTreeMap<NetworkId, Network>) -> Service {
    let virtual_ips = |(id, vip): (&NetworkId, &Option<std::net::Ipv4Addr>)| {
        let network = networks.get(id);
        let prefix = network.map_or(32, |network| network.subnet.prefix_len());
        let vip6 = vip.and_then(|vip| network?.ipv6_net_of(vip));
        let addresses = [
            vip.map(|vip| format!("{vip}/{prefix}")),
            vip6.map(|vip| vip.to_string()),
        ];
        let network_id = id.to_string();
        addresses.into_iter().flatten().map(move |address| VirtualIp {
            network_id: network_id.clone(),
            address,
        })
    };
    Service {
        id: service.id.to_string(),
        version: Version { index: service.version },
        created_at: timestamp(service.created),
        updated_at: timestamp(service.updated.unwrap_or(service.created)),
        spec: ServiceSpec {
            name: service.name.clone(),
            labels: BTreeMap::new(),
            task_template: TaskTemplate {
                networks: service
                    .networks
                    .keys()
                    .map(|id| NetworkTarget { target: id.to_string() })
                    .collect(),
            },
            endpoint_spec: endpoint_spec(service),
        },
        endpoint: ServiceEndpoint {
            spec: endpoint_spec(service),
            virtual_ips: service.networks.iter().flat_map(virtual_ips).collect(),
        },
    }
}

fn endpoint_spec(service: &cluster::Service) -> EndpointSpec {
    let is_balanced = service.mode == EndpointMode::Vip;
    EndpointSpec {
        mode: service.mode,
        policy: is_balanced.then_some(service.policy),
        affinity: is_balanced.then_some(service.affinity_seconds),
    }
}

fn task(allocation: &Allocation, ready: &BTreeMap<String, bool>) -> Task {
    let alive = ready.get(&allocation.node).copied().unwrap_or(false);
    Task {
        id: allocation.endpoint.to_string(),
        name: allocation.name.clone(),
        service_id: allocation.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        node: allocation.node.clone(),
        network_id: allocation.network.to_string(),
        address: allocation.ip,
        created_at: timestamp(allocation.created),
        state: if alive { "running" } else { "orphaned" }.to_owned(),
        weight: allocation.weight,
    }
}
