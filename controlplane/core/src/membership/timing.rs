//! memberlist's constants and formulas (`spec/networkdb.md` 3.2).

use crate::time::Duration;

/// How often one member is probed.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a direct probe waits before others are asked.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// How many members are asked to probe for us.
pub(crate) const INDIRECT_CHECKS: usize = 3;

/// How often broadcasts go out.
pub(crate) const GOSSIP_INTERVAL: Duration = Duration::from_millis(200);

/// To how many members they go.
pub(crate) const GOSSIP_NODES: usize = 3;

/// How long a node waits before it tells that earlier lives of it are over. Who hears of this life first finds that out by itself, and
/// can go over from one to the other; who hears of that end alone takes the whole host for failed. Longer than news take through a
/// thousand nodes, shorter than the shortest suspicion.
pub(crate) const FORMER_TOLD_AFTER: Duration = Duration::from_secs(3);

/// How long a dead member is still gossiped to, so that it can refute; then it is forgotten.
pub(crate) const GOSSIP_TO_THE_DEAD: Duration = Duration::from_secs(30);

/// How often views are exchanged, in a cluster of at most [`PUSH_PULL_SCALE_FROM`] members.
const PUSH_PULL_INTERVAL: Duration = Duration::from_secs(30);

/// The cluster size from which on views are exchanged less often.
const PUSH_PULL_SCALE_FROM: f64 = 32.0;

/// A suspicion lasts this many probe intervals at least, times the decimal logarithm of the cluster's size.
const SUSPICION_MULTIPLIER: u32 = 4;

/// The longest suspicion, in shortest ones.
const SUSPICION_MAX_MULTIPLIER: u32 = 6;

/// The health score stays below this.
pub(crate) const AWARENESS_LIMIT: u32 = 8;

/// How many other members must confirm a suspicion to make it as short as can be.
pub(crate) const SUSPICION_CONFIRMATIONS: u32 = SUSPICION_MULTIPLIER - 2;

/// Time between exchanges of views, in a cluster of `members`.
pub(crate) fn push_pull_interval(members: usize) -> Duration {
    PUSH_PULL_INTERVAL * exchange_scale(members)
}

/// How many times less often than in a small cluster each node of one of `members` exchanges its view.
pub(crate) fn exchange_scale(members: usize) -> u32 {
    let members = members as f64;
    if members <= PUSH_PULL_SCALE_FROM {
        return 1;
    }
    (members.log2() - PUSH_PULL_SCALE_FROM.log2()).ceil() as u32 + 1
}

/// How many confirmations a suspicion expects, in a cluster of `members`.
pub(crate) fn expected_confirmations(members: usize) -> u32 {
    if members < SUSPICION_CONFIRMATIONS as usize + 2 {
        0
    } else {
        SUSPICION_CONFIRMATIONS
    }
}

/// Shortest and longest time of a suspicion, in a cluster of `members`.
pub(crate) fn suspicion_bounds(members: usize) -> (Duration, Duration) {
    let scale = (members.max(1) as f64).log10().max(1.0);
    let thousandths = (scale * 1000.0) as u32;
    let shortest = PROBE_INTERVAL * SUSPICION_MULTIPLIER * thousandths / 1000;
    (shortest, shortest * SUSPICION_MAX_MULTIPLIER)
}

/// How long a suspicion lasts from its start when `confirmed` of `expected` others have confirmed it.
pub(crate) fn suspicion_timeout(confirmed: u32, expected: u32, shortest: Duration, longest: Duration) -> Duration {
    if expected == 0 {
        return shortest;
    }
    let share = f64::from(confirmed + 1).ln() / f64::from(expected + 1).ln();
    let seconds = longest.as_secs_f64() - share * (longest.as_secs_f64() - shortest.as_secs_f64());
    Duration::from_millis((seconds * 1000.0).max(0.0).floor() as u64).max(shortest)
}
