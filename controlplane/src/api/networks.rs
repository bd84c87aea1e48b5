//! `/networks`.

use super::reply::{Body, Refusal, ask, ask_manager, ask_plain, timestamp};
use super::types::{
    ConfigFrom, Connect, Connected, Container, Created, Disconnect, Ipam, IpamConfig, Network, NetworkCreate, Peer,
};
use crate::daemon::{self, Command, Handle, LocalEndpoint, NetworkView};
use crate::netns::NetnsSpec;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use weft_core::cluster::{self, Ipv6Wish, Reply, Request};

pub(super) async fn list(State(handle): State<Handle>) -> Result<Json<Vec<Network>>, Refusal> {
    match ask_manager(&handle, Request::NetworkList).await? {
        Reply::Networks(networks) => Ok(Json(
            networks.iter().map(|n| network(n, &NetworkView::default())).collect(),
        )),
        other => Err(Refusal::unexpected(&other)),
    }
}

pub(super) async fn inspect(State(handle): State<Handle>, Path(name): Path<String>) -> Result<Json<Network>, Refusal> {
    match ask_manager(&handle, Request::NetworkInspect { network: name }).await? {
        Reply::Network(found) => {
            let view = ask_plain(&handle, |reply| Command::View(found.id.clone(), reply)).await?;
            Ok(Json(network(&found, &view)))
        }
        other => Err(Refusal::unexpected(&other)),
    }
}

pub(super) async fn create(
    State(handle): State<Handle>,
    Body(body): Body<NetworkCreate>,
) -> Result<(StatusCode, Json<Created>), Refusal> {
    if let Some(driver) = body.driver.filter(|driver| !driver.is_empty() && driver != "overlay") {
        return Err(Refusal::invalid(format!(
            "driver {driver:?} is not known: overlay is the only driver"
        )));
    }
    for (wanted, field) in [(body.internal, "Internal"), (body.ingress, "Ingress")] {
        if wanted {
            return Err(Refusal::invalid(format!(
                "{field} true is not possible: leave it out or false"
            )));
        }
    }
    let (ipv4, ipv6) = by_family(body.ipam.unwrap_or_default().config, body.enable_ipv6)?;
    let request = Request::NetworkCreate {
        name: body.name,
        subnet: ipv4.subnet,
        gateway: ipv4.gateway,
        ipv6,
        options: body.options,
        labels: body.labels,
    };
    match ask_manager(&handle, request).await? {
        Reply::Network(network) => Ok((
            StatusCode::CREATED,
            Json(Created {
                id: network.id.to_string(),
                warning: String::new(),
            }),
        )),
        other => Err(Refusal::unexpected(&other)),
    }
}

/// What is asked for of IPv4.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ipv4Wish {
    subnet: Option<String>,
    gateway: Option<Ipv4Addr>,
}

/// Sorts subnets and gateways by family. Whether they are right is the manager's to say.
fn by_family(configs: Vec<IpamConfig>, with_ipv6: bool) -> Result<(Ipv4Wish, Option<Ipv6Wish>), Refusal> {
    let mut ipv4: Option<Ipv4Wish> = None;
    let mut ipv6: Option<Ipv6Wish> = None;
    for IpamConfig { subnet, gateway } in configs {
        let is_ipv6 = match (&subnet, gateway) {
            (Some(subnet), _) => subnet.contains(':'),
            (None, Some(gateway)) => gateway.is_ipv6(),
            (None, None) => continue,
        };
        let twice = |family| Refusal::invalid(format!("several {family} subnets were given: a network has one"));
        let foreign = |gateway: &IpAddr| {
            let subnet = subnet.as_deref().unwrap_or_default();
            Refusal::invalid(format!(
                "invalid gateway {gateway}: it should be of the family of its subnet {subnet}"
            ))
        };
        if !is_ipv6 {
            let gateway = match gateway {
                Some(IpAddr::V4(gateway)) => Some(gateway),
                Some(gateway) => return Err(foreign(&gateway)),
                None => None,
            };
            if ipv4.replace(Ipv4Wish { subnet, gateway }).is_some() {
                return Err(twice("IPv4"));
            }
            continue;
        }
        if !with_ipv6 {
            let what = subnet.map(|subnet| format!("subnet {subnet}"));
            let what = what.or_else(|| gateway.map(|gateway| format!("gateway {gateway}")));
            return Err(Refusal::invalid(format!(
                "invalid {}: it is of IPv6, which should be asked for (--ipv6, EnableIPv6 true)",
                what.unwrap_or_default()
            )));
        }
        let gateway = match gateway {
            Some(IpAddr::V6(gateway)) => Some(gateway),
            Some(gateway) => return Err(foreign(&gateway)),
            None => None,
        };
        if ipv6.replace(Ipv6Wish { subnet, gateway }).is_some() {
            return Err(twice("IPv6"));
        }
    }
    if with_ipv6 {
        ipv6.get_or_insert_default();
    }
    Ok((ipv4.unwrap_or_default(), ipv6))
}

