//! JSON rows into record batches, in two passes over a file: what types the columns have, then the columns.
//!
//! ```text
//! {"a": 1, "b": "x"}          pass 1: a int64, b string          pass 2: batches of 1,024 rows
//! {"a": 2.5}           ---->          a float64, b string  ---->         a: [1.0, 2.5], b: ["x", null]
//! ```
//!
//! [`split`] cuts a file into objects with their line, [`value`] is a parsed object in the order of its keys, [`kind`]
//! infers types, [`build`] makes arrays. One row is held at a time, plus a batch. A value that does not fit the type that
//! its column had so far is an error with file and line, never a silent null.

mod build;
mod kind;
mod split;
mod value;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::RecordsError;
use crate::bad_rows::{RowsOfFile, Sieve, Unreadable, batches_without};
use crate::source::{DataFormat, DataSource};
pub(crate) use kind::Columns;
use split::Objects;
use value::Json;

/// One data file of JSON objects: `JsonLines` is read by line, `Json` as a list or a sequence of objects.
#[derive(Clone)]
pub(crate) struct JsonFile(pub(crate) DataSource);

/// A row and the line it begins at, counted from 1.
type Row = (u64, Json);

impl JsonFile {
    /// First pass: widens `columns` by every row.
    pub(crate) fn infer(&self, columns: &mut Columns, mut sieve: Sieve<'_>) -> Result<RowsOfFile, RecordsError> {
        for row in self.rows()? {
            let taken = row.and_then(|(line, row)| {
                let fits = if sieve.is_dropping() { columns.widen_if_it_fits(&row) } else { columns.widen(&row) };
                fits.map_err(|mismatch| {
                    Unreadable::Row(RecordsError::MixedColumn {
                        file: self.0.label.clone(),
                        line,
                        row: sieve.row(),
                        column: mismatch.column,
                        expected: mismatch.expected,
                        found: mismatch.found,
                    })
                })
            });
            sieve.take(taken)?;
        }
        Ok(sieve.finish())
    }

    /// Second pass: the rows as batches of `schema`, which [`Columns::schema`] gave.
    pub(crate) fn batches(
        &self,
        schema: SchemaRef,
        rows: &RowsOfFile,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RecordsError>> + use<>, RecordsError> {
        let objects = self.rows()?.map(|row| row.map(|(_, row)| row));
        Ok(batches_without(objects, rows.bad.clone(), move |objects| build::batch(&schema, &objects)))
    }

    fn rows(&self) -> Result<impl Iterator<Item = Result<Row, Unreadable>> + use<>, RecordsError> {
        let objects = Objects::new(self.0.text()?, self.0.format == DataFormat::JsonLines);
        let file = self.clone();
        Ok(objects.zip(0_u64..).map(move |(object, row)| match object {
            Ok((line, bytes)) => {
                let parsed = file.parse(line, row, &bytes);
                parsed.map(|value| (line, value)).map_err(Unreadable::Row)
            }
            Err(split::SplitError::Io(source)) => Err(Unreadable::File(file.0.unreadable(source))),
            Err(split::SplitError::Malformed { line, problem }) => {
                Err(Unreadable::File(file.bad(line, row, problem.to_string())))
            }
        }))
    }

    fn parse(&self, line: u64, row: u64, bytes: &[u8]) -> Result<Json, RecordsError> {
        let value: Json = serde_json::from_slice(bytes).map_err(|error| {
            let text = error.to_string();
            let problem = text.split(" at line ").next().unwrap_or(&text);
            let line = line + (error.line() as u64).saturating_sub(1);
            self.bad(line, row, format!("{problem} at column {}", error.column()))
        })?;
        match value {
            Json::Object(_) => Ok(value),
            other => Err(self.bad(line, row, format!("found {}", other.describe()))),
        }
    }

    fn bad(&self, line: u64, row: u64, problem: String) -> RecordsError {
        RecordsError::BadJson { file: self.0.label.clone(), line, row, problem }
    }
}
