//! The tap at a node's gossip: writes down what passes.

use super::format::{head, write};
use super::{Course, End, Frame, Happening, MAX_RECORDING_BYTES, Start, StartError};
use crate::networkdb::Effect;
use crate::time::Instant;
use std::fmt::{self, Write as _};

/// How large the parts are in which the state at the beginning is written.
const STATE_PART_BYTES: usize = 1 << 20;

/// After so many happenings it is written what the node has sent so far.
const CHECK_EVERY: u32 = 64;

/// What is kept free for the last frame.
const END_BYTES: usize = 1 << 20;

/// A recording under way.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    out: Vec<u8>,
    /// All that was written, what was taken included.
    bytes: usize,
    course: Follow,
    unchecked: u32,
    /// Something could not be written; from there on nothing is.
    full: bool,
}

impl Tap {
    /// Begins with a state; `pending` effects are of before.
    pub(crate) fn new(start: Start, state: &[u8], pending: usize) -> Result<Tap, StartError> {
        if state.len() > MAX_RECORDING_BYTES - 2 * END_BYTES {
            return Err(StartError::TooLarge { bytes: state.len() });
        }
        let mut tap = Tap {
            out: head(),
            bytes: 0,
            course: Follow::new(pending),
            unchecked: 0,
            full: false,
        };
        tap.bytes = tap.out.len();
        tap.write(&Frame::Start(start));
        for part in state.chunks(STATE_PART_BYTES) {
            tap.write(&Frame::State(part.to_vec()));
        }
        Ok(tap)
    }

    /// Something is about to enter the core; `waiting` effects of what came before have not been taken out yet.
    pub(crate) fn happened<'a>(
        &mut self,
        now: Instant,
        what: Happening,
        waiting: impl IntoIterator<Item = &'a Effect>,
    ) {
        if self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            let course = self.course(waiting);
            self.write(&Frame::Check(now, course));
        }
        self.unchecked += 1;
        self.write(&Frame::Happened(now, what));
    }

    pub(crate) fn effect(&mut self, effect: &Effect) {
        self.course.effect(effect);
    }

    fn write(&mut self, frame: &Frame) {
        let before = self.out.len();
        if self.full || !write(&mut self.out, frame) {
            self.full = true;
            return;
        }
        if self.bytes + self.out.len() - before > MAX_RECORDING_BYTES - END_BYTES {
            self.out.truncate(before);
            self.full = true;
        }
        self.bytes += self.out.len() - before;
    }

    /// Whether something could not be written any more, so that the recording should end.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The last frame; what the node held counts only if nothing was left out.
    pub(crate) fn end(mut self, mut end: End) -> Vec<u8> {
        if self.full {
            end.last = None;
        }
        if !write(&mut self.out, &Frame::End(end)) {
            self.out.clear();
        }
        self.out
    }

    /// What was sent and told, the waiting effects included.
    pub(crate) fn course<'a>(&self, waiting: impl IntoIterator<Item = &'a Effect>) -> Course {
        let mut course = self.course.clone();
        waiting.into_iter().for_each(|effect| course.effect(effect));
        course.course()
    }
}

/// Follows what a node sends and tells.
#[derive(Clone, Debug)]
pub(super) struct Follow {
    effects: u64,
    digest: u64,
    /// Effects of before, which do not count.
    pending: usize,
}

impl Follow {
    pub(super) fn new(pending: usize) -> Self {
        Follow {
            effects: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            pending,
        }
    }

    pub(super) fn course(&self) -> Course {
        Course {
            effects: self.effects,
            digest: self.digest,
        }
    }

    pub(super) fn effect(&mut self, effect: &Effect) {
        if let Some(pending) = self.pending.checked_sub(1) {
            self.pending = pending;
            return;
        }
        // What is logged is made for people, and its words may change.
        let written = match effect {
            Effect::Datagram { to, .. } => write!(self, "datagram {to}"),
            Effect::OpenStream { stream, to, .. } => write!(self, "stream {} {to}", stream.0),
            Effect::Reply { stream, .. } => write!(self, "reply {}", stream.0),
            Effect::Close { stream } => write!(self, "close {}", stream.0),
            Effect::Event(event) => write!(self, "{event:?}"),
            Effect::Joined { request, result } => write!(self, "joined {request} {result:?}"),
            Effect::Left => write!(self, "left"),
            Effect::Log { .. } => return,
        };
        if written.is_ok() {
            self.effects += 1;
        }
    }
}

/// FNV-1a.
impl fmt::Write for Follow {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
