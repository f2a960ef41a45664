//! The artifact kind `rows`: data files as they came, read as one stream of record batches.
//!
//! ```text
//! data/train-2.parquet  data/train-10.parquet  more.jsonl
//!          '---------------------+-----------------'
//!                  RowReader, in this order: file names, with numbers in them compared as numbers
//! ```
//!
//! Memory is one batch of [`BATCH_ROWS`](crate::files::BATCH_ROWS) rows. Every file must have the same columns. It
//! deliberately changes no value: a stage that needs text says so with a message that names the column.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Metadata, Schema, SchemaRef};
use pipe_contract::Artifact;

use crate::RecordsError;
use crate::files::ParquetFile;
use crate::json::{Columns, JsonFile};
use crate::show::type_name;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, RecordsError>> + Send>;

/// An iterator over the rows of an artifact.
pub struct RowReader {
    schema: SchemaRef,
    n_rows: u64,
    waiting: VecDeque<DataFile>,
    current: Option<Batches>,
}

enum DataFile {
    Parquet(ParquetFile),
    Json(JsonFile),
}

/// Opens every data file of a `rows` artifact. JSON is read once here, to know its columns.
///
/// # Errors
/// `NoDataFiles`; `SchemaDiffers` when two files have other columns; `BadJson` and `MixedColumn` with file and line.
pub fn open_rows(artifact: &Artifact) -> Result<RowReader, RecordsError> {
    let mut names: Vec<&str> = artifact.files.keys().map(String::as_str).filter(|name| is_data_file(name)).collect();
    names.sort_by(|a, b| natural_order(a, b));
    if names.is_empty() {
        return Err(RecordsError::NoDataFiles { found: artifact.files.keys().cloned().collect() });
    }
    let mut files = VecDeque::new();
    let mut first: Option<(&str, SchemaRef)> = None;
    let mut json_columns = Columns::default();
    let mut n_rows = 0;
    for name in names {
        let path = artifact.file(name).map_err(RecordsError::Artifact)?.to_path_buf();
        let label = name.to_string();
        if !has_extension(name, "parquet") {
            let file = JsonFile { label, path };
            n_rows += file.infer(&mut json_columns)?;
            files.push_back(DataFile::Json(file));
            continue;
        }
        let file = ParquetFile::open(&path, &label)?;
        n_rows += file.num_rows();
        let schema = nullable(&file.schema());
        match &first {
            None => first = Some((name, schema)),
            Some((first_name, expected)) => check_same(first_name, expected, name, &schema)?,
        }
        files.push_back(DataFile::Parquet(file));
    }
    let json_name = files.iter().find_map(|file| match file {
        DataFile::Json(file) => Some(file.label.clone()),
        DataFile::Parquet(_) => None,
    });
    let schema = match (first, json_name) {
        (Some((first_name, expected)), Some(json_name)) => {
            check_same(first_name, &expected, &json_name, &json_columns.schema())?;
            expected
        }
        (Some((_, schema)), None) => schema,
        (None, _) => json_columns.schema(),
    };
    Ok(RowReader { schema, n_rows, waiting: files, current: None })
}

impl RowReader {
    /// The columns, all nullable.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Rows in all files.
    pub fn num_rows(&self) -> u64 {
        self.n_rows
    }

    /// Columns and their types, as Hugging Face names them: `instruction: string, input: string`.
    pub fn features(&self) -> String {
        let named = self.schema.fields().iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type())));
        named.collect::<Vec<_>>().join(", ")
    }
}

impl Iterator for RowReader {
    type Item = Result<RecordBatch, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.current.as_mut().and_then(Iterator::next) {
                // Shards may differ in what is nullable; the stream has one schema.
                let schema = self.schema.clone();
                return Some(batch.and_then(|batch| {
                    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                    Ok(RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)?)
                }));
            }
            let opened: Result<Batches, RecordsError> = match self.waiting.pop_front()? {
                DataFile::Parquet(file) => file.batches(None).map(|batches| Box::new(batches) as Batches),
                DataFile::Json(file) => file.batches(self.schema.clone()).map(|batches| Box::new(batches) as Batches),
            };
            match opened {
                Ok(batches) => self.current = Some(batches),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Whether `name` is a file that [`open_rows`] reads.
pub fn is_data_file(name: &str) -> bool {
    ["parquet", "jsonl", "json"].iter().any(|extension| has_extension(name, extension))
}

/// Compares names with the numbers in them as numbers: `part-2` before `part-10`; equal ones by their bytes.
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (x, y) = (take_number(&mut left), take_number(&mut right));
            x.len().cmp(&y.len()).then(x.cmp(y))
        } else {
            (left, right) = (&left[1..], &right[1..]);
            x.cmp(y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len()).then(a.cmp(b))
}

/// The digits at the front without leading zeros, taken off `rest`.
fn take_number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let n_digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(n_digits);
    *rest = after;
    let n_zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[n_zeros..]
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn nullable(schema: &Schema) -> SchemaRef {
    let fields =
        schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true).with_metadata(Metadata::default()));
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

/// Same names in the same order, same types.
fn check_same(first_file: &str, expected: &Schema, file: &str, found: &Schema) -> Result<(), RecordsError> {
    let describe = |field: &Field| format!("`{}: {}`", field.name(), type_name(field.data_type()));
    let pairs = expected.fields().iter().zip(found.fields());
    let mut differences = pairs.filter(|(a, b)| a.name() != b.name() || a.data_type() != b.data_type());
    let difference = match differences.next() {
        Some((a, b)) => format!("{} where there is {}", describe(b), describe(a)),
        None if expected.fields().len() == found.fields().len() => return Ok(()),
        None => format!("{} columns instead of {}", found.fields().len(), expected.fields().len()),
    };
    Err(RecordsError::SchemaDiffers { file: file.to_string(), first_file: first_file.to_string(), difference })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_come_in_the_order_of_their_numbers() {
        let mut names = vec!["b", "t-10.p", "t-9.p", "t-1.p", "a/z", "t-01.p", "t"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["a/z", "b", "t", "t-01.p", "t-1.p", "t-9.p", "t-10.p"]);
    }
}
