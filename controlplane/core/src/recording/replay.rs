//! Running a recording again: the same core, from the same state, with the same inputs at the same times.

use super::tap::Follow;
use super::{Course, End, Ending, Frame, Happening, MAX_RECORDING_BYTES, Start, State};
use crate::id::{NetworkId, NodeId};
use crate::membership::LogLevel;
use crate::networkdb::{Effect, Event, NetworkDb};
use crate::time::{Duration, Instant};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// Why a recording cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The frames are not in an order in which any weft writes them.
    #[error("this recording has {found} where {wanted} should be")]
    Order {
        /// What is there.
        found: &'static str,
        /// What should be.
        wanted: &'static str,
    },
    /// The state at the beginning has no meaning.
    #[error("the state that this recording begins with cannot be read: {0}")]
    State(String),
    /// The state says that it is larger than a recording.
    #[error(
        "the state that this recording begins with says that it has {bytes} bytes, and a recording has at most {MAX_RECORDING_BYTES}"
    )]
    TooLarge {
        /// What it says.
        bytes: u64,
    },
}

/// Something that happened while the recording ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When, after the beginning.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A node came, or came back.
    NodeUp {
        /// Its name.
        name: NodeId,
        /// Its address.
        address: IpAddr,
    },
    /// A node is suspected.
    NodeSuspect(NodeId),
    /// A node is not suspected any more, and lives.
    NodeCleared(NodeId),
    /// A node failed or left.
    NodeDown {
        /// Its name.
        name: NodeId,
        /// It left of its own will.
        left: bool,
    },
    /// A row appeared or came back.
    RowCreated(RowTold),
    /// A row has another value or owner.
    RowUpdated(RowTold),
    /// A row was deleted, or its owner failed or left.
    RowGone(RowTold),
    /// The node was told to do something.
    Command(String),
    /// The keys refused something.
    Refused {
        /// Who sent it; `None` for the answer on a stream that the node opened.
        from: Option<SocketAddr>,
        /// Why.
        why: String,
    },
    /// The node logged a warning or an error.
    Logged(String),
}

/// A row in a [`What`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowTold {
    /// Its network.
    pub network: NetworkId,
    /// Its table.
    pub table: String,
    /// Its key.
    pub key: String,
    /// Its value; of one that is gone, the last.
    pub value: Vec<u8>,
    /// Who wrote it.
    pub owner: NodeId,
}

/// Where a replay went another way than the node did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// What was sent or told is not the same, by this time after the beginning.
    Course(Duration),
    /// A part of what is held is not the same at the end.
    Part(String),
    /// All that has a name is the same at the end, but timers or queues are not.
    Rest,
}

/// How a replay compares with the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived at the same state, by the same course.
    Same,
    /// It did not.
    Differs(Vec<Difference>),
    /// The recording does not say what the node held at its end; as far as it says what was sent and told, that is the same.
    Unknown,
}

/// A recording that is run.
#[derive(Debug)]
pub struct Replay {
    stage: Stage,
    start: Option<Start>,
    state: Vec<u8>,
    follow: Follow,
    visible: BTreeSet<(NetworkId, String, String)>,
    suspects: BTreeSet<NodeId>,
    effects: Vec<Effect>,
    happenings: u64,
    latest: Instant,
    strayed: Option<Duration>,
    end: Option<End>,
    compared: Option<Verdict>,
}

#[derive(Debug)]
enum Stage {
    Start,
    State,
    Running(Box<NetworkDb>),
}

impl Default for Replay {
    fn default() -> Self {
        Replay {
            stage: Stage::Start,
            start: None,
            state: Vec::new(),
            follow: Follow::new(0),
            visible: BTreeSet::new(),
            suspects: BTreeSet::new(),
            effects: Vec::new(),
            happenings: 0,
            latest: Instant::ZERO,
            strayed: None,
            end: None,
            compared: None,
        }
    }
}

