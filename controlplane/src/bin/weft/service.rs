//! `weft service`.

use crate::Failure;
use crate::output::{json, line, short, table};
use clap::{Args, Subcommand, ValueEnum};
use weft::api::types::{EndpointSpec, NetworkTarget, Service, ServiceCreate, ServiceCreated, Task, TaskTemplate};
use weft::client::{Client, segment};
use weft_core::cluster::EndpointMode;

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
        endpoint_spec: EndpointSpec { mode },
    };
    let created: ServiceCreated = client.post("/services/create", &body).await?;
    line(&created.id)
}

async fn list(client: &Client, quiet: bool) -> Result<(), Failure> {
    let services: Vec<Service> = client.get("/services").await?;
    if quiet {
        return services.iter().try_for_each(|service| line(&short(&service.id, false)));
    }
    let tasks: Vec<Task> = client.get("/tasks").await?;
    let rows: Vec<Vec<String>> = services.iter().map(|service| row(service, &tasks)).collect();
    table(&["ID", "NAME", "MODE", "TASKS", "VIRTUAL IP"], &rows)
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
            ]
        })
        .collect();
    table(
        &["ID", "NAME", "NODE", "DESIRED STATE", "CURRENT STATE", "ADDRESS"],
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
