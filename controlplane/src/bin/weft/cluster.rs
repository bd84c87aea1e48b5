//! `weft cluster`, `weft node` and `weft info`.

use crate::Failure;
use crate::output::{line, table};
use clap::Subcommand;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use weft::api::types::{Info, Init, Join, Keys, Leave, MapUse, Node, RotateKeys, Token};
use weft::client::Client;
use weft_core::cluster::Role;
use weft_core::cluster::keys::{key_text, parse_key};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make this node the manager of a new cluster
    Init {
        /// Print only the join token
        #[arg(long, short)]
        quiet: bool,
        /// Encrypt gossip with the key in this file instead of one made here: 16, 24 or 32 bytes, base64 or hex
        #[arg(long, value_name = "FILE")]
        gossip_key_file: Option<PathBuf>,
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
        /// Make a new token first; the old one lets nobody in any more
        #[arg(long)]
        rotate: bool,
    },
    /// Show the gossip keys: fingerprints, and how far a rotation is
    Keys {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace the gossip keys (on the manager)
    ///
    /// The new key is added on all nodes, then used, then the oldest is removed, each step when all live nodes have acknowledged
    /// the one before; `weft cluster keys` shows how far it is. The manager does this by itself every 12 hours.
    RotateKeys {
        /// Use the key in this file instead of one made here: 16, 24 or 32 bytes, base64 or hex
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
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
        Verb::Init { quiet, gossip_key_file } => {
            let gossip_key = key_of(gossip_key_file.as_deref())?;
            let token: Token = client.post("/cluster/init", &Init { gossip_key }).await?;
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
        Verb::JoinToken { quiet, rotate } => {
            let token: Token = match rotate {
                true => client.post("/cluster/token/rotate", &()).await?,
                false => client.get("/cluster/token").await?,
            };
            print_token(client, &token, quiet).await
        }
        Verb::Keys { json } => {
            let keys: Keys = client.get("/cluster/keys").await?;
            if json {
                return crate::output::json(&keys);
            }
            print_keys(&keys)
        }
        Verb::RotateKeys { key_file } => {
            let gossip_key = key_of(key_file.as_deref())?;
            let _: Keys = client.post("/cluster/keys/rotate", &RotateKeys { gossip_key }).await?;
            line("The gossip keys are being replaced; `weft cluster keys` shows how far it is.")
        }
        Verb::Leave { force } => {
            client.tell("/cluster/leave", &Leave { force }).await?;
            line("Node left the cluster.")
        }
    }
}

/// A key in hex has 64 letters; what is longer than this is no key, however it ends.
const MAX_KEY_FILE_BYTES: u64 = 1024;

/// The key in a file, as the daemon takes it.
fn key_of(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(path) = file else { return Ok(None) };
    let explain =
        |error: &dyn std::fmt::Display| Failure::Input(format!("gossip key file {}: {error}", path.display()));
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_end(&mut text));
    read.map_err(|error| explain(&error))?;
    let key = parse_key(&String::from_utf8_lossy(&text)).map_err(|error| explain(&error))?;
    Ok(Some(key_text(&key)))
}

fn print_keys(keys: &Keys) -> Result<(), Failure> {
    let row = |(at, fingerprint): (usize, &String)| {
        let used = if at == 0 { "primary" } else { "accepted" };
        vec![fingerprint.clone(), used.to_owned()]
    };
    table(
        &["FINGERPRINT", "USE"],
        &keys.fingerprints.iter().enumerate().map(row).collect::<Vec<_>>(),
    )?;
    let phase = keys.phase.as_deref().unwrap_or("known to the manager");
    line(&format!("\nVersion: {}\nPhase: {phase}", keys.version))?;
    if let Some(rotated) = &keys.rotated {
        line(&format!("Rotated: {rotated}"))?;
    }
    if let Some(seconds) = keys.next_in_seconds {
        line(&format!(
            "Next Rotation: in {} h {} min",
            seconds / 3600,
            seconds % 3600 / 60
        ))?;
    }
    if !keys.waiting_for.is_empty() {
        line(&format!("Not Acknowledged By: {}", keys.waiting_for.join(", ")))?;
    }
    Ok(())
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
    match info.gossip_keys.first() {
        Some(primary) => line(&format!("Gossip Encryption: AES-GCM, primary key {primary}"))?,
        None => line("Gossip Encryption: none outside of a cluster")?,
    }
    line(&format!(
        "Gossip Refused: {} in the clear, {} with other keys",
        info.gossip_refused_plaintext, info.gossip_refused_keys
    ))?;
    line(&format!(
        "Gossip Dropped: {} messages, for newer ones",
        info.gossip_dropped_messages
    ))?;
    line(&format!(
        "Gossip Repair: {} comparisons asked for, {} networks found different, {} rows sent",
        info.gossip_comparisons, info.gossip_differences, info.gossip_repaired
    ))?;
    line(&format!("Endpoints: {}", info.endpoints))?;
    line(&format!("Uplink: {}", info.uplink))?;
    line("Features:")?;
    for feature in &info.features {
        line(&format!(" {}: {} ({})", feature.name, feature.choice, feature.why))?;
    }
    maps(&info.maps)?;
    let of = info.flow_timeouts;
    line(&format!(
        "Flow Time-outs: TCP opening {} s, established {} s, finished {} s, reset {} s; UDP {} s, answered {} s",
        of.tcp_opening, of.tcp_established, of.tcp_finished, of.tcp_reset, of.udp, of.udp_answered
    ))?;
    line(&format!("Flows Refused: {}, for a full table", info.flows_refused))
}

/// How far the kernel's maps are filled.
fn maps(maps: &[MapUse]) -> Result<(), Failure> {
    line("Maps:")?;
    for map in maps {
        let full = match map.left_out {
            0 if map.entries >= u64::from(map.limit) => format!(", full: {} sets more", map.setting),
            0 => String::new(),
            more => format!(", full: {more} left out, {} sets more", map.setting),
        };
        line(&format!(" {}: {} of {}{full}", map.name, map.entries, map.limit))?;
    }
    Ok(())
}
