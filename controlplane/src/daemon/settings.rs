//! The settings of services, on the nodes of their tasks: the manager hands them out, and each node publishes them with its tasks.

use super::keys::{RETRY, RETRY_AT_MOST, removed};
use super::membership::{Membership, outside};
use super::{Command, Daemon, Handle, Refused, RefusedKind, ReplyTo, SettingsCommand};
use crate::cluster::client::ManagerClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use weft_core::cluster::settings::Settings;

/// How soon a worker asks again whose manager is of a version that has no settings to tell.
const RETRY_OLDER: Duration = Duration::from_secs(60);

/// A node that holds the settings of this version and waits for others.
pub(super) struct Waiting {
    node: String,
    version: u64,
    reply: ReplyTo<Result<Settings, Refused>>,
}

/// A worker's settings, and the task that keeps them current.
pub(super) struct WorkerSettings {
    settings: Settings,
    follower: JoinHandle<()>,
}

impl WorkerSettings {
    pub(super) fn follow(client: Arc<ManagerClient>, handle: Handle) -> WorkerSettings {
        WorkerSettings {
            settings: Settings::default(),
            follower: tokio::spawn(follow(client, handle)),
        }
    }
}

impl Drop for WorkerSettings {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Asks the manager for other settings than the last ones, again and again; at first for whatever they are now.
async fn follow(client: Arc<ManagerClient>, handle: Handle) {
    let mut version = None;
    let mut retry = RETRY;
    let mut away = false;
    loop {
        match client.settings(version).await {
            Ok(None) => {}
            Ok(Some(settings)) => {
                let next = settings.version;
                let taken = handle
                    .ask(|reply| Command::Settings(SettingsCommand::Changed(settings, reply)))
                    .await;
                match taken {
                    Some(true) => version = Some(next),
                    Some(false) => tokio::time::sleep(RETRY_AT_MOST).await,
                    None => return,
                }
            }
            Err(error) => {
                if !away {
                    tracing::warn!(%error, "settings of services not asked for; those of the last time stay in force");
                }
                away = true;
                let is_older = error.kind == RefusedKind::NotFound;
                tokio::time::sleep(if is_older { RETRY_OLDER } else { retry }).await;
                retry = (retry * 2).min(RETRY_AT_MOST);
                continue;
            }
        }
        away = false;
        retry = RETRY;
    }
}

impl Daemon {
    pub(super) fn settings(&mut self, command: SettingsCommand) {
        match command {
            SettingsCommand::Follow { node, version, reply } => self.follow_settings(node, version, reply),
            SettingsCommand::Changed(settings, reply) => {
                let taken = self.take_settings(&settings);
                if let Membership::Worker(worker) = &mut self.membership {
                    worker.settings.settings = settings;
                }
                // The follower may have ended meanwhile.
                let _ = reply.send(taken);
            }
        }
    }

    /// Another node holds this version and waits for another one.
    fn follow_settings(&mut self, node: String, version: Option<u64>, reply: ReplyTo<Result<Settings, Refused>>) {
        let Membership::Manager(manager) = &mut self.membership else {
            let _ = reply.send(Err(outside()));
            return;
        };
        if !manager.is_member(&node) {
            let _ = reply.send(Err(removed(&node)));
            return;
        }
        match version.filter(|version| *version == manager.state().settings_version(&node)) {
            Some(version) => {
                let waiting = &mut manager.waiting_for_settings;
                waiting.retain(|waiting| !waiting.reply.is_closed());
                waiting.push(Waiting { node, version, reply });
            }
            None => {
                let _ = reply.send(Ok(manager.state().settings_of(&node)));
            }
        }
    }

    /// A service was changed here: this node's tasks follow, and the nodes that wait for it are told.
    pub(super) fn service_changed(&mut self) {
        self.take_own_settings();
        let Membership::Manager(manager) = &mut self.membership else {
            return;
        };
        for waiting in std::mem::take(&mut manager.waiting_for_settings) {
            let Waiting { node, version, reply } = waiting;
            if !manager.is_member(&node) {
                let _ = reply.send(Err(removed(&node)));
            } else if manager.state().settings_version(&node) != version {
                // Who waits no longer asks again.
                let _ = reply.send(Ok(manager.state().settings_of(&node)));
            } else {
                manager.waiting_for_settings.push(Waiting { node, version, reply });
            }
        }
    }

    /// What this node, as the manager, says of its own tasks.
    pub(super) fn take_own_settings(&mut self) {
        if let Membership::Manager(manager) = &self.membership {
            let settings = manager.state().settings_of(&self.config.node_name);
            self.take_settings(&settings);
        }
    }

    /// What is known of the services of this node's tasks.
    pub(super) fn present_settings(&self) -> Settings {
        match &self.membership {
            Membership::Outside | Membership::Swarm(_) => Settings::default(),
            Membership::Worker(worker) => worker.settings.settings.clone(),
            Membership::Manager(manager) => manager.state().settings_of(&self.config.node_name),
        }
    }
}
