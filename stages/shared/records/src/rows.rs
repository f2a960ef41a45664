//! The artifact kind `rows`: data files as they came, read as one stream of record batches.
//!
//! ```text
//! data/train-2.parquet  data/train-10.parquet  more.jsonl.gz
//!          '---------------------+-------------------'
//!                  RowReader, in this order: file names, with numbers in them compared as numbers
//! ```
//!
//! Memory is one batch of [`BATCH_ROWS`](crate::files::BATCH_ROWS) rows, and for Arrow's own files one batch as it was
//! written. Every file must have the same columns, in [`normal`](crate::normal) types. It deliberately changes no value: a
//! stage that needs text says so with a message that names the column.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use pipe_contract::Artifact;

use crate::RecordsError;
use crate::bad_rows::{BadRows, ReadOptions, RowsOfFile, Sieve};
use crate::delimited::{CellColumns, DelimitedFile};
use crate::files::ParquetFile;
use crate::ipc::ArrowFile;
use crate::json::{Columns, JsonFile};
use crate::normal::{conform, normal_schema};
use crate::show::type_name;
use crate::source::{DataFormat, DataSource, data_format};
use crate::text::TextFile;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, RecordsError>> + Send>;

/// An iterator over the rows of an artifact.
pub struct RowReader {
    schema: SchemaRef,
    n_rows: u64,
    files: Arc<[DataFile]>,
    bad_rows: BadRows,
    /// The file that comes after `current`.
    next_file: usize,
    current: Option<Batches>,
}

/// A file, and what was found when it was opened.
struct DataFile {
    label: String,
    form: Form,
    rows: RowsOfFile,
}

enum Form {
    Parquet(ParquetFile),
    Arrow(ArrowFile),
    Json(JsonFile),
    Delimited(DelimitedFile),
    Text(TextFile),
}

/// Opens every data file of a `rows` artifact; a row that cannot be read is an error. All but Parquet is read once here, to
/// know columns and rows.
///
/// # Errors
/// `NoDataFiles`; `SchemaDiffers` when two files have other columns; `BadJson`, `MixedColumn` and `BadText` with file, line
/// and row; `BadArrow`.
pub fn open_rows(artifact: &Artifact) -> Result<RowReader, RecordsError> {
    open_rows_with(artifact, ReadOptions::default())
}

/// The same, with rows that cannot be read left out where `options` say so.
///
/// # Errors
/// As [`open_rows`].
pub fn open_rows_with(artifact: &Artifact, options: ReadOptions) -> Result<RowReader, RecordsError> {
    let mut names: Vec<&str> = artifact.files.keys().map(String::as_str).filter(|name| is_data_file(name)).collect();
    names.sort_by(|a, b| natural_order(a, b));
    if names.is_empty() {
        return Err(RecordsError::NoDataFiles { found: artifact.files.keys().cloned().collect() });
    }
    let mut opening =
        Opening { options, bad_rows: BadRows::default(), json: Columns::default(), cells: CellColumns::default() };
    let mut files = Vec::with_capacity(names.len());
    let mut known = Vec::new();
    for name in names {
        let path = artifact.file(name).map_err(RecordsError::Artifact)?;
        let source = DataSource::new(name, path).expect("only data files were taken");
        let (form, rows, schema) = opening.open(source)?;
        known.extend(schema.map(|schema| (name.to_string(), schema)));
        files.push(DataFile { label: name.to_string(), form, rows });
    }
    // Files of JSON, and those of cells, have their columns together.
    let first = |is_it: fn(&Form) -> bool| files.iter().find(|file| is_it(&file.form)).map(|file| file.label.clone());
    known.extend(first(|form| matches!(form, Form::Json(_))).map(|name| (name, opening.json.schema())));
    known.extend(first(|form| matches!(form, Form::Delimited(_))).map(|name| (name, opening.cells.schema())));
    let (first_name, schema) = known[0].clone();
    known[1..].iter().try_for_each(|(name, found)| check_same(&first_name, &schema, name, found))?;
    let n_rows = files.iter().map(|file| file.rows.n_rows).sum();
    Ok(RowReader { schema, n_rows, files: files.into(), bad_rows: opening.bad_rows, next_file: 0, current: None })
}

