//! A Parquet file written by whole row groups, several encoded side by side.
//!
//! ```text
//! batch 0 --encode--\
//! batch 1 --encode---+--> appended in order      on the threads of the current rayon pool, column by column
//! batch 2 --encode--/
//! ```
//!
//! The bytes are those of [`RecordWriter`](crate::files::RecordWriter) with the same layout: a row group is encoded from its rows alone, and
//! the threads decide only when. It deliberately does not cut batches: a batch is a row group.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::writer::SerializedFileWriter;
use rayon::prelude::*;

use crate::RecordsError;
use crate::files::{Layout, arrow_writer, name_of};

/// Writes record batches of one schema into one file, each as a row group.
pub(crate) struct GroupWriter {
    path: PathBuf,
    schema: SchemaRef,
    file: SerializedFileWriter<BufWriter<File>>,
    factory: ArrowRowGroupWriterFactory,
}

impl GroupWriter {
    /// Creates `path` for rows of `schema`.
    pub(crate) fn create(path: &Path, schema: SchemaRef, layout: Layout) -> Result<Self, RecordsError> {
        let writer = arrow_writer(path, schema.clone(), layout)?;
        let (file, factory) = writer.into_serialized_writer().map_err(|source| failed("create", path, source))?;
        Ok(GroupWriter { path: path.to_path_buf(), schema, file, factory })
    }

    /// Adds a row group for each of `batches`, none of which is empty or longer than the layout's row groups.
    pub(crate) fn write(&mut self, batches: &[RecordBatch]) -> Result<(), RecordsError> {
        let n_before = self.file.flushed_row_groups().len();
        let encoded = batches.par_iter().enumerate().map(|(i, batch)| self.encode(n_before + i, batch));
        let encoded: Vec<ParquetResult<Vec<ArrowColumnChunk>>> = encoded.collect();
        let appended = encoded.into_iter().try_for_each(|columns| {
            let mut group = self.file.next_row_group()?;
            columns?.into_iter().try_for_each(|column| column.append_to_row_group(&mut group))?;
            group.close().map(|_| ())
        });
        appended.map_err(|source| failed("write", &self.path, source))
    }

    /// Writes the footer and closes the file.
    pub(crate) fn finish(self) -> Result<(), RecordsError> {
        self.file.close().map(|_| ()).map_err(|source| failed("write", &self.path, source))
    }

    fn encode(&self, group: usize, batch: &RecordBatch) -> ParquetResult<Vec<ArrowColumnChunk>> {
        let writers = self.factory.create_column_writers(group)?;
        let mut writers = writers.into_iter();
        let mut columns: Vec<Vec<(ArrowColumnWriter, _)>> = Vec::new();
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            let leaves = compute_leaves(field, array)?;
            columns.push(writers.by_ref().take(leaves.len()).zip(leaves).collect());
        }
        let columns: Vec<ParquetResult<ArrowColumnChunk>> = columns
            .into_par_iter()
            .flatten_iter()
            .map(|(mut writer, leaf)| {
                writer.write(&leaf)?;
                writer.close()
            })
            .collect();
        columns.into_iter().collect()
    }
}

fn failed(verb: &'static str, path: &Path, source: ParquetError) -> RecordsError {
    RecordsError::Parquet { verb, file: name_of(path), source }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, ListBuilder, UInt32Array, UInt32Builder};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::examples::list_field;
    use crate::files::parquet_writer_with;

    const LAYOUT: Layout = Layout { rows_per_group: 64, delta_list_columns: &["positions"] };

    fn schema() -> SchemaRef {
        let fields = ["ids", "positions"].map(|name| list_field(name, DataType::UInt32));
        let fields = fields.into_iter().chain([Field::new("row", DataType::UInt32, false)]);
        Arc::new(Schema::new(fields.collect::<Vec<_>>()).with_metadata([("a".to_string(), "b".to_string())]))
    }

    fn rows(range: std::ops::Range<u32>) -> RecordBatch {
        let schema = schema();
        let lists = |column: usize, value: fn(u32, u32) -> u32| -> ArrayRef {
            let DataType::List(item) = schema.field(column).data_type() else { panic!("a list") };
            let mut builder = ListBuilder::new(UInt32Builder::new()).with_field(item.clone());
            for row in range.clone() {
                (0..100 + row * 37 % 200).for_each(|i| builder.values().append_value(value(row, i)));
                builder.append(true);
            }
            Arc::new(builder.finish())
        };
        let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(range.clone()));
        let columns = vec![lists(0, |row, i| row * row * 31 % 4001 + i * 7 % 50), lists(1, |_, i| i), numbers];
        RecordBatch::try_new(schema.clone(), columns).unwrap()
    }

    #[test]
    fn the_bytes_are_those_of_the_writer_of_records_on_any_number_of_threads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let n_rows = 64 * 21 + 5;
        let mut writer = parquet_writer_with(&path, schema(), LAYOUT).unwrap();
        writer.write(&rows(0..n_rows)).unwrap();
        writer.finish().unwrap();
        let expected = std::fs::read(&path).unwrap();
        for n_threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| {
                let mut writer = GroupWriter::create(&path, schema(), LAYOUT).unwrap();
                let groups = (0..n_rows).step_by(64).map(|start| rows(start..n_rows.min(start + 64)));
                let groups: Vec<RecordBatch> = groups.collect();
                groups.chunks(5).for_each(|some| writer.write(some).unwrap());
                writer.finish().unwrap();
            });
            assert!(expected == std::fs::read(&path).unwrap(), "the bytes differ on {n_threads} threads");
        }
    }
}
