//! The settings of services, on the nodes of their tasks: the manager hands them out, and each node publishes them with its tasks.

use super::follow::follow;
use super::keys::removed;
use super::membership::{Membership, outside};
use super::{Command, Daemon, Handle, Refused, ReplyTo, SettingsCommand};
use crate::cluster::client::ManagerClient;
use std::sync::Arc;
use tokio::task::JoinHandle;
use weft_core::cluster::settings::Settings;

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
            follower: tokio::spawn(follow(
                None,
                "settings of services not asked for; those of the last time stay in force",
                move |version| {
                    let client = client.clone();
                    async move {
                        let settings = client.settings(version).await?;
                        Ok(settings.map(|settings| (settings.version, settings)))
                    }
                },
                move |settings| {
                    let handle = handle.clone();
                    async move {
                        let taken = |reply| Command::Settings(SettingsCommand::Changed(settings, reply));
                        handle.ask(taken).await
                    }
                },
            )),
        }
    }
}

impl Drop for WorkerSettings {
    fn drop(&mut self) {
        self.follower.abort();
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
