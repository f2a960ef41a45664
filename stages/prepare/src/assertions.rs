//! What must hold for the rows that stay: checked before anything is written, so that wrong data stops a pipeline early.
//!
//! `no_nulls`, `max_characters` and `unique` are about each row that the filters and the search for duplicates left, whether a limit
//! takes it or not; a message names the first row that breaks one, by file and row. `min_rows` and `max_rows` are about
//! what is written, train and test together.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use pipe_records::show::type_name;
use pipe_records::thousands;

use crate::columns;
use crate::error::PrepareError;
use crate::inputs::Inputs;
use crate::row_set::RowSet;

/// The settings below `assert:`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssertionSettings {
    /// Rows written, at least.
    pub min_rows: Option<u64>,
    /// Rows written, at most.
    pub max_rows: Option<u64>,
    /// All columns and their types, as Hugging Face names them.
    pub columns: BTreeMap<String, String>,
    /// Columns without null.
    pub no_nulls: Vec<String>,
    /// Column to the most characters of a cell.
    pub max_characters: BTreeMap<String, usize>,
    /// Columns that no two rows share all of.
    pub unique: Vec<String>,
    /// Of the rows that came in (bad ones too), the most that may be dropped.
    pub max_dropped_share: f64,
}

/// An assertion about single rows, and those that break it.
pub struct RowAssertion {
    name: &'static str,
    column: String,
    column_index: usize,
    /// `None`: no nulls.
    max_characters: Option<usize>,
    broken: RowSet,
}

impl RowAssertion {
    /// Those that the settings name.
    ///
    /// # Errors
    /// `MissingColumn`, `WrongType`.
    pub fn all(settings: &AssertionSettings, schema: &Schema, port: &str) -> Result<Vec<Self>, PrepareError> {
        let mut all = Vec::new();
        for column in &settings.no_nulls {
            let column_index = columns::find(schema, "`assert.no_nulls`", column, port)?;
            all.push(RowAssertion::new("no_nulls", column, column_index, None));
        }
        for (column, most) in &settings.max_characters {
            let what = "`assert.max_characters`";
            let column_index = columns::find(schema, what, column, port)?;
            let found = schema.field(column_index).data_type();
            if *found != DataType::Utf8 {
                let (column, found) = (column.clone(), type_name(found));
                return Err(PrepareError::WrongType { what, column, expected: "text", found });
            }
            all.push(RowAssertion::new("max_characters", column, column_index, Some(*most)));
        }
        Ok(all)
    }

    fn new(name: &'static str, column: &str, column_index: usize, max_characters: Option<usize>) -> Self {
        RowAssertion { name, column: column.to_string(), column_index, max_characters, broken: RowSet::default() }
    }

    /// The rows of `batch` that break it.
    pub fn broken(&self, batch: &RecordBatch) -> Vec<usize> {
        let column = batch.column(self.column_index);
        let is_broken = |row: &usize| match self.max_characters {
            None => column.is_null(*row),
            Some(most) => column.is_valid(*row) && column.as_string::<i32>().value(*row).chars().count() > most,
        };
        (0..batch.num_rows()).filter(is_broken).collect()
    }

    /// Notes that the row at `place` breaks it.
    pub fn note(&mut self, place: u64) {
        self.broken.insert(place);
    }

    /// Whether it holds for all rows in `kept`.
    ///
    /// # Errors
    /// `Assertion` with the first row that breaks it.
    pub fn check(&self, kept: &RowSet, inputs: &Inputs) -> Result<(), PrepareError> {
        let mut broken = self.broken.both(kept);
        let Some(first) = broken.next() else { return Ok(()) };
        let what = match self.max_characters {
            None => "is null".to_string(),
            Some(most) => format!("has more than {} characters", thousands(most as u64)),
        };
        let n_rows = thousands(1 + broken.count() as u64);
        let whence = inputs.whence(first);
        let problem = format!("column `{}` {what} in {whence}, and in {n_rows} rows in all", self.column);
        Err(PrepareError::Assertion { name: self.name, problem })
    }
}

/// `columns`: the same names, in any order, with the same types.
///
/// # Errors
/// `Assertion` with the first column that differs.
pub fn check_columns(expected: &BTreeMap<String, String>, schema: &Schema) -> Result<(), PrepareError> {
    if expected.is_empty() {
        return Ok(());
    }
    let broken = |problem: String| Err(PrepareError::Assertion { name: "columns", problem });
    for (name, wanted) in expected {
        match schema.column_with_name(name).map(|(_, field)| type_name(field.data_type())) {
            None => return broken(format!("there is no column `{name}`")),
            Some(found) if found != *wanted => {
                return broken(format!("column `{name}` is {found}, but must be {wanted}"));
            }
            Some(_) => {}
        }
    }
    match schema.fields().iter().find(|field| !expected.contains_key(field.name())) {
        Some(more) => broken(format!("there is also the column `{}`", more.name())),
        None => Ok(()),
    }
}

/// `min_rows`, `max_rows` and `max_dropped_share`.
///
/// # Errors
/// `Assertion`.
pub fn check_counts(settings: &AssertionSettings, n_in: u64, n_dropped: u64, n_out: u64) -> Result<(), PrepareError> {
    let broken = |name: &'static str, problem: String| Err(PrepareError::Assertion { name, problem });
    let (out, dropped) = (thousands(n_out), thousands(n_dropped));
    match (settings.min_rows, settings.max_rows) {
        (Some(least), _) if n_out < least => return broken("min_rows", format!("{out} rows are left")),
        (_, Some(most)) if n_out > most => return broken("max_rows", format!("{out} rows are left")),
        _ => {}
    }
    if n_dropped as f64 > settings.max_dropped_share * n_in as f64 {
        return broken("max_dropped_share", format!("{dropped} of {} rows were dropped", thousands(n_in)));
    }
    Ok(())
}
