//! The gossip keys of a cluster, and how its manager replaces them without losing a message.
//!
//! At rest there are three keys, as in Docker's swarms (`spec/networkdb.md` 3.13): the primary one, which seals; the previous
//! one, still accepted from who was away; and a reserve, accepted already and used by the next automatic rotation, so that a node
//! that misses one such rotation still understands the others. When a member is removed or leaves, a rotation replaces all three. A
//! rotation goes through phases. Each is a new version of the key
//! set, and begins when the nodes have acknowledged the one before:
//!
//! 1. [`Phase::Adding`]: the new keys are accepted everywhere; nobody seals with them.
//! 2. [`Phase::Switching`]: the new primary key seals; all old ones are accepted.
//! 3. [`Phase::Settled`]: the keys before the previous one are gone.

#[cfg(test)]
mod tests;

use super::UnixNanos;
use super::refusal::{Refusal, list};
use crate::networkdb::{Key, Keyring};
use crate::time::{Duration, Instant};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;

/// How many bytes a key has that is made here: AES-256.
pub const KEY_BYTES: usize = 32;

/// How often the keys are replaced without being asked, as Docker's managers do.
pub const ROTATION_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);

/// How long a phase waits for members that are away: long enough for a restart, or for all nodes to come back to a manager that
/// was restarted itself.
pub const AWAY_GRACE: Duration = Duration::from_secs(10);

/// How long a phase waits for members that gossip and do not acknowledge, which means that they do not reach the manager.
pub const LIVE_DEADLINE: Duration = Duration::from_secs(10 * 60);

/// How often a phase under way is looked at, for members come and go.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a step that could not be taken (the disk is full) is not tried again.
const RETRY: Duration = Duration::from_secs(30);

/// The most keys in a set; a rotation has five at most.
const MAX_KEYS: usize = 16;

/// The keys that a node holds, as the manager hands them out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// Counts the sets of a cluster.
    pub version: u64,
    /// The primary one first; at least one.
    #[serde(serialize_with = "write_keys", deserialize_with = "read_keys")]
    keys: Vec<Key>,
}

impl KeySet {
    /// As the gossip takes them.
    pub fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        self.keys.iter().for_each(|key| keyring.add(key.clone()));
        keyring
    }
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// None is under way.
    Settled,
    /// The new keys are accepted, and not used.
    Adding,
    /// The new primary key is used.
    Switching,
}

impl Phase {
    /// For a user.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Settled => "settled",
            Phase::Adding => "adding",
            Phase::Switching => "switching",
        }
    }
}

/// The keys at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    #[serde(serialize_with = "write_keys", deserialize_with = "read_keys_or_none")]
    previous: Vec<Key>,
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    primary: Key,
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    reserve: Key,
}

/// What the manager's store keeps: all that a rotation needs to go on after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    version: u64,
    phase: Phase,
    /// When the last rotation began, by the wall clock.
    rotated: UnixNanos,
    /// Somebody who knows the present keys is no member any more: the next rotation begins at once and keeps none of them.
    #[serde(default)]
    shut_out: bool,
    now: Rest,
    /// What the rotation leads to; the same while none is under way.
    then: Rest,
}

/// A phase that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To be stored, and then [applied](GossipKeys::apply).
    pub row: KeyRow,
    /// Members that gossip and were not waited for any longer.
    pub left_behind: Vec<String>,
}

/// What may be told of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysView {
    /// Version of the set.
    pub version: u64,
    /// How far a rotation is; nothing where only the manager knows.
    pub phase: Option<Phase>,
    /// Fingerprints, the primary key's first.
    pub fingerprints: Vec<String>,
    /// When the last rotation began.
    pub rotated: Option<UnixNanos>,
    /// When the next one begins by itself, from now.
    pub due: Option<Duration>,
    /// Members that have not acknowledged the set.
    pub waiting_for: Vec<String>,
}

impl KeysView {
    /// What a worker can tell of its keys.
    pub fn of_worker(set: &KeySet) -> KeysView {
        KeysView {
            version: set.version,
            phase: None,
            fingerprints: set.keyring().keys().iter().map(Key::fingerprint).collect(),
            rotated: None,
            due: None,
            waiting_for: Vec::new(),
        }
    }
}

/// The manager's keys. One exists in a cluster.
#[derive(Clone, Debug)]
pub struct GossipKeys {
    row: KeyRow,
    /// When the phase began, or the manager started.
    since: Instant,
    /// When the next rotation begins by itself.
    due: Instant,
    look_at: Instant,
    acknowledged: BTreeMap<String, u64>,
}

/// Puts a rotation's keys in a row, each once.
fn ring<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Vec<Key> {
    let mut keyring = Keyring::default();
    keys.into_iter().for_each(|key| keyring.add(key.clone()));
    keyring.keys().to_vec()
}

