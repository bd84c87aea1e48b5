//! The addresses that the managers hold for endpoints of this node: remembered, given back, and told when that is not possible.

use super::Member;
use crate::daemon::Daemon;
use crate::daemon::membership::Membership;
use crate::store::StoredAttachment;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use weft_core::id::EndpointId;
use weft_core::swarm::asked::{Asked, Known, Reserved};

/// A manager that hung may yet do what it was asked; this long after it told something for the last time, it has.
const SETTLED: Duration = Duration::from_secs(30);

impl Daemon {
    pub(super) fn swarm_attachment(&mut self, attachment: StoredAttachment) {
        if let Membership::Swarm(member) = &mut self.membership {
            if let Err(error) = self.store.put_swarm_attachment(&attachment) {
                tracing::error!(%error, "attachment not kept for a restart");
            }
            member.attachments.insert(attachment.endpoint.clone(), attachment);
        }
    }

    /// The managers list all that they hold for this node: what is theirs alone is given back, what is ours alone is gone.
    pub(super) fn swarm_on_record(&mut self, endpoints: Vec<EndpointId>) {
        let Membership::Swarm(member) = &mut self.membership else {
            return;
        };
        for endpoint in &endpoints {
            member.askings.told(endpoint);
        }
        let is_lost = |held: &&StoredAttachment| held.delivered && !endpoints.contains(&held.endpoint);
        let lost = member.attachments.values().filter(is_lost);
        let lost = lost.map(|held| held.endpoint.clone()).collect();
        let mut held: BTreeSet<EndpointId> = member.attachments.keys().cloned().collect();
        held.extend(endpoints);
        let why = "the swarm does not hold its address any more, endpoint disconnected";
        self.let_gone(lost, why);
        self.allocated(held.into_iter().collect());
        self.review_asked();
    }

    /// Gives back what is remembered for endpoints that are no more.
    pub(in crate::daemon) fn release_unheld_in_swarm(&mut self) {
        if let Membership::Swarm(member) = &self.membership {
            let remembered = member.attachments.keys();
            self.allocated(remembered.chain(member.askings.being_given_back()).cloned().collect());
            self.review_asked();
        }
    }

    pub(super) fn swarm_detached(&mut self, endpoint: &EndpointId) {
        if let Membership::Swarm(member) = &mut self.membership
            && member.attachments.remove(endpoint).is_some()
            && let Err(error) = self.store.remove_swarm_attachment(endpoint)
        {
            tracing::error!(%error, "attachment not forgotten");
        }
    }

    pub(super) fn swarm_asking(&mut self, asked: Asked) {
        if let Membership::Swarm(member) = &mut self.membership {
            if let Err(error) = self.store.put_swarm_asked(&asked) {
                tracing::error!(%error, "what is asked of the swarm is not kept for a restart");
            }
            member.askings.begin(asked);
        }
    }

    pub(super) fn swarm_asked(&mut self, endpoint: &EndpointId, answered: bool) {
        if let Membership::Swarm(member) = &mut self.membership
            && member.askings.end(endpoint, answered)
        {
            self.forget_asked(endpoint);
        }
    }

    /// The managers hold an address that they did not hold before. If nobody waits for it, it is given back.
    pub(super) fn swarm_offered(&mut self, endpoint: EndpointId) {
        if let Membership::Swarm(member) = &mut self.membership
            && member.askings.told(&endpoint)
        {
            self.allocated(vec![endpoint]);
        }
    }

    /// The managers do not hold an address any more.
    pub(super) fn swarm_gone(&mut self, endpoint: &EndpointId) {
        if let Membership::Swarm(member) = &mut self.membership
            && member.askings.gone(endpoint)
        {
            self.forget_asked(endpoint);
        }
    }

    pub(super) fn swarm_reserves(&mut self, reserved: Vec<Reserved>) {
        if let Membership::Swarm(member) = &mut self.membership {
            member.reserved = (reserved, Instant::now());
            self.review_asked();
        }
    }

    /// Compares what was asked for with what the managers reserve for this node.
    pub(super) fn review_asked(&mut self) {
        let Membership::Swarm(member) = &mut self.membership else {
            return;
        };
        let status = member.status.borrow().clone();
        if status.manager.is_none() {
            return;
        }
        let (reserved, since) = &member.reserved;
        let connected = |endpoint: &EndpointId| self.endpoints.ids().any(|id| id == endpoint);
        let networks = self.endpoints.networks();
        let review = member.askings.review(&Known {
            reserved,
            in_use: networks.iter().map(|network| network.id.as_str()).collect(),
            remembered: member.attachments.keys().collect(),
            unplaced: member.attachments.keys().any(|endpoint| !connected(endpoint)),
            settled: since.elapsed() >= SETTLED,
            active: status.availability == "active",
        });
        let before: BTreeSet<String> = std::mem::replace(&mut member.held, review.held);
        if !member.held.is_subset(&before) {
            tracing::warn!("swarm: {}", still_held(member));
        }
        for endpoint in &review.forget {
            member.askings.forget(endpoint);
        }
        for endpoint in &review.forget {
            self.forget_asked(endpoint);
        }
    }

    fn forget_asked(&self, endpoint: &EndpointId) {
        if let Err(error) = self.store.remove_swarm_asked(endpoint) {
            tracing::error!(%error, "what was asked of the swarm is not forgotten");
        }
    }
}

/// What an operator can do for it: an active node is told of all that is held for it.
pub(super) fn still_held(member: &Member) -> String {
    let networks: Vec<&str> = member.held.iter().map(String::as_str).collect();
    let node = member.node_id();
    format!(
        "network {}: the managers hold an address whose id this node was never told; `docker node update --availability active {node}` lets weftd give it back, then drain the node again",
        networks.join(", ")
    )
}
