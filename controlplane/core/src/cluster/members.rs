//! Letting nodes in, and seeing them off.

use super::decide::{Decided, Moment};
use super::refusal::Refusal;
use super::{Change, Member, Reply, Role, State, check, index};
use std::net::IpAddr;

/// The most members of a cluster: every node still has room for all others in its maps.
pub const MAX_MEMBERS: usize = weft_dataplane::abi::node::MAX_ENTRIES as usize;

impl State {
    pub(super) fn add_member(&self, at: Moment, name: &str, address: IpAddr, role: Role) -> Decided {
        check::name("node name", name, check::MAX_NAME)?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(Refusal::invalid(format!(
                "invalid address {address} of node {name}: it should be one that other nodes can reach"
            )));
        }
        let id = match self.member_named(name) {
            Some(old) if old.address == address => old.id.clone(),
            Some(old) => {
                return Err(Refusal::conflict(format!(
                    "node {name} is already a member at {}: remove it before it joins at {address}, or choose another name",
                    old.address
                )));
            }
            None if self.members.len() >= MAX_MEMBERS => {
                return Err(Refusal::conflict(format!(
                    "node {name} cannot join: there are {MAX_MEMBERS} members, the most that are possible"
                )));
            }
            None => at.new_id(|id| self.members.contains_key(id)),
        };
        let member = Member {
            id,
            name: name.to_owned(),
            address,
            role,
            joined: at.now,
        };
        Ok((Reply::Member(member.clone()), vec![Change::PutMember(member)]))
    }

    pub(super) fn remove_member(&self, text: &str) -> Decided {
        let Some(member) = self.members.get(text).or_else(|| self.member_named(text)) else {
            return Err(Refusal::not_found(format!("node {text} not found")));
        };
        let held = self.index.nodes.get(&index::key(&member.name)).into_iter().flatten();
        let mut changes: Vec<Change> = held.cloned().map(Change::RemoveAllocation).collect();
        changes.push(Change::RemoveMember(member.id.clone()));
        Ok((Reply::Done, changes))
    }

    pub(super) fn members_by_name(&self) -> Vec<Member> {
        let mut members: Vec<_> = self.members.values().cloned().collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    fn member_named(&self, name: &str) -> Option<&Member> {
        self.index
            .members
            .get(&index::key(name))
            .and_then(|id| self.members.get(id))
    }
}
