//! Exact duplicates: rows whose columns are equal in type and value, nested ones too. The first of them stays.
//!
//! Rows are compared by the first 128 bits of the BLAKE3 digest of their encoding (Arrow's row format, which gives equal bytes for
//! equal rows only): two different rows among 2^40 share them with probability 2^-49. Null equals null.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::row::{RowConverter, SortField};

use crate::error::PrepareError;
use crate::partitions::{Entry, Partitions};
use crate::row_set::RowSet;

/// The digest of each row's cells in the columns at `columns`.
///
/// # Errors
/// `Records` for a type that has no row format.
pub fn digests(batch: &RecordBatch, columns: &[usize]) -> Result<Vec<u128>, PrepareError> {
    let columns: Vec<ArrayRef> = columns.iter().map(|column| batch.column(*column).clone()).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
    let digest = |row: arrow::row::Row<'_>| {
        let digest = blake3::hash(row.as_ref());
        u128::from_be_bytes(digest.as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
    };
    Ok(rows.iter().map(digest).collect())
}

/// Takes the rows out of `kept` that have the digest of an earlier one in it. Returns how many.
///
/// # Errors
/// `Io` when the scratch folder cannot be read.
pub fn drop_duplicates(digests: Partitions, kept: &mut RowSet) -> Result<u64, PrepareError> {
    let n_before = kept.len();
    digests.visit(|entries| {
        for same in entries.chunk_by(|a, b| a.0 == b.0) {
            later_twins(same, kept).into_iter().for_each(|(row, _)| kept.remove(row));
        }
        Ok(())
    })?;
    Ok(n_before - kept.len())
}

/// The first row that equals an earlier one, that one, and how many such rows there are.
///
/// # Errors
/// `Io` when the scratch folder cannot be read.
pub fn first_duplicate(digests: Partitions, kept: &RowSet) -> Result<Option<(u64, u64, u64)>, PrepareError> {
    let (mut first, mut n_rows): (Option<(u64, u64)>, u64) = (None, 0);
    digests.visit(|entries| {
        for same in entries.chunk_by(|a, b| a.0 == b.0) {
            let twins = later_twins(same, kept);
            n_rows += twins.len() as u64;
            first = first.into_iter().chain(twins.first().copied()).min();
        }
        Ok(())
    })?;
    Ok(first.map(|(row, earlier)| (row, earlier, n_rows)))
}

/// The rows of `same` in `kept` but the first, each with that one.
fn later_twins(same: &[Entry], kept: &RowSet) -> Vec<(u64, u64)> {
    let mut rows = same.iter().map(|(_, row)| *row).filter(|row| kept.contains(*row));
    let Some(first) = rows.next() else { return Vec::new() };
    rows.map(|row| (row, first)).collect()
}
