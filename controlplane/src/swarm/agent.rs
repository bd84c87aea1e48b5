//! One task for as long as this node is in a swarm: it keeps a session with one of the managers, and tells the daemon what it hears.

use super::attach::{Attached, Seen};
use super::certificate::{self, Facts};
use super::rpc::{CallError, ConnectError, Connection};
use super::{Identity, random, tls, unix_seconds};
use crate::daemon::{Handle, Refused, ReplyTo, SwarmCommand};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use weft_core::id::EndpointId;
use weft_core::swarm::asked::{Asked, Reserved};
use weft_core::swarm::managers::{BackOff, Managers};
use weft_core::swarm::proto::role;
use weft_core::swarm::reaction::{Reaction, reaction};

/// What cannot be cured from here is tried again all the same, at leisure: an operator may cure it.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// Two programs with one identity push each other out: so often within [`LONG_PAUSE`] is no accident.
const CLONE_SUSPECTED: usize = 3;

/// What the daemon asks of the agent.
#[derive(Debug)]
pub enum AgentCommand {
    /// An address on a network.
    Attach {
        /// For whom.
        endpoint: EndpointId,
        /// Id or name.
        network: String,
        /// A certain address.
        ip: Option<Ipv4Addr>,
        /// Where the answer goes.
        reply: ReplyTo<Result<Attached, Refused>>,
    },
    /// Give an address back. One that is not held is given back.
    Detach {
        /// Whose.
        endpoint: EndpointId,
        /// The attachment, if it is remembered.
        attachment: Option<String>,
        /// Where the answer goes.
        reply: ReplyTo<Result<(), Refused>>,
    },
}

/// What the agent tells the daemon.
#[derive(Debug)]
pub enum Event {
    /// Certificate, managers or keys may be different now: to be kept, and the gossip follows.
    Told {
        /// All of it.
        identity: Box<Identity>,
        /// UDP port of VXLAN in this swarm.
        data_path_port: u16,
        /// Where the managers reserve an address for this node.
        reserved: Vec<Reserved>,
    },
    /// The managers are about to be asked for an address: to be remembered until the answer is there.
    Asking(Asked),
    /// An attachment was made: to be remembered before anything else happens.
    Attachment {
        /// For whom.
        endpoint: EndpointId,
        /// Its id.
        id: String,
        /// The managers list it among this node's tasks.
        delivered: bool,
    },
    /// The endpoints that the managers hold addresses for: these, and no others.
    OnRecord(Vec<EndpointId>),
    /// The managers hold an address for this endpoint, as they did not before; somebody may wait for it.
    Offered(EndpointId),
    /// An endpoint's address is taken away from it.
    GiveUp(EndpointId),
    /// The node was removed from the swarm; the agent has ended.
    Removed(String),
}

impl Event {
    /// Tells the daemon, and waits until it has done what follows; false when it is stopping.
    pub(super) async fn tell(self, daemon: &Handle) -> bool {
        daemon
            .ask(|reply| SwarmCommand::Event(self, reply).into())
            .await
            .is_some()
    }
}

/// How the agent stands, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The manager of the present session.
    pub manager: Option<String>,
    /// What is wrong.
    pub problem: Option<String>,
    /// `active`, `pause` or `drain`; nothing before the first session.
    pub availability: String,
    /// Whence the managers see this node connect.
    pub address: String,
    /// When the certificate ends, seconds since 1970.
    pub certificate_ends: i64,
}

