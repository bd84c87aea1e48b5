//! The table on standard output, and everything behind it as JSON.

use crate::arrangement::Arrangement;
use crate::forged::Forged;
use crate::growth::Growth;
use crate::options::Options;
use crate::rounds::{Row, Sample, comparisons, rows};
use crate::statistics::Summary;
use crate::targets::{self, Bound, Verdict};
use crate::warm::WarmCost;
use crate::{awake, plot};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Part of the CPUs in use above which the bench is not alone. Idle daemons and a quiet system stay far below.
const BUSY: f64 = 0.1;

/// All that a run found out.
pub struct Report<'a> {
    /// Part of the CPUs in use before the first load, 0 to 1.
    pub busy_before: f64,
    /// What was asked for.
    pub options: &'a Options,
    /// Who was measured.
    pub arrangements: &'a [Box<dyn Arrangement>],
    /// What was measured.
    pub samples: &'a [Sample],
    /// Test runs of the programs, or why there are none; `None` when they were not asked for.
    pub programs: Option<Result<Vec<WarmCost>, String>>,
    /// The rate with full maps, or why there is none; `None` when it was not asked for.
    pub growth: Option<Result<Growth, String>>,
    /// What forged frames cost, or why it is not known.
    pub forged: Option<Result<Forged, String>>,
}

impl Report<'_> {
    fn ids(&self) -> Vec<&'static str> {
        self.arrangements.iter().map(|a| a.id()).collect()
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let ids = self.ids();
        let mut text = self.preamble();
        let rows = rows(&ids, self.options.rounds, self.samples);
        text.push_str(&table(&ids, &rows));
        text.push_str(
            "\nmedians; ratios are medians of same-round ratios [min..max]; (-) marks rows where less is better\n",
        );
        let failures = self.samples.iter().filter(|sample| sample.outcome.is_err()).count();
        if failures > 0 {
            let _ = writeln!(
                text,
                "{failures} of {} measurements FAILED, see above or the JSON",
                self.samples.len()
            );
        }
        if let Some(programs) = &self.programs {
            text.push_str(&program_table(programs));
        }
        if let Some(growth) = &self.growth {
            text.push_str(&growth_table(growth));
        }
        if let Some(forged) = &self.forged {
            text.push_str(&forged_table(forged));
        }
        text.push_str(&target_table(&self.verdicts(&rows)));
        text
    }

    fn verdicts(&self, rows: &[Row]) -> Vec<Verdict> {
        let programs = self.programs.as_ref().and_then(|programs| programs.as_deref().ok());
        let growth = self.growth.as_ref().and_then(|growth| growth.as_ref().ok());
        targets::verdicts(&self.ids(), rows, programs, growth)
    }

    /// The picture.
    pub fn plot(&self) -> String {
        let ids = self.ids();
        let rows = rows(&ids, self.options.rounds, self.samples);
        let below = format!("{}; medians of {} rounds", machine(), self.options.rounds);
        plot::svg(&ids, &rows, &below)
    }

    fn preamble(&self) -> String {
        let mut text = format!(
            "{}; {} rounds of {} s\n",
            machine(),
            self.options.rounds,
            self.options.seconds
        );
        if self.busy_before > BUSY {
            let percent = self.busy_before * 100.0;
            let _ = writeln!(
                text,
                "NOT ALONE: {percent:.0} % of the CPUs were in use before the first load; all figures suffer"
            );
        }
        if self.options.nic_like {
            text.push_str("segmentation offload between the hosts is off\n");
        }
        let _ = writeln!(text, "{}", awake::fact());
        for arrangement in self.arrangements {
            let _ = writeln!(text, "{:<5} {}", arrangement.id(), arrangement.description());
            for fact in arrangement.facts() {
                let _ = writeln!(text, "      - {fact}");
            }
        }
        text.push('\n');
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let ids = self.ids();
        let rows = rows(&ids, self.options.rounds, self.samples);
        json!({
            "machine": machine(),
            "busy_before": self.busy_before,
            "rounds": self.options.rounds,
            "seconds": self.options.seconds,
            "underlay_mtu": self.options.underlay_mtu,
            "nic_like": self.options.nic_like,
            "round_trips": awake::fact(),
            "arrangements": self.arrangements.iter().map(|a| json!({
                "id": a.id(), "description": a.description(), "facts": a.facts(),
            })).collect::<Vec<_>>(),
            "summary": rows.iter().map(|row| row_json(&ids, row)).collect::<Vec<_>>(),
            "programs": self.programs.as_ref().map(programs_json),
            "growth": self.growth.as_ref().map(growth_json),
            "forged": self.forged.as_ref().map(forged_json),
            "targets": self.verdicts(&rows).iter().map(verdict_json).collect::<Vec<_>>(),
            "samples": self.samples.iter().map(sample_json).collect::<Vec<_>>(),
        })
    }
}

