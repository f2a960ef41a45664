//! Statistics of a list of lengths, equal to numpy's.
//!
//! Sums are whole numbers, so nothing depends on the order of the lengths.

use serde::{Deserialize, Serialize};

/// The percentiles that are reported.
pub(crate) const PERCENTILES: [u32; 7] = [5, 25, 50, 75, 90, 95, 99];

/// Statistics of at least one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Statistics {
    pub(crate) count: u64,
    pub(crate) mean: f64,
    /// Of the population: divided by `count`, as `numpy.std`.
    pub(crate) standard_deviation: f64,
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) percentiles: Vec<Percentile>,
    /// Lengths above the threshold, itself excluded.
    pub(crate) n_above_threshold: u64,
    /// `n_above_threshold / count`, 0 to 1.
    pub(crate) share_above_threshold: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Percentile {
    /// 0 to 100.
    pub(crate) percent: u32,
    pub(crate) length: f64,
}

impl Statistics {
    /// `None` where there are no lengths.
    pub(crate) fn of(lengths: &[u32], threshold: u32) -> Option<Self> {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let count = sorted.len() as u64;
        let sum: u64 = sorted.iter().map(|length| u64::from(*length)).sum();
        let sum_of_squares: u128 = sorted.iter().map(|length| u128::from(*length).pow(2)).sum();
        // Variance = (n * sum(x^2) - sum(x)^2) / n^2; the numerator is exact and not negative.
        let numerator = u128::from(count) * sum_of_squares - u128::from(sum).pow(2);
        let n_above_threshold = (sorted.len() - sorted.partition_point(|length| *length <= threshold)) as u64;
        let percentile = |percent| Percentile { percent, length: percentile(&sorted, percent) };
        Some(Statistics {
            count,
            mean: sum as f64 / count as f64,
            standard_deviation: (numerator as f64).sqrt() / count as f64,
            min,
            max,
            percentiles: PERCENTILES.into_iter().map(percentile).collect(),
            n_above_threshold,
            share_above_threshold: n_above_threshold as f64 / count as f64,
        })
    }

    /// The length below which half of the texts are.
    pub(crate) fn median(&self) -> f64 {
        self.percentiles.iter().find(|p| p.percent == 50).map_or(f64::NAN, |p| p.length)
    }
}

/// Linear interpolation between the two nearest lengths (numpy's default), rounded as numpy does it: from the nearer one.
fn percentile(sorted: &[u32], percent: u32) -> f64 {
    let position = f64::from(percent) / 100.0 * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let (a, b) = (f64::from(sorted[below]), f64::from(sorted[(below + 1).min(sorted.len() - 1)]));
    let t = position - position.floor();
    if t < 0.5 { a + (b - a) * t } else { b - (b - a) * (1.0 - t) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// python3 -c "
    /// import numpy as np
    /// x = np.array([(i * 7919) % 1543 + 3 for i in range(1000)])
    /// print(repr(x.mean()), repr(x.std()), x.min(), x.max(), (x > 1024).sum())
    /// print(np.percentile(x, [5, 25, 50, 75, 90, 95, 99]).tolist())"
    #[test]
    fn the_numbers_are_numpys() {
        let lengths: Vec<u32> = (0..1000).map(|i| (i * 7919) % 1543 + 3).collect();
        let statistics = Statistics::of(&lengths, 1024).unwrap();
        assert_eq!((statistics.count, statistics.min, statistics.max), (1000, 3, 1545));
        assert_eq!(statistics.mean, 774.323);
        assert!((statistics.standard_deviation - 445.9271719361806).abs() < 1e-9, "{}", statistics.standard_deviation);
        let lengths: Vec<f64> = statistics.percentiles.iter().map(|p| p.length).collect();
        assert_eq!(lengths, [79.95, 387.75, 775.0, 1160.5, 1392.1, 1468.1, 1530.01]);
        assert_eq!(statistics.n_above_threshold, 338);
    }

    #[test]
    fn one_length_is_every_percentile() {
        let statistics = Statistics::of(&[7], 7).unwrap();
        assert!(statistics.percentiles.iter().all(|p| p.length == 7.0));
        assert_eq!((statistics.standard_deviation, statistics.n_above_threshold), (0.0, 0));
        assert_eq!(Statistics::of(&[], 7), None);
    }

    #[test]
    fn the_threshold_itself_is_not_above() {
        let statistics = Statistics::of(&[1, 2, 2, 3], 2).unwrap();
        assert_eq!((statistics.n_above_threshold, statistics.share_above_threshold), (1, 0.25));
    }
}
