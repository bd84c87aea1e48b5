//! Never twice, all of them, and again after release.

use super::*;
use crate::id::Vni;
use ipnet::Ipv4Net;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn take_next(addresses: &mut Addresses) -> Option<Ipv4Addr> {
    let next = addresses.next()?;
    addresses.take(next).unwrap();
    addresses.advance_past(next);
    Some(next)
}

#[test]
fn pools_are_cut_from_the_lowest_free_block() {
    let pools = Pools::new(vec![net("10.0.0.0/8")], 24).unwrap();
    let free = |taken: &[&str]| {
        let taken: BTreeSet<_> = taken.iter().map(|t| net(t)).collect();
        pools.lowest_free(24, || taken.iter()).map(|n| n.to_string())
    };
    assert_eq!(free(&[]).as_deref(), Some("10.0.0.0/24"));
    assert_eq!(free(&["10.0.0.0/24", "10.0.2.0/24"]).as_deref(), Some("10.0.1.0/24"));
    assert_eq!(
        free(&["9.0.0.0/8", "10.0.0.0/24", "10.0.1.128/25"]).as_deref(),
        Some("10.0.2.0/24")
    );
    assert_eq!(
        free(&["10.0.0.0/9", "192.168.0.0/16"]).as_deref(),
        Some("10.128.0.0/24")
    );
    assert_eq!(free(&["10.0.0.0/8"]), None);
    assert_eq!(free(&["0.0.0.0/1"]), None);
}

#[test]
fn the_next_pool_is_used_when_the_first_is_full_and_a_full_top_does_not_overflow() {
    let pools = Pools::new(vec![net("255.255.255.0/24"), net("10.1.0.0/23")], 24).unwrap();
    let mut taken = BTreeSet::new();
    while let Some(free) = pools.lowest_free(24, || taken.iter()) {
        assert!(taken.insert(free));
    }
    assert_eq!(
        taken,
        [net("10.1.0.0/24"), net("10.1.1.0/24"), net("255.255.255.0/24")].into()
    );
    assert_eq!(pools.lowest_free(23, || [].iter()), Some(net("10.1.0.0/23")));
    assert_eq!(pools.lowest_free(8, || [].iter()), None);
}

#[test]
fn pools_that_cannot_work_are_refused() {
    let refused = |pools: &[&str], mask| {
        Pools::new(pools.iter().map(|p| net(p)).collect(), mask)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(&[], 24),
        "no address pool given: at least one is needed, as 10.0.0.0/8"
    );
    assert_eq!(
        refused(&["10.0.0.0/8"], 30),
        "subnet size is out of range: 30: it should be a prefix length from 1 to 29"
    );
    assert_eq!(
        refused(&["10.0.0.1/8"], 24),
        "invalid CIDR: \"10.0.0.1/8\": it should be 10.0.0.0/8"
    );
    assert_eq!(
        refused(&["10.0.0.0/25"], 24),
        "invalid CIDR: \"10.0.0.0/25\". Subnet size is too small for pool: 24: it should be at least 25"
    );
    let nested = Pools::new(vec![net("10.1.0.0/16"), net("10.0.0.0/8"), net("11.0.0.0/8")], 24).unwrap();
    assert_eq!(nested.pools(), [net("10.0.0.0/8"), net("11.0.0.0/8")]);
}

#[test]
fn network_and_broadcast_address_are_nobodys() {
    let mut addresses = Addresses::new(net("10.0.1.0/29"));
    assert_eq!(addresses.take(ip("10.0.1.0")), Err(Unavailable::Network));
    assert_eq!(addresses.take(ip("10.0.1.7")), Err(Unavailable::Broadcast));
    assert_eq!(addresses.take(ip("10.0.2.1")), Err(Unavailable::OutOfRange));
    assert_eq!(addresses.take(ip("10.0.1.1")), Ok(()));
    assert_eq!(addresses.take(ip("10.0.1.1")), Err(Unavailable::Taken));
    assert!(!addresses.release(ip("10.0.1.0")) && !addresses.release(ip("1.2.3.4")));
    assert_eq!((addresses.used(), addresses.capacity()), (1, 6));
}

#[test]
fn a_released_address_is_used_again_only_after_the_others() {
    let mut addresses = Addresses::new(net("10.0.1.0/29"));
    assert_eq!(take_next(&mut addresses), Some(ip("10.0.1.1")));
    assert_eq!(take_next(&mut addresses), Some(ip("10.0.1.2")));
    assert!(addresses.release(ip("10.0.1.1")));
    let rest: Vec<_> = std::iter::from_fn(|| take_next(&mut addresses))
        .map(|a| a.octets()[3])
        .collect();
    assert_eq!(rest, [3, 4, 5, 6, 1]);
    assert_eq!(addresses.next(), None);
}

