//! Forgets what has expired, while nothing comes that would: run by the daemon now and then, on no packet at all.
//!
//! A frame with a key in it names one connection, in either direction: it is forgotten if it has expired, or in any case if the frame
//! says so. Any other frame means the next slots of the rings.

use super::cursor::Packet;
use super::family::{Family, Inet, Inet6};
use super::frame::Aligned;
use super::{flows, helper};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::flow::{SWEEP_ALIVE, SWEEP_HEADER};
use weft_dataplane::abi::{FlowKey, MapType, V4, V6};

/// How many slots of each ring one run looks at.
const STEPS: u32 = 32;

/// Lengths of frames that name a connection.
const OF_V4: u32 = (SWEEP_HEADER + size_of::<FlowKey<V4>>()) as u32;
const OF_V6: u32 = (SWEEP_HEADER + size_of::<FlowKey<V6>>()) as u32;

/// The program.
#[classifier]
pub(super) fn flow_sweep(context: TcContext) -> i32 {
    let now = helper::now_ticks();
    let mut packet = Packet::new(context);
    match packet.len() {
        OF_V4 => one::<Inet>(&mut packet, now),
        OF_V6 => one::<Inet6>(&mut packet, now),
        _ => {
            sweep::<Inet>(now);
            sweep::<Inet6>(now);
        }
    }
    0
}

#[inline(always)]
fn one<F: Family>(packet: &mut Packet, now: u32)
where
    FlowKey<F::Ip>: MapType,
{
    let Some(scratch) = F::scratch() else { return };
    let mut kind = Aligned([0; 8]);
    if packet.read_bytes(0, &mut kind.0).is_err() || packet.read(SWEEP_HEADER as u32, &mut scratch.other).is_err() {
        return;
    }
    let Some(found) = flows::find::<F>(&scratch.other, now) else {
        return;
    };
    if kind.0[0] == SWEEP_ALIVE {
        flows::forget::<F>(&scratch.other, found.flow);
    }
}

#[inline(always)]
fn sweep<F: Family>(now: u32) {
    for _ in 0..STEPS {
        if let Some(slot) = F::next_slot() {
            flows::is_free::<F>(slot, now);
        }
    }
}
