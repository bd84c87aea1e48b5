//! `weft`: Docker's verbs for weft's networks and services.

mod cluster;
mod debug;
mod network;
mod output;
mod service;
mod swarm;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use weft::client::{Client, ClientError};

/// Overlay networks for containers.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true)]
struct Arguments {
    /// The daemon's socket
    #[arg(
        long,
        short = 'H',
        global = true,
        env = "WEFT_SOCKET",
        value_name = "PATH",
        default_value = "/run/weft/weft.sock"
    )]
    socket: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Manage networks
    #[command(subcommand)]
    Network(network::Verb),
    /// Manage services
    #[command(subcommand)]
    Service(service::Verb),
    /// Manage the cluster
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Be a node of a Docker swarm
    #[command(subcommand)]
    Swarm(swarm::Verb),
    /// Manage nodes
    #[command(subcommand)]
    Node(cluster::NodeVerb),
    /// Record what enters this node's gossip, and run it again
    #[command(subcommand)]
    Debug(debug::Verb),
    /// Show what this node is, and what of the kernel it uses and why
    #[command(visible_alias = "status")]
    Info,
}

/// What ends a command early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The daemon, or the way there.
    Client(ClientError),
    /// The terminal, or the pipe.
    Output(std::io::Error),
    /// Something that the user named: one line.
    Input(String),
    /// Some of several failed; each was told.
    Told,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::Client(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Output(error)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return weft::usage::tell("weft", &error),
    };
    let client = Client::new(arguments.socket);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weft: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match arguments.verb {
            Verb::Network(verb) => network::run(&client, verb).await,
            Verb::Service(verb) => service::run(&client, verb).await,
            Verb::Cluster(verb) => cluster::run(&client, verb).await,
            Verb::Swarm(verb) => swarm::run(&client, verb).await,
            Verb::Node(verb) => cluster::run_node(&client, &verb).await,
            Verb::Debug(verb) => debug::run(&client, verb).await,
            Verb::Info => cluster::info(&client).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads no further, as `head` does, has what they wanted.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(error)) => {
            eprintln!("weft: {error}");
            ExitCode::FAILURE
        }
        Err(Failure::Client(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(Failure::Input(message)) => {
            eprintln!("weft: {message}");
            ExitCode::FAILURE
        }
        Err(Failure::Told) => ExitCode::FAILURE,
    }
}