#[test]
fn the_choice_wraps_when_only_earlier_addresses_are_left() {
    let mut addresses = Addresses::new(net("10.0.1.0/29"));
    addresses.take(ip("10.0.1.5")).unwrap();
    addresses.take(ip("10.0.1.6")).unwrap();
    addresses.advance_past(ip("10.0.1.4"));
    assert_eq!(addresses.next(), Some(ip("10.0.1.1")));
}

#[test]
fn a_huge_subnet_costs_little_until_it_is_used() {
    let mut addresses = Addresses::new(net("10.0.0.0/8"));
    assert_eq!(addresses.capacity(), 16_777_214);
    addresses.take(ip("10.255.255.254")).unwrap();
    addresses.advance_past(ip("10.255.255.254"));
    assert_eq!(take_next(&mut addresses), Some(ip("10.0.0.1")));
    assert_eq!(
        format!("{addresses:?}").matches('[').count(),
        2,
        "two chunks: {addresses:?}"
    );
}

#[test]
fn subnets_without_host_addresses_have_none() {
    for text in ["10.0.0.0/31", "10.0.0.0/32"] {
        assert_eq!(Addresses::new(net(text)).next(), None, "{text}");
    }
}

#[test]
fn vnis_go_up_serially_and_wrap() {
    let vni = |n| Vni::new(n).unwrap();
    let mut vnis = Vnis::default();
    assert_eq!(vnis.next(), Some(vni(4096)));
    assert!(vnis.take(vni(4096)) && !vnis.take(vni(4096)));
    assert!(vnis.take(vni(7)), "explicit ones may be below the automatic range");
    assert_eq!(vnis.next(), Some(vni(4097)));
    assert!(vnis.take(vni(4097)) && vnis.release(vni(4097)));
    assert_eq!(vnis.next(), Some(vni(4098)), "a released one is used late");
    assert!(vnis.take(vni(Vni::MAX)));
    assert_eq!(vnis.next(), Some(vni(4097)), "wraps past what is taken");
}

proptest! {
    #[test]
    fn every_address_is_handed_out_exactly_once(base in any::<u32>(), prefix in 20..=30u8, skip in any::<u32>()) {
        let subnet = Ipv4Net::new(base.into(), prefix).unwrap().trunc();
        let mut addresses = Addresses::new(subnet);
        addresses.advance_past((u32::from(subnet.network()) | (skip & u32::from(subnet.hostmask()))).into());
        let got: Vec<_> = std::iter::from_fn(|| take_next(&mut addresses)).collect();
        let distinct: BTreeSet<_> = got.iter().copied().collect();
        prop_assert_eq!(distinct.len(), got.len());
        prop_assert_eq!(distinct, subnet.hosts().collect::<BTreeSet<_>>());
        prop_assert_eq!(addresses.used(), addresses.capacity());
    }

    #[test]
    fn the_bitmap_agrees_with_a_set(steps in proptest::collection::vec((0..3u8, 0..1200u32), 0..300)) {
        let subnet = net("10.3.0.0/22");
        let mut addresses = Addresses::new(subnet);
        let mut model = BTreeSet::new();
        for (step, offset) in steps {
            let address = Ipv4Addr::from(u32::from(subnet.network()) + offset);
            match step {
                0 => {
                    let host = (1..1023).contains(&offset);
                    prop_assert_eq!(addresses.take(address).is_ok(), host && model.insert(address));
                }
                1 => prop_assert_eq!(addresses.release(address), model.remove(&address)),
                _ => prop_assert_eq!(take_next(&mut addresses).map(|a| model.insert(a)), (model.len() < 1022).then_some(true)),
            }
            prop_assert_eq!(addresses.used() as usize, model.len());
        }
        for address in subnet.hosts() {
            prop_assert_eq!(addresses.check(address).is_err(), model.contains(&address));
        }
    }

    #[test]
    fn automatic_subnets_never_overlap(explicit in proptest::collection::btree_set((0..64u32, 22..=27u8), 0..6)) {
        let pools = Pools::new(vec![net("10.0.0.0/20")], 24).unwrap();
        let mut taken: BTreeSet<Ipv4Net> = BTreeSet::new();
        for (block, prefix) in explicit {
            let wish = Ipv4Net::new((0x0a00_0000 + block * 64).into(), prefix).unwrap().trunc();
            if !taken.iter().any(|t| t.contains(&wish) || wish.contains(t)) {
                taken.insert(wish);
            }
        }
        while let Some(free) = pools.lowest_free(24, || taken.iter()) {
            prop_assert!(pools.pools()[0].contains(&free));
            prop_assert!(!taken.iter().any(|t| t.contains(&free) || free.contains(t)));
            taken.insert(free);
        }
        for block in pools.pools()[0].subnets(24).unwrap() {
            prop_assert!(taken.iter().any(|t| t.contains(&block) || block.contains(t)), "{} was left over", block);
        }
    }
}
