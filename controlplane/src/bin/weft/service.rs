//! `weft service`.

use crate::Failure;
use crate::output::{json, line, short, table};
use clap::{Args, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use weft::api::types::{
    EndpointSpec, EndpointUpdate, NetworkTarget, Service, ServiceCreate, ServiceCreated, ServiceUpdate, ServiceUpdated,
    Task, TaskTemplate,
};
use weft::client::{Client, segment};
use weft_core::cluster::EndpointMode;
use weft_core::service::{MAX_AFFINITY_SECONDS, Policy};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a service; namespaces become its tasks by `weft network connect --service`
    Create(Create),
    /// List services
    #[command(visible_alias = "list")]
    Ls {
        /// Only ids
        #[arg(long, short)]
        quiet: bool,
    },
    /// Display detailed information on one or more services
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
    /// Change how connections to a service are spread; those that are open stay where they are
    Update(Update),
    /// List the tasks of a service
    Ps {
        /// Name or id
        service: String,
        /// Whole ids
        #[arg(long)]
        no_trunc: bool,
    },
    /// Remove one or more services
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "SERVICE")]
        services: Vec<String>,
    },
}

fn affinity() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(..=i64::from(MAX_AFFINITY_SECONDS))
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the service, which DNS answers
    #[arg(long)]
    name: String,
    /// Network that it is on
    #[arg(long = "network", required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// How its name resolves: to a virtual IP, or to all tasks in turn
    #[arg(long, value_enum, default_value_t = Mode::Vip)]
    endpoint_mode: Mode,
    /// How a task is chosen for a new connection: in turns, by a hash of the client, or by open connections [default: round-robin]
    #[arg(long, value_name = POLICIES)]
    policy: Option<Policy>,
    /// A client keeps its task for so many seconds after its last new connection; 0: each connection is on its own [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = affinity())]
    affinity: Option<u32>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Update {
    /// How a task is chosen for a new connection: in turns, by a hash of the client, or by open connections
    #[arg(long, value_name = POLICIES, group = "change")]
    policy: Option<Policy>,
    /// A client keeps its task for so many seconds after its last new connection; 0: each connection is on its own
    #[arg(long, value_name = "SECONDS", value_parser = affinity(), group = "change")]
    affinity: Option<u32>,
    /// Weight of a task among the others, 1 to 100; 0: it takes no new connections and keeps those that it has
    #[arg(long = "weight", value_name = "TASK=N", value_parser = weight, group = "change")]
    weights: Vec<(String, u32)>,
    /// Name or id
    service: String,
}

const POLICIES: &str = "round-robin|maglev|least-connections";

fn weight(text: &str) -> Result<(String, u32), String> {
    let (task, weight) = text.rsplit_once('=').unwrap_or((text, ""));
    match weight.parse() {
        Ok(weight) if !task.is_empty() => Ok((task.to_owned(), weight)),
        _ => Err(format!("{text:?}: TASK=N is wanted, as web.1=3")),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Vip,
    Dnsrr,
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(arguments) => create(client, arguments).await,
        Verb::Ls { quiet } => list(client, quiet).await,
        Verb::Update(arguments) => update(client, arguments).await,
        Verb::Inspect { services } => inspect(client, &services).await,
        Verb::Ps { service, no_trunc } => tasks(client, &service, no_trunc).await,
        Verb::Rm { services } => remove(client, &services).await,
    }
}

async fn create(client: &Client, arguments: Create) -> Result<(), Failure> {
    let mode = match arguments.endpoint_mode {
        Mode::Vip => EndpointMode::Vip,
        Mode::Dnsrr => EndpointMode::Dnsrr,
    };
    let networks = arguments
        .networks
        .into_iter()
        .map(|target| NetworkTarget { target })
        .collect();
    let body = ServiceCreate {
        name: arguments.name,
        task_template: TaskTemplate { networks },
        endpoint_spec: EndpointSpec {
            mode,
            policy: arguments.policy,
            affinity: arguments.affinity,
        },
    };
    let created: ServiceCreated = client.post("/services/create", &body).await?;
    line(&created.id)
}

async fn update(client: &Client, arguments: Update) -> Result<(), Failure> {
    let body = ServiceUpdate {
        endpoint_spec: EndpointUpdate {
            policy: arguments.policy,
            affinity: arguments.affinity,
        },
        weights: arguments.weights.into_iter().collect::<BTreeMap<_, _>>(),
    };
    let path = format!("/services/{}/update", segment(&arguments.service));
    let _: ServiceUpdated = client.post(&path, &body).await?;
    line(&arguments.service)
}

async fn list(client: &Client, quiet: bool) -> Result<(), Failure> {
    let services: Vec<Service> = client.get("/services").await?;
    if quiet {
        return services.iter().try_for_each(|service| line(&short(&service.id, false)));
    }
    let tasks: Vec<Task> = client.get("/tasks").await?;
    let rows: Vec<Vec<String>> = services.iter().map(|service| row(service, &tasks)).collect();
    table(&["ID", "NAME", "MODE", "POLICY", "TASKS", "VIRTUAL IP"], &rows)
}

fn row(service: &Service, tasks: &[Task]) -> Vec<String> {
    let mode = match service.spec.endpoint_spec.mode {
        EndpointMode::Vip => "vip",
        EndpointMode::Dnsrr => "dnsrr",
    };
    let count = tasks.iter().filter(|task| task.service_id == service.id).count();
    let running = tasks
        .iter()
        .filter(|task| task.service_id == service.id && task.state == "running")
        .count();
    let vips: Vec<&str> = service
        .endpoint
        .virtual_ips
        .iter()
        .map(|vip| vip.address.as_str())
        .collect();
    vec![
        short(&service.id, false),
        service.spec.name.clone(),
        mode.to_owned(),
        service.spec.endpoint_spec.policy.map_or("-", Policy::as_str).to_owned(),
        format!("{running}/{count}"),
        vips.join(", "),
    ]
}

async fn inspect(client: &Client, names: &[String]) -> Result<(), Failure> {
    let mut found: Vec<Service> = Vec::new();
    let mut failed = false;
    for name in names {
        match client.get(&format!("/services/{}", segment(name))).await {
            Ok(service) => found.push(service),
            Err(error) => {
                eprintln!("{error}");
                failed = true;
            }
        }
    }
    json(&found)?;
    if failed { Err(Failure::Told) } else { Ok(()) }
}

async fn tasks(client: &Client, service: &str, no_trunc: bool) -> Result<(), Failure> {
    let tasks: Vec<Task> = client.get(&format!("/tasks?service={}", segment(service))).await?;
    let rows: Vec<Vec<String>> = tasks
        .into_iter()
        .map(|t| {
            vec![
                short(&t.id, no_trunc),
                t.name,
                t.node,
                "Running".to_owned(),
                capitalised(&t.state),
                t.address.to_string(),
                t.weight.to_string(),
            ]
        })
        .collect();
    table(
        &[
            "ID",
            "NAME",
            "NODE",
            "DESIRED STATE",
            "CURRENT STATE",
            "ADDRESS",
            "WEIGHT",
        ],
        &rows,
    )
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + characters.as_str())
        .unwrap_or_default()
}

async fn remove(client: &Client, names: &[String]) -> Result<(), Failure> {
    let mut failed = false;
    for name in names {
        match client.delete(&format!("/services/{}", segment(name))).await {
            Ok(()) => line(name)?,
            Err(error) => {
                eprintln!("{error}");
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}
