//! Which input gives the next row: by weight, as `interleave_datasets` of Hugging Face does, or one input after the other.
//!
//! ```text
//! weights: { alpaca: 0.7, code: 0.3 }   ->  alpaca alpaca code alpaca code alpaca alpaca ...
//! ```
//!
//! Each input gives its rows in their order. `first_exhausted` ends with the last row of whichever input ends first; no row
//! comes twice. `all_exhausted` goes on until each input has ended once; one that has ended begins anew, so its rows repeat.

use crate::random::Random;

/// When a mix ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module says it")]
pub enum StoppingStrategy {
    FirstExhausted,
    AllExhausted,
}

/// The inputs of the rows of a mix, in order, as positions.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Sums of the weights up to and with each input; the last is 1.
    cumulative: Vec<f64>,
    n_rows: Vec<u64>,
    n_given: Vec<u64>,
    is_exhausted: Vec<bool>,
    strategy: StoppingStrategy,
    random: Random,
    index: u64,
}

impl Mix {
    /// `weights`: positive, one for each input of `n_rows`, any sum.
    pub fn new(weights: &[f64], n_rows: &[u64], strategy: StoppingStrategy, seed: u64) -> Self {
        let sum: f64 = weights.iter().sum();
        let mut so_far = 0.0;
        let cumulative = weights.iter().map(|weight| {
            so_far += weight / sum;
            so_far
        });
        Mix {
            cumulative: cumulative.collect(),
            n_rows: n_rows.to_vec(),
            n_given: vec![0; n_rows.len()],
            // An input without a row has ended before it began.
            is_exhausted: n_rows.iter().map(|n_rows| *n_rows == 0).collect(),
            strategy,
            random: Random::new(seed, "mix"),
            index: 0,
        }
    }
}

impl Iterator for Mix {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let mut exhausted = self.is_exhausted.iter();
        let has_ended = match self.strategy {
            StoppingStrategy::FirstExhausted => exhausted.any(|exhausted| *exhausted),
            StoppingStrategy::AllExhausted => exhausted.all(|exhausted| *exhausted),
        };
        if has_ended {
            return None;
        }
        loop {
            let unit = self.random.unit(self.index);
            self.index += 1;
            let input = self.cumulative.iter().position(|sum| unit < *sum).unwrap_or(self.cumulative.len() - 1);
            // One without a row has nothing to give, and the others go on.
            if self.n_rows[input] > 0 {
                self.n_given[input] += 1;
                self.is_exhausted[input] |= self.n_given[input].is_multiple_of(self.n_rows[input]);
                return Some(input);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_follow_the_weights() {
        let mix = Mix::new(&[7.0, 3.0], &[1_000_000, 1_000_000], StoppingStrategy::FirstExhausted, 42);
        let n_second = mix.take(100_000).filter(|input| *input == 1).count();
        // The deviation of a share of 100,000 is 0.0014.
        assert!((n_second as f64 / 100_000.0 - 0.3).abs() < 0.006, "{n_second}");
    }

    proptest! {
        #[test]
        fn a_mix_ends_when_its_strategy_says(n_rows in prop::collection::vec(1_u64..60, 1..4), seed in 0_u64..100) {
            let weights = vec![1.0; n_rows.len()];
            let given = |strategy| {
                let mut given = vec![0; n_rows.len()];
                Mix::new(&weights, &n_rows, strategy, seed).for_each(|input| given[input] += 1);
                given
            };
            let (first, all) = (given(StoppingStrategy::FirstExhausted), given(StoppingStrategy::AllExhausted));
            prop_assert!(first.iter().zip(&n_rows).all(|(given, has)| given <= has));
            prop_assert_eq!(first.iter().zip(&n_rows).filter(|(given, has)| given == has).count(), 1);
            prop_assert!(all.iter().zip(&n_rows).all(|(given, has)| given >= has));
        }
    }
}
