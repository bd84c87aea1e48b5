//! Random schedules: what users, machines and networks do to a cluster, and what must hold afterwards.
//!
//! A schedule is data. It is generated from a seed once, then run; a failing one is shrunk by leaving steps out while it still
//! fails. Steps name places and keys, never nodes, so that any part of a schedule is a schedule: a step that makes no sense where it
//! stands does nothing.
//!
//! After the last step all is healed and everybody listens. Then within [`QUIET`] all members show the same rows, and those are the
//! rows that the [model](model) expects.

mod generate;
mod keys;
mod model;
mod run;
mod shrink;
#[cfg(test)]
mod tests;

pub use generate::generate;
#[cfg(test)]
pub(crate) use run::run_in;
pub use run::{Failure, Kind, Outcome, run, run_with_diary};
pub use shrink::shrink;

use super::Weather;
use crate::time::Duration;
use std::fmt;

/// How long the cluster may take to agree after the last step, everything healed.
pub const QUIET: Duration = Duration::from_secs(60);

/// For how long it must then stay as it is: longer than the interval of bulk syncs, which would bring back what is left somewhere.
pub const HOLD: Duration = Duration::from_secs(40);

/// How many networks there are.
const NETWORKS: usize = 2;

/// How many keys each network has. Few, so that nodes write over each other.
const KEYS: usize = 8;

/// The places that all others join: as managers are.
const BOOTSTRAP_PLACES: usize = 3;

/// What is done, and how long after the step before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Time since the step before.
    pub after: Duration,
    /// What.
    pub action: Action,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node with a new name starts, joins the cluster and these networks.
    Start {
        /// Where.
        place: usize,
        /// Which of the networks it joins.
        networks: [bool; NETWORKS],
    },
    /// A node leaves the cluster.
    Leave(usize),
    /// A process ends without a word.
    Crash(usize),
    /// The same, and another one starts there at once.
    Restart(usize),
    /// A node joins a network.
    Enter(usize, usize),
    /// A node leaves a network.
    Exit(usize, usize),
    /// A node creates or updates a row, whoever owns it.
    Write {
        /// Which node.
        place: usize,
        /// Network.
        network: usize,
        /// Key.
        key: usize,
        /// Size of the value.
        bytes: usize,
    },
    /// A node deletes a row that it sees, whoever owns it.
    Delete {
        /// Which node.
        place: usize,
        /// Network.
        network: usize,
        /// Key.
        key: usize,
    },
    /// The underlay falls into parts.
    Split {
        /// The side of each place.
        sides: Vec<usize>,
        /// From the first side to the second datagrams pass, and not back.
        one_way: bool,
    },
    /// It is whole again.
    Heal,
    /// What happens to packets from here on.
    Weather(Weather),
    /// A node's clock jumps forward.
    Jump(usize, Duration),
    /// A node gets to run only now and then, at most so far apart.
    Stall(usize, Duration),
    /// It keeps up again.
    Resume(usize),
    /// The node that is behind with the rotation of keys takes the next step of it: add a key, send with it, forget the old one.
    Rotate,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Out of which it came; decides chance while it runs.
    pub seed: u64,
    /// How many places there are.
    pub places: usize,
    /// Gossip is encrypted.
    pub encrypted: bool,
    /// What happens.
    pub steps: Vec<Step>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Schedule {
            seed,
            places,
            encrypted,
            steps,
        } = self;
        let clear = if *encrypted { "encrypted" } else { "in the clear" };
        writeln!(f, "seed {seed}, {places} places, {} steps, {clear}", steps.len())?;
        let mut at = Duration::ZERO;
        for step in steps {
            at += step.after;
            writeln!(f, "  {:8.3} s  {}", at.as_secs_f64(), step.action)?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Start { place, networks } => {
                let joined: Vec<_> = (0..NETWORKS).filter(|network| networks[*network]).collect();
                write!(f, "start at place {place}, networks {joined:?}")
            }
            Action::Leave(place) => write!(f, "place {place} leaves the cluster"),
            Action::Crash(place) => write!(f, "place {place} crashes"),
            Action::Restart(place) => write!(f, "place {place} restarts under a new name"),
            Action::Enter(place, network) => write!(f, "place {place} joins network {network}"),
            Action::Exit(place, network) => write!(f, "place {place} leaves network {network}"),
            Action::Write {
                place,
                network,
                key,
                bytes,
            } => write!(f, "place {place} writes key {key} of network {network}, {bytes} bytes"),
            Action::Delete { place, network, key } => write!(f, "place {place} deletes key {key} of network {network}"),
            Action::Split { sides, one_way } => {
                let how = if *one_way { ", side 0 reaches side 1" } else { "" };
                write!(f, "split into sides {sides:?}{how}")
            }
            Action::Heal => write!(f, "heal"),
            Action::Weather(weather) => write!(
                f,
                "weather: {} % lost, {} % twice, {} % straggling, {} % damaged, {} to {} ms",
                weather.loss_percent,
                weather.duplicated_percent,
                weather.straggling_percent,
                weather.damaged_percent,
                weather.latency_min.as_millis(),
                weather.latency_max.as_millis()
            ),
            Action::Jump(place, by) => write!(f, "the clock of place {place} jumps by {by:?}"),
            Action::Stall(place, longest) => write!(f, "place {place} runs only every {longest:?} or so"),
            Action::Rotate => write!(f, "the node that is behind takes the next step of the rotation of keys"),
            Action::Resume(place) => write!(f, "place {place} keeps up again"),
        }
    }
}
