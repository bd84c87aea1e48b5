//! `weft swarm`.

use crate::Failure;
use crate::output::line;
use clap::Subcommand;
use weft::api::types::{Leave, Swarm, SwarmJoin, SwarmNode};
use weft::client::Client;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Join a Docker swarm as a worker that runs no containers
    Join {
        /// What `docker swarm join-token worker` printed
        #[arg(long)]
        token: String,
        /// A manager of the swarm: HOST or HOST:PORT
        #[arg(value_name = "HOST")]
        manager: String,
    },
    /// Show how this node stands in a Docker swarm
    Status,
    /// Leave the Docker swarm
    Leave {
        /// Also with endpoints connected
        #[arg(long, short)]
        force: bool,
    },
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Join { token, manager } => {
            let body = SwarmJoin {
                join_token: token,
                remote_addrs: vec![manager],
            };
            let node: SwarmNode = client.post("/swarm/join", &body).await?;
            line(&format!("This node joined a swarm as worker {}.", node.node_id))
        }
        Verb::Status => status(&client.get("/swarm").await?),
        Verb::Leave { force } => {
            let node: SwarmNode = client.post("/swarm/leave", &Leave { force }).await?;
            line(&format!(
                "Node left the swarm. Its managers list it as Down until `docker node rm {}`.",
                node.node_id
            ))
        }
    }
}

fn status(swarm: &Swarm) -> Result<(), Failure> {
    line(&format!("Swarm: {}", swarm.local_node_state))?;
    let manager = swarm.manager.clone().unwrap_or_else(|| "none".to_owned());
    let rows = [
        ("NodeID", swarm.node_id.clone()),
        ("ClusterID", swarm.cluster_id.clone()),
        ("Node Address", swarm.node_addr.clone()),
        ("Availability", swarm.availability.clone()),
        ("Manager", manager),
        ("Manager Addresses", swarm.remote_managers.join(", ")),
        (
            "Certificate Expires",
            swarm.certificate_expires.clone().unwrap_or_default(),
        ),
    ];
    if !swarm.node_id.is_empty() {
        for (name, value) in rows {
            line(&format!(" {name}: {value}"))?;
        }
    }
    if swarm.error.is_empty() {
        Ok(())
    } else {
        line(&format!(" Error: {}", swarm.error))
    }
}
