//! Three hundred schedules, and that a failing one is made small.

use super::shrink::shrink_while;
use super::{Schedule, generate, run, shrink};

/// How many schedules each test runs; they share the work between the cores.
const EACH: u64 = 150;

fn check(seeds: impl Iterator<Item = u64>) {
    let (mut decided, mut undecided) = (0, 0);
    for seed in seeds {
        let schedule = generate(seed);
        match run(&schedule) {
            Ok(outcome) => {
                decided += outcome.decided;
                undecided += outcome.undecided;
            }
            Err(failure) => {
                let (smallest, failure) = shrink(&schedule, failure);
                panic!("`cargo xtask simulate --seed {seed}`: {smallest}{failure}");
            }
        }
    }
    // Were most outcomes open, the model would ask for nothing.
    assert!(decided > 4 * undecided, "{decided} decided, {undecided} undecided");
}

#[test]
fn all_agree_after_schedules_of_even_seeds() {
    check((0..EACH).map(|seed| 2 * seed));
}

#[test]
fn all_agree_after_schedules_of_odd_seeds() {
    check((0..EACH).map(|seed| 2 * seed + 1));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(generate(5), generate(5));
    assert_eq!(run(&generate(5)), run(&generate(5)));
}

#[test]
fn a_failing_schedule_shrinks_to_the_steps_that_matter() {
    let schedule = generate(3);
    let last = schedule.steps.last().expect("steps").action.clone();
    let first = schedule.steps.first().expect("steps").action.clone();
    let fails = |candidate: &Schedule| {
        let actions: Vec<_> = candidate.steps.iter().map(|step| &step.action).collect();
        actions.first() == Some(&&first) && actions.last() == Some(&&last)
    };
    let smallest = shrink_while(&schedule, 10_000, fails);
    assert_eq!(smallest.steps.len(), 2);
    let time = |schedule: &Schedule| {
        schedule
            .steps
            .iter()
            .map(|step| step.after)
            .sum::<std::time::Duration>()
    };
    assert_eq!(time(&smallest), time(&schedule));
}
