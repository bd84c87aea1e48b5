//! Forgets what has expired, while nothing comes that would: run by the daemon now and then, on no packet at all.

use super::family::{Family, Inet, Inet6};
use super::{flows, helper};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// How many slots of each ring one run looks at.
const STEPS: u32 = 32;

/// The program.
#[classifier]
pub(super) fn flow_sweep(_context: TcContext) -> i32 {
    let now = helper::now_ticks();
    sweep::<Inet>(now);
    sweep::<Inet6>(now);
    0
}

#[inline(always)]
fn sweep<F: Family>(now: u32) {
    for _ in 0..STEPS {
        if let Some(slot) = F::next_slot() {
            flows::is_free::<F>(slot, now);
        }
    }
}