/// The agent.
pub struct Agent {
    pub(super) identity: Identity,
    pub(super) facts: Facts,
    pub(super) hostname: String,
    pub(super) daemon: Handle,
    pub(super) commands: mpsc::UnboundedReceiver<AgentCommand>,
    pub(super) status: watch::Sender<Status>,
    pub(super) seen: watch::Sender<Seen>,
    pub(super) managers: Managers,
    pub(super) back_off: BackOff,
    pub(super) session_id: String,
    pub(super) renewal_time: i64,
    /// New roots that do not vouch for the present certificate.
    pub(super) offered_root: Option<String>,
    /// Since when the managers know of the present certificate.
    pub(super) reported: Option<Instant>,
    pub(super) promoted: bool,
    /// Times at which another pushed this node out of its session.
    pushed_out: Vec<Instant>,
    problem: String,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// By this node's will: the next one is begun at once.
    Again,
    /// By an error.
    Failed(CallError),
    /// There was none, for another reason than a manager's.
    Not(String),
    /// The daemon is stopping, or left the swarm.
    Stopped,
}

impl From<CallError> for End {
    fn from(error: CallError) -> End {
        End::Failed(error)
    }
}

impl Agent {
    /// An agent for this identity, its commands, and its status. It begins with [`Agent::run`].
    pub fn new(
        identity: Identity,
        hostname: &str,
        daemon: Handle,
    ) -> Result<(Agent, mpsc::UnboundedSender<AgentCommand>, watch::Receiver<Status>), String> {
        let facts = certificate::check(&identity.certificate_pem, &identity.key_pem, &identity.root_pem)
            .map_err(|error| error.to_string())?;
        let (sender, commands) = mpsc::unbounded_channel();
        let status = Status {
            certificate_ends: facts.validity.not_after,
            ..Status::default()
        };
        let (status, watched) = watch::channel(status);
        let managers = Managers::new(identity.managers.iter().map(|manager| manager.addr.clone()));
        let agent = Agent {
            renewal_time: facts.validity.renewal_time(random()),
            identity,
            facts,
            hostname: hostname.to_owned(),
            daemon,
            commands,
            status,
            seen: watch::Sender::default(),
            managers,
            back_off: BackOff::default(),
            session_id: String::new(),
            offered_root: None,
            reported: None,
            promoted: false,
            pushed_out: Vec::new(),
            problem: String::new(),
        };
        Ok((agent, sender, watched))
    }

    /// One session after the other, until the daemon or the swarm lets go of this node.
    pub async fn run(mut self) {
        loop {
            let Some(manager) = self.managers.choose(random()).map(str::to_owned) else {
                self.tell_problem("no manager of the swarm is known");
                return;
            };
            let end = self.attempt(&manager).await;
            self.status.send_modify(|status| status.manager = None);
            let pause = match end {
                End::Stopped => return,
                End::Again => continue,
                End::Not(problem) => {
                    self.managers.failed(&manager);
                    self.tell_problem(&problem);
                    self.back_off.next(random())
                }
                End::Failed(error) => {
                    self.managers.failed(&manager);
                    let Some(pause) = self.react(&manager, &error).await else {
                        return;
                    };
                    pause
                }
            };
            let pause = if self.facts.validity.has_ended(unix_seconds()) {
                self.tell_problem("the certificate of this node has ended, by this host's clock, so no manager talks to it: `weft swarm leave --force`, then join with a token");
                LONG_PAUSE
            } else {
                pause
            };
            if !self.pause(pause).await {
                return;
            }
        }
    }

    async fn attempt(&mut self, manager: &str) -> End {
        match self.connect(manager).await {
            Ok(connection) => self.session(manager, connection).await,
            Err(ConnectError::Untrusted(reason)) => match self.trust_anew(manager).await {
                Ok(()) => End::Again,
                Err(problem) => End::Not(format!(
                    "manager {manager}: its certificate is not of this swarm's roots ({reason}), and {problem}"
                )),
            },
            Err(error @ ConnectError::Clock(_)) => End::Not(format!("manager {manager}: {error}")),
            Err(error) => End::Not(format!("manager {manager} is away: {error}")),
        }
    }

    async fn connect(&self, manager: &str) -> Result<Connection, ConnectError> {
        let tls = tls::member(&self.identity).map_err(|error| ConnectError::Handshake(error.to_string()))?;
        Connection::open(manager, Arc::new(tls), tls::MANAGER).await
    }

