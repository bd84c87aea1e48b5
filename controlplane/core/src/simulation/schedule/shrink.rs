//! The smallest part of a schedule that still fails.

use super::{Failure, Schedule, Step, run};

/// How many parts of a schedule are tried.
const TRIES: usize = 400;

/// The smallest part found that fails in the same way, and how.
pub fn shrink(schedule: &Schedule, failure: Failure) -> (Schedule, Failure) {
    let kind = failure.kind;
    let mut last = failure;
    let smallest = shrink_while(schedule, TRIES, |candidate| match run(candidate) {
        Err(failure) if failure.kind == kind => {
            last = failure;
            true
        }
        _ => false,
    });
    (smallest, last)
}

/// Leaves out steps while the rest still fails: first large runs of steps, then smaller ones, down to single steps. `fails` is asked at
/// most `tries` times.
pub(super) fn shrink_while(schedule: &Schedule, tries: usize, mut fails: impl FnMut(&Schedule) -> bool) -> Schedule {
    let mut best = schedule.clone();
    let mut left = tries;
    let mut run = best.steps.len().div_ceil(2);
    while run > 0 {
        let mut from = 0;
        let mut shrunk = false;
        while from < best.steps.len() {
            if left == 0 {
                return best;
            }
            left -= 1;
            let candidate = Schedule {
                steps: without(&best.steps, from, run),
                ..best.clone()
            };
            if fails(&candidate) {
                best = candidate;
                shrunk = true;
            } else {
                from += run;
            }
        }
        // Single steps are tried again and again until none can go.
        run = if run == 1 && shrunk { 1 } else { run / 2 };
    }
    best
}

/// All steps but a run of them. The time that they took passes all the same.
fn without(steps: &[Step], from: usize, run: usize) -> Vec<Step> {
    let mut rest = Vec::with_capacity(steps.len());
    let mut skipped = std::time::Duration::ZERO;
    for (place, step) in steps.iter().enumerate() {
        if (from..from + run).contains(&place) {
            skipped += step.after;
        } else {
            rest.push(Step {
                after: step.after + std::mem::take(&mut skipped),
                action: step.action.clone(),
            });
        }
    }
    rest
}
