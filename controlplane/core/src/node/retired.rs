//! Virtual IPs whose last task is gone: for a while they refuse, so that whoever still uses them is told instead of left waiting.

use crate::time::{Duration, Instant};
use crate::wanted::MapContents;
use std::collections::BTreeMap;
use weft_dataplane::abi::service::POLICY_ROUND_ROBIN;
use weft_dataplane::abi::{Endpoint, Ip, OverlayAddress, Peer, Service, V4, V6};

/// How long. Names do not resolve to such a virtual IP any more; connections that were open, and addresses that a program or a
/// resolver remembers, have ended by then.
const LINGER: Duration = Duration::from_secs(10 * 60);

/// The virtual IPs without tasks that are still answered for.
#[derive(Debug, Default)]
pub(super) struct Retired {
    ipv4: Until<V4>,
    ipv6: Until<V6>,
}

type Until<A> = BTreeMap<OverlayAddress<A>, Instant>;

impl Retired {
    /// Keeps virtual IPs that are present and no longer wanted, without backends, as long as nobody else has their address.
    pub(super) fn add_to(&mut self, now: Instant, wanted: &mut MapContents, present: &MapContents, limit: u32) {
        let networks = &wanted.networks;
        let on_network = |vni: u32| networks.contains_key(&vni);
        let others = (&wanted.endpoints, &wanted.peers);
        keep(
            &mut self.ipv4,
            now,
            &mut wanted.services,
            &present.services,
            others,
            on_network,
            limit,
        );
        let others = (&wanted.endpoints6, &wanted.peers6);
        keep(
            &mut self.ipv6,
            now,
            &mut wanted.services6,
            &present.services6,
            others,
            on_network,
            limit,
        );
    }

    /// When the next is forgotten.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ipv4.values().chain(self.ipv6.values()).min().copied()
    }
}

type OfAddress<A, V> = BTreeMap<OverlayAddress<A>, V>;

fn keep<A: Ip>(
    until: &mut Until<A>,
    now: Instant,
    wanted: &mut OfAddress<A, Service>,
    present: &OfAddress<A, Service>,
    others: (&OfAddress<A, Endpoint>, &OfAddress<A, Peer>),
    on_network: impl Fn(u32) -> bool,
    limit: u32,
) {
    for vip in present.keys().filter(|vip| !wanted.contains_key(vip)) {
        until.entry(*vip).or_insert(now + LINGER);
    }
    until.retain(|vip, until| {
        let taken = wanted.contains_key(vip) || others.0.contains_key(vip) || others.1.contains_key(vip);
        *until > now && !taken && on_network(vip.vni())
    });
    let room = (limit as usize).saturating_sub(wanted.len());
    let refusing = Service {
        backend_count: 0,
        policy: POLICY_ROUND_ROBIN,
        affinity_seconds: 0,
    };
    wanted.extend(until.keys().take(room).map(|vip| (*vip, refusing)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_dataplane::abi::{Network, Peer, mapped};

    const VIP: OverlayAddress = OverlayAddress {
        vni: 4097,
        ip: [10, 0, 1, 2],
    };
    const START: Instant = Instant::ZERO;

    fn contents(backends: Option<u32>) -> MapContents {
        let mut contents = MapContents::default();
        let network = Network {
            gateway: [10, 0, 1, 1],
            gateway_mac: [2; 6],
            prefix_len: 24,
            padding: 0,
        };
        contents.networks.insert(VIP.vni, network);
        let policy = POLICY_ROUND_ROBIN;
        contents.services.extend(backends.map(|backend_count| {
            (
                VIP,
                Service {
                    backend_count,
                    policy,
                    affinity_seconds: 0,
                },
            )
        }));
        contents
    }

    /// The number of backends that the virtual IP is wanted with.
    fn kept(retired: &mut Retired, now: Instant, mut wanted: MapContents, present: &MapContents) -> Option<u32> {
        retired.add_to(now, &mut wanted, present, 100);
        wanted.services.get(&VIP).map(|service| service.backend_count)
    }

    #[test]
    fn a_virtual_ip_without_tasks_refuses_for_a_while() {
        let mut retired = Retired::default();
        let (with, without) = (contents(Some(2)), contents(Some(0)));
        assert_eq!(kept(&mut retired, START, contents(Some(2)), &with), Some(2));
        assert_eq!(retired.next_end(), None);
        assert_eq!(kept(&mut retired, START, contents(None), &with), Some(0));
        assert_eq!(retired.next_end(), Some(START + LINGER));
        let later = START + (LINGER - Duration::from_secs(1));
        assert_eq!(kept(&mut retired, later, contents(None), &without), Some(0));
        assert_eq!(kept(&mut retired, START + LINGER, contents(None), &without), None);
        assert_eq!(retired.next_end(), None);
    }

    #[test]
    fn it_ends_when_tasks_come_back_or_its_address_or_network_goes() {
        let taken = || {
            let mut contents = contents(None);
            let peer = Peer {
                vtep: mapped([192, 168, 0, 2]),
                mac: [2; 6],
                flags: 0,
            };
            contents.peers.insert(VIP, peer);
            contents
        };
        for (wanted, expected) in [
            (contents(Some(1)), Some(1)),
            (taken(), None),
            (MapContents::default(), None),
        ] {
            let mut retired = Retired::default();
            assert_eq!(kept(&mut retired, START, contents(None), &contents(Some(1))), Some(0));
            assert_eq!(kept(&mut retired, START, wanted, &contents(Some(0))), expected);
            assert_eq!(retired.next_end(), None);
        }
    }
}