/// Kernel, CPUs, and whether programs are compiled: what figures depend on.
fn machine() -> String {
    let read =
        |path| std::fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let jit = if read("/proc/sys/net/core/bpf_jit_enable") == "0" {
        "off"
    } else {
        "on"
    };
    format!(
        "Linux {}, {cpus} CPUs, BPF JIT {jit}",
        read("/proc/sys/kernel/osrelease")
    )
}

fn table(ids: &[&str], rows: &[Row]) -> String {
    let mut lines = vec![vec!["metric".to_owned(), "unit".to_owned()]];
    lines[0].extend(ids.iter().map(|id| (*id).to_owned()));
    lines[0].extend(
        comparisons(ids)
            .iter()
            .map(|(subject, reference)| format!("{subject}/{reference}")),
    );
    for row in rows {
        let better = if row.metric.higher_is_better { "" } else { " (-)" };
        let mut line = vec![format!("{}{better}", row.metric.title), row.metric.unit.to_owned()];
        line.extend(
            row.values
                .iter()
                .map(|value| value.map_or("-".to_owned(), |s| number(s.median))),
        );
        line.extend(row.ratios.iter().map(|ratio| ratio.map_or("-".to_owned(), ratio_text)));
        lines.push(line);
    }
    aligned(&lines)
}

