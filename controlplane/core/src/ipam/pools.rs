//! Where subnets come from when the user names none.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The pool of a cluster that chose none (`spec/ipam.md` 6.1).
pub const DEFAULT_POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

/// Prefix length of the subnets that a pool is cut into, unless chosen (`spec/ipam.md` 6.1).
pub const DEFAULT_POOL_MASK: u8 = 24;

/// The smallest subnet, as a prefix length: gateway, VIP and two tasks need more than the two addresses of a /30 (`spec/ipam.md` 6.1).
pub const MAX_POOL_MASK: u8 = 29;

/// The most pools of a cluster. Each is looked through for every new network; a hand-written list is far shorter.
const MAX_POOLS: usize = 256;

/// Why pools cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPools {
    /// There is nothing to take subnets from.
    #[error("no address pool given: at least one is needed, as 10.0.0.0/8")]
    None,
    /// More than 256, which are already far more than anybody writes.
    #[error("{0} address pools given: at most 256 are possible")]
    TooMany(usize),
    /// Not within 1 to [`MAX_POOL_MASK`].
    #[error("subnet size is out of range: {0}: it should be a prefix length from 1 to 29")]
    Mask(u8),
    /// A pool has host bits.
    #[error("invalid CIDR: \"{given}\": it should be {right}")]
    HostBits {
        /// The pool as given.
        given: Ipv4Net,
        /// What was probably meant.
        right: Ipv4Net,
    },
    /// The pool holds not even one subnet.
    #[error("invalid CIDR: \"{pool}\". Subnet size is too small for pool: {mask}: it should be at least {}", pool.prefix_len())]
    TooSmall {
        /// The pool.
        pool: Ipv4Net,
        /// Prefix length of the subnets wanted of it.
        mask: u8,
    },
}

/// The address ranges of which networks without a subnet of their own get one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    /// By address, without overlaps.
    pools: Vec<Ipv4Net>,
    mask: u8,
}

impl Pools {
    /// Checks and takes the pools. A pool inside another one is dropped.
    pub fn new(mut pools: Vec<Ipv4Net>, mask: u8) -> Result<Self, InvalidPools> {
        if pools.is_empty() {
            return Err(InvalidPools::None);
        }
        if pools.len() > MAX_POOLS {
            return Err(InvalidPools::TooMany(pools.len()));
        }
        if !(1..=MAX_POOL_MASK).contains(&mask) {
            return Err(InvalidPools::Mask(mask));
        }
        for pool in &pools {
            if pool.addr() != pool.network() {
                return Err(InvalidPools::HostBits {
                    given: *pool,
                    right: pool.trunc(),
                });
            }
            if pool.prefix_len() > mask {
                return Err(InvalidPools::TooSmall { pool: *pool, mask });
            }
        }
        // Two prefixes overlap only if one holds the other; sorted by address and then by length, the holder comes first.
        pools.sort_by_key(|pool| (pool.network(), pool.prefix_len()));
        pools.dedup_by(|later, earlier| earlier.contains(&*later));
        Ok(Pools { pools, mask })
    }

    /// The pools, by address.
    pub fn pools(&self) -> &[Ipv4Net] {
        &self.pools
    }

    /// Prefix length of a subnet for which none was asked.
    pub fn mask(&self) -> u8 {
        self.mask
    }

    /// The lowest block of `2^(32 - prefix_len)` addresses in the pools that overlaps none of `taken`, which must be sorted by
    /// address and without overlaps. `None` when all pools are used up.
    pub fn lowest_free<'a, I>(&self, prefix_len: u8, taken: impl Fn() -> I) -> Option<Ipv4Net>
    where
        I: Iterator<Item = &'a Ipv4Net>,
    {
        let size = 1_u64 << (32 - u32::from(prefix_len.min(32)));
        self.pools
            .iter()
            .filter(|pool| pool.prefix_len() <= prefix_len)
            .find_map(|pool| {
                let (first, last) = bounds(*pool);
                let mut candidate = first;
                for (taken_first, taken_last) in taken().map(|net| bounds(*net)) {
                    if taken_last < candidate {
                        continue;
                    }
                    if taken_first >= candidate + size {
                        break;
                    }
                    candidate = (taken_last + 1).next_multiple_of(size);
                }
                let start = u32::try_from(candidate).ok().filter(|_| candidate + size - 1 <= last)?;
                Ipv4Net::new(start.into(), prefix_len).ok()
            })
    }
}

/// First and last address; wide, so that one past the last does not overflow.
fn bounds(net: Ipv4Net) -> (u64, u64) {
    (u32::from(net.network()).into(), u32::from(net.broadcast()).into())
}
