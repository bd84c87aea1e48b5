//! The comparison as a picture: bars for each measure and arrangement, in multiples of Docker's. SVG, readable on white and on black.

use crate::rounds::Row;
use std::fmt::Write;

/// Which metrics are drawn: those of which more is better, one for each thing that a user would ask.
const DRAWN: &[(&str, &str)] = &[
    ("live.rate", "data path alone, 64 bytes"),
    ("udp.received", "UDP, 64 bytes"),
    ("tcp1.throughput", "TCP, 1 stream"),
    ("tcp4.throughput", "TCP, 4 streams"),
    ("nic.one", "TCP, segmented in software"),
    ("tcprr.rate", "TCP round trips"),
    ("udprr.rate", "UDP round trips"),
    ("conn.rate", "new connections"),
    ("vip.rate", "new connections, VIP"),
];

const WIDTH: f64 = 760.0;
const LABELS: f64 = 210.0;
const NUMBERS: f64 = 60.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;
const HEAD: f64 = 64.0;
const FOOT: f64 = 30.0;

/// What each arrangement is called, and how it is coloured.
fn look(id: &str) -> (&str, &str) {
    match id {
        "a" => ("Docker's arrangement", "#8a8f98"),
        "anq" => ("the same, tuned", "#b9a26a"),
        "e2" => ("no overlay at all", "#6f9bd1"),
        "weft" => ("weft", "#2fa36b"),
        other => (other, "#a06cc0"),
    }
}

/// Draws it; arrangements in the order given, `machine` below.
pub fn svg(ids: &[&str], rows: &[Row], machine: &str) -> String {
    let base = ids.iter().position(|id| *id == "a").unwrap_or(0);
    let groups: Vec<(&str, Vec<Option<f64>>)> = DRAWN
        .iter()
        .filter_map(|(key, title)| {
            let row = rows.iter().find(|row| row.metric.key == *key)?;
            let median = |column: usize| row.values.get(column)?.map(|summary| summary.median);
            let base = median(base).filter(|base| *base > 0.0)?;
            Some((
                *title,
                (0..ids.len()).map(|id| median(id).map(|value| value / base)).collect(),
            ))
        })
        .collect();
    let largest = groups
        .iter()
        .flat_map(|(_, bars)| bars.iter().flatten())
        .fold(1.0, |a: f64, b| a.max(*b));
    let group = ids.len() as f64 * BAR + GAP;
    let height = HEAD + groups.len() as f64 * group + FOOT;
    let scale = (WIDTH - LABELS - NUMBERS) / largest;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"weft beside Docker's arrangement and no overlay\">\n\
         <style>text {{ font: 12px sans-serif; fill: #24292f; }} .title {{ font-size: 14px; font-weight: bold; }} \
         .number {{ font-size: 10px; }} .line {{ stroke: #8a8f98; stroke-dasharray: 2 3; }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3; }} }}</style>\n\
         <text class=\"title\" x=\"8\" y=\"20\">Times as fast as Docker's arrangement</text>\n"
    );
    let mut x = 8.0;
    for id in ids {
        let (name, colour) = look(id);
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"34\" width=\"11\" height=\"11\" fill=\"{colour}\"/><text x=\"{}\" y=\"44\">{}</text>",
            x + 16.0,
            escaped(name)
        );
        x += 40.0 + name.len() as f64 * 6.5;
    }
    for (index, (title, bars)) in groups.iter().enumerate() {
        let top = HEAD + index as f64 * group;
        let middle = top + ids.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 8.0,
            escaped(title)
        );
        for (bar, (value, id)) in bars.iter().zip(ids).enumerate() {
            let Some(value) = value else { continue };
            let (y, length) = (top + bar as f64 * BAR, value * scale);
            let _ = writeln!(
                text,
                "<rect x=\"{LABELS}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{value:.2}</text>",
                BAR - 1.0,
                look(id).1,
                LABELS + length + 4.0,
                y + 9.0
            );
        }
    }
    let one = LABELS + scale;
    let _ = writeln!(
        text,
        "<line class=\"line\" x1=\"{one:.1}\" y1=\"{}\" x2=\"{one:.1}\" y2=\"{:.1}\"/>\n\
         <text class=\"number\" x=\"8\" y=\"{:.1}\">{}</text>\n</svg>",
        HEAD - 6.0,
        height - FOOT,
        height - 8.0,
        escaped(machine)
    );
    text
}

/// As text between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::METRICS;
    use crate::statistics::Summary;

    /// The names of all elements, if each that is opened is closed in turn, attributes are quoted, and no entity is unknown.
    fn elements(xml: &str) -> Vec<String> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        let mut rest = xml;
        while let Some(start) = rest.find('<') {
            let between = &rest[..start];
            assert!(!between.contains('>'), "{between}");
            for entity in between.split('&').skip(1) {
                assert!(
                    ["amp;", "lt;", "gt;"].iter().any(|known| entity.starts_with(known)),
                    "{entity}"
                );
            }
            let end = start + rest[start..].find('>').expect("a tag ends");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap_or_default().to_owned();
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            all.push(name);
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
        all
    }

    fn row(key: &str, values: &[Option<f64>]) -> Row {
        let summary = |median: f64| Summary {
            median,
            min: median,
            max: median,
            count: 1,
        };
        Row {
            metric: *METRICS.iter().find(|metric| metric.key == key).unwrap(),
            values: values.iter().map(|value| value.map(summary)).collect(),
            ratios: Vec::new(),
        }
    }

    #[test]
    fn the_picture_is_well_formed_and_has_a_bar_for_each_figure() {
        let rows = [
            row("live.rate", &[Some(300.0), Some(1200.0), None]),
            row("udp.received", &[Some(100.0), Some(150.0), Some(220.0)]),
            row("tcprr.p99", &[Some(1.0), Some(1.0), Some(1.0)]),
        ];
        let text = svg(&["a", "e2", "weft"], &rows, "Linux <6> & more");
        let elements = elements(&text);
        let count = |name: &str| elements.iter().filter(|element| *element == name).count();
        assert_eq!((count("svg"), count("style"), count("line")), (1, 1, 1));
        // One for each arrangement in the legend, and the bars.
        assert_eq!(count("rect"), 3 + 5, "{text}");
        assert!(text.contains(">4.00<") && text.contains(">2.20<") && text.contains("Linux &lt;6&gt; &amp; more"));
    }

    #[test]
    fn what_is_drawn_is_measured() {
        for (key, _) in DRAWN {
            assert!(
                METRICS
                    .iter()
                    .any(|metric| metric.key == *key && metric.higher_is_better),
                "{key}"
            );
        }
    }
}
