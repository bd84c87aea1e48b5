//! `weft network`.

use crate::Failure;
use crate::output::{json, line, short, table};
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use weft::api::types::{Connect, Connected, Created, Disconnect, Ipam, IpamConfig, Network, NetworkCreate};
use weft::client::{Client, segment};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a network
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(List),
    /// Display detailed information on one or more networks
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
    },
    /// Connect a network namespace to a network
    Connect(ConnectArguments),
    /// Disconnect an endpoint from a network
    Disconnect {
        /// Name or id of the network
        network: String,
        /// Name or id of the endpoint
        endpoint: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// IPv6 too: each endpoint and virtual IP has an IPv6 address beside its IPv4 one
    #[arg(long)]
    ipv6: bool,
    /// Subnet in CIDR form, one of each family [default: the next free one of the address pools]
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<String>,
    /// Gateway address, one of each family [default: the first of the subnet]
    #[arg(long = "gateway", value_name = "IP")]
    gateways: Vec<IpAddr>,
    /// Driver option, as com.docker.network.driver.mtu=9000
    #[arg(long = "opt", short = 'o', visible_alias = "driver-opt", value_name = "KEY=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
    /// Label
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Driver: overlay is the only one
    #[arg(long, short = 'd', default_value = "overlay")]
    driver: String,
    /// Accepted for Docker's sake: every network is attachable
    #[arg(long, hide = true)]
    attachable: bool,
    /// Name of the network
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only ids
    #[arg(long, short)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// json: one object a line
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    format: String,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectArguments {
    /// Name or id of the network
    network: String,
    /// Namespace: a name of `ip netns`, or a path
    #[arg(
        long,
        value_name = "NAME|PATH",
        required_unless_present = "pid",
        conflicts_with = "pid"
    )]
    netns: Option<String>,
    /// Namespace: that of a process
    #[arg(long)]
    pid: Option<u32>,
    /// Name of the endpoint, which DNS answers
    #[arg(long)]
    name: String,
    /// The service that it is a task of
    #[arg(long)]
    service: Option<String>,
    /// Further name, which DNS answers
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// A certain address
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Its weight among the tasks of the service, 1 to 100; 0: it takes no new connections [default: 1]
    #[arg(long, value_name = "N", requires = "service")]
    weight: Option<u32>,
    /// Print what was connected, as JSON
    #[arg(long, short)]
    verbose: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    // Docker takes a key alone as one with an empty value.
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        Err(format!("{text:?}: KEY=VALUE is wanted"))
    } else {
        Ok((key.to_owned(), value.to_owned()))
    }
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(arguments) => create(client, arguments).await,
        Verb::Ls(arguments) => list(client, &arguments).await,
        Verb::Inspect { networks } => inspect(client, &networks).await,
        Verb::Rm { networks } => remove(client, &networks).await,
        Verb::Connect(arguments) => connect(client, arguments).await,
        Verb::Disconnect { network, endpoint } => {
            let path = format!("/networks/{}/disconnect", segment(&network));
            Ok(client.tell(&path, &Disconnect { endpoint }).await?)
        }
    }
}

async fn create(client: &Client, arguments: Create) -> Result<(), Failure> {
    let ipam = Ipam {
        config: configs(arguments.subnets, arguments.gateways),
        ..Ipam::default()
    };
    let body = NetworkCreate {
        name: arguments.name,
        driver: Some(arguments.driver),
        enable_ipv6: arguments.ipv6,
        ipam: Some(ipam),
        options: arguments.options.into_iter().collect::<BTreeMap<_, _>>(),
        labels: arguments.labels.into_iter().collect(),
        ..NetworkCreate::default()
    };
    let created: Created = client.post("/networks/create", &body).await?;
    line(&created.id)
}

/// Each gateway goes with the subnet of its family.
fn configs(subnets: Vec<String>, gateways: Vec<IpAddr>) -> Vec<IpamConfig> {
    let config = |subnet| IpamConfig {
        subnet: Some(subnet),
        gateway: None,
    };
    let mut configs: Vec<IpamConfig> = subnets.into_iter().map(config).collect();
    for gateway in gateways {
        let mut free = configs.iter_mut().filter(|config| config.gateway.is_none());
        let of_family = |subnet: &String| subnet.contains(':') == gateway.is_ipv6();
        match free.find(|config| config.subnet.as_ref().is_some_and(of_family)) {
            Some(config) => config.gateway = Some(gateway),
            None => configs.push(IpamConfig {
                subnet: None,
                gateway: Some(gateway),
            }),
        }
    }
    configs
}

async fn list(client: &Client, arguments: &List) -> Result<(), Failure> {
    let networks: Vec<Network> = client.get("/networks").await?;
    if arguments.quiet {
        return networks
            .iter()
            .try_for_each(|n| line(&short(&n.id, arguments.no_trunc)));
    }
    if arguments.format == "json" {
        return networks.iter().try_for_each(|n| {
            line(&serde_json::json!({ "ID": n.id, "Name": n.name, "Driver": n.driver, "Scope": n.scope }).to_string())
        });
    }
    let row = |n: &Network| {
        vec![
            short(&n.id, arguments.no_trunc),
            n.name.clone(),
            n.driver.clone(),
            n.scope.clone(),
        ]
    };
    table(
        &["NETWORK ID", "NAME", "DRIVER", "SCOPE"],
        &networks.iter().map(row).collect::<Vec<_>>(),
    )
}

async fn inspect(client: &Client, names: &[String]) -> Result<(), Failure> {
    let mut found: Vec<Network> = Vec::new();
    let mut failed = false;
    for name in names {
        match client.get(&format!("/networks/{}", segment(name))).await {
            Ok(network) => found.push(network),
            Err(error) => {
                eprintln!("{error}");
                failed = true;
            }
        }
    }
    json(&found)?;
    if failed { Err(Failure::Told) } else { Ok(()) }
}

async fn remove(client: &Client, names: &[String]) -> Result<(), Failure> {
    let mut failed = false;
    for name in names {
        match client.delete(&format!("/networks/{}", segment(name))).await {
            Ok(()) => line(name)?,
            Err(error) => {
                eprintln!("{error}");
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}

async fn connect(client: &Client, arguments: ConnectArguments) -> Result<(), Failure> {
    let (netns, path) = match arguments.netns {
        Some(text) if text.contains('/') => (None, Some(PathBuf::from(text))),
        other => (other, None),
    };
    let body = Connect {
        netns,
        path,
        pid: arguments.pid,
        name: arguments.name,
        service: arguments.service,
        aliases: arguments.aliases,
        ipv4_address: arguments.ip,
        weight: arguments.weight,
    };
    let connected: Connected = client
        .post(&format!("/networks/{}/connect", segment(&arguments.network)), &body)
        .await?;
    if arguments.verbose { json(&connected) } else { Ok(()) }
}
