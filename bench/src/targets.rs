//! What weft is to reach, row by row, and whether this run did.

use crate::arrangement::weft::BY_SOCKETS;
use crate::growth::Growth;
use crate::rounds::{Row, comparisons};
use crate::statistics::Summary;
use crate::warm::WarmCost;

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

impl Bound {
    /// Whether a figure is as it must be.
    pub fn is_met(self, figure: f64) -> bool {
        match self {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
        }
    }
}

/// Where a figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The metric, over that of another arrangement in the same round.
    Against(&'static str, &'static str),
    /// The metric itself.
    Own(&'static str),
    /// The metric where sockets are balanced when they connect, over that of another arrangement in the same round.
    SocketsAgainst(&'static str, &'static str),
    /// The metric itself there.
    Sockets(&'static str),
    /// A program by test run, warm, nanoseconds.
    Warm(&'static str),
    /// The rate with full maps over that with few destinations.
    Growth(&'static str),
    /// All maps, MiB.
    Memory,
}

/// A row of the table of targets.
#[derive(Clone, Copy, Debug)]
struct Target {
    title: &'static str,
    source: Source,
    bound: Bound,
}

macro_rules! targets {
    ($($title:literal: $source:ident($($argument:literal),*) $bound:ident $value:literal;)+) => {
        /// All rows.
        const TARGETS: &[Target] = &[$(Target {
            title: $title,
            source: targets!(@ $source $($argument),*),
            bound: Bound::$bound($value),
        },)+];
    };
    (@ Memory) => { Source::Memory };
    (@ $source:ident $($argument:literal),+) => { Source::$source($($argument),+) };
}

targets! {
    "data path alone, 64 bytes, packets/s": Against("live.rate", "a") AtLeast 4.0;
    "data path alone, 64 bytes, packets/s": Against("live.rate", "anq") AtLeast 2.3;
    "data path alone, 64 bytes, packets/s": Against("live.rate", "e2") AtLeast 0.85;
    "UDP 64 bytes through sockets": Against("udp.received", "a") AtLeast 2.0;
    "UDP 64 bytes through sockets": Against("udp.received", "e2") AtLeast 0.92;
    "TCP 1 stream": Against("tcp1.throughput", "a") AtLeast 1.45;
    "TCP 1 stream": Against("tcp1.throughput", "e2") AtLeast 0.92;
    "TCP 4 streams": Against("tcp4.throughput", "a") AtLeast 1.45;
    "TCP 4 streams": Against("tcp4.throughput", "e2") AtLeast 0.92;
    "TCP 1 stream, segmented in software": Against("nic.one", "a") AtLeast 1.15;
    "TCP 4 streams, segmented in software": Against("nic.four", "a") AtLeast 1.15;
    "TCP round trips": Against("tcprr.rate", "a") AtLeast 1.4;
    "TCP round trips": Against("tcprr.rate", "e2") AtLeast 0.97;
    "TCP round trip p99": Against("tcprr.p99", "a") AtMost 1.0;
    "UDP round trips": Against("udprr.rate", "a") AtLeast 1.4;
    "UDP round trips": Against("udprr.rate", "e2") AtLeast 0.97;
    "UDP round trip p99": Against("udprr.p99", "a") AtMost 1.0;
    "new connections through a VIP": Against("vip.rate", "a") AtLeast 1.75;
    "new connections, VIP against direct": Own("vip.against_direct") AtLeast 0.97;
    "new connections through a VIP, balance=connect": SocketsAgainst("vip.rate", "a") AtLeast 1.75;
    "new connections, VIP against direct, balance=connect": Sockets("vip.against_direct") AtLeast 0.97;
    "TCP stream, VIP against direct": Own("vipbulk.stream") AtLeast 0.98;
    "TCP round trips, VIP against direct": Own("vipbulk.trips") AtLeast 0.98;
    "encapsulation, warm, ns": Warm("warm.encap") AtMost 70.0;
    "decapsulation, warm, ns": Warm("warm.decap") AtMost 70.0;
    "VIP look-up and translation, ns more": Warm("warm.vip") AtMost 65.0;
    "packets/s to 100,000 peers against few": Growth("growth.peers") AtLeast 0.8;
    "packets/s of 1,000,000 connections against few": Growth("growth.vips") AtLeast 0.8;
    "maps at that size, MiB": Memory() AtMost 256.0;
}

/// A row, and what this run says to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What it is about.
    pub title: &'static str,
    /// What it is compared with; empty if with nothing.
    pub against: &'static str,
    /// What it should be.
    pub bound: Bound,
    /// What it is; `None` if this run did not measure it.
    pub figure: Option<Summary>,
}

impl Verdict {
    /// Whether the median is as it should be; `None` if this run did not measure it.
    pub fn is_met(&self) -> Option<bool> {
        self.figure.map(|figure| self.bound.is_met(figure.median))
    }
}

/// What each row of the targets came to.
pub fn verdicts(ids: &[&str], rows: &[Row], programs: Option<&[WarmCost]>, growth: Option<&Growth>) -> Vec<Verdict> {
    let comparisons = comparisons(ids);
    let subject = comparisons.first().map_or("", |(subject, _)| subject);
    let row = |key: &str| rows.iter().find(|row| row.metric.key == key);
    let ratio = |of: &str, key: &str, other: &str| {
        let column = comparisons.iter().position(|pair| *pair == (of, other))?;
        *row(key)?.ratios.get(column)?
    };
    let own = |of: &str, key: &str| {
        let column = ids.iter().position(|id| *id == of)?;
        *row(key)?.values.get(column)?
    };
    let figure = |source: Source| match source {
        Source::Against(key, other) => ratio(subject, key, other),
        Source::Own(key) => own(subject, key),
        Source::SocketsAgainst(key, other) => ratio(BY_SOCKETS, key, other),
        Source::Sockets(key) => own(BY_SOCKETS, key),
        Source::Warm(key) => programs?.iter().find(|cost| cost.key == key).map(|cost| cost.cost),
        Source::Growth(key) => growth?.rates.iter().find(|rate| rate.key == key).map(|rate| rate.ratio),
        Source::Memory => Summary::of(&[growth?.bytes() as f64 / f64::from(1 << 20)]),
    };
    let against = |source: Source| match source {
        Source::Against(_, other) | Source::SocketsAgainst(_, other) => other,
        _ => "",
    };
    TARGETS
        .iter()
        .map(|target| Verdict {
            title: target.title,
            against: against(target.source),
            bound: target.bound,
            figure: figure(target.source),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::METRICS;
    use crate::{arrangement, warm};

    #[test]
    fn each_row_is_about_something_that_is_measured() {
        for target in TARGETS {
            match target.source {
                Source::Against(key, other) | Source::SocketsAgainst(key, other) => {
                    assert!(METRICS.iter().any(|metric| metric.key == key), "{key}");
                    assert!(arrangement::IDS.contains(&other), "{other}");
                }
                Source::Own(key) | Source::Sockets(key) => {
                    assert!(METRICS.iter().any(|metric| metric.key == key), "{key}")
                }
                Source::Warm(key) => assert!(warm::KEYS.contains(&key), "{key}"),
                Source::Growth(key) => assert!(crate::growth::KEYS.contains(&key), "{key}"),
                Source::Memory => {}
            }
        }
    }

    #[test]
    fn a_row_is_met_by_its_median() {
        let summary = Summary {
            median: 0.9,
            min: 0.5,
            max: 1.1,
            count: 3,
        };
        let metric = *METRICS.iter().find(|metric| metric.key == "udp.received").unwrap();
        let row = Row {
            metric,
            values: vec![None, Some(summary)],
            ratios: vec![Some(summary)],
        };
        let of = |ids: [&'static str; 2]| {
            let verdicts = verdicts(&ids, std::slice::from_ref(&row), None, None);
            assert_eq!(verdicts.len(), TARGETS.len());
            let measured = verdicts.into_iter().filter(|verdict| verdict.figure.is_some());
            measured
                .map(|verdict| (verdict.against, verdict.is_met()))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(["a", "weft"]), [("a", Some(false))]);
        assert_eq!(of(["e2", "weft"]), [("e2", Some(false))]);
        // What balances sockets is no subject, but for rows of its own.
        assert_eq!(of(["weft", BY_SOCKETS]), []);
        assert!(Bound::AtLeast(0.9).is_met(0.9) && Bound::AtMost(0.9).is_met(0.9));
        assert!(!Bound::AtLeast(0.9).is_met(0.89) && !Bound::AtMost(0.9).is_met(0.91));
    }
}
