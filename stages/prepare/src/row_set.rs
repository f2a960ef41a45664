//! A set of rows: a bit each, so that 100 million rows take 12 MB.

/// Rows by their place among all rows of all inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    n_rows: u64,
}

impl RowSet {
    /// Adds a row.
    pub fn insert(&mut self, row: u64) {
        let (word, bit) = at(row);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.n_rows += u64::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// Takes a row out.
    pub fn remove(&mut self, row: u64) {
        let (word, bit) = at(row);
        if self.contains(row) {
            self.words[word] &= !bit;
            self.n_rows -= 1;
        }
    }

    /// Whether it is in.
    pub fn contains(&self, row: u64) -> bool {
        let (word, bit) = at(row);
        self.words.get(word).is_some_and(|found| found & bit != 0)
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.n_rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// How many there are in a range.
    pub fn count(&self, rows: std::ops::Range<u64>) -> u64 {
        rows.filter(|row| self.contains(*row)).count() as u64
    }

    /// The rows that are in both, in order.
    pub fn both<'s>(&'s self, other: &'s RowSet) -> impl Iterator<Item = u64> + 's {
        let words = self.words.iter().zip(&other.words).zip(0_u64..);
        words.flat_map(|((a, b), word)| {
            let both = a & b;
            (0..64).filter(move |bit| both >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        })
    }
}

fn at(row: u64) -> (usize, u64) {
    (usize::try_from(row / 64).expect("a bit per row fits into memory"), 1 << (row % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_what_it_has() {
        let mut rows = RowSet::default();
        [3, 200, 3, 64].into_iter().for_each(|row| rows.insert(row));
        rows.remove(64);
        rows.remove(1000);
        assert_eq!((rows.len(), rows.contains(64), rows.contains(200), rows.count(0..200)), (2, false, true, 1));
        let mut other = RowSet::default();
        [200, 5].into_iter().for_each(|row| other.insert(row));
        assert_eq!(rows.both(&other).collect::<Vec<_>>(), [200]);
    }
}
