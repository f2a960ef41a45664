//! How many lengths fall into each of a row of equally wide bins.
//!
//! ```text
//! lengths 3 4 4 9, at most 3 bins      bins 3..6, 6..9, 9..12     counts 3 0 1
//! ```
//!
//! The width is a whole number, so each bin covers as many possible lengths as its neighbour: with a broken width some
//! bins cover one more, and the picture shows a comb that is not in the data.

use serde::{Deserialize, Serialize};

/// Counts over `start .. start + width * counts.len()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Histogram {
    /// The shortest length.
    pub(crate) start: u32,
    /// Lengths that a bin covers, at least 1.
    pub(crate) width: u32,
    /// Per bin; the last one has the longest length.
    pub(crate) counts: Vec<u64>,
}

impl Histogram {
    /// At most `n_bins_max` (at least 1) bins; `None` where there are no lengths.
    pub(crate) fn of(lengths: &[u32], n_bins_max: usize) -> Option<Self> {
        let (start, max) = (*lengths.iter().min()?, *lengths.iter().max()?);
        let n_bins_max = u32::try_from(n_bins_max.max(1)).unwrap_or(u32::MAX);
        let width = ((max - start) / n_bins_max) + 1;
        let mut counts = vec![0; ((max - start) / width + 1) as usize];
        for length in lengths {
            counts[((length - start) / width) as usize] += 1;
        }
        Some(Histogram { start, width, counts })
    }

    /// Start (included), end (excluded) and count of each bin.
    pub(crate) fn bins(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let edge = |i: usize| u64::from(self.start) + u64::from(self.width) * i as u64;
        self.counts.iter().enumerate().map(move |(i, count)| (edge(i), edge(i + 1), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_documentation() {
        let histogram = Histogram::of(&[3, 4, 4, 9], 3).unwrap();
        assert_eq!(histogram, Histogram { start: 3, width: 3, counts: vec![3, 0, 1] });
        assert_eq!(histogram.bins().last(), Some((9, 12, 1)));
    }

    #[test]
    fn every_length_is_counted_within_the_limit_of_bins() {
        for (n, range) in [(1, 1), (10, 1), (1000, 37), (1000, 1000), (999, 12_345)] {
            let lengths: Vec<u32> = (0..n).map(|i| 5 + i * 7919 % range).collect();
            for n_bins_max in [1, 2, 7, 50, 1000] {
                let histogram = Histogram::of(&lengths, n_bins_max).unwrap();
                assert_eq!(histogram.counts.iter().sum::<u64>(), u64::from(n));
                assert!((1..=n_bins_max).contains(&histogram.counts.len()));
            }
        }
    }
}