pub(super) async fn remove(State(handle): State<Handle>, Path(network): Path<String>) -> Result<StatusCode, Refusal> {
    ask_manager(&handle, Request::NetworkRemove { network }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn connect(
    State(handle): State<Handle>,
    Path(network): Path<String>,
    Body(body): Body<Connect>,
) -> Result<Json<Connected>, Refusal> {
    let netns = match (body.netns, body.path, body.pid) {
        (Some(name), None, None) => NetnsSpec::Name(name),
        (None, Some(path), None) => NetnsSpec::Path(path),
        (None, None, Some(pid)) => NetnsSpec::Pid(pid),
        _ => {
            return Err(Refusal::invalid(
                "exactly one of Netns, Path and Pid is wanted".to_owned(),
            ));
        }
    };
    let request = daemon::Connect {
        network,
        netns,
        name: body.name,
        service: body.service,
        aliases: body.aliases,
        ip: body.ipv4_address,
        weight: body.weight,
    };
    let endpoint = ask(&handle, |reply| Command::Connect(request, reply)).await?;
    Ok(Json(Connected {
        interface: endpoint.interface.clone(),
        host_interface: endpoint.host_interface.clone(),
        resolv_conf: endpoint.resolv_conf.clone(),
        endpoint: container(&endpoint),
    }))
}

pub(super) async fn disconnect(
    State(handle): State<Handle>,
    Path(network): Path<String>,
    Body(Disconnect { endpoint }): Body<Disconnect>,
) -> Result<StatusCode, Refusal> {
    ask(&handle, |reply| Command::Disconnect {
        network,
        endpoint,
        reply,
    })
    .await?;
    Ok(StatusCode::OK)
}

fn network(network: &cluster::Network, view: &NetworkView) -> Network {
    Network {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: timestamp(network.created),
        scope: "swarm".to_owned(),
        driver: "overlay".to_owned(),
        enable_ipv4: true,
        enable_ipv6: network.ipv6.is_some(),
        ipam: Ipam {
            driver: "default".to_owned(),
            options: None,
            config: std::iter::once(config(network.subnet.into(), network.gateway.into()))
                .chain(
                    network
                        .ipv6
                        .map(|range| config(range.subnet.into(), range.gateway.into())),
                )
                .collect(),
        },
        internal: false,
        attachable: true,
        ingress: false,
        config_from: ConfigFrom::default(),
        config_only: false,
        containers: containers(view),
        options: network.options.clone(),
        labels: network.labels.clone(),
        peers: view
            .peers
            .iter()
            .map(|(name, ip)| Peer {
                name: name.clone(),
                ip: *ip,
            })
            .collect(),
    }
}

fn config(subnet: IpNet, gateway: IpAddr) -> IpamConfig {
    IpamConfig {
        subnet: Some(subnet.to_string()),
        gateway: Some(gateway),
    }
}

fn containers(view: &NetworkView) -> BTreeMap<String, Container> {
    view.endpoints
        .iter()
        .map(|endpoint| (endpoint.id.to_string(), container(endpoint)))
        .collect()
}

fn container(endpoint: &LocalEndpoint) -> Container {
    Container {
        name: endpoint.name.clone(),
        endpoint_id: endpoint.id.to_string(),
        mac_address: endpoint.mac.to_string(),
        ipv4_address: endpoint.ip.to_string(),
        ipv6_address: endpoint.ip6.map(|ip6| ip6.to_string()).unwrap_or_default(),
    }
}
