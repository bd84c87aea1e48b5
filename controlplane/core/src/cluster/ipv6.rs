//! IPv6 beside IPv4: a second subnet, in which each address of the first has a partner.
//!
//! An IPv6 address is as far from the start of its subnet as the IPv4 one that it stands beside. So it is taken and released with that
//! one, needs no row of its own, and can be told by looking.

use super::decide::Moment;
use super::refusal::Refusal;
use super::{Ipv6Range, Ipv6Wish, Network, Role, State};
use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The largest subnet, as a prefix length: what is larger is a registry's, not a user's.
const MIN_PREFIX: u8 = 16;

/// What a network gets that names no IPv6 subnet: one link's (RFC 4291 section 2.5.4).
const AUTOMATIC_PREFIX: u8 = 64;

/// Unique local addresses (RFC 4193): `fd`, 40 random bits, and 16 bits for the site's subnets.
const UNIQUE_LOCAL: u128 = 0xfd << 120;
const GLOBAL_ID_SHIFT: u32 = 80;
const GLOBAL_ID_BITS: u64 = (1 << 40) - 1;

impl Network {
    /// The IPv6 address that stands beside an IPv4 address of this network, if it has IPv6.
    pub fn ipv6_of(&self, ip: Ipv4Addr) -> Option<Ipv6Addr> {
        let range = self.ipv6.as_ref().filter(|_| self.subnet.contains(&ip))?;
        let offset = u32::from(ip) - u32::from(self.subnet.network());
        let address = Ipv6Addr::from(u128::from(range.subnet.network()).checked_add(offset.into())?);
        range.subnet.contains(&address).then_some(address)
    }

    /// The same with the prefix length of the subnet.
    pub fn ipv6_net_of(&self, ip: Ipv4Addr) -> Option<Ipv6Net> {
        let prefix_len = self.ipv6.as_ref()?.subnet.prefix_len();
        Ipv6Net::new(self.ipv6_of(ip)?, prefix_len).ok()
    }

    /// The IPv4 address whose partner is the IPv6 gateway: nobody else may have it.
    pub(super) fn beside_ipv6_gateway(&self) -> Option<Ipv4Addr> {
        let range = self.ipv6.as_ref()?;
        let offset = u128::from(range.gateway).checked_sub(u128::from(range.subnet.network()))?;
        let address = u32::from(self.subnet.network()).checked_add(u32::try_from(offset).ok()?)?;
        Some(Ipv4Addr::from(address)).filter(|ip| self.subnet.contains(ip))
    }
}

impl State {
    pub(super) fn choose_ipv6(&self, at: Moment, beside: Ipv4Net, wish: &Ipv6Wish) -> Result<Ipv6Range, Refusal> {
        let subnet = match &wish.subnet {
            Some(text) => self.check_subnet6(text, beside)?,
            None => match wish.gateway {
                Some(gateway) => {
                    return Err(Refusal::invalid(format!(
                        "invalid gateway {gateway}: it should come with the subnet that holds it"
                    )));
                }
                None => self.free_subnet6(at)?,
            },
        };
        let gateway = match wish.gateway {
            Some(gateway) => check_gateway6(subnet, gateway)?,
            None => Ipv6Addr::from(u128::from(subnet.network()) + 1),
        };
        Ok(Ipv6Range { subnet, gateway })
    }

    fn check_subnet6(&self, text: &str, beside: Ipv4Net) -> Result<Ipv6Net, Refusal> {
        let subnet = parse_subnet6(text, beside)?;
        let mut others = self
            .networks
            .values()
            .filter_map(|network| Some((network, network.ipv6.as_ref()?)));
        match others.find(|(_, range)| range.subnet.contains(&subnet) || subnet.contains(&range.subnet)) {
            None => Ok(subnet),
            Some((network, range)) => Err(Refusal::conflict(format!(
                "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps {} of network {}",
                range.subnet, network.name
            ))),
        }
    }

    /// The lowest free /64 of the cluster's own /48.
    fn free_subnet6(&self, at: Moment) -> Result<Ipv6Net, Refusal> {
        let site = UNIQUE_LOCAL | u128::from(self.global_id(at)) << GLOBAL_ID_SHIFT;
        let taken = |subnet: Ipv6Net| {
            let ranges = self.networks.values().filter_map(|network| network.ipv6.as_ref());
            let mut ranges = ranges.filter(|range| range.subnet.contains(&subnet) || subnet.contains(&range.subnet));
            ranges.next().is_some()
        };
        let subnets = (0..=u16::MAX).filter_map(|number| {
            let address = site | u128::from(number) << (128 - AUTOMATIC_PREFIX);
            Ipv6Net::new(address.into(), AUTOMATIC_PREFIX).ok()
        });
        subnets.into_iter().find(|subnet| !taken(*subnet)).ok_or_else(|| {
            Refusal::conflict(format!(
                "no /{AUTOMATIC_PREFIX} is left of {}/48: remove a network or name an IPv6 subnet outside of it",
                Ipv6Addr::from(site)
            ))
        })
    }

    /// 40 bits of this cluster's own: out of its manager's id, which is random; fresh ones while there is no manager.
    fn global_id(&self, at: Moment) -> u64 {
        // FNV-1a.
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let mut managers = self.members.values().filter(|member| member.role == Role::Manager);
        let id = managers
            .next()
            .map_or_else(|| at.new_id(|_| false), |manager| manager.id.clone());
        let hash = id
            .bytes()
            .fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        (hash ^ hash >> 40) & GLOBAL_ID_BITS
    }
}

fn parse_subnet6(text: &str, beside: Ipv4Net) -> Result<Ipv6Net, Refusal> {
    let invalid = |right: String| Refusal::invalid(format!("invalid subnet {text}: it should be {right}"));
    let subnet: Ipv6Net = text
        .parse()
        .map_err(|_| invalid("an IPv6 subnet, as fd00:1::/64".to_owned()))?;
    // Room for as many addresses as the IPv4 subnet has.
    let max = 96 + beside.prefix_len();
    if !(MIN_PREFIX..=max).contains(&subnet.prefix_len()) {
        return Err(invalid(format!(
            "a /{MIN_PREFIX} to /{max}, so that each address of {beside} has one beside it"
        )));
    }
    if subnet.trunc() != subnet {
        return Err(invalid(subnet.trunc().to_string()));
    }
    let first = subnet.addr().segments()[0];
    match first {
        0..=0xff => Err(invalid("outside of ::/8, which is reserved".to_owned())),
        0xfe80..=0xfebf => Err(invalid("outside of fe80::/10, which is every link's own".to_owned())),
        0xff00.. => Err(invalid("outside of ff00::/8, which is multicast".to_owned())),
        _ => Ok(subnet),
    }
}

fn check_gateway6(subnet: Ipv6Net, gateway: Ipv6Addr) -> Result<Ipv6Addr, Refusal> {
    let invalid = |why| {
        Refusal::invalid(format!(
            "invalid gateway {gateway}: it should be a host address of {subnet}, {why}"
        ))
    };
    if !subnet.contains(&gateway) {
        Err(invalid("but is outside"))
    } else if gateway == subnet.network() {
        // RFC 4291 section 2.6.1.
        Err(invalid("but is its anycast address of all routers"))
    } else {
        Ok(gateway)
    }
}