impl Replay {
    /// Nothing run yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs the next frame; returns what it brought about.
    pub fn feed(&mut self, frame: Frame) -> Result<Vec<Told>, ReplayError> {
        self.effects.clear();
        if self.end.is_some() {
            return Err(order(&frame, "nothing more"));
        }
        match (&mut self.stage, frame) {
            (Stage::Start, Frame::Start(start)) => self.begin(start),
            (Stage::State, Frame::State(part)) => self.gather(&part),
            (Stage::Running(db), Frame::Happened(at, what)) => {
                let mut told = Vec::new();
                tell_input(&what, &mut told);
                db.repeat(at, what);
                Ok(self.follow(at, told))
            }
            (Stage::Running(_), Frame::Check(at, course)) => {
                self.compare_course(at, course);
                Ok(Vec::new())
            }
            (Stage::Running(db), Frame::End(end)) => {
                let state = end.last.as_ref().map(|(_, theirs)| (db.digests(), theirs.clone()));
                self.compare(&end, state);
                self.latest = end.at;
                self.end = Some(end);
                Ok(Vec::new())
            }
            (Stage::Start, frame) => Err(order(&frame, "its beginning")),
            (Stage::State, frame) => Err(order(&frame, "the state that it begins with")),
            (Stage::Running(_), frame) => Err(order(&frame, "something that happened")),
        }
    }

    fn begin(&mut self, start: Start) -> Result<Vec<Told>, ReplayError> {
        let bytes = start.state_bytes;
        if bytes > MAX_RECORDING_BYTES as u64 {
            return Err(ReplayError::TooLarge { bytes });
        }
        self.latest = start.at;
        self.start = Some(start);
        self.stage = Stage::State;
        Ok(Vec::new())
    }

    fn gather(&mut self, part: &[u8]) -> Result<Vec<Told>, ReplayError> {
        self.state.extend_from_slice(part);
        let wanted = self.start.as_ref().map_or(0, |start| start.state_bytes);
        match (self.state.len() as u64).cmp(&wanted) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                let db = NetworkDb::restored(&std::mem::take(&mut self.state)).map_err(ReplayError::State)?;
                let rows = db
                    .all_rows()
                    .filter(|row| row.owner_state != crate::networkdb::OwnerState::Failed);
                self.visible = rows
                    .map(|row| (row.network.clone(), row.table.to_owned(), row.key.to_owned()))
                    .collect();
                self.suspects = db.suspects().cloned().collect();
                self.stage = Stage::Running(Box::new(db));
            }
            std::cmp::Ordering::Greater => {
                let error = format!("it has more than the {wanted} bytes that it says");
                return Err(ReplayError::State(error));
            }
        }
        Ok(Vec::new())
    }

    /// Takes out what the core did, and turns it into words.
    fn follow(&mut self, at: Instant, mut told: Vec<What>) -> Vec<Told> {
        let Stage::Running(db) = &mut self.stage else {
            return Vec::new();
        };
        self.latest = self.latest.max(at);
        self.happenings += 1;
        let mut events = Vec::new();
        while let Some(effect) = db.poll_effect() {
            self.follow.effect(&effect);
            match &effect {
                Effect::Event(event) => events.push(event.clone()),
                Effect::Log { level, message } if *level >= LogLevel::Warn => told.push(What::Logged(message.clone())),
                _ => {}
            }
            self.effects.push(effect);
        }
        let suspects: BTreeSet<NodeId> = db.suspects().cloned().collect();
        let alive = |node: &NodeId| db.standing(node) == Some(crate::networkdb::Standing::Alive);
        if suspects != self.suspects {
            told.extend(suspects.difference(&self.suspects).cloned().map(What::NodeSuspect));
            let cleared = self.suspects.difference(&suspects).filter(|node| alive(node));
            told.extend(cleared.cloned().map(What::NodeCleared));
            self.suspects = suspects;
        }
        told.extend(events.into_iter().map(|event| self.tell_event(event)));
        let at = self.since(at);
        told.into_iter().map(|what| Told { at, what }).collect()
    }

    fn tell_event(&mut self, event: Event) -> What {
        match event {
            Event::NodeUp { name, address } => What::NodeUp { name, address },
            Event::NodeDown { name, left, .. } => What::NodeDown { name, left },
            Event::EntrySet {
                network,
                table,
                key,
                value,
                owner,
            } => {
                let new = self.visible.insert((network.clone(), table.clone(), key.clone()));
                let row = RowTold {
                    network,
                    table,
                    key,
                    value,
                    owner,
                };
                if new {
                    What::RowCreated(row)
                } else {
                    What::RowUpdated(row)
                }
            }
            Event::EntryGone {
                network,
                table,
                key,
                value,
                owner,
            } => {
                self.visible.remove(&(network.clone(), table.clone(), key.clone()));
                What::RowGone(RowTold {
                    network,
                    table,
                    key,
                    value,
                    owner,
                })
            }
        }
    }

    fn since(&self, at: Instant) -> Duration {
        at.saturating_since(self.start.as_ref().map_or(Instant::ZERO, |start| start.at))
    }

    fn compare_course(&mut self, at: Instant, theirs: Course) {
        if self.strayed.is_none() && self.follow.course() != theirs {
            self.strayed = Some(self.since(at));
        }
    }

    fn compare(&mut self, end: &End, state: Option<(State, State)>) {
        if let Some((course, _)) = end.last {
            self.compare_course(end.at, course);
        }
        let mut differences: Vec<_> = self.strayed.map(Difference::Course).into_iter().collect();
        if let Some((ours, theirs)) = &state {
            let (ours_parts, theirs_parts): (BTreeSet<_>, BTreeSet<_>) =
                (ours.parts.iter().collect(), theirs.parts.iter().collect());
            let parts: BTreeSet<_> = ours_parts
                .symmetric_difference(&theirs_parts)
                .map(|(name, _)| name)
                .collect();
            if parts.is_empty() && ours.whole != theirs.whole {
                differences.push(Difference::Rest);
            }
            differences.extend(parts.into_iter().cloned().map(Difference::Part));
        }
        self.compared = Some(match (differences.is_empty(), state) {
            (false, _) => Verdict::Differs(differences),
            (true, Some(_)) => Verdict::Same,
            (true, None) => Verdict::Unknown,
        });
    }

    /// What is recorded, once that is read.
    pub fn start(&self) -> Option<&Start> {
        self.start.as_ref()
    }

    /// The gossip as it stands, once its state is read.
    pub fn gossip(&self) -> Option<&NetworkDb> {
        match &self.stage {
            Stage::Running(db) => Some(db),
            Stage::Start | Stage::State => None,
        }
    }

    /// What the last frame had the core do.
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// How many happenings were run.
    pub fn happenings(&self) -> u64 {
        self.happenings
    }

    /// How long the recording is, as far as it was run.
    pub fn length(&self) -> Duration {
        self.since(self.latest)
    }

    /// Why the recording ended; `None` if its end was not reached.
    pub fn ending(&self) -> Option<Ending> {
        self.end.as_ref().map(|end| end.why)
    }

    /// How the replay compares with the node, as far as it was run.
    pub fn verdict(&self) -> Verdict {
        match (&self.compared, self.strayed) {
            (Some(verdict), _) => verdict.clone(),
            (None, Some(at)) => Verdict::Differs(vec![Difference::Course(at)]),
            (None, None) => Verdict::Unknown,
        }
    }
}

