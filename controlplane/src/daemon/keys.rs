//! The cluster's gossip keys: the manager hands them out and replaces them, a worker follows.

use super::follow::follow;
use super::membership::{Manager, Membership, in_swarm, outside, refused, unix_nanos};
use super::{Command, Daemon, Handle, KeysCommand, Refused, ReplyTo};
use crate::cluster::JoinToken;
use crate::cluster::client::ManagerClient;
use crate::store::NodeStore;
use std::sync::Arc;
use tokio::task::JoinHandle;
use weft_core::cluster::keys::{GossipKeys, KEY_BYTES, KeyRow, KeySet, KeysView, Phase};
use weft_core::cluster::{Member, Role};
use weft_core::networkdb::{Key, Keyring};
use weft_core::time::Instant;

/// The manager's keys, and who waits for others.
pub(super) struct ManagerKeys {
    keys: GossipKeys,
    waiting: Vec<Waiting>,
}

/// A node that holds the present keys and waits for others.
struct Waiting {
    node: String,
    reply: ReplyTo<Result<KeySet, Refused>>,
}

impl ManagerKeys {
    /// The stored keys; a cluster without gets some.
    pub(super) fn restore(store: &NodeStore, now: Instant) -> Result<ManagerKeys, Refused> {
        match store.key_row().map_err(Refused::failed)? {
            None => ManagerKeys::create(store, now, None),
            Some(row) => {
                let wall = unix_nanos();
                let keys = GossipKeys::load(now, wall, row.clone());
                if *keys.row() != row {
                    tracing::warn!(
                        "the clock is behind the last rotation of the gossip keys, it was set back: the next one is in 12 hours"
                    );
                    store.put_key_row(keys.row()).map_err(Refused::failed)?;
                }
                if keys.row().phase() != Phase::Settled {
                    tracing::info!(
                        phase = keys.row().phase().as_str(),
                        "rotation of the gossip keys goes on"
                    );
                }
                Ok(ManagerKeys {
                    keys,
                    waiting: Vec::new(),
                })
            }
        }
    }

    /// The keys of a new cluster, with this one as the primary.
    pub(super) fn create(store: &NodeStore, now: Instant, primary: Option<Key>) -> Result<ManagerKeys, Refused> {
        let [fresh, reserve] = fresh_keys()?;
        let keys = GossipKeys::create(now, unix_nanos(), primary.unwrap_or(fresh), reserve);
        store.put_key_row(keys.row()).map_err(Refused::failed)?;
        Ok(ManagerKeys {
            keys,
            waiting: Vec::new(),
        })
    }

    /// What every node should hold.
    pub(super) fn set(&self) -> KeySet {
        self.keys.set()
    }

    /// The store takes the row, then it holds here.
    fn take(&mut self, store: &NodeStore, now: Instant, row: KeyRow) -> Result<(), Refused> {
        store.put_key_row(&row).map_err(Refused::failed)?;
        self.keys.apply(now, row);
        let set = self.keys.set();
        tracing::info!(
            version = set.version,
            phase = self.keys.row().phase().as_str(),
            primary = set.keyring().keys().first().map(Key::fingerprint),
            "gossip keys"
        );
        Ok(())
    }
}

/// A worker's keys, and the task that keeps them current.
pub(super) struct WorkerKeys {
    set: Option<KeySet>,
    follower: JoinHandle<()>,
}

impl WorkerKeys {
    pub(super) fn follow(set: Option<KeySet>, client: Arc<ManagerClient>, handle: Handle) -> WorkerKeys {
        let applied = set.as_ref().map(|set| set.version);
        WorkerKeys {
            set,
            // Asking acknowledges.
            follower: tokio::spawn(follow(
                applied,
                "gossip keys not asked for; the stored ones stay in use",
                move |applied| {
                    let client = client.clone();
                    async move {
                        let set = client.keys(applied).await?;
                        Ok(set.map(|set| (set.version, set)))
                    }
                },
                move |set| {
                    let handle = handle.clone();
                    async move {
                        handle
                            .ask(|reply| Command::Keys(KeysCommand::Changed(set, reply)))
                            .await
                    }
                },
            )),
        }
    }
}

