//! What a table promises, measured.

use super::*;
use weft_dataplane::abi::{V4, V6};

fn address(number: u32) -> V4 {
    [10, 0, (number >> 8) as u8, number as u8]
}

/// Backends 2, 3 and so on, of weight 1.
fn equal(count: u32) -> Weights<V4> {
    (2..2 + count).map(|number| (address(number), 1)).collect()
}

fn weighted(weights: &[u32]) -> Weights<V4> {
    (2..).map(address).zip(weights.iter().copied()).collect()
}

fn counts(table: &Table, backends: usize) -> Vec<u32> {
    let mut counts = vec![0; backends];
    for entry in &table.entries {
        counts[usize::from(*entry)] += 1;
    }
    counts
}

#[test]
fn shares_differ_by_less_than_one_percent() {
    for count in [2, 3, 7, 10, 11, 33, 40, 41, 100, 160, 161, 500, 1000] {
        let table = Table::new(&equal(count));
        assert_eq!(table.entries.len(), table.outline.size as usize);
        let counts = counts(&table, count as usize);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1, "{count} backends: from {least} to {most}");
        assert!(
            (most - least) * 100 < *least,
            "{count} backends: from {least} to {most}"
        );
    }
}

#[test]
fn entries_follow_the_weights() {
    for weights in [&[3, 1][..], &[100, 1], &[99, 100, 98], &[30, 10, 10], &[7; 5]] {
        let table = Table::new(&weighted(weights));
        let total: u32 = weights.iter().sum();
        for (count, weight) in counts(&table, weights.len()).iter().zip(weights) {
            let wanted = f64::from(table.outline.size) * f64::from(*weight) / f64::from(total);
            assert!(
                (f64::from(*count) - wanted).abs() < 2.0,
                "{weights:?}: {count} of {wanted}"
            );
        }
    }
}

/// The address behind each entry.
fn owners(backends: &Weights<V4>) -> Vec<V4> {
    let members: Vec<V4> = backends.keys().copied().collect();
    let table = Table::new(backends);
    table.entries.iter().map(|entry| members[usize::from(*entry)]).collect()
}

#[test]
fn when_one_of_n_goes_fewer_than_one_of_n_entries_of_the_others_move() {
    for count in 2..=100 {
        let all = equal(count);
        let before = owners(&all);
        for gone in [2, 2 + count / 2, 1 + count].map(address) {
            let mut others = all.clone();
            others.remove(&gone);
            let after = owners(&others);
            if before.len() != after.len() {
                // A smaller table is another one: the price of small ones, paid by new connections when a service crosses a size.
                assert!([11, 41].contains(&count), "{count} backends");
                continue;
            }
            let stays = before.iter().filter(|owner| **owner != gone).count();
            let pairs = before.iter().zip(&after);
            let moved = pairs.filter(|(old, new)| **old != gone && old != new).count();
            assert!(
                moved * (count as usize) < stays,
                "{moved} of {stays} entries moved, of {count} backends"
            );
        }
    }
}

#[test]
fn a_table_follows_from_its_backends_alone() {
    let mut order: Vec<(V4, u32)> = weighted(&[1, 2, 3, 4, 5]).into_iter().collect();
    let first = Table::new(&order.iter().copied().collect());
    order.reverse();
    assert_eq!(Table::new(&order.iter().copied().collect()), first);
    assert_eq!(Outline::of(&order.iter().copied().collect()), first.outline);
    // All nodes must have the same: whoever changes these numbers moves connections while a cluster is upgraded.
    assert_eq!(
        first.outline,
        Outline {
            name: 17_997_613_978_936_915_850,
            size: 16_381
        }
    );
    assert_eq!(first.entries[..8], [3, 3, 4, 4, 1, 2, 4, 4]);
}

#[test]
fn names_tell_addresses_weights_and_families_apart() {
    let mapped: Weights<V6> = equal(2).into_iter().map(|(ip, weight)| (ip.mapped(), weight)).collect();
    let names = [
        Outline::of(&equal(2)).name,
        Outline::of(&equal(3)).name,
        Outline::of(&weighted(&[2, 1])).name,
        Outline::of(&weighted(&[1, 2])).name,
        Outline::of(&mapped).name,
    ];
    let distinct: std::collections::BTreeSet<u64> = names.into();
    assert_eq!(distinct.len(), names.len());
}

#[test]
fn the_last_part_may_be_short_and_no_backends_have_no_entry() {
    assert_eq!(Outline::of(&equal(2)).parts(), 64);
    assert_eq!(Outline::of(&equal(2000)).parts(), 2048);
    assert_eq!(Table::new(&equal(0)).entries, [0; 0]);
}

#[test]
fn a_table_is_made_once_and_forgotten_when_nobody_asks_any_more() {
    let mut tables = Tables::default();
    let made = tables.of(&equal(3)).clone();
    assert_eq!(made, Table::new(&equal(3)));
    tables.clear_up();
    tables.of(&equal(2));
    tables.of(&equal(3));
    assert_eq!(tables.by_name.len(), 2);
    tables.clear_up();
    tables.of(&equal(3));
    tables.clear_up();
    assert_eq!(tables.by_name.keys().collect::<Vec<_>>(), [&made.outline.name]);
}
