//! What becomes of a packet, and that it is counted.

use super::cursor::Packet;
use super::maps;
use aya_log_ebpf::trace;
use weft_dataplane::abi::Counter;

/// `TC_ACT_UNSPEC`, which tcx calls `TCX_NEXT`: go on to other programs and to the kernel's own stack.
const ACTION_NEXT: i32 = -1;
/// `TC_ACT_SHOT`: drop.
const ACTION_DROP: i32 = 2;

/// What becomes of a packet.
pub(super) enum Verdict {
    /// Not for weft: passed on untouched.
    Pass,
    /// Not for weft either, but worth a count.
    Ignored(Counter),
    /// Handed to a device, by the action that the kernel's helper gave.
    Redirect(Counter, i32),
    /// Dropped, with the reason.
    Drop(Counter),
}

impl Verdict {
    /// Counts the packet and gives the kernel's action.
    #[inline(always)]
    pub(super) fn action(self, packet: &Packet) -> i32 {
        match self {
            Verdict::Pass => ACTION_NEXT,
            Verdict::Ignored(counter) => {
                maps::count(counter);
                ACTION_NEXT
            }
            Verdict::Redirect(counter, action) => {
                maps::count(counter);
                action
            }
            Verdict::Drop(counter) => {
                maps::count(counter);
                log(counter, packet);
                ACTION_DROP
            }
        }
    }
}

/// The level is a read-only global: when it is below trace, the kernel removes this code as it loads the program.
#[inline(always)]
fn log(counter: Counter, packet: &Packet) {
    let (reason, ifindex, length) = (counter as u32, packet.ifindex(), packet.len());
    trace!(
        packet,
        "dropped: counter={} ifindex={} length={}", reason, ifindex, length
    );
}
