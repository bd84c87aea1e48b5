//! Medians, percentiles, and ratios of what was measured in the same round.

/// The middle value; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => sorted.get(middle).copied(),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The smallest value that at least `percent` of the sorted values do not exceed (nearest rank); `None` of nothing.
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Median and extremes of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// How many values.
    pub count: usize,
}

impl Summary {
    /// `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Summary> {
        Some(Summary {
            median: median(values)?,
            min: values.iter().copied().min_by(f64::total_cmp)?,
            max: values.iter().copied().max_by(f64::total_cmp)?,
            count: values.len(),
        })
    }
}

/// Ratio of subject to reference in each round that has both. Only values of the same round are divided, because the machine's
/// speed drifts by more than the differences that are looked for.
pub fn paired_ratios(pairs: impl IntoIterator<Item = (Option<f64>, Option<f64>)>) -> Vec<f64> {
    pairs
        .into_iter()
        .filter_map(|(subject, reference)| Some((subject?, reference?)))
        .filter(|(_, reference)| *reference != 0.0)
        .map(|(subject, reference)| subject / reference)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[9.0, 1.0, 5.0, 7.0]), Some(6.0));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), Some(50.0));
        assert_eq!(percentile(&values, 99.0), Some(99.0));
        assert_eq!(percentile(&values, 100.0), Some(100.0));
        assert_eq!(percentile(&[7.0], 1.0), Some(7.0));
        assert_eq!(percentile(&[], 50.0), None);
    }

    #[test]
    fn ratios_need_both_sides_of_a_round() {
        let ratios = paired_ratios([
            (Some(6.0), Some(3.0)),
            (None, Some(1.0)),
            (Some(1.0), None),
            (Some(1.0), Some(0.0)),
        ]);
        assert_eq!(ratios, [2.0]);
    }

    #[test]
    fn a_summary_holds_the_extremes() {
        let summary = Summary::of(&[2.0, 8.0, 4.0]).unwrap();
        assert_eq!(
            (summary.median, summary.min, summary.max, summary.count),
            (4.0, 2.0, 8.0, 3)
        );
        assert_eq!(Summary::of(&[]), None);
    }
}
