//! Letting nodes into the cluster: who presents the join token becomes a member.

use super::membership::{Manager, Membership, outside};
use super::{Admission, Daemon, Refused};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use weft_core::cluster::{Member, Reply, Request, Role};

impl Daemon {
    /// A node presents the token's secret: it becomes a member, and its certificate is signed.
    pub(super) fn admit(
        &mut self,
        secret: &str,
        name: String,
        address: IpAddr,
        csr: &str,
    ) -> Result<Admission, Refused> {
        let gossip_port = self.config.gossip_port;
        let gossip: Vec<String> = self
            .node
            .peers()
            .into_iter()
            .map(|(_, ip)| SocketAddr::new(ip, gossip_port).to_string())
            .collect();
        let live = self.live_addresses();
        let Membership::Manager(manager) = &mut self.membership else {
            return Err(outside());
        };
        manager.check_secret(secret)?;
        let dead = manager.dead_member_at(&name, address, &live)?;
        let certificate = manager.authority.sign(csr, &name).map_err(Refused::invalid)?;
        match manager.answer(&Request::MemberAdd {
            name,
            address,
            role: Role::Worker,
        })? {
            Reply::Member(member) => {
                if let Some(dead) = dead {
                    tracing::info!(node = member.name, removed = dead, %address, "a node joined at the address of a dead one");
                    manager.answer(&Request::MemberRemove { name: dead })?;
                }
                tracing::info!(node = member.name, %address, "node joined the cluster");
                Ok(Admission {
                    certificate,
                    gossip,
                    member,
                    keys: manager.keys.set(),
                })
            }
            other => Err(Refused::failed(format!(
                "a member was to be added, the answer is {other:?}"
            ))),
        }
    }
}

impl Manager {
    fn check_secret(&self, secret: &str) -> Result<(), Refused> {
        let is = |known: &str| constant_time_equal(secret.as_bytes(), known.as_bytes());
        if is(&self.secrets.join_secret) {
            return Ok(());
        }
        let why = if self.secrets.replaced_secret.as_deref().is_some_and(is) {
            "it was replaced by `weft cluster join-token --rotate`"
        } else {
            "its secret is wrong"
        };
        Err(Refused::invalid(format!(
            "the join token is not valid for this cluster: {why}; `weft cluster join-token` on the manager prints the right one"
        )))
    }

    /// Another member at the same address: refused while it is live, else its place is taken once the new one is in.
    fn dead_member_at(&self, name: &str, address: IpAddr, live: &BTreeSet<IpAddr>) -> Result<Option<String>, Refused> {
        let other = |member: &&Member| member.address == address && !member.name.eq_ignore_ascii_case(name);
        let other = self.members().find(other).map(|member| member.name.clone());
        match other {
            Some(other) if live.contains(&address) => Err(Refused::conflict(format!(
                "node {name} cannot join at {address}: node {other} is live at that address; give each node an advertise-addr of its own, or `weft cluster leave` on {other} first"
            ))),
            other => Ok(other),
        }
    }
}

/// Takes as long for a nearly right secret as for a wrong one.
fn constant_time_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
