//! The demo: three hosts, one overlay network, the service `my-web`, and a client that asks it a dozen times.

mod picture;
mod show;

use clap::Parser;
use picture::{HostBox, picture};
use serde_json::Value;
use show::{heading, note, on_host, on_host_as_is, show};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;
use weft_tests::interrupt;
use weft_tests::rig::{Container, Error, Options, Result, Rig, remove_kept, wait_until};

/// Three hosts, one overlay network, the service my-web, and a client that asks it a dozen times.
///
/// `cargo xtask demo` builds everything and runs this.
#[derive(Debug, Parser)]
struct Arguments {
    /// Leave everything up at the end, and print how to enter and how to remove it
    #[arg(long, conflicts_with = "remove")]
    keep: bool,
    /// Remove what an earlier run left up
    #[arg(long)]
    remove: bool,
}

/// Hosts of the demo: the fewest that show more than a pair.
const HOSTS: usize = 3;

/// How often the client asks: each backend answers more than once.
const REQUESTS: usize = 12;

/// The overlay network.
const NETWORK: &str = "my-net";

/// The service.
const SERVICE: &str = "my-web";

/// The port in the diagnostic guide of Docker.
const DIAGNOSTIC_PORT: u16 = 2000;

/// Gossip tells news within a second or two; a busy machine gets ten times that.
const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = interrupt::install().map_err(Error::new).and_then(|()| run(&arguments));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::requested() => ExitCode::from(130),
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.remove {
        let removed = remove_kept()?;
        println!(
            "{}",
            if removed.is_empty() {
                "nothing was left up".to_owned()
            } else {
                format!("removed {}", removed.join(" "))
            }
        );
        return Ok(());
    }
    let mut rig = Rig::new(Options {
        hosts: HOSTS,
        ..Options::default()
    })?;
    let containers = play(&mut rig)?;
    if arguments.keep {
        explain_kept(&rig, &containers);
        return rig.keep(containers);
    }
    heading("Removing everything");
    Ok(())
}

fn play(rig: &mut Rig) -> Result<Vec<Container>> {
    hosts(rig)?;
    let service = network_and_service(rig)?;
    let containers = start_containers(rig)?;
    let client = containers.last().ok_or_else(|| Error::new("no client"))?;
    let vip = names(client)?;
    draw(rig, &containers, &service, vip)?;
    requests(client)?;
    diagnostics(rig, &service.id)?;
    Ok(containers)
}

/// What the demo must know of its network.
struct Network {
    id: String,
    subnet: String,
}

fn hosts(rig: &mut Rig) -> Result<()> {
    heading("Three hosts, a daemon on each");
    note(
        "A host is a network namespace here. On real hosts you would type the same; the demo only adds --socket FILE.",
    );
    for host in &mut rig.hosts {
        println!("{}# weftd --config {}", host.name(), host.config_file().display());
        host.start()?;
    }
    heading("A cluster");
    let (manager, workers) = rig.hosts.split_first().ok_or_else(|| Error::new("no host"))?;
    let token = on_host(manager, &["cluster", "init", "-q"])?.trim().to_owned();
    for worker in workers {
        on_host(
            worker,
            &["cluster", "join", "--token", &token, &manager.address().to_string()],
        )?;
    }
    wait_until(SOON, "all nodes are Ready", || {
        let nodes = manager.weft(&["node", "ls"])?;
        let ready = nodes.matches("Ready").count();
        if ready == HOSTS {
            Ok(())
        } else {
            Err(Error::new(format!("{ready} of {HOSTS} are Ready:\n{nodes}")))
        }
    })?;
    on_host(manager, &["node", "ls"]).map(drop)
}

fn network_and_service(rig: &Rig) -> Result<Network> {
    heading("A network and a service on it");
    let manager = &rig.hosts[0];
    on_host(manager, &["network", "create", NETWORK])?;
    on_host(manager, &["service", "create", "--name", SERVICE, "--network", NETWORK])?;
    let text = manager.weft(&["network", "inspect", NETWORK])?;
    let unexpected = || {
        Error::new(format!(
            "`weft network inspect` printed something else than Docker does:\n{text}"
        ))
    };
    let answer: Value = serde_json::from_str(&text).map_err(|_| unexpected())?;
    let network = answer.get(0).ok_or_else(unexpected)?;
    let id = network["Id"].as_str().ok_or_else(unexpected)?.to_owned();
    let subnet = network["IPAM"]["Config"][0]["Subnet"]
        .as_str()
        .ok_or_else(unexpected)?
        .to_owned();
    Ok(Network { id, subnet })
}