fn ratio_text(ratio: Summary) -> String {
    format!("{:.2} [{:.2}..{:.2}]", ratio.median, ratio.min, ratio.max)
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Columns as wide as their widest cell; the first left, the others right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(text, "{cell:<width$}")
            } else {
                write!(text, "  {cell:>width$}")
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn program_table(programs: &Result<Vec<WarmCost>, String>) -> String {
    match programs {
        Err(error) => format!("\nprograms by test run: {error}\n"),
        Ok(costs) => {
            let mut lines = vec![["program by test run, warm", "ns"].map(str::to_owned).to_vec()];
            for WarmCost { case, cost, .. } in costs {
                let cells = [
                    (*case).to_owned(),
                    format!("{:.0} [{:.0}..{:.0}]", cost.median, cost.min, cost.max),
                ];
                lines.push(cells.to_vec());
            }
            format!("\n{}without what running any program costs\n", aligned(&lines))
        }
    }
}

fn growth_table(growth: &Result<Growth, String>) -> String {
    let growth = match growth {
        Ok(growth) => growth,
        Err(error) => return format!("\nfull maps: {error}\n"),
    };
    let mut lines = vec![
        ["full maps, kpps", "few", "all, at random", "all/few"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for rate in &growth.rates {
        let cells = [
            rate.case.to_owned(),
            number(rate.few.median),
            number(rate.all.median),
            ratio_text(rate.ratio),
        ];
        lines.push(cells.to_vec());
    }
    let mut text = format!(
        "\n{}{}; maps take {} MiB",
        aligned(&lines),
        growth.size,
        mebibytes(growth.bytes())
    );
    let largest = growth.memory.iter().take(6);
    let parts: Vec<_> = largest
        .map(|(name, bytes)| format!("{name} {}", mebibytes(*bytes)))
        .collect();
    let _ = writeln!(text, ": {}", parts.join(", "));
    let reads: Vec<_> = growth
        .reads
        .iter()
        .map(|(size, nanoseconds)| format!("{nanoseconds:.0} in {size} MiB"))
        .collect();
    let _ = writeln!(
        text,
        "a read at random that waits for the one before, ns: {}",
        reads.join(", ")
    );
    text
}

fn forged_table(forged: &Result<Forged, String>) -> String {
    match forged {
        Err(error) => format!("\nforged VXLAN: {error}\n"),
        Ok(forged) => {
            let head = ["forged VXLAN, kpps dropped", "TC", "XDP", "XDP/TC"].map(str::to_owned);
            let cells = [
                "making and dropping".to_owned(),
                number(forged.tc.median),
                number(forged.xdp.median),
                ratio_text(forged.ratio),
            ];
            format!("\n{}", aligned(&[head.to_vec(), cells.to_vec()]))
        }
    }
}

fn forged_json(forged: &Result<Forged, String>) -> Value {
    match forged {
        Err(error) => json!({ "error": error }),
        Ok(forged) => json!({
            "tc_kpps": summary_json(Some(forged.tc)), "xdp_kpps": summary_json(Some(forged.xdp)),
            "ratio": summary_json(Some(forged.ratio)),
        }),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

fn target_table(verdicts: &[Verdict]) -> String {
    let mut lines = vec![
        ["target", "against", "to reach", "reached", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    for verdict in verdicts {
        let bound = match verdict.bound {
            Bound::AtLeast(least) => format!(">= {least}"),
            Bound::AtMost(most) => format!("<= {most}"),
        };
        let met = match verdict.is_met() {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not measured",
        };
        let reached = verdict.figure.map_or("-".to_owned(), ratio_text);
        lines.push(vec![
            verdict.title.to_owned(),
            verdict.against.to_owned(),
            bound,
            reached,
            met.to_owned(),
        ]);
    }
    format!("\n{}", aligned(&lines))
}

fn growth_json(growth: &Result<Growth, String>) -> Value {
    match growth {
        Err(error) => json!({ "error": error }),
        Ok(growth) => json!({
            "size": growth.size,
            "rates": growth.rates.iter().map(|rate| json!({
                "key": rate.key, "case": rate.case, "few_kpps": summary_json(Some(rate.few)),
                "all_kpps": summary_json(Some(rate.all)), "ratio": summary_json(Some(rate.ratio)),
            })).collect::<Vec<_>>(),
            "bytes": growth.bytes(),
            "memory": growth.memory.iter().cloned().collect::<BTreeMap<_, _>>(),
            "read_ns_by_mib": growth.reads.iter().map(|(size, ns)| (size.to_string(), *ns)).collect::<BTreeMap<_, _>>(),
        }),
    }
}

fn verdict_json(verdict: &Verdict) -> Value {
    let (bound, value) = match verdict.bound {
        Bound::AtLeast(least) => ("at_least", least),
        Bound::AtMost(most) => ("at_most", most),
    };
    json!({
        "title": verdict.title, "against": verdict.against, bound: value,
        "reached": summary_json(verdict.figure), "met": verdict.is_met(),
    })
}

fn summary_json(summary: Option<Summary>) -> Value {
    summary.map_or(
        Value::Null,
        |s| json!({ "median": s.median, "min": s.min, "max": s.max, "count": s.count }),
    )
}

fn row_json(ids: &[&str], row: &Row) -> Value {
    let values = ids
        .iter()
        .zip(&row.values)
        .map(|(id, value)| ((*id).to_owned(), summary_json(*value)));
    let ratios = comparisons(ids)
        .into_iter()
        .zip(&row.ratios)
        .map(|((subject, reference), ratio)| (format!("{subject}/{reference}"), summary_json(*ratio)));
    json!({
        "metric": row.metric.key,
        "title": row.metric.title,
        "unit": row.metric.unit,
        "higher_is_better": row.metric.higher_is_better,
        "values": values.collect::<serde_json::Map<_, _>>(),
        "ratios": ratios.collect::<serde_json::Map<_, _>>(),
    })
}

fn programs_json(programs: &Result<Vec<WarmCost>, String>) -> Value {
    match programs {
        Err(error) => json!({ "error": error }),
        Ok(costs) => costs
            .iter()
            .map(|cost| json!({ "key": cost.key, "case": cost.case, "ns": summary_json(Some(cost.cost)) }))
            .collect(),
    }
}

fn sample_json(sample: &Sample) -> Value {
    let mut value = json!({
        "round": sample.round, "arrangement": sample.arrangement, "measure": sample.measure,
    });
    match &sample.outcome {
        Ok(figures) => value["figures"] = figures.iter().map(|(key, v)| ((*key).to_owned(), json!(v))).collect(),
        Err(error) => value["error"] = json!(error),
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::METRICS;

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.6889, 1.0, 20.34, 165.4, 3124.2].map(number);
        assert_eq!(texts, ["0.689", "1.00", "20.3", "165", "3124"]);
    }

    #[test]
    fn the_table_shows_medians_ratios_and_gaps() {
        let summary = |median| Summary {
            median,
            min: median / 2.0,
            max: median * 2.0,
            count: 3,
        };
        let row = Row {
            metric: METRICS[1],
            values: vec![Some(summary(0.5)), None],
            ratios: vec![Some(summary(1.25))],
        };
        let expected = "\
metric                   unit      a  weft             weft/a
TCP 1 stream, CPU (-)  s/GB  0.500     -  1.25 [0.62..2.50]
";
        let expected: Vec<Vec<&str>> = expected.lines().map(|line| line.split_whitespace().collect()).collect();
        let text = table(&["a", "weft"], &[row]);
        let got: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(got, expected, "\n{text}");
    }

    #[test]
    fn columns_line_up() {
        let lines = [
            vec!["a".to_owned(), "10".to_owned()],
            vec!["long".to_owned(), "5".to_owned()],
        ];
        assert_eq!(aligned(&lines), "a     10\nlong   5\n");
    }
}
