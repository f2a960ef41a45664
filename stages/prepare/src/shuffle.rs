//! Rows in the order of keys that a seed gives to their positions: a permutation that needs no list of all rows.
//!
//! ```text
//! position  key            key's first bits        sorted by key
//! 0         9c41...   -->  file 2             -->  file 0: rows, file 1: rows, file 2: rows, ...
//! ```
//!
//! Rows wait in files by the first bits of their key; one file at a time is read and sorted. How many files there are follows from
//! the size of the rows and changes no order. A position is that among all rows, so files of the inputs do not matter.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use pipe_contract::Context;
use pipe_records::files::BATCH_ROWS;
use pipe_records::ipc::{SpoolWriter, read_spool};

use crate::error::PrepareError;
use crate::random::Random;

/// Bytes of rows in a file, about: what is sorted at a time.
const FILE_BYTES: u64 = 64 << 20;
/// Files at most, as each is open.
const FILES_MAX: u64 = 256;
/// Bytes of rows that wait to be parted: the more, the larger the pieces that are written.
const PENDING_BYTES: usize = 64 << 20;

/// Rows on their way to a new order.
pub struct Shuffle {
    random: Random,
    /// The columns of the rows, and the position.
    schema: SchemaRef,
    files: Vec<(PathBuf, SpoolWriter)>,
    pending: Vec<RecordBatch>,
    pending_bytes: usize,
    n_rows: u64,
}

impl Shuffle {
    /// For rows that take about `n_bytes` in memory.
    ///
    /// # Errors
    /// `Io` when the files cannot be made.
    pub fn new(folder: &Path, schema: &SchemaRef, n_bytes: u64, seed: u64) -> Result<Self, PrepareError> {
        Shuffle::with_files(folder, schema, (n_bytes / FILE_BYTES + 1).min(FILES_MAX), seed)
    }

    pub(crate) fn with_files(folder: &Path, schema: &SchemaRef, n_files: u64, seed: u64) -> Result<Self, PrepareError> {
        let position = Arc::new(Field::new("position", DataType::UInt64, false));
        let schema: SchemaRef =
            Arc::new(Schema::new(schema.fields().iter().cloned().chain([position]).collect::<Vec<_>>()));
        let file = |index: u64| {
            let path = folder.join(format!("shuffle-{index:03}"));
            let writer = SpoolWriter::create(&path, &schema)?;
            Ok((path, writer))
        };
        let files = (0..n_files).map(file).collect::<Result<_, PrepareError>>()?;
        let random = Random::new(seed, "shuffle");
        Ok(Shuffle { random, schema, files, pending: Vec::new(), pending_bytes: 0, n_rows: 0 })
    }

    /// Adds the rows that come next.
    ///
    /// # Errors
    /// `Io` when the disk refuses.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), PrepareError> {
        let end = self.n_rows + batch.num_rows() as u64;
        let positions: ArrayRef = Arc::new(UInt64Array::from_iter_values(self.n_rows..end));
        let columns = batch.columns().iter().cloned().chain([positions]).collect();
        self.pending.push(RecordBatch::try_new(self.schema.clone(), columns)?);
        self.pending_bytes += batch.get_array_memory_size();
        self.n_rows = end;
        if self.pending_bytes < PENDING_BYTES { Ok(()) } else { self.part() }
    }

    /// Writes each row that waits into its file.
    fn part(&mut self) -> Result<(), PrepareError> {
        let mut rows_of_file = vec![Vec::new(); self.files.len()];
        for (index, batch) in self.pending.iter().enumerate() {
            for (row, position) in positions(batch).values().iter().enumerate() {
                let key = self.random.word(*position);
                // The file of a key grows with the key.
                let file = (u128::from(key) * self.files.len() as u128) >> 64;
                rows_of_file[file as usize].push((index, row));
            }
        }
        let batches: Vec<&RecordBatch> = self.pending.iter().collect();
        for ((_, writer), rows) in self.files.iter_mut().zip(&rows_of_file) {
            for rows in rows.chunks(BATCH_ROWS) {
                writer.write(&interleave_record_batch(&batches, rows)?)?;
            }
        }
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    /// Gives all rows in their new order to `take`, which says whether it wants more.
    ///
    /// # Errors
    /// `Io`, `cancelled`, and those of `take`.
    pub fn finish(
        mut self,
        ctx: &Context<'_>,
        mut take: impl FnMut(&RecordBatch) -> Result<bool, PrepareError>,
    ) -> Result<(), PrepareError> {
        self.part()?;
        let n_columns = self.schema.fields().len() - 1;
        let columns: Vec<usize> = (0..n_columns).collect();
        let mut paths = Vec::with_capacity(self.files.len());
        for (path, writer) in self.files {
            writer.finish()?;
            paths.push(path);
        }
        for path in paths {
            let batches = read_spool(&path)?.collect::<Result<Vec<_>, _>>()?;
            let io = |source| PrepareError::Io { verb: "remove", file: path.clone(), source };
            std::fs::remove_file(&path).map_err(io)?;
            let rows = concat_batches(&self.schema, &batches)?;
            drop(batches);
            let positions = positions(&rows).values();
            let mut order: Vec<u64> = (0..rows.num_rows() as u64).collect();
            order.sort_unstable_by_key(|row| {
                let position = positions[usize::try_from(*row).expect("a row of this batch")];
                (self.random.word(position), position)
            });
            let rows = rows.project(&columns)?;
            for part in order.chunks(BATCH_ROWS) {
                ctx.check_cancelled()?;
                if !take(&take_record_batch(&rows, &UInt64Array::from(part.to_vec()))?)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn positions(batch: &RecordBatch) -> &UInt64Array {
    batch.column(batch.num_columns() - 1).as_primitive::<UInt64Type>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shuffled(n_rows: u64, n_files: u64, cut: usize, seed: u64) -> Vec<u64> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ctx = Context::new(folder.path(), &|_| {});
        let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..n_rows));
        let all = RecordBatch::try_from_iter([("n", column)]).expect("one column");
        let mut shuffle = Shuffle::with_files(folder.path(), &all.schema(), n_files, seed).expect("files");
        for start in (0..all.num_rows()).step_by(cut) {
            shuffle.push(&all.slice(start, cut.min(all.num_rows() - start))).expect("the disk has room");
        }
        let mut rows = Vec::new();
        let take = |batch: &RecordBatch| {
            rows.extend_from_slice(positions(batch).values());
            Ok(true)
        };
        shuffle.finish(&ctx, take).expect("they can be read");
        rows
    }

    proptest! {
        #[test]
        fn no_row_is_lost_and_files_and_batches_do_not_matter(n_rows in 0_u64..3000, n_files in 1_u64..9, cut in 1_usize..2000, seed in 0_u64..9) {
            let rows = shuffled(n_rows, n_files, cut, seed);
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..n_rows).collect::<Vec<_>>());
            prop_assert_eq!(rows, shuffled(n_rows, 1, 1024, seed));
        }
    }

    #[test]
    fn another_seed_is_another_order() {
        assert_ne!(shuffled(100, 1, 100, 1), shuffled(100, 1, 100, 2));
        let fixed = shuffled(10_000, 1, 1024, 42).iter().zip(0..).filter(|(row, place)| **row == *place).count();
        // A permutation leaves one row in its place on average.
        assert!(fixed < 8, "{fixed}");
    }
}