/// What is known while files are opened.
struct Opening {
    options: ReadOptions,
    bad_rows: BadRows,
    json: Columns,
    cells: CellColumns,
}

impl Opening {
    /// The file, its rows, and its columns where it says them by itself.
    fn open(&mut self, source: DataSource) -> Result<(Form, RowsOfFile, Option<SchemaRef>), RecordsError> {
        let of = |n_rows: u64| RowsOfFile { n_rows, ..RowsOfFile::default() };
        let sieve = Sieve::new(self.options, &mut self.bad_rows);
        Ok(match source.format {
            DataFormat::Parquet => {
                let file = ParquetFile::open(&source.path, &source.label)?;
                let (n_rows, schema) = (file.num_rows(), normal_schema(&file.schema()));
                (Form::Parquet(file), of(n_rows), Some(schema))
            }
            DataFormat::Arrow => {
                let file = ArrowFile(source);
                let (schema, n_rows) = file.inspect()?;
                (Form::Arrow(file), of(n_rows), Some(schema))
            }
            DataFormat::JsonLines | DataFormat::Json => {
                let file = JsonFile(source);
                let rows = file.infer(&mut self.json, sieve)?;
                (Form::Json(file), rows, None)
            }
            DataFormat::Csv | DataFormat::Tsv => {
                let delimiter = if source.format == DataFormat::Csv { b',' } else { b'\t' };
                let file = DelimitedFile { source, delimiter };
                let rows = file.infer(&mut self.cells, sieve)?;
                (Form::Delimited(file), rows, None)
            }
            DataFormat::Text => {
                let file = TextFile(source);
                let rows = file.count(sieve)?;
                (Form::Text(file), rows, Some(TextFile::schema()))
            }
        })
    }
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

    /// Rows that were left out, in all files.
    pub fn bad_rows(&self) -> &BadRows {
        &self.bad_rows
    }

    /// Columns and their types, as Hugging Face names them: `instruction: string, input: string`.
    pub fn features(&self) -> String {
        let named = self.schema.fields().iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type())));
        named.collect::<Vec<_>>().join(", ")
    }

    /// A reader of the same rows from the first on, without looking for their columns again.
    #[must_use]
    pub fn again(&self) -> RowReader {
        let (schema, files, bad_rows) = (self.schema.clone(), self.files.clone(), self.bad_rows.clone());
        RowReader { schema, n_rows: self.n_rows, files, bad_rows, next_file: 0, current: None }
    }

    /// The file of row `index`, and its row there, both counted from 0. `None` behind the last row.
    pub fn place(&self, index: u64) -> Option<(&str, u64)> {
        let mut first_row = 0;
        for file in self.files.iter() {
            if index < first_row + file.rows.n_rows {
                return Some((&file.label, file.rows.place(index - first_row)));
            }
            first_row += file.rows.n_rows;
        }
        None
    }

    fn open_next(&mut self) -> Option<Result<Batches, RecordsError>> {
        let file = self.files.get(self.next_file)?;
        self.next_file += 1;
        Some(match &file.form {
            Form::Parquet(parquet) => parquet.batches(None).map(|batches| Box::new(batches) as Batches),
            Form::Arrow(arrow) => arrow.batches().map(|batches| Box::new(batches) as Batches),
            Form::Json(json) => {
                json.batches(self.schema.clone(), &file.rows).map(|batches| Box::new(batches) as Batches)
            }
            Form::Delimited(cells) => {
                cells.batches(self.schema.clone(), &file.rows).map(|batches| Box::new(batches) as Batches)
            }
            Form::Text(text) => text.batches(&file.rows).map(|batches| Box::new(batches) as Batches),
        })
    }
}

impl Iterator for RowReader {
    type Item = Result<RecordBatch, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(batch) = self.current.as_mut().and_then(Iterator::next) {
                // Shards may differ in what is nullable; the stream has one schema.
                return Some(batch.and_then(|batch| conform(&batch, &self.schema)));
            }
            match self.open_next()? {
                Ok(batches) => self.current = Some(batches),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Whether `name` is a file that [`open_rows`] reads.
pub fn is_data_file(name: &str) -> bool {
    data_format(name).is_some()
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