impl GossipKeys {
    /// The keys of a new cluster.
    pub fn create(now: Instant, wall: UnixNanos, primary: Key, reserve: Key) -> GossipKeys {
        let rest = Rest {
            previous: Vec::new(),
            primary,
            reserve,
        };
        let row = KeyRow {
            version: 1,
            phase: Phase::Settled,
            rotated: wall,
            shut_out: false,
            now: rest.clone(),
            then: rest,
        };
        GossipKeys::load(now, wall, row)
    }

    /// The stored keys, after a start. A rotation goes on where it was; the next one begins when it would have without the restart.
    /// If the wall clock was set back meanwhile, it begins a whole interval from now.
    pub fn load(now: Instant, wall: UnixNanos, mut row: KeyRow) -> GossipKeys {
        let elapsed = Duration::from_nanos(wall.saturating_sub(row.rotated));
        row.rotated = row.rotated.min(wall);
        GossipKeys {
            row,
            since: now,
            due: now + ROTATION_INTERVAL.saturating_sub(elapsed),
            look_at: now,
            acknowledged: BTreeMap::new(),
        }
    }

    /// What is to be stored.
    pub fn row(&self) -> &KeyRow {
        &self.row
    }

    /// What every node should hold now.
    pub fn set(&self) -> KeySet {
        let KeyRow { now, then, .. } = &self.row;
        let old = [&now.primary, &now.reserve].into_iter().chain(&now.previous);
        let new = [&then.primary, &then.reserve];
        let keys = match self.row.phase {
            Phase::Settled => ring(old),
            Phase::Adding => ring(old.chain(new)),
            Phase::Switching => ring(new.into_iter().chain(old)),
        };
        KeySet {
            version: self.row.version,
            keys,
        }
    }

    /// Begins a rotation that a user asked for: to the `wanted` key, or to the first of two fresh ones. The second becomes the
    /// reserve.
    pub fn rotate(&self, wall: UnixNanos, wanted: Option<Key>, fresh: [Key; 2]) -> Result<KeyRow, Refusal> {
        if self.row.phase != Phase::Settled {
            return Err(Refusal::conflict(format!(
                "a rotation of the gossip keys is under way (phase {}, version {}); `weft cluster keys` tells when it is done",
                self.row.phase.as_str(),
                self.row.version
            )));
        }
        let [primary, reserve] = fresh;
        let primary = wanted.unwrap_or(primary);
        let used = [&self.row.now.primary].into_iter().chain(&self.row.now.previous);
        if used.into_iter().any(|key| *key == primary) {
            return Err(Refusal::conflict(format!(
                "gossip key {} is in use already: a rotation needs another one",
                primary.fingerprint()
            )));
        }
        Ok(self.begin(wall, primary, reserve))
    }

    /// A member was removed, or left: the keys that it knows are to be replaced, all of them, by the next rotation. Several removals
    /// before that are one. What is to be stored; it holds at once.
    pub fn shut_out(&mut self) -> &KeyRow {
        self.row.shut_out = true;
        &self.row
    }

    /// Begins a rotation if it is time: to the reserve, which all nodes accept already, or, if somebody is shut out, to the first
    /// of two fresh keys. The second becomes the reserve.
    pub fn rotate_if_due(&self, now: Instant, wall: UnixNanos, fresh: [Key; 2]) -> Option<KeyRow> {
        let [primary, reserve] = fresh;
        let known = self.row.now.reserve.clone();
        let primary = if self.row.shut_out { primary } else { known };
        self.is_due(now).then(|| self.begin(wall, primary, reserve))
    }

    /// Whether a rotation begins by itself.
    pub fn is_due(&self, now: Instant) -> bool {
        self.row.phase == Phase::Settled && self.settled_until() <= now
    }

    fn settled_until(&self) -> Instant {
        if self.row.shut_out {
            self.due.min(self.look_at)
        } else {
            self.due
        }
    }

    fn begin(&self, wall: UnixNanos, primary: Key, reserve: Key) -> KeyRow {
        let kept = (!self.row.shut_out).then(|| self.row.now.primary.clone());
        KeyRow {
            version: self.row.version + 1,
            phase: Phase::Adding,
            rotated: wall,
            shut_out: false,
            now: self.row.now.clone(),
            then: Rest {
                previous: kept.into_iter().collect(),
                primary,
                reserve,
            },
        }
    }

    /// A member holds this version.
    pub fn acknowledge(&mut self, now: Instant, member: &str, version: u64) {
        self.acknowledged.insert(member.to_owned(), version);
        if self.row.phase != Phase::Settled {
            self.look_at = now;
        }
    }

    /// Whether [`advance`](Self::advance) has something to look at.
    pub fn wants_look(&self, now: Instant) -> bool {
        self.row.phase != Phase::Settled && self.look_at <= now
    }