fn order(frame: &Frame, wanted: &'static str) -> ReplayError {
    let found = match frame {
        Frame::Start(_) => "a beginning",
        Frame::State(_) => "a part of a state",
        Frame::Happened(..) => "something that happened",
        Frame::Check(..) => "a check",
        Frame::End(_) => "an end",
    };
    ReplayError::Order { found, wanted }
}

/// What a happening is by itself, before it has any effect.
fn tell_input(what: &Happening, told: &mut Vec<What>) {
    let refused = |from: Option<SocketAddr>, error: &crate::membership::OpenError| What::Refused {
        from,
        why: error.to_string(),
    };
    told.extend(match what {
        Happening::Datagram {
            from,
            opened: Err(error),
        }
        | Happening::StreamRequest {
            from,
            opened: Err(error),
            ..
        } => Some(refused(Some(*from), error)),
        Happening::StreamReply { opened: Err(error), .. } => Some(refused(None, error)),
        Happening::Join(members) => {
            let members: Vec<_> = members.iter().map(SocketAddr::to_string).collect();
            Some(What::Command(format!("join {}", members.join(", "))))
        }
        Happening::Leave => Some(What::Command("leave the gossip".to_owned())),
        Happening::JoinNetwork(network) => Some(What::Command(format!("join network {network}"))),
        Happening::LeaveNetwork(network) => Some(What::Command(format!("leave network {network}"))),
        Happening::Create(row) => Some(What::Command(format!("create {}", row.place()))),
        Happening::Update(row) => Some(What::Command(format!("update {}", row.place()))),
        Happening::Delete(row) => Some(What::Command(format!("delete {}", row.place()))),
        Happening::Keys(keys) => Some(What::Command(format!("use a keyring of {keys}"))),
        Happening::Datagram { .. }
        | Happening::StreamRequest { .. }
        | Happening::StreamReply { .. }
        | Happening::StreamFailed { .. }
        | Happening::Timeout => None,
    });
}
