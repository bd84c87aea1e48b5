//! `answers`: how many ICMP errors an endpoint was sent of late.

/// Name of the map: LRU hash, host-side ifindex (`u32`) -> when the errors sent so far are paid for (`u64`, nanoseconds of
/// `CLOCK_MONOTONIC`). Written by the kernel only.
pub const NAME: &str = "answers";

/// One entry per endpoint that was answered of late, so the limit of `attachments` is enough.
pub const MAX_ENTRIES: u32 = super::attachment::MAX_ENTRIES;

/// Each error costs this long: 1000 a second, Linux's own limit (`icmp_msgs_per_sec`; RFC 1812 section 4.3.2.8 asks for one).
pub const COST_NS: u64 = 1_000_000;

/// So many errors may be sent at once, as in Linux (`icmp_msgs_burst`).
pub const BURST: u64 = 50;

/// Whether one more error may be sent at `now_ns`, and what to remember then: a leaky bucket that is told by one point in time
/// (the generic cell rate algorithm, ITU-T I.371 annex A).
#[inline(always)]
pub const fn admit(paid_until_ns: u64, now_ns: u64) -> Option<u64> {
    let start = if paid_until_ns > now_ns { paid_until_ns } else { now_ns };
    if start - now_ns > (BURST - 1) * COST_NS {
        return None;
    }
    Some(start + COST_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(mut paid: u64, now: u64, attempts: u64) -> (u64, u64) {
        let mut sent = 0;
        for _ in 0..attempts {
            if let Some(next) = admit(paid, now) {
                (paid, sent) = (next, sent + 1);
            }
        }
        (sent, paid)
    }

    #[test]
    fn a_burst_then_one_for_each_that_is_paid() {
        let (first, paid) = sent(0, 5_000_000_000, 1000);
        assert_eq!(first, BURST);
        let (second, paid) = sent(paid, 5_000_000_000 + 3 * COST_NS, 1000);
        assert_eq!(second, 3);
        let (third, _) = sent(paid, 60_000_000_000, 1000);
        assert_eq!(third, BURST, "silence saves up no more than a burst");
    }
}
