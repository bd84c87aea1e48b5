//! Whose turn it is: smooth weighted round robin, as nginx has it. Who has a weight of three comes three times, and not in a row.

use std::collections::{BTreeMap, VecDeque};

/// One round of turns among those with these weights, as their places in the list; who has no weight has none. Weights are divided by
/// what they have in common first, so that equal ones give one turn each, in the order of the list.
pub fn turns(weights: &[u32]) -> Vec<usize> {
    let common = weights.iter().copied().fold(0, greatest_common_divisor);
    // Those of one weight take turns in order, so that only the first of each has to be looked at.
    let mut alike: BTreeMap<i64, Alike> = BTreeMap::new();
    for (place, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
        alike
            .entry((weight / common).into())
            .or_default()
            .waiting
            .push_back(place);
    }
    let total: i64 = alike.iter().map(|(weight, those)| weight * those.len()).sum();
    let mut round = Vec::new();
    for turn in 1..=total {
        // As if each had gained its weight with every turn, and paid the total of all weights for each turn that it took.
        let credit = |weight: &i64, those: &Alike| weight * turn - total * those.turns_of_first();
        let next = alike
            .iter_mut()
            .max_by_key(|(weight, those)| (credit(weight, those), std::cmp::Reverse(those.waiting.front().copied())));
        round.extend(next.and_then(|(_, those)| those.take_turn()));
    }
    round
}

/// Those of one weight.
#[derive(Default)]
struct Alike {
    /// In the order of their next turns.
    waiting: VecDeque<usize>,
    taken: i64,
}

impl Alike {
    fn len(&self) -> i64 {
        self.waiting.len() as i64
    }

    /// How many turns the first of those that wait had already.
    fn turns_of_first(&self) -> i64 {
        self.taken / self.len().max(1)
    }

    fn take_turn(&mut self) -> Option<usize> {
        let first = self.waiting.pop_front()?;
        self.waiting.push_back(first);
        self.taken += 1;
        Some(first)
    }
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same step by step, as nginx does it.
    fn one_by_one(weights: &[u32]) -> Vec<usize> {
        let total: u32 = weights.iter().sum();
        let mut credits = vec![0_i64; weights.len()];
        let mut round = Vec::new();
        for _ in 0..total {
            let mut best = 0;
            for place in 0..weights.len() {
                credits[place] += i64::from(weights[place]);
                if credits[place] > credits[best] {
                    best = place;
                }
            }
            credits[best] -= i64::from(total);
            round.push(best);
        }
        round
    }

    #[test]
    fn turns_are_interleaved() {
        assert_eq!(turns(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2]);
    }

    #[test]
    fn weights_are_divided_by_what_they_have_in_common() {
        assert_eq!(turns(&[100, 100]), [0, 1]);
        assert_eq!(turns(&[30, 10]), turns(&[3, 1]));
    }

    #[test]
    fn who_has_no_weight_has_no_turn() {
        assert_eq!(turns(&[0, 2, 0]), [1]);
        assert_eq!(turns(&[0, 0]), [0; 0]);
        assert_eq!(turns(&[]), [0; 0]);
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_nginx_does(weights in proptest::collection::vec(1..20_u32, 1..12)) {
            let common = weights.iter().copied().fold(0, greatest_common_divisor);
            let divided: Vec<u32> = weights.iter().map(|weight| weight / common).collect();
            proptest::prop_assert_eq!(turns(&weights), one_by_one(&divided));
        }
    }
}
