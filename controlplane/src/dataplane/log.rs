//! What the programs log, handed to `tracing`.

use aya::Ebpf;
use aya_log::{EbpfLogger, Level};
use log::{Log, Metadata, Record};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Name of the programs' read-only global that holds the highest level that they log.
pub(super) const LEVEL_GLOBAL: &str = aya_log::LEVEL;

/// The highest level that programs log: with less than trace the kernel removes the code of their logs as it loads them.
pub(super) fn level(log_drops: bool) -> u8 {
    if log_drops {
        Level::Trace as u8
    } else {
        Level::Error as u8
    }
}

/// The programs' log: a ring buffer that becomes readable when there is something in it.
pub struct ProgramLog(EbpfLogger<ToTracing>);

impl ProgramLog {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, String> {
        EbpfLogger::init_with_logger(ebpf, ToTracing)
            .map(ProgramLog)
            .map_err(|error| error.to_string())
    }

    /// Hands all that is there to `tracing`. Does not wait.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for ProgramLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for ProgramLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgramLog")
    }
}

/// Turns records of the `log` crate, which aya-log speaks, into events.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        tracing::trace!(target: "weft::programs", "{}", record.args());
    }

    fn flush(&self) {}
}
