//! Who is measured when, and which samples are compared.
//!
//! All arrangements stand side by side for the whole run. Each round visits all of them, every other round in reverse, so that
//! what else the machine does meets each of them alike. Ratios are taken within a round only.

use crate::arrangement::Arrangement;
use crate::arrangement::weft::BY_SOCKETS;
use crate::error::Result;
use crate::interrupt;
use crate::measure::{Figures, MEASURES, METRICS, Metric};
use crate::options::Options;
use crate::statistics::{Summary, paired_ratios};

/// One measure of one arrangement in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Counted from 0.
    pub round: u32,
    /// Id of the arrangement.
    pub arrangement: &'static str,
    /// Name of the measure.
    pub measure: &'static str,
    /// The figures, or why there are none.
    pub outcome: std::result::Result<Figures, String>,
}

/// Measures everything in all rounds. A failed measure is a sample too; only the user's interrupt ends the run.
pub fn run(arrangements: &[Box<dyn Arrangement>], options: &Options) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        let mut order: Vec<_> = arrangements.iter().map(|a| &**a).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for arrangement in order {
            eprintln!("round {} of {}: {}", round + 1, options.rounds, arrangement.id());
            visit(arrangement, round, options, &mut samples)?;
        }
    }
    Ok(samples)
}

fn visit(arrangement: &dyn Arrangement, round: u32, options: &Options, samples: &mut Vec<Sample>) -> Result<()> {
    let first = samples.len();
    for measure in MEASURES.iter().filter(|measure| options.wants(measure.name)) {
        interrupt::check()?;
        let outcome = measure.run(arrangement, options);
        if let Err(error) = &outcome {
            eprintln!("round {}: {}: {}: {error}", round + 1, arrangement.id(), measure.name);
        }
        samples.push(Sample {
            round,
            arrangement: arrangement.id(),
            measure: measure.name,
            outcome: outcome.map_err(|error| error.to_string()),
        });
    }
    derive(&mut samples[first..]);
    Ok(())
}

/// What a virtual IP costs: its connection rate over the direct one of the same visit.
fn derive(visit: &mut [Sample]) {
    let direct = visit.iter().find_map(|sample| sample.value("conn.rate"));
    for sample in visit {
        if let (Some(vip), Some(direct), Ok(figures)) = (sample.value("vip.rate"), direct, &mut sample.outcome) {
            figures.push(("vip.against_direct", vip / direct));
        }
    }
}

impl Sample {
    /// The figure with this key, if it is here.
    pub fn value(&self, key: &str) -> Option<f64> {
        let figures = self.outcome.as_ref().ok()?;
        figures.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }
}

/// A metric over all rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which.
    pub metric: Metric,
    /// For each arrangement, in the order given; `None` where nothing was measured.
    pub values: Vec<Option<Summary>>,
    /// For each comparison, in the order of [`comparisons`].
    pub ratios: Vec<Option<Summary>>,
}

/// Which arrangement is divided by which: weft by all others, or, without it, the last by all others; and what balances sockets by
/// Docker's.
pub fn comparisons<'a>(ids: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let Some(subject) = ids.iter().find(|id| **id == "weft").or(ids.last()) else {
        return Vec::new();
    };
    let others = ids.iter().filter(|id| id != &subject).map(|id| (*subject, *id));
    let docker = (ids.contains(&"a") && ids.contains(&BY_SOCKETS)).then_some((BY_SOCKETS, "a"));
    others.chain(docker).collect()
}

/// The table: a row for each metric that anybody has.
pub fn rows(ids: &[&str], rounds: u32, samples: &[Sample]) -> Vec<Row> {
    let value = |id: &str, round, key| {
        samples
            .iter()
            .filter(|s| s.arrangement == id && s.round == round)
            .find_map(|s| s.value(key))
    };
    let row = |metric: &Metric| {
        let values: Vec<_> = ids
            .iter()
            .map(|id| Summary::of(&(0..rounds).filter_map(|r| value(id, r, metric.key)).collect::<Vec<_>>()))
            .collect();
        let ratios = comparisons(ids).into_iter().map(|(subject, reference)| {
            let pairs = (0..rounds).map(|r| (value(subject, r, metric.key), value(reference, r, metric.key)));
            Summary::of(&paired_ratios(pairs))
        });
        Row {
            metric: *metric,
            ratios: ratios.collect(),
            values,
        }
    };
    METRICS
        .iter()
        .map(row)
        .filter(|row| row.values.iter().any(Option::is_some))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: u32, arrangement: &'static str, measure: &'static str, figures: &[(&'static str, f64)]) -> Sample {
        Sample {
            round,
            arrangement,
            measure,
            outcome: Ok(figures.to_vec()),
        }
    }

    #[test]
    fn weft_is_divided_by_the_others() {
        assert_eq!(comparisons(&["a", "e2", "weft"]), [("weft", "a"), ("weft", "e2")]);
        let with_sockets = comparisons(&["a", "weft", BY_SOCKETS]);
        assert_eq!(with_sockets, [("weft", "a"), ("weft", BY_SOCKETS), (BY_SOCKETS, "a")]);
        assert_eq!(comparisons(&["a", "e2"]), [("e2", "a")]);
        assert_eq!(comparisons(&["a"]), []);
        assert_eq!(comparisons(&[]), []);
    }

    #[test]
    fn ratios_pair_rounds_and_skip_failures() {
        let key = "tcp1.throughput";
        let mut samples = vec![
            sample(0, "a", "tcp1", &[(key, 10.0)]),
            sample(0, "weft", "tcp1", &[(key, 15.0)]),
            sample(1, "weft", "tcp1", &[(key, 40.0)]),
            sample(1, "a", "tcp1", &[(key, 20.0)]),
            sample(2, "weft", "tcp1", &[(key, 99.0)]),
        ];
        samples.push(Sample {
            outcome: Err("gone".to_owned()),
            ..sample(2, "a", "tcp1", &[])
        });
        let rows = rows(&["a", "weft"], 3, &samples);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].values[0].map(|s| (s.median, s.count)), Some((15.0, 2)));
        assert_eq!(
            rows[0].ratios[0].map(|s| (s.min, s.median, s.max, s.count)),
            Some((1.5, 1.75, 2.0, 2))
        );
    }

    #[test]
    fn a_virtual_ip_is_compared_with_the_direct_connections_of_its_visit() {
        let mut visit = [
            sample(0, "weft", "conn", &[("conn.rate", 20.0)]),
            sample(0, "weft", "vip", &[("vip.rate", 19.0)]),
        ];
        derive(&mut visit);
        assert_eq!(visit[1].value("vip.against_direct"), Some(0.95));
        assert_eq!(visit[0].value("vip.against_direct"), None);
    }
}
