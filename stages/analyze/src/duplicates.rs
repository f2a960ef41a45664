//! Texts that occurred before, to the character.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};

/// How many repeats are listed.
const N_LISTED: usize = 10;

/// Rows whose text occurred before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Duplicates {
    /// Rows that repeat an earlier one.
    pub(crate) n_duplicates: u64,
    /// The first few of them.
    pub(crate) first: Vec<Repeat>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Repeat {
    /// The row, from 0.
    pub(crate) row: u32,
    /// The first row with the same text.
    pub(crate) same_as_row: u32,
}

/// Finds them from digests: 36 bytes per different text, whatever its length.
#[derive(Default)]
pub(crate) struct DuplicateFinder {
    first_rows: HashMap<[u8; 32], u32>,
    found: Duplicates,
}

impl DuplicateFinder {
    /// The next row's digest; rows in order.
    pub(crate) fn push(&mut self, row: u32, digest: blake3::Hash) {
        match self.first_rows.entry(*digest.as_bytes()) {
            Entry::Vacant(place) => {
                place.insert(row);
            }
            Entry::Occupied(first) => {
                self.found.n_duplicates += 1;
                if self.found.first.len() < N_LISTED {
                    self.found.first.push(Repeat { row, same_as_row: *first.get() });
                }
            }
        }
    }

    pub(crate) fn finish(self) -> Duplicates {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repeat_counts_and_names_the_first() {
        let mut finder = DuplicateFinder::default();
        for (row, text) in (0..).zip(["a", "b", "a", "A", "a ", "b", "a"]) {
            finder.push(row, blake3::hash(text.as_bytes()));
        }
        let repeats = [(2, 0), (5, 1), (6, 0)].map(|(row, same_as_row)| Repeat { row, same_as_row });
        assert_eq!(finder.finish(), Duplicates { n_duplicates: 3, first: repeats.to_vec() });
    }
}
