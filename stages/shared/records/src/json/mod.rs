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

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::RecordsError;
use crate::files::{BATCH_ROWS, open};
pub(crate) use kind::Columns;
use split::Objects;
use value::Json;

/// One data file of JSON objects.
#[derive(Clone)]
pub(crate) struct JsonFile {
    /// Its name in the artifact; `.jsonl` is read by line, anything else as a list or a sequence of objects.
    pub(crate) label: String,
    pub(crate) path: PathBuf,
}

impl JsonFile {
    /// First pass: widens `columns` by every row. Returns the number of rows.
    pub(crate) fn infer(&self, columns: &mut Columns) -> Result<u64, RecordsError> {
        let mut n_rows = 0;
        for row in self.rows()? {
            let (line, row) = row?;
            columns.widen(&row).map_err(|mismatch| RecordsError::MixedColumn {
                file: self.label.clone(),
                line,
                column: mismatch.column,
                expected: mismatch.expected,
                found: mismatch.found,
            })?;
            n_rows += 1;
        }
        Ok(n_rows)
    }

    /// Second pass: the rows as batches of `schema`, which [`Columns::schema`] gave.
    pub(crate) fn batches(
        &self,
        schema: SchemaRef,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RecordsError>> + use<>, RecordsError> {
        let mut rows = self.rows()?;
        Ok(std::iter::from_fn(move || {
            let chunk: Result<Vec<Json>, RecordsError> =
                rows.by_ref().take(BATCH_ROWS).map(|row| row.map(|(_, row)| row)).collect();
            match chunk {
                Err(error) => Some(Err(error)),
                Ok(chunk) if chunk.is_empty() => None,
                Ok(chunk) => Some(build::batch(&schema, &chunk)),
            }
        }))
    }

    /// The rows with the line each begins at.
    fn rows(&self) -> Result<impl Iterator<Item = Result<(u64, Json), RecordsError>> + use<>, RecordsError> {
        let objects = Objects::new(open(&self.path)?, is_by_line(&self.label));
        let file = self.clone();
        Ok(objects.map(move |object| match object {
            Ok((line, bytes)) => file.parse(line, &bytes).map(|row| (line, row)),
            Err(split::SplitError::Io(source)) => {
                Err(RecordsError::Io { verb: "read", file: file.path.clone(), source })
            }
            Err(split::SplitError::Malformed { line, problem }) => {
                Err(RecordsError::BadJson { file: file.label.clone(), line, problem: problem.to_string() })
            }
        }))
    }

    fn parse(&self, line: u64, bytes: &[u8]) -> Result<Json, RecordsError> {
        let bad = |line, problem| RecordsError::BadJson { file: self.label.clone(), line, problem };
        let value: Json = serde_json::from_slice(bytes).map_err(|error| {
            let text = error.to_string();
            let problem = text.split(" at line ").next().unwrap_or(&text);
            bad(line + (error.line() as u64).saturating_sub(1), format!("{problem} at column {}", error.column()))
        })?;
        match value {
            Json::Object(_) => Ok(value),
            other => Err(bad(line, format!("found {}", other.describe()))),
        }
    }
}

fn is_by_line(label: &str) -> bool {
    Path::new(label).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"))
}
