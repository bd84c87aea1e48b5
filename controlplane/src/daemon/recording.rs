//! Recording this node's gossip for somebody who reads along.
//!
//! The daemon never waits for a reader: what is recorded goes into a queue of bounded length and size, and a reader that is too slow for
//! it gets a recording that says so. There is one recording at a time; it ends with its time, with the reader, or with the node.

#[cfg(test)]
mod tests;

use super::{Daemon, Refused, ReplyTo};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{self, OwnedPermit};
use weft_core::recording::Ending;
use weft_core::time::Instant;

/// The longest recording that may be asked for.
pub const MAX_RECORDING_SECONDS: u64 = 24 * 60 * 60;

/// How often what was recorded goes to the reader. What is lost when the daemon is killed is no older than this.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// How many pieces wait for the reader: those of a minute.
const QUEUE_PIECES: usize = 300;

/// How many bytes wait for the reader, beside the state that a recording begins with. A node at rest records less than a
/// megabyte in a minute; a reader that is this far behind does not read.
const QUEUE_BYTES: usize = 64 << 20;

/// How large the pieces are, lest a reader has to hold one of hundreds of megabytes.
const PIECE_BYTES: usize = 1 << 20;

/// What may be asked of the daemon about recordings.
#[derive(Debug)]
pub enum RecordCommand {
    /// Record the gossip for so many seconds.
    Start {
        /// How long.
        seconds: u64,
        /// Where the answer goes.
        reply: ReplyTo<Result<Recorded, Refused>>,
    },
    /// End the recording.
    Stop(ReplyTo<Result<(), Refused>>),
}

/// The reader's end of a recording.
#[derive(Debug)]
pub struct Recorded {
    pieces: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    /// What is read of the latest piece.
    parts: VecDeque<Vec<u8>>,
}

impl Recorded {
    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        if self.parts.is_empty() {
            let piece = self.pieces.recv().await?;
            self.parts = piece.chunks(PIECE_BYTES).map(<[u8]>::to_vec).collect();
        }
        let part = self.parts.pop_front()?;
        self.waiting.fetch_sub(part.len(), Ordering::Relaxed);
        Some(part)
    }
}

/// The daemon's end of it.
#[derive(Debug)]
pub(super) struct Recording {
    pieces: mpsc::Sender<Vec<u8>>,
    /// A place for the last piece, however full the queue is.
    last: OwnedPermit<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    /// How many bytes may wait.
    allowed: usize,
    until: Instant,
    flush_at: Instant,
}

impl Recording {
    /// Hands a piece to the reader; false if too much waits for it already.
    fn push(&self, piece: Vec<u8>) -> bool {
        let bytes = piece.len();
        if self.waiting.load(Ordering::Relaxed) + bytes > self.allowed {
            return false;
        }
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        // Nothing is handed over after a piece that was not taken, so what that one counts for does not matter.
        self.pieces.try_send(piece).is_ok()
    }
}

impl Daemon {
    pub(super) fn record(&mut self, command: RecordCommand) {
        // Nobody waits for the answer any more when sending it fails.
        match command {
            RecordCommand::Start { seconds, reply } => {
                let started = self.start_recording(seconds);
                let begun = started.is_ok();
                if reply.send(started).is_err() && begun {
                    self.drop_recording();
                }
            }
            RecordCommand::Stop(reply) => {
                let stopped = if self.recording.is_some() {
                    self.end_recording(Ending::Asked);
                    Ok(())
                } else {
                    Err(Refused::not_found("no recording is under way"))
                };
                drop(reply.send(stopped));
            }
        }
    }

    fn start_recording(&mut self, seconds: u64) -> Result<Recorded, Refused> {
        if !(1..=MAX_RECORDING_SECONDS).contains(&seconds) {
            return Err(Refused::invalid(format!(
                "a recording of {seconds} seconds: it may have 1 to {MAX_RECORDING_SECONDS}"
            )));
        }
        let (pieces, receiver) = mpsc::channel(QUEUE_PIECES);
        let last = pieces.clone().try_reserve_owned().map_err(Refused::failed)?;
        let now = self.now();
        let (version, name) = (env!("CARGO_PKG_VERSION"), &self.config.node_name);
        let started = self.node.start_recording(now, version, name, unix_nanos());
        started.map_err(Refused::conflict)?;
        let state = self.node.take_recorded();
        let waiting = Arc::new(AtomicUsize::new(0));
        let recording = Recording {
            pieces,
            last,
            waiting: Arc::clone(&waiting),
            allowed: QUEUE_BYTES + state.len(),
            until: now + Duration::from_secs(seconds),
            flush_at: now + FLUSH_INTERVAL,
        };
        tracing::info!(seconds, state = state.len(), "the gossip is recorded");
        recording.push(state);
        self.recording = Some(recording);
        Ok(Recorded {
            pieces: receiver,
            waiting,
            parts: VecDeque::new(),
        })
    }

    /// When [`advance_recording`](Self::advance_recording) has something to do.
    pub(super) fn recording_timeout(&self) -> Option<Instant> {
        let recording = self.recording.as_ref()?;
        Some(recording.until.min(recording.flush_at))
    }

    /// Hands what was recorded to the reader now and then, and ends a recording whose time is over.
    pub(super) fn advance_recording(&mut self) {
        let now = self.now();
        let Some(recording) = &mut self.recording else { return };
        if recording.pieces.is_closed() {
            self.drop_recording();
            return;
        }
        if self.node.gossip().recording_is_full() {
            self.end_recording(Ending::Size);
            return;
        }
        if recording.until <= now {
            self.end_recording(Ending::Time);
            return;
        }
        if recording.flush_at <= now {
            recording.flush_at = now + FLUSH_INTERVAL;
            let piece = self.node.take_recorded();
            if !piece.is_empty() && !recording.push(piece) {
                self.end_recording(Ending::Slow);
            }
        }
    }

    /// Ends the recording, if there is one, and says why in its last frame.
    pub(super) fn end_recording(&mut self, why: Ending) {
        let Some(recording) = self.recording.take() else { return };
        let now = self.now();
        // After a piece that was not taken, nothing fits any more but the reason.
        let whole = why != Ending::Slow;
        if !whole {
            self.node.take_recorded();
        }
        let end = self.node.finish_recording(now, why, whole);
        recording.waiting.fetch_add(end.len(), Ordering::Relaxed);
        recording.last.send(end);
        if matches!(why, Ending::Asked | Ending::Time) {
            tracing::info!("the recording of the gossip ended: {why}");
        } else {
            tracing::warn!("the recording of the gossip ended: {why}");
        }
    }

    /// Nobody reads it any more.
    fn drop_recording(&mut self) {
        let now = self.now();
        self.recording = None;
        self.node.finish_recording(now, Ending::Asked, false);
        tracing::info!("the recording of the gossip ended: its reader is gone");
    }
}

/// Nanoseconds since 1970; a clock before that is as good as none.
fn unix_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
