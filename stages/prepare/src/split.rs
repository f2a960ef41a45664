//! Which rows are for testing: exactly as many as asked for, each row as likely as any other, in one pass.
//!
//! A row is taken with the probability (rows still to take) / (rows still to come): Knuth's algorithm S ("The art of computer
//! programming", volume 2, 3.4.2). Rows of both outputs keep their order.

use crate::random::Random;

/// How many rows are for testing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TestSize {
    /// None: there is no output `test`.
    None,
    /// Of all rows, between 0 and 1; rounded up, as `train_test_split` does.
    Share(f64),
    /// So many.
    Rows(u64),
}

impl TestSize {
    /// Of `n_rows`.
    pub fn of(self, n_rows: u64) -> u64 {
        match self {
            TestSize::None => 0,
            TestSize::Share(share) => (n_rows as f64 * share).ceil() as u64,
            TestSize::Rows(n_test) => n_test,
        }
    }
}

/// For each row in turn, whether it is for testing.
pub struct Split {
    random: Random,
    index: u64,
    n_to_come: u64,
    n_to_take: u64,
}

impl Split {
    /// `n_test` of `n_rows`.
    pub fn new(n_rows: u64, n_test: u64, seed: u64) -> Self {
        Split { random: Random::new(seed, "split"), index: 0, n_to_come: n_rows, n_to_take: n_test }
    }

    /// Whether the next row is for testing.
    pub fn is_test(&mut self) -> bool {
        let is_test = self.random.unit(self.index) * (self.n_to_come as f64) < self.n_to_take as f64;
        self.index += 1;
        self.n_to_come = self.n_to_come.saturating_sub(1);
        self.n_to_take -= u64::from(is_test);
        is_test
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_many_rows_are_taken_as_asked_for((n_rows, n_test) in (1_u64..500).prop_flat_map(|n| (Just(n), 0..=n)), seed in 0_u64..50) {
            let mut split = Split::new(n_rows, n_test, seed);
            prop_assert_eq!((0..n_rows).filter(|_| split.is_test()).count() as u64, n_test);
        }
    }

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!([TestSize::Share(0.1).of(11), TestSize::Rows(3).of(11), TestSize::None.of(11)], [2, 3, 0]);
    }
}
