//! An address on a network, from the managers (`spec/swarm-agent.md` 8.10).
//!
//! A drained node's tasks stay where they are until somebody moves them on, so this node moves its attachment on itself. If that
//! brings nothing, the address that the managers reserve for this node on each network in use does as well, once a network.

use super::agent::Event;
use super::rpc::{CallError, Connection};
use crate::daemon::{Handle, Refused};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Code;
use weft_core::cluster::Network;
use weft_core::id::EndpointId;
use weft_core::swarm::asked::Asked;
use weft_core::swarm::network::{self, NetworkRefused};
use weft_core::swarm::proto::{
    self, AttachNetworkRequest, NetworkAttachment, NetworkAttachmentConfig, TaskStatus, TaskStatusUpdate,
    UpdateTaskStatusRequest, availability, state,
};
use weft_core::swarm::tasks::Tasks;

/// How long an attachment may take to come.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(5);

/// This node may be faster than the managers' allocator: then the attachment has no address, and is made anew.
const TRIES: usize = 4;
const RETRY: Duration = Duration::from_secs(1);

/// An address on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The network.
    pub network: Network,
    /// The address, which is this node's until it is detached.
    pub ip: Ipv4Addr,
}

/// What the managers told of this node and its tasks.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) node: proto::Node,
    pub(super) tasks: Tasks,
}

/// What is asked for, and what is needed for it.
pub(super) struct Attach {
    pub(super) connection: Connection,
    pub(super) session_id: String,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) daemon: Handle,
    pub(super) endpoint: EndpointId,
    pub(super) network: String,
    pub(super) ip: Option<Ipv4Addr>,
}

/// How one try ended.
enum Try {
    Done(Attached),
    NoAddress,
}

impl Attach {
    pub(super) async fn run(mut self) -> Result<Attached, Refused> {
        for _ in 0..TRIES {
            match self.attempt().await? {
                Try::Done(attached) => return Ok(attached),
                Try::NoAddress => sleep(RETRY).await,
            }
        }
        Err(Refused::conflict(match self.ip {
            Some(ip) => format!(
                "network {}: the managers do not give address {ip}: it is taken, or not of the network's subnet",
                self.network
            ),
            None => format!(
                "network {}: the managers have no address for this endpoint: its subnet may be used up",
                self.network
            ),
        }))
    }

    async fn attempt(&mut self) -> Result<Try, Refused> {
        let request = AttachNetworkRequest {
            config: Some(NetworkAttachmentConfig {
                target: self.network.clone(),
                addresses: self.ip.iter().map(Ipv4Addr::to_string).collect(),
            }),
            container_id: self.endpoint.to_string(),
        };
        let asking = Event::Asking(Asked {
            endpoint: self.endpoint.clone(),
            network: self.network.clone(),
        });
        if !asking.tell(&self.daemon).await {
            return Err(Refused::stopping());
        }
        let id = self
            .connection
            .attach(request)
            .await
            .map_err(|error| self.refused(&error))?;
        self.remember(&id, false).await?;
        match self.follow(&id).await {
            Ok(Some(attached)) => Ok(Try::Done(attached)),
            Ok(None) => {
                self.connection.detach(&id).await.map_err(unavailable)?;
                Ok(Try::NoAddress)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Moves an attachment on until it is this node's; `None` when it has no address.
    async fn follow(&mut self, id: &str) -> Result<Option<Attached>, Refused> {
        let node = self.seen.borrow().node.clone();
        let is_active = node.spec.is_none_or(|spec| spec.availability == availability::ACTIVE);
        if !is_active {
            self.report(id, state::ACCEPTED, "accepted")
                .await
                .map_err(unavailable)?;
        }
        let delivery = async {
            let seen = self.seen.wait_for(|seen| seen.tasks.get(id).is_some()).await;
            seen.map(|seen| seen.tasks.get(id).cloned())
        };
        let task = match timeout(DELIVERY_DEADLINE, delivery).await {
            Ok(Ok(task)) => task,
            Ok(Err(_)) => return Err(Refused::unavailable("the session with the manager ended; try again")),
            Err(_) => None,
        };
        let Some(task) = task else {
            return self.reserved().map(Some);
        };
        let Some(attachment) = task.networks.first() else {
            return Ok(None);
        };
        let Some(attached) = attached(attachment)? else {
            return Ok(None);
        };
        self.report(id, state::RUNNING, "attached").await.map_err(unavailable)?;
        self.remember(id, true).await?;
        Ok(Some(attached))
    }

    /// The address that the managers reserve for this node on the network, while it has an attachment there.
    fn reserved(&self) -> Result<Attached, Refused> {
        let late = || {
            Refused::unavailable(format!(
                "network {}: no address from the managers within {} s",
                self.network,
                DELIVERY_DEADLINE.as_secs()
            ))
        };
        let seen = self.seen.borrow();
        let found = network::reserved(&seen.node.attachments, &self.network);
        let found = found.filter(|_| self.ip.is_none()).ok_or_else(late)?;
        attached(found)?.ok_or_else(late)
    }

    async fn report(&self, id: &str, state: i32, message: &str) -> Result<(), CallError> {
        let request = status_update(&self.session_id, vec![(id.to_owned(), state, message, "")]);
        self.connection.update_tasks(request).await
    }

    /// An attachment that nobody remembers would hold its address for ever.
    async fn remember(&self, id: &str, delivered: bool) -> Result<(), Refused> {
        let event = Event::Attachment {
            endpoint: self.endpoint.clone(),
            id: id.to_owned(),
            delivered,
        };
        match event.tell(&self.daemon).await {
            true => Ok(()),
            false => {
                self.connection.detach(id).await.map_err(unavailable)?;
                Err(Refused::stopping())
            }
        }
    }

    fn refused(&self, error: &CallError) -> Refused {
        let name = &self.network;
        match Code::from(error.code) {
            Code::NotFound => Refused::not_found(format!(
                "network {name} not found in the swarm, or its name is not unique"
            )),
            Code::PermissionDenied if error.message.contains("not manually attachable") => Refused::invalid(format!(
                "network {name} is not attachable: `docker network create --attachable` makes one that is"
            )),
            _ => unavailable(error.clone()),
        }
    }
}

fn attached(attachment: &NetworkAttachment) -> Result<Option<Attached>, Refused> {
    let (Some(told), Some(ip)) = (&attachment.network, network::address(attachment)) else {
        return Ok(None);
    };
    let network = network::network(told).map_err(|error: NetworkRefused| Refused::invalid(error))?;
    Ok(Some(Attached { network, ip }))
}

/// New states of tasks: task, state, message, error.
pub(super) fn status_update(session_id: &str, updates: Vec<(String, i32, &str, &str)>) -> UpdateTaskStatusRequest {
    let timestamp = Some(proto::Period {
        seconds: super::unix_seconds(),
        nanos: 0,
    });
    let update = |(task_id, state, message, err): (String, i32, &str, &str)| TaskStatusUpdate {
        task_id,
        status: Some(TaskStatus {
            timestamp,
            state,
            message: message.to_owned(),
            err: err.to_owned(),
        }),
    };
    UpdateTaskStatusRequest {
        session_id: session_id.to_owned(),
        updates: updates.into_iter().map(update).collect(),
    }
}

fn unavailable(error: CallError) -> Refused {
    Refused::unavailable(format!("the swarm's manager: {error}"))
}
