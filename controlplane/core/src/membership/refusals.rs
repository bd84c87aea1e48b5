//! Telling of what is refused again and again: one line a minute for each reason, however much comes in.

use super::{LogLevel, Membership, OpenError};
use crate::id::NodeId;
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How long a reason is not told of again.
const SILENCE: Duration = Duration::from_secs(60);

/// Why something is refused, as far as it is told of separately.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Reason {
    /// In the clear.
    Plaintext,
    /// Encrypted, and no key opens it.
    Keys,
    /// A stream whose message has no meaning.
    Unreadable,
    /// A peer could not read what was sent to it.
    Reported,
    /// Two nodes of this name.
    Conflict(NodeId),
}

/// How many reasons are remembered: names come from outside.
const MAX_REASONS: usize = 256;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Told {
    at: Instant,
    #[serde(skip)]
    suppressed: u64,
}

/// What was told when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Refusals {
    told: BTreeMap<Reason, Told>,
}

impl Refusals {
    /// Whether to tell of it now: how many were not told of since the last line. `None`: not now.
    fn tell(&mut self, now: Instant, reason: Reason) -> Option<u64> {
        if self.told.len() >= MAX_REASONS && !self.told.contains_key(&reason) {
            self.told.retain(|_, told| now < told.at + SILENCE);
            if self.told.len() >= MAX_REASONS {
                return None;
            }
        }
        match self.told.get_mut(&reason) {
            Some(told) if now < told.at + SILENCE => {
                told.suppressed += 1;
                None
            }
            Some(told) => {
                told.at = now;
                Some(std::mem::take(&mut told.suppressed))
            }
            None => {
                self.told.insert(reason, Told { at: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

impl Membership {
    /// A datagram or stream is refused before it is read.
    pub(super) fn refuse(&mut self, now: Instant, from: SocketAddr, error: &OpenError) {
        let reason = match error {
            OpenError::Plaintext => {
                self.counters.refused_plaintext += 1;
                Reason::Plaintext
            }
            OpenError::NoKeys | OpenError::WrongKey { .. } => {
                self.counters.refused_keys += 1;
                Reason::Keys
            }
        };
        self.warn_rarely(now, reason, format!("gossip from {from} is refused: {error}"));
    }

    /// Tells of something that may come again and again.
    pub(super) fn warn_rarely(&mut self, now: Instant, reason: Reason, message: String) {
        match self.refusals.tell(now, reason) {
            None => {}
            Some(0) => self.log(LogLevel::Warn, message),
            Some(more) => self.log(
                LogLevel::Warn,
                format!("{message} ({more} more since the last such line)"),
            ),
        }
    }
}