    /// The next phase, if the members' acknowledgements, or their silence, allow it. Members are the others: name, and whether they
    /// are live in the gossip.
    pub fn advance(&mut self, now: Instant, members: &[(String, bool)]) -> Option<Step> {
        let phase = match self.row.phase {
            Phase::Settled => return None,
            Phase::Adding => Phase::Switching,
            Phase::Switching => Phase::Settled,
        };
        self.look_at = now + LOOK_INTERVAL;
        let missing: Vec<_> = members
            .iter()
            .filter(|(name, _)| self.acknowledged.get(name) != Some(&self.row.version))
            .collect();
        let left_behind: Vec<String> = missing
            .iter()
            .filter(|(_, live)| *live)
            .map(|(name, _)| name.clone())
            .collect();
        let waited = now.saturating_since(self.since);
        let enough = missing.is_empty() || (left_behind.is_empty() && waited >= AWAY_GRACE) || waited >= LIVE_DEADLINE;
        if !enough {
            return None;
        }
        let mut row = KeyRow {
            version: self.row.version + 1,
            phase,
            ..self.row.clone()
        };
        if phase == Phase::Settled {
            row.now = row.then.clone();
        }
        Some(Step { row, left_behind })
    }

    /// The store took the row: from now on it holds.
    pub fn apply(&mut self, now: Instant, row: KeyRow) {
        if row.phase == Phase::Adding {
            self.due = now + ROTATION_INTERVAL;
        }
        self.row = row;
        self.since = now;
        self.look_at = now;
    }

    /// The step could not be taken: it is tried again later.
    pub fn postpone(&mut self, now: Instant) {
        self.look_at = now + RETRY;
        self.due = self.due.max(now + RETRY);
    }

    /// When to look again.
    pub fn poll_timeout(&self) -> Instant {
        match self.row.phase {
            Phase::Settled => self.settled_until(),
            Phase::Adding | Phase::Switching => self.look_at,
        }
    }

    /// What may be told.
    pub fn view(&self, now: Instant, members: &[(String, bool)]) -> KeysView {
        let version = self.row.version;
        let waiting = members
            .iter()
            .filter(|(name, _)| self.acknowledged.get(name) != Some(&version));
        KeysView {
            phase: Some(self.row.phase),
            rotated: Some(self.row.rotated),
            due: Some(self.due.saturating_since(now)),
            waiting_for: waiting.map(|(name, _)| name.clone()).collect(),
            ..KeysView::of_worker(&self.set())
        }
    }
}

impl Step {
    /// One line for the operator, if there is something to tell.
    pub fn warning(&self) -> Option<String> {
        let names = list(self.left_behind.iter().map(String::as_str));
        (!self.left_behind.is_empty()).then(|| {
            format!(
                "gossip keys: {names} gossip, and did not acknowledge version {} within {} minutes; the rotation goes on without, check that they reach this manager",
                self.row.version - 1,
                LIVE_DEADLINE.as_secs() / 60
            )
        })
    }
}

impl KeyRow {
    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The version of its set.
    pub fn version(&self) -> u64 {
        self.version
    }
}

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Neither base64 nor hex.
    #[error(
        "it is neither base64 nor hex; 16, 24 or 32 bytes are wanted in one of them, as `openssl rand -base64 32` prints them"
    )]
    NotText,
    /// It is, of another length.
    #[error("it has {0} bytes; 16, 24 or 32 are wanted, as `openssl rand -base64 32` prints them")]
    Length(usize),
}

/// Reads a key as an operator writes it: base64 or hex, with white space around it.
pub fn parse_key(text: &str) -> Result<Key, KeyTextError> {
    let text = text.trim();
    let bytes = from_hex(text).or_else(|| STANDARD.decode(text).ok());
    let bytes = bytes.ok_or(KeyTextError::NotText)?;
    Key::new(&bytes).map_err(|error| KeyTextError::Length(error.bytes))
}

/// Hex digits are base64 as well: 32, 48 and 64 of them are a key in hex.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) || !matches!(text.len(), 32 | 48 | 64) {
        return None;
    }
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// A key as it is stored and sent.
pub fn key_text(key: &Key) -> String {
    STANDARD.encode(key.bytes())
}

fn write_key<S: Serializer>(key: &Key, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&key_text(key))
}

fn read_key<'de, D: Deserializer<'de>>(from: D) -> Result<Key, D::Error> {
    let text = String::deserialize(from)?;
    parse_key(&text).map_err(|error| de::Error::custom(format!("a gossip key: {error}")))
}

fn write_keys<S: Serializer>(keys: &[Key], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(keys.iter().map(key_text))
}

fn read_keys_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Key>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let keys: Result<Vec<Key>, KeyTextError> = texts.iter().map(|text| parse_key(text)).collect();
    keys.map_err(|error| de::Error::custom(format!("a gossip key: {error}")))
}

/// A set without keys would switch encryption off.
fn read_keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Key>, D::Error> {
    let keys = read_keys_or_none(from)?;
    if (1..=MAX_KEYS).contains(&keys.len()) {
        return Ok(keys);
    }
    Err(de::Error::custom(format!(
        "a set of {} gossip keys; 1 to {MAX_KEYS} are wanted",
        keys.len()
    )))
}