impl Drop for WorkerKeys {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

fn fresh_keys() -> Result<[Key; 2], Refused> {
    Ok([fresh_key()?, fresh_key()?])
}

fn fresh_key() -> Result<Key, Refused> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Refused::failed(format!("no random bytes from the kernel: {error}")))?;
    Key::new(&bytes).map_err(Refused::failed)
}

impl Manager {
    /// Whoever waits for other keys gets them, unless it was removed meanwhile.
    fn hand_out_keys(&mut self) {
        let set = self.keys.set();
        for Waiting { node, reply } in std::mem::take(&mut self.keys.waiting) {
            let answer = if self.is_member(&node) {
                Ok(set.clone())
            } else {
                Err(removed(&node))
            };
            // Who waits no longer asks again.
            let _ = reply.send(answer);
        }
    }
}

pub(super) fn removed(node: &str) -> Refused {
    Refused::invalid(format!("node {node} was removed from the cluster"))
}

impl Membership {
    /// What this node seals its gossip with. Outside of a cluster it gossips in the clear, as Docker's engines outside of a swarm.
    pub(super) fn keyring(&self) -> Keyring {
        let set = match self {
            Membership::Swarm(member) => return member.keyring(),
            Membership::Outside => None,
            Membership::Worker(worker) => worker.keys.set.clone(),
            Membership::Manager(manager) => Some(manager.keys.set()),
        };
        set.map(|set| set.keyring()).unwrap_or_default()
    }
}

impl Daemon {
    pub(super) fn keys(&mut self, command: KeysCommand) {
        // Nobody waits for the answer any more when sending it fails.
        let _ = match command {
            KeysCommand::Follow { node, applied, reply } => {
                self.follow_keys(&node, applied, reply);
                true
            }
            KeysCommand::Changed(set, reply) => reply.send(self.keys_changed(set)).is_ok(),
            KeysCommand::Rotate(wanted, reply) => reply.send(self.rotate_keys(wanted)).is_ok(),
            KeysCommand::View(reply) => reply.send(self.keys_view()).is_ok(),
            KeysCommand::RotateToken(reply) => reply.send(self.rotate_token()).is_ok(),
        };
    }

    /// The node's keyring follows its place in the cluster.
    pub(super) fn set_keyring(&mut self) {
        let now = self.now();
        self.node.set_keyring(now, self.membership.keyring());
    }

    /// Another node holds this version and waits for another one.
    fn follow_keys(&mut self, node: &str, applied: Option<u64>, reply: ReplyTo<Result<KeySet, Refused>>) {
        let now = self.now();
        let Membership::Manager(manager) = &mut self.membership else {
            let _ = reply.send(Err(outside()));
            return;
        };
        if !manager.is_member(node) {
            let _ = reply.send(Err(removed(node)));
            return;
        }
        if let Some(version) = applied {
            manager.keys.keys.acknowledge(now, node, version);
        }
        let set = manager.keys.set();
        if applied == Some(set.version) {
            manager.keys.waiting.retain(|waiting| !waiting.reply.is_closed());
            let node = node.to_owned();
            manager.keys.waiting.push(Waiting { node, reply });
        } else {
            let _ = reply.send(Ok(set));
        }
    }

    /// The manager's set is another one: it is in use and on disk when this returns true.
    fn keys_changed(&mut self, set: KeySet) -> bool {
        let Membership::Worker(worker) = &mut self.membership else {
            return false;
        };
        if let Err(error) = self.store.put_key_set(&set) {
            tracing::error!(%error, "gossip keys not stored, and not used");
            return false;
        }
        tracing::debug!(version = set.version, "gossip keys of the manager");
        worker.keys.set = Some(set);
        self.set_keyring();
        // With the old keys the others could not be understood.
        if self.node.peers().len() < 2
            && let Membership::Worker(worker) = &self.membership
        {
            let peers = worker.identity.gossip_peers.clone();
            self.join_remembered(&peers);
        }
        true
    }

    fn rotate_keys(&mut self, wanted: Option<Key>) -> Result<KeysView, Refused> {
        self.must_be_manager("`weft cluster rotate-keys`")?;
        let now = self.now();
        let Membership::Manager(manager) = &mut self.membership else {
            return Err(outside());
        };
        let row = manager
            .keys
            .keys
            .rotate(unix_nanos(), wanted, fresh_keys()?)
            .map_err(refused)?;
        manager.keys.take(&self.store, now, row)?;
        manager.hand_out_keys();
        self.set_keyring();
        self.keys_view()
    }