    /// The root was rotated while this node was away: new roots are taken if they vouch for this node's own certificate.
    async fn trust_anew(&mut self, manager: &str) -> Result<(), String> {
        let tls = tls::unverified().map_err(|error| error.to_string())?;
        let connection = Connection::open(manager, Arc::new(tls), tls::MANAGER)
            .await
            .map_err(|error| error.to_string())?;
        let root_pem = connection.root_certificate().await.map_err(|error| error.to_string())?;
        let root_pem = String::from_utf8(root_pem).map_err(|error| error.to_string())?;
        let facts =
            certificate::check(&self.identity.certificate_pem, &self.identity.key_pem, &root_pem).map_err(|_| {
                "the roots that it tells do not vouch for this node: `weft swarm leave --force`, then join with a token"
                    .to_owned()
            })?;
        if self.identity.root_pem == root_pem {
            return Err("it tells the same roots".to_owned());
        }
        tracing::info!("the swarm's root certificate was rotated while this node was away");
        self.identity.root_pem = root_pem;
        self.facts = facts;
        Ok(())
    }

    /// How long to wait after an error; `None` when it is over.
    async fn react(&mut self, manager: &str, error: &CallError) -> Option<Duration> {
        let problem = format!("manager {manager}: {error}");
        match reaction(error.code, &error.message) {
            Reaction::Removed => {
                Event::Removed(error.message.clone()).tell(&self.daemon).await;
                return None;
            }
            Reaction::Foreign => {
                self.tell_problem(&format!("{problem}: this node is of another swarm"));
                return Some(LONG_PAUSE);
            }
            Reaction::Register => {
                self.session_id.clear();
                self.look_for_clone();
            }
            Reaction::Wait(pause) => {
                self.tell_problem(&problem);
                return Some(pause);
            }
            Reaction::Reconnect => {}
        }
        self.tell_problem(&problem);
        Some(self.back_off.next(random()))
    }

    fn look_for_clone(&mut self) {
        let now = Instant::now();
        self.pushed_out.retain(|at| now.duration_since(*at) < LONG_PAUSE);
        self.pushed_out.push(now);
        if self.pushed_out.len() == CLONE_SUSPECTED {
            tracing::error!(
                node = self.identity.node_id,
                "another program uses this node's identity: was its data-dir copied? Each node must join by itself"
            );
        }
    }

    /// Told once, until it changes.
    pub(super) fn tell_problem(&mut self, problem: &str) {
        if self.problem != problem {
            self.problem = problem.to_owned();
            tracing::warn!("swarm: {problem}");
        }
        self.status
            .send_modify(|status| status.problem = Some(problem.to_owned()));
    }

    pub(super) fn problem_over(&mut self) {
        self.problem.clear();
        self.status.send_modify(|status| status.problem = None);
    }

    /// Waits, and answers meanwhile; false when the daemon is stopping.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => return true,
                command = self.commands.recv() => match command {
                    Some(command) => self.answer_away(command),
                    None => return false,
                },
            }
        }
    }

    fn answer_away(&self, command: AgentCommand) {
        let problem = self.status.borrow().problem.clone().unwrap_or_default();
        let away = || Refused::unavailable(format!("no manager of the swarm answers: {problem}"));
        // Nobody waits for the answer any more when sending it fails.
        let _ = match command {
            AgentCommand::Attach { reply, .. } => reply.send(Err(away())).is_ok(),
            AgentCommand::Detach { reply, .. } => reply.send(Err(away())).is_ok(),
        };
    }

    /// Whether an operator made this node a manager, which it cannot be.
    pub(super) fn is_promoted(&self) -> bool {
        let seen = self.seen.borrow();
        let desired = seen.node.spec.as_ref().map_or(role::WORKER, |spec| spec.desired_role);
        seen.node.role == role::MANAGER || desired == role::MANAGER
    }
}
