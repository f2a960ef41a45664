//! Rows that cannot be read: an error that names the first, or left out, counted, and the first few named.
//!
//! Which rows are bad is found once, when an artifact is opened, so that a reader knows how many rows it will give. It
//! deliberately knows bad rows only in text: a damaged page of Parquet or Arrow is a damaged file.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::RecordsError;
use crate::files::BATCH_ROWS;

/// What becomes of a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// It ends the reading.
    #[default]
    Error,
    /// It is left out, counted and named.
    Drop,
}

/// How rows are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// What becomes of a row that cannot be read.
    pub on_bad_row: OnBadRow,
    /// How many bad rows are kept by name, where they are left out.
    pub n_named_max: usize,
}

/// Rows that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadRows {
    /// How many.
    pub n_rows: u64,
    /// What is wrong with the first of them: file, row and reason.
    pub first: Vec<String>,
}

/// Why the next row of a file cannot be had.
pub(crate) enum Unreadable {
    /// It alone is wrong, and the next one can be read.
    Row(RecordsError),
    /// What follows cannot be read.
    File(RecordsError),
}

impl From<Unreadable> for RecordsError {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Row(error) | Unreadable::File(error) => error,
        }
    }
}

/// The rows of one file, as its first pass found them.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowsOfFile {
    /// Those that can be read.
    pub(crate) n_rows: u64,
    /// The positions of the others among all rows of the file, ascending.
    pub(crate) bad: Arc<[u64]>,
}

impl RowsOfFile {
    /// The place among all rows of the file of the readable row `index`.
    pub(crate) fn place(&self, index: u64) -> u64 {
        let (mut place, mut n_passed) = (index, 0);
        while self.bad.get(n_passed).is_some_and(|bad| *bad <= place) {
            place += 1;
            n_passed += 1;
        }
        place
    }
}

/// Takes in the rows of a file's first pass.
pub(crate) struct Sieve<'a> {
    options: ReadOptions,
    found: &'a mut BadRows,
    n_rows: u64,
    bad: Vec<u64>,
}

impl<'a> Sieve<'a> {
    pub(crate) fn new(options: ReadOptions, found: &'a mut BadRows) -> Self {
        Sieve { options, found, n_rows: 0, bad: Vec::new() }
    }

    pub(crate) fn is_dropping(&self) -> bool {
        self.options.on_bad_row == OnBadRow::Drop
    }

    /// Counts one row; an error that ends the reading comes back.
    pub(crate) fn take(&mut self, row: Result<(), Unreadable>) -> Result<(), RecordsError> {
        match row {
            Ok(()) => {}
            Err(Unreadable::Row(error)) if self.is_dropping() => {
                if self.found.first.len() < self.options.n_named_max {
                    self.found.first.push(error.to_string());
                }
                self.found.n_rows += 1;
                self.bad.push(self.n_rows);
            }
            Err(unreadable) => return Err(unreadable.into()),
        }
        self.n_rows += 1;
        Ok(())
    }

    /// The place that the next row has in the file.
    pub(crate) fn row(&self) -> u64 {
        self.n_rows
    }

    pub(crate) fn finish(self) -> RowsOfFile {
        RowsOfFile { n_rows: self.n_rows - self.bad.len() as u64, bad: self.bad.into() }
    }
}

/// The rows of a second pass in batches that `build` makes, without those at the places `bad`, which ascend.
pub(crate) fn batches_without<T>(
    rows: impl Iterator<Item = Result<T, Unreadable>>,
    bad: Arc<[u64]>,
    build: impl Fn(Vec<T>) -> Result<RecordBatch, RecordsError>,
) -> impl Iterator<Item = Result<RecordBatch, RecordsError>> {
    let mut rows = without(rows, bad);
    std::iter::from_fn(move || {
        let chunk: Result<Vec<T>, Unreadable> = rows.by_ref().take(BATCH_ROWS).collect();
        match chunk {
            Err(unreadable) => Some(Err(unreadable.into())),
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some(build(chunk)),
        }
    })
}

fn without<T>(rows: impl Iterator<Item = T>, bad: Arc<[u64]>) -> impl Iterator<Item = T> {
    let mut n_passed = 0;
    rows.zip(0_u64..).filter_map(move |(row, place)| {
        if bad.get(n_passed) == Some(&place) {
            n_passed += 1;
            return None;
        }
        Some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readable_rows_know_their_place_among_all() {
        let rows = RowsOfFile { n_rows: 4, bad: [0, 1, 4].into() };
        assert_eq!([0, 1, 2, 3].map(|index| rows.place(index)), [2, 3, 5, 6]);
        assert_eq!(without(0..7, rows.bad).collect::<Vec<_>>(), [2, 3, 5, 6]);
    }
}
