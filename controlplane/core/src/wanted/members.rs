//! Who the connections of each virtual IP may go to, and when somebody has to be told that it is fewer.

use super::MapContents;
use std::collections::BTreeMap;
use weft_dataplane::abi::{Ip, OverlayAddress, V4, V6};

/// The members of one virtual IP by address: every task of the service that there is, and whether it takes new connections. One that
/// does not is draining: it keeps those that it has.
pub type MembersOf<A> = BTreeMap<A, bool>;

/// The members of every virtual IP of the networks that a node takes part in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// By virtual IP. One without members is one whose service is gone.
    pub ipv4: BTreeMap<OverlayAddress<V4>, MembersOf<V4>>,
    /// The same of IPv6.
    pub ipv6: BTreeMap<OverlayAddress<V6>, MembersOf<V6>>,
}

impl Members {
    /// Whether connections may have to go because of what came after: a virtual IP or a member of it is gone, or one began to drain.
    pub fn lost_something(&self, now: &Members) -> bool {
        lost_something(&self.ipv4, &now.ipv4) || lost_something(&self.ipv6, &now.ipv6)
    }

    /// With those virtual IPs that are in the maps and have no service any more, to refuse: they have no members.
    pub fn with_refusing(mut self, contents: &MapContents) -> Members {
        for vip in contents.services.keys() {
            self.ipv4.entry(*vip).or_default();
        }
        for vip in contents.services6.keys() {
            self.ipv6.entry(*vip).or_default();
        }
        self
    }
}

fn lost_something<A: Ip>(
    before: &BTreeMap<OverlayAddress<A>, MembersOf<A>>,
    now: &BTreeMap<OverlayAddress<A>, MembersOf<A>>,
) -> bool {
    before.iter().any(|(vip, before)| {
        let Some(now) = now.get(vip) else { return true };
        let closed = |(address, was_open): (&A, &bool)| match now.get(address) {
            Some(is_open) => *was_open && !is_open,
            None => true,
        };
        before.iter().any(closed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: OverlayAddress = OverlayAddress {
        vni: 4097,
        ip: [10, 0, 1, 2],
    };

    fn members(of_vip: Option<&[(u8, bool)]>) -> Members {
        let of = |members: &[(u8, bool)]| members.iter().map(|(last, open)| ([10, 0, 1, *last], *open)).collect();
        Members {
            ipv4: of_vip.map(|members| (VIP, of(members))).into_iter().collect(),
            ..Members::default()
        }
    }

    #[test]
    fn a_loss_is_a_member_that_goes_or_drains_or_a_virtual_ip_that_goes() {
        let before = members(Some(&[(3, true), (4, false)]));
        for (now, lost) in [
            (Some(&[(3, true), (4, false)][..]), false),
            (Some(&[(3, true), (4, true), (5, true)]), false),
            (Some(&[(3, false), (4, false)]), true),
            (Some(&[(3, true)]), true),
            (Some(&[]), true),
            (None, true),
        ] {
            assert_eq!(before.lost_something(&members(now)), lost, "{now:?}");
        }
        assert!(!members(None).lost_something(&before));
    }
}