/// One web server on each host, and a client on the first. The client is the last.
fn start_containers(rig: &Rig) -> Result<Vec<Container>> {
    heading("A web server on each host, and a client on the first");
    let mut containers = Vec::new();
    for (index, host) in rig.hosts.iter().enumerate() {
        let name = format!("{SERVICE}.{}", index + 1);
        let mut container = rig.container(index, &name)?;
        container.serve(&["http-serve", "--name", &name])?;
        on_host(host, &container.connect_arguments(NETWORK, Some(SERVICE)))?;
        containers.push(container);
    }
    let client = rig.container(0, "client")?;
    on_host(&rig.hosts[0], &client.connect_arguments(NETWORK, None))?;
    containers.push(client);
    Ok(containers)
}

/// What the names resolve to; the service's virtual address.
fn names(client: &Container) -> Result<Ipv4Addr> {
    heading("Names, as the client sees them (its resolver is 127.0.0.11, as in Docker)");
    let tasks = format!("tasks.{SERVICE}");
    wait_until(SOON, "the client knows all tasks", || {
        let answer = client.tool(&["dns-query", &tasks])?;
        let count = addresses(&answer).len();
        if count == HOSTS {
            Ok(())
        } else {
            Err(Error::new(format!("{count} of {HOSTS}:\n{answer}")))
        }
    })?;
    let answer = show(client, &["dns-query", SERVICE])?;
    show(client, &["dns-query", &tasks])?;
    addresses(&answer)
        .first()
        .copied()
        .ok_or_else(|| Error::new(format!("{SERVICE} has no address:\n{answer}")))
}

/// The addresses in what `dns-query` prints.
fn addresses(answer: &str) -> Vec<Ipv4Addr> {
    answer
        .lines()
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect()
}

fn draw(rig: &Rig, containers: &[Container], network: &Network, vip: Ipv4Addr) -> Result<()> {
    heading("What is where");
    let mut boxes = Vec::new();
    for host in &rig.hosts {
        let mut lines = Vec::new();
        for container in containers.iter().filter(|container| container.host() == host.name()) {
            lines.push(format!("{:<9} {}", container.name(), container.address()?));
        }
        boxes.push(HostBox {
            title: format!("{} {}", host.name(), host.address()),
            lines,
        });
    }
    let title = format!("network {NETWORK} {}   service {SERVICE} = {vip}", network.subnet);
    print!("{}", picture(&title, &boxes));
    Ok(())
}

fn requests(client: &Container) -> Result<()> {
    heading("A dozen requests to the service");
    let url = format!("http://{SERVICE}/");
    let mut answers = BTreeMap::new();
    let output = show(client, &["http-get", "-n", &REQUESTS.to_string(), &url])?;
    for line in output.lines() {
        let who = line.split(' ').next().unwrap_or_default().to_owned();
        *answers.entry(who).or_insert(0) += 1;
    }
    println!();
    for (who, count) in &answers {
        println!("  {who:<10} answered {count:>2}  {}", "#".repeat(*count));
    }
    let total: usize = answers.values().sum();
    if total == REQUESTS && answers.len() == HOSTS {
        return Ok(());
    }
    Err(Error::new(format!(
        "{total} answers of {} servers; {REQUESTS} of {HOSTS} were expected",
        answers.len()
    )))
}

fn diagnostics(rig: &mut Rig, network: &str) -> Result<()> {
    heading("Looking inside");
    let manager = rig.hosts.first_mut().ok_or_else(|| Error::new("no host"))?;
    manager.set("network-diagnostic-port", DIAGNOSTIC_PORT)?;
    manager.hangup()?;
    let manager = &rig.hosts[0];
    on_host(manager, &["network", "inspect", NETWORK])?;
    println!(
        "{}# # \"network-diagnostic-port\": {DIAGNOSTIC_PORT} in its configuration, then",
        manager.name()
    );
    println!("{}# kill -HUP {}", manager.name(), manager.pid().unwrap_or_default());
    let address = format!("localhost:{DIAGNOSTIC_PORT}");
    wait_until(SOON, "the diagnostic server listens", || {
        manager.run("curl", &["-sS", &format!("{address}/ready")])
    })?;
    for path in [
        format!("/gettable?nid={network}&tname=endpoint_table"),
        "/maps".to_owned(),
    ] {
        on_host_as_is(manager, "curl", &["-sS", &format!("{address}{path}")])?;
    }
    Ok(())
}

fn explain_kept(rig: &Rig, containers: &[Container]) {
    heading("Left up");
    for host in &rig.hosts {
        println!("{}: nsenter --net={} bash", host.name(), host.netns().path().display());
        println!("       weft --socket {} node ls", host.socket().display());
        println!("       log {}", host.log().display());
    }
    for container in containers {
        println!(
            "{}: nsenter --net={} bash",
            container.name(),
            container.netns().path().display()
        );
    }
    println!("\nTo remove it: cargo xtask demo --remove");
}
