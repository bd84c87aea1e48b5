//! The table and the JSON.

use super::scenario::{SCENARIOS, Sample};
use crate::statistics::percentile;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The columns.
pub(super) const HEAD: &str = "\
scenario      nodes  seeds samples     p50 s     p99 s     max s  never  UDP msg/s  UDP byte/s  TCP msg/s  TCP byte/s  false failures   wall s";

/// A scenario at a size.
pub(super) struct Line {
    name: &'static str,
    size: usize,
    samples: Vec<Sample>,
    wall: Duration,
    times: Vec<f64>,
}

impl Line {
    /// Of what all seeds gave.
    pub(super) fn new(name: &'static str, size: usize, samples: Vec<Sample>, wall: Duration) -> Self {
        let mut times: Vec<f64> = samples.iter().flat_map(|sample| sample.times.iter().copied()).collect();
        times.sort_unstable_by(f64::total_cmp);
        Line {
            name,
            size,
            samples,
            wall,
            times,
        }
    }

    /// How many rows or views were not where they should be in time.
    pub(super) fn never(&self) -> usize {
        self.samples.iter().map(|sample| sample.never).sum()
    }

    fn false_failures(&self) -> u64 {
        self.samples.iter().map(|sample| sample.false_failures).sum()
    }

    /// UDP messages and bytes, TCP messages and bytes, for each node and second.
    fn rates(&self) -> [f64; 4] {
        let node_seconds: f64 = self.samples.iter().map(|sample| sample.node_seconds).sum();
        let sum = |of: fn(&Sample) -> u64| self.samples.iter().map(of).sum::<u64>() as f64 / node_seconds.max(1e-9);
        [
            sum(|sample| sample.traffic.datagrams),
            sum(|sample| sample.traffic.datagram_bytes),
            sum(|sample| sample.traffic.stream_messages),
            sum(|sample| sample.traffic.stream_bytes),
        ]
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |percent| match percentile(&self.times, percent) {
            Some(seconds) => format!("{seconds:.3}"),
            None => "-".to_owned(),
        };
        let [datagrams, datagram_bytes, messages, stream_bytes] = self.rates();
        write!(
            f,
            "{:<12} {:>6} {:>6} {:>7} {:>9} {:>9} {:>9} {:>6} {:>10.2} {:>11.0} {:>10.3} {:>11.0} {:>15} {:>8.1}",
            self.name,
            self.size,
            self.samples.len(),
            self.times.len() + self.never(),
            time(50.0),
            time(99.0),
            time(100.0),
            self.never(),
            datagrams,
            datagram_bytes,
            messages,
            stream_bytes,
            self.false_failures(),
            self.wall.as_secs_f64()
        )
    }
}

/// What the columns mean.
pub(super) fn legend() -> String {
    let timed: Vec<_> = SCENARIOS
        .iter()
        .map(|(_, name, what)| format!("{name}: {what}"))
        .collect();
    format!(
        "Times are exact to the event for rows, to 10 ms for views. {}.\nMessages and bytes are sent ones for each node and second, while it was \
         measured. False failures: a node that lived, kept up and could be reached was declared failed; each declaration counts.",
        timed.join("; ")
    )
}

/// All samples.
pub(super) fn json(lines: &[Line]) -> Value {
    let line = |line: &Line| {
        let [datagrams, datagram_bytes, messages, stream_bytes] = line.rates();
        json!({
            "scenario": line.name,
            "nodes": line.size,
            "seeds": line.samples.len(),
            "seconds": line.times,
            "never": line.never(),
            "false_failures": line.false_failures(),
            "per_node_and_second": {
                "datagrams": datagrams,
                "datagram_bytes": datagram_bytes,
                "stream_messages": messages,
                "stream_bytes": stream_bytes,
            },
            "wall_seconds": line.wall.as_secs_f64(),
        })
    };
    json!({ "lines": lines.iter().map(line).collect::<Vec<_>>() })
}
