//! `weft cluster`, `weft node` and `weft info`.

use crate::Failure;
use crate::output::{line, table};
use clap::Subcommand;
use weft::api::types::{Info, Join, Leave, Node, Token};
use weft::client::Client;
use weft_core::cluster::Role;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make this node the manager of a new cluster
    Init {
        /// Print only the join token
        #[arg(long, short)]
        quiet: bool,
    },
    /// Join a cluster as a worker
    Join {
        /// What `weft cluster init` printed
        #[arg(long)]
        token: String,
        /// The manager: HOST or HOST:PORT
        #[arg(value_name = "HOST")]
        manager: String,
    },
    /// Print the join token (on the manager)
    JoinToken {
        /// Print only the token
        #[arg(long, short)]
        quiet: bool,
    },
    /// Leave the cluster
    Leave {
        /// Also with endpoints connected, and as the manager, whose declared networks and services are lost
        #[arg(long, short)]
        force: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List nodes
    #[command(visible_alias = "list")]
    Ls,
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Init { quiet } => {
            let token: Token = client.post("/cluster/init", &()).await?;
            if !quiet {
                let info: Info = client.get("/info").await?;
                line(&format!(
                    "Cluster initialized: current node ({}) is now its manager.\n",
                    info.name
                ))?;
            }
            print_token(client, &token, quiet).await
        }
        Verb::Join { token, manager } => {
            client
                .tell(
                    "/cluster/join",
                    &Join {
                        join_token: token,
                        remote_addr: manager,
                    },
                )
                .await?;
            line("This node joined a cluster as a worker.")
        }
        Verb::JoinToken { quiet } => {
            let token: Token = client.get("/cluster/token").await?;
            print_token(client, &token, quiet).await
        }
        Verb::Leave { force } => {
            client.tell("/cluster/leave", &Leave { force }).await?;
            line("Node left the cluster.")
        }
    }
}

async fn print_token(client: &Client, token: &Token, quiet: bool) -> Result<(), Failure> {
    if quiet {
        return line(&token.join_token);
    }
    let info: Info = client.get("/info").await?;
    let manager = info.manager.unwrap_or_default();
    line("To add a worker to this cluster, run the following command:\n")?;
    line(&format!(
        "    weft cluster join --token {} {manager}\n",
        token.join_token
    ))
}

pub(crate) async fn run_node(client: &Client, verb: &NodeVerb) -> Result<(), Failure> {
    match verb {
        NodeVerb::Ls => {
            let nodes: Vec<Node> = client.get("/nodes").await?;
            let row = |node: &Node| {
                let status = if node.status == "ready" { "Ready" } else { "Down" };
                let role = match node.role {
                    Role::Manager => "Manager",
                    Role::Worker => "Worker",
                };
                let id = if node.this {
                    format!("{} *", node.id)
                } else {
                    node.id.clone()
                };
                vec![
                    id,
                    node.hostname.clone(),
                    status.to_owned(),
                    role.to_owned(),
                    node.address.to_string(),
                ]
            };
            table(
                &["ID", "HOSTNAME", "STATUS", "ROLE", "ADDRESS"],
                &nodes.iter().map(row).collect::<Vec<_>>(),
            )
        }
    }
}

pub(crate) async fn info(client: &Client) -> Result<(), Failure> {
    let info: Info = client.get("/info").await?;
    let role = match info.role {
        Some(Role::Manager) => "manager",
        Some(Role::Worker) => "worker",
        None if info.swarm_node_id.is_some() => "none",
        None => "none: `weft cluster init` or `weft cluster join`",
    };
    line(&format!("Name: {}", info.name))?;
    line(&format!("Server Version: {}", info.server_version))?;
    line(&format!("Cluster: {role}"))?;
    if let Some(manager) = info.manager {
        line(&format!(" Manager Address: {manager}"))?;
    }
    if let Some(node_id) = info.swarm_node_id {
        line(&format!("Swarm: worker {node_id}"))?;
    }
    line(&format!("Gossip Name: {}", info.gossip_name))?;
    line(&format!("Gossip Peers: {}", info.gossip_peers))?;
    line(&format!("Endpoints: {}", info.endpoints))?;
    line(&format!("Uplink: {} ({})", info.uplink, info.attach_mode))
}
