//! Which manager to ask, and how soon to ask again (`spec/swarm-agent.md` 8.13).

use crate::time::Duration;
use std::collections::BTreeMap;

/// What a good experience counts, a bad one the contrary, and no experience as much as a good one.
const EXPERIENCE: i32 = 10;

/// Of a thousand: a manager that failed is asked almost never while there is a better one.
const ALMOST_NEVER: u64 = 1;
const PER_WEIGHT: u64 = 1000;

/// The managers, by address, with what was experienced with each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers {
    weights: BTreeMap<String, i32>,
}

impl Managers {
    /// These, without experience.
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Managers {
        Managers {
            weights: addresses.into_iter().map(|address| (address, EXPERIENCE)).collect(),
        }
    }

    /// The complete list was told anew: experience with those that stay is kept.
    pub fn replace(&mut self, addresses: impl IntoIterator<Item = String>) {
        let mut new = Managers::new(addresses);
        for (address, weight) in &mut new.weights {
            if let Some(known) = self.weights.get(address) {
                *weight = *known;
            }
        }
        self.weights = new.weights;
    }

    /// One of them, at random: the better the experience, the likelier. `random` is any number.
    pub fn choose(&self, random: u64) -> Option<&str> {
        let share = |weight: i32| match u64::try_from(weight) {
            Ok(weight) if weight > 0 => weight * PER_WEIGHT,
            _ => ALMOST_NEVER,
        };
        let total: u64 = self.weights.values().map(|weight| share(*weight)).sum();
        let mut left = random.checked_rem(total)?;
        for (address, weight) in &self.weights {
            match left.checked_sub(share(*weight)) {
                Some(rest) => left = rest,
                None => return Some(address),
            }
        }
        None
    }

    /// A session with it went well.
    pub fn succeeded(&mut self, address: &str) {
        self.observe(address, EXPERIENCE);
    }

    /// It was away, or the session ended.
    pub fn failed(&mut self, address: &str) {
        self.observe(address, -EXPERIENCE);
    }

    /// Half of the past counts.
    fn observe(&mut self, address: &str, experience: i32) {
        if let Some(weight) = self.weights.get_mut(address) {
            let sum = *weight + experience;
            *weight = sum.div_euclid(2) + sum.rem_euclid(2);
        }
    }
}

/// How long to wait before the next attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackOff {
    bound: Duration,
}

impl BackOff {
    const STEP: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(8);

    /// At random below a bound that begins at nothing and about doubles. `random` is any number.
    pub fn next(&mut self, random: u64) -> Duration {
        let bound = u64::try_from(self.bound.as_millis()).unwrap_or(u64::MAX);
        self.bound = (Self::STEP + self.bound * 2).min(Self::MOST);
        Duration::from_millis(random.checked_rem(bound).unwrap_or(0))
    }

    /// It went well: the next attempt does not wait.
    pub fn reset(&mut self) {
        self.bound = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managers(addresses: &[&str]) -> Managers {
        Managers::new(addresses.iter().map(|a| (*a).to_owned()))
    }

    /// How often each is chosen of 22 000 numbers in a row.
    fn chosen(managers: &Managers) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for random in 0..22_000 {
            *counts.entry(managers.choose(random).unwrap().to_owned()).or_insert(0) += 1;
        }
        counts
    }

    #[test]
    fn unknown_managers_are_equal() {
        let all = chosen(&managers(&["a", "b"]));
        assert!(all["a"] >= 10_000 && all["b"] >= 10_000, "{all:?}");
    }

    #[test]
    fn a_manager_that_failed_is_asked_almost_never_until_it_does_well() {
        let mut known = managers(&["a", "b"]);
        known.failed("a");
        known.failed("a");
        assert_eq!(known.weights["a"], -5);
        let after = chosen(&known);
        assert!(after["a"] <= 3 && after["b"] > 21_000, "{after:?}");
        known.succeeded("a");
        known.succeeded("a");
        assert_eq!(known.weights["a"], 7);
    }

    #[test]
    fn a_lone_manager_that_failed_is_asked_all_the_same() {
        let mut known = managers(&["a"]);
        for _ in 0..5 {
            known.failed("a");
        }
        assert_eq!(known.choose(u64::MAX), Some("a"));
        assert_eq!(managers(&[]).choose(7), None);
    }

    #[test]
    fn a_new_list_keeps_the_experience_with_those_that_stay() {
        let mut known = managers(&["a", "b"]);
        known.failed("b");
        known.replace(["b".to_owned(), "c".to_owned()]);
        assert_eq!(
            known.weights,
            BTreeMap::from([("b".to_owned(), 0), ("c".to_owned(), 10)])
        );
        // Of somebody who is not a manager nothing is learnt.
        known.failed("a");
        assert_eq!(known.weights.len(), 2);
    }

    #[test]
    fn waits_grow_to_eight_seconds_and_begin_anew() {
        let mut back_off = BackOff::default();
        let longest: Vec<u128> = (0..9)
            .map(|_| {
                let bound = back_off.bound;
                back_off.next(u64::MAX);
                bound.as_millis()
            })
            .collect();
        assert_eq!(longest, [0, 100, 300, 700, 1500, 3100, 6300, 8000, 8000]);
        assert!(back_off.next(123_456) < Duration::from_secs(8));
        back_off.reset();
        assert_eq!(back_off.next(u64::MAX), Duration::ZERO);
    }
}
