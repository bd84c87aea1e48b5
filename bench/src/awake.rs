//! Keeping the CPUs from sleeping between two packets.
//!
//! In a round trip both CPUs wait most of the time. A CPU of a virtual machine that waits is given back to the host, and waking it
//! costs tens of microseconds: more than the path that is to be measured, alike for all arrangements, and different from machine to
//! machine. As long as `/dev/cpu_dma_latency` is held open with a latency of zero, idle CPUs poll instead (kernel documentation,
//! "CPU latency QoS"). Only round trips are measured so: where both CPUs are threads of one core, one that polls slows the other.

use std::fs::{File, OpenOptions};
use std::io::Write;

const DEVICE: &str = "/dev/cpu_dma_latency";

/// While this lives, no CPU sleeps.
#[derive(Debug)]
pub struct Awake {
    _device: Option<File>,
}

impl Awake {
    /// Asks the kernel for a wake-up latency of zero; without the device CPUs sleep as they like.
    pub fn hold() -> Awake {
        Awake { _device: open() }
    }
}

fn open() -> Option<File> {
    let mut device = OpenOptions::new().write(true).open(DEVICE).ok()?;
    device.write_all(&0i32.to_ne_bytes()).ok()?;
    Some(device)
}

/// What the report says of it.
pub fn fact() -> &'static str {
    match open() {
        Some(_) => "round trips: idle CPUs poll (/dev/cpu_dma_latency held at 0)",
        None => "round trips: idle CPUs sleep (no /dev/cpu_dma_latency), their wake-up time is in the figures",
    }
}