    /// The next phase of a rotation, or the next rotation, if it is time.
    pub(super) fn advance_keys(&mut self) {
        let now = self.now();
        let Membership::Manager(manager) = &mut self.membership else {
            return;
        };
        if let Some(node) = manager.removed.take() {
            tracing::info!(node, "no member any more: the gossip keys that it knows are replaced");
            if let Err(error) = self.store.put_key_row(manager.keys.keys.shut_out()) {
                tracing::error!(%error, "not stored that the gossip keys are to be replaced");
            }
        }
        let keys = &manager.keys.keys;
        let row = if keys.is_due(now) {
            match fresh_keys() {
                Ok(fresh) => keys.rotate_if_due(now, unix_nanos(), fresh),
                Err(error) => {
                    tracing::error!(%error, "gossip keys not rotated");
                    return self.postpone_keys(now);
                }
            }
        } else if keys.wants_look(now) {
            let members = self.other_members();
            let Membership::Manager(manager) = &mut self.membership else {
                return;
            };
            let step = manager.keys.keys.advance(now, &members);
            if let Some(warning) = step.as_ref().and_then(|step| step.warning()) {
                tracing::warn!("{warning}");
            }
            step.map(|step| step.row)
        } else {
            None
        };
        let (Some(row), Membership::Manager(manager)) = (row, &mut self.membership) else {
            return;
        };
        match manager.keys.take(&self.store, now, row) {
            Ok(()) => {
                manager.hand_out_keys();
                self.set_keyring();
            }
            Err(error) => {
                tracing::error!(%error, "rotation of the gossip keys does not go on");
                self.postpone_keys(now);
            }
        }
    }

    fn postpone_keys(&mut self, now: Instant) {
        if let Membership::Manager(manager) = &mut self.membership {
            manager.keys.keys.postpone(now);
        }
    }

    /// When [`advance_keys`](Self::advance_keys) wants to be called.
    pub(super) fn keys_timeout(&self) -> Option<Instant> {
        match &self.membership {
            Membership::Manager(manager) => Some(manager.keys.keys.poll_timeout()),
            _ => None,
        }
    }

    /// The cluster's other members, and whether the gossip sees them.
    fn other_members(&self) -> Vec<(String, bool)> {
        let Membership::Manager(manager) = &self.membership else {
            return Vec::new();
        };
        let live = self.live_addresses();
        let worker = |member: &&Member| member.role == Role::Worker;
        let members = manager.members().filter(worker);
        members
            .map(|member| (member.name.clone(), live.contains(&member.address)))
            .collect()
    }

    fn keys_view(&self) -> Result<KeysView, Refused> {
        match &self.membership {
            Membership::Outside => Err(outside()),
            Membership::Swarm(_) => Err(in_swarm()),
            Membership::Manager(manager) => Ok(manager.keys.keys.view(self.now(), &self.other_members())),
            Membership::Worker(worker) => match &worker.keys.set {
                Some(set) => Ok(KeysView::of_worker(set)),
                None => Err(Refused::unavailable(
                    "this node has no gossip keys from its manager yet",
                )),
            },
        }
    }

    /// From now on only the new token lets nodes in.
    fn rotate_token(&mut self) -> Result<String, Refused> {
        self.must_be_manager("`weft cluster join-token --rotate`")?;
        let Membership::Manager(manager) = &mut self.membership else {
            return Err(outside());
        };
        let mut secrets = manager.secrets.clone();
        let old = std::mem::replace(
            &mut secrets.join_secret,
            JoinToken::new_secret().map_err(Refused::failed)?,
        );
        secrets.replaced_secret = Some(old);
        self.store
            .put_identity(&manager.identity, Some(&secrets))
            .map_err(Refused::failed)?;
        manager.secrets = secrets;
        tracing::info!("join token replaced, the old one lets nobody in");
        self.cluster_token()
    }

    fn must_be_manager(&self, what: &str) -> Result<(), Refused> {
        match &self.membership {
            Membership::Manager(_) => Ok(()),
            Membership::Swarm(_) => Err(in_swarm()),
            Membership::Outside => Err(outside()),
            Membership::Worker(worker) => Err(Refused::invalid(format!(
                "this node is not the manager; run {what} on {}",
                worker.identity.manager
            ))),
        }
    }
}
