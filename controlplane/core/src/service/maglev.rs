//! Maglev's look-up tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Every backend has an order of its own in which it would like the entries of the table, and they take turns at the next free one. So
//! each gets its share, and when one goes, most of what the others have stays theirs. A table follows from addresses and weights alone:
//! all nodes have the same.

use super::turns::turns;
use crate::hash::{bytes, finish, word};
use std::collections::BTreeMap;
use weft_dataplane::abi::Ip;
use weft_dataplane::abi::maglev::PART;

/// Prime sizes, and for how many turns of backends each is large enough: shares then differ by less than 1 %, and of n backends one that
/// goes moves fewer than one of n entries of the others.
const SIZES: [(usize, u32); 4] = [(10, 4093), (40, 16_381), (160, 65_521), (usize::MAX, 131_071)];

/// The backends of a table: address and weight. Of those without a weight there should be none.
pub type Weights<A> = BTreeMap<A, u32>;

/// What a table is called, and how many entries it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// A hash of its content.
    pub name: u64,
    /// How many entries it has: a prime number.
    pub size: u32,
}

impl Outline {
    /// The outline of the table of these backends.
    pub fn of<A: Ip>(backends: &Weights<A>) -> Self {
        Outline::with(backends, turns_of(backends).len())
    }

    fn with<A: Ip>(backends: &Weights<A>, turns: usize) -> Self {
        let [.., (_, largest)] = SIZES;
        let fitting = SIZES.iter().find(|(most, _)| turns <= *most);
        let size = fitting.map_or(largest, |(_, size)| *size);
        let begin = word(u64::from(A::V6), size.into());
        let name = backends.iter().fold(begin, |name, (address, weight)| {
            word(bytes(name, &address.mapped().octets()), (*weight).into())
        });
        Outline { name, size }
    }

    /// How many parts it has.
    pub fn parts(&self) -> usize {
        self.size.div_ceil(PART) as usize
    }
}

/// A table: for each entry the place of its backend, in the order of their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name and size.
    pub outline: Outline,
    /// The entries.
    pub entries: Vec<u16>,
}

impl Table {
    /// The table of these backends, at most 65,536; without any it has no entry.
    pub fn new<A: Ip>(backends: &Weights<A>) -> Self {
        let round = turns_of(backends);
        let outline = Outline::with(backends, round.len());
        let mut orders: Vec<Order> = backends
            .keys()
            .map(|address| Order::of(address, outline.size))
            .collect();
        let mut entries: Vec<Option<u16>> = vec![None; outline.size as usize];
        for place in round.iter().cycle().take(entries.len()) {
            let (Some(order), Ok(member)) = (orders.get_mut(*place), u16::try_from(*place)) else {
                continue;
            };
            // The size is a prime number, so every order comes by all entries, and one is free.
            while let Some(entry) = entries.get_mut(order.next()) {
                if entry.is_none() {
                    *entry = Some(member);
                    break;
                }
            }
        }
        Table {
            outline,
            entries: entries.into_iter().flatten().collect(),
        }
    }
}

fn turns_of<A: Ip>(backends: &Weights<A>) -> Vec<usize> {
    let weights: Vec<u32> = backends.values().copied().collect();
    turns(&weights)
}

/// The order in which a backend would like the entries.
struct Order {
    at: u32,
    step: u32,
    size: u32,
}

impl Order {
    fn of<A: Ip>(address: &A, size: u32) -> Self {
        let hash = bytes(u64::from(A::V6), &address.mapped().octets());
        let below = |hash: u64, limit: u32| (hash % u64::from(limit)) as u32;
        Order {
            at: below(hash, size),
            step: below(finish(hash), size - 1) + 1,
            size,
        }
    }

    fn next(&mut self) -> usize {
        let at = self.at;
        self.at = (at + self.step) % self.size;
        at as usize
    }
}

/// The tables in use, so that none is made twice.
#[derive(Debug, Default)]
pub struct Tables {
    by_name: BTreeMap<u64, Kept>,
}

#[derive(Debug)]
struct Kept {
    table: Table,
    /// Asked for since the last clearing up.
    in_use: bool,
}

impl Tables {
    /// The table of these backends.
    pub fn of<A: Ip>(&mut self, backends: &Weights<A>) -> &Table {
        let kept = self.by_name.entry(Outline::of(backends).name).or_insert_with(|| Kept {
            table: Table::new(backends),
            in_use: true,
        });
        kept.in_use = true;
        &kept.table
    }

    /// Forgets what was not asked for since the last time.
    pub fn clear_up(&mut self) {
        self.by_name.retain(|_, kept| std::mem::take(&mut kept.in_use));
    }
}

#[cfg(test)]
mod tests;
