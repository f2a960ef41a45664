//! Filters: conditions on the cells of one column, all of which a row must meet to stay.
//!
//! ```text
//! filter:
//!   - { column: output, min_characters: 1, max_characters: 4000 }
//!   - { column: instruction, not_matches: "(?i)as an ai" }
//! ```
//!
//! A null cell meets no condition, so that `{ column: output }` alone drops the rows in which it is null; `not_null: false` lets
//! null through. Characters are Unicode scalar values, items those of a list.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use pipe_records::show::type_name;
use regex::Regex;

use crate::columns;
use crate::error::PrepareError;

/// One entry of `filter:`.
#[derive(Clone, Debug)]
pub struct Condition {
    /// What it looks at.
    pub column: String,
    /// Whether null is dropped.
    pub not_null: bool,
    /// What must hold, in the order of the README.
    pub tests: Vec<Test>,
}

/// What must hold for a cell.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names are those of the settings")]
pub enum Test {
    /// The cell in words; numbers and truth values as YAML writes them.
    OneOf(Vec<String>),
    NoneOf(Vec<String>),
    MinCharacters(usize),
    MaxCharacters(usize),
    Matches(Regex),
    NotMatches(Regex),
    MinItems(usize),
    MaxItems(usize),
    MinValue(f64),
    MaxValue(f64),
}

impl Condition {
    /// In a few words, for facts: `output: min_characters, max_characters`.
    pub fn name(&self) -> String {
        let tests: Vec<&str> = self.tests.iter().map(Test::name).collect();
        format!("{}: {}", self.column, if tests.is_empty() { "not_null".to_string() } else { tests.join(", ") })
    }

    /// Whether the column is there and has a type that the tests can be made on.
    ///
    /// # Errors
    /// `MissingColumn`, `WrongType`.
    pub fn check(&self, schema: &Schema, port: &str) -> Result<(), PrepareError> {
        let index = columns::find(schema, "`filter`", &self.column, port)?;
        let found = schema.field(index).data_type();
        let unfit = self.tests.iter().find(|test| !test.fits(found));
        match unfit {
            None => Ok(()),
            Some(test) => Err(PrepareError::WrongType {
                what: test.name(),
                column: self.column.clone(),
                expected: test.needs(),
                found: type_name(found),
            }),
        }
    }

    /// For each row of `batch`, whether it stays.
    ///
    /// # Errors
    /// `Records` when a column cannot be read as numbers or words.
    pub fn stays(&self, batch: &RecordBatch) -> Result<Vec<bool>, PrepareError> {
        let column = batch.column_by_name(&self.column).expect("the columns were checked");
        let mut stays: Vec<bool> = vec![true; column.len()];
        for test in &self.tests {
            test.apply(column, &mut stays)?;
        }
        for (row, stays) in stays.iter_mut().enumerate() {
            if column.is_null(row) {
                *stays = !self.not_null;
            }
        }
        Ok(stays)
    }
}

impl Test {
    fn name(&self) -> &'static str {
        match self {
            Test::OneOf(_) => "equals",
            Test::NoneOf(_) => "not_equals",
            Test::MinCharacters(_) => "min_characters",
            Test::MaxCharacters(_) => "max_characters",
            Test::Matches(_) => "matches",
            Test::NotMatches(_) => "not_matches",
            Test::MinItems(_) => "min_items",
            Test::MaxItems(_) => "max_items",
            Test::MinValue(_) => "min_value",
            Test::MaxValue(_) => "max_value",
        }
    }

    fn needs(&self) -> &'static str {
        match self {
            Test::OneOf(_) | Test::NoneOf(_) => "text, whole numbers or truth values",
            Test::MinItems(_) | Test::MaxItems(_) => "lists",
            Test::MinValue(_) | Test::MaxValue(_) => "numbers",
            _ => "text",
        }
    }

    fn fits(&self, found: &DataType) -> bool {
        match self {
            Test::OneOf(_) | Test::NoneOf(_) => {
                matches!(found, DataType::Utf8 | DataType::Boolean) || found.is_integer()
            }
            Test::MinItems(_) | Test::MaxItems(_) => matches!(found, DataType::List(_)),
            Test::MinValue(_) | Test::MaxValue(_) => found.is_numeric(),
            _ => *found == DataType::Utf8,
        }
    }

    /// Makes `stays` false where it does not hold. Cells that are null may have any outcome.
    fn apply(&self, column: &ArrayRef, stays: &mut [bool]) -> Result<(), PrepareError> {
        let holds: Box<dyn Fn(usize) -> bool> = match self {
            Test::OneOf(words) | Test::NoneOf(words) => {
                let (cells, is_one_of) = (cast(column, &DataType::Utf8)?, matches!(self, Test::OneOf(_)));
                Box::new(move |row| {
                    let cells = cells.as_string::<i32>();
                    words.iter().any(|word| cells.is_valid(row) && word == cells.value(row)) == is_one_of
                })
            }
            Test::MinItems(least) => Box::new(move |row| column.as_list::<i32>().value_length(row) as usize >= *least),
            Test::MaxItems(most) => Box::new(move |row| column.as_list::<i32>().value_length(row) as usize <= *most),
            Test::MinValue(least) => numbers(column, move |value| value >= *least)?,
            Test::MaxValue(most) => numbers(column, move |value| value <= *most)?,
            Test::MinCharacters(least) => texts(column, move |text| text.chars().count() >= *least),
            Test::MaxCharacters(most) => texts(column, move |text| text.chars().count() <= *most),
            Test::Matches(regex) => texts(column, move |text| regex.is_match(text)),
            Test::NotMatches(regex) => texts(column, move |text| !regex.is_match(text)),
        };
        for (row, stays) in stays.iter_mut().enumerate().filter(|(_, stays)| **stays) {
            *stays = holds(row);
        }
        Ok(())
    }
}

fn texts<'c>(column: &'c ArrayRef, holds: impl Fn(&str) -> bool + 'c) -> Box<dyn Fn(usize) -> bool + 'c> {
    let cells = column.as_string::<i32>();
    Box::new(move |row| cells.is_valid(row) && holds(cells.value(row)))
}

fn numbers<'c>(
    column: &ArrayRef,
    holds: impl Fn(f64) -> bool + 'c,
) -> Result<Box<dyn Fn(usize) -> bool + 'c>, PrepareError> {
    let cells = cast(column, &DataType::Float64)?;
    Ok(Box::new(move |row| holds(cells.as_primitive::<Float64Type>().value(row))))
}

/// All of them: the rows that stay, and how many each dropped, in order.
///
/// # Errors
/// As [`Condition::stays`].
pub fn apply(conditions: &[Condition], batch: &RecordBatch) -> Result<(BooleanArray, Vec<u64>), PrepareError> {
    let mut all = vec![true; batch.num_rows()];
    let mut n_dropped = Vec::with_capacity(conditions.len());
    for condition in conditions {
        let mut n_here = 0;
        for (all, stays) in all.iter_mut().zip(condition.stays(batch)?) {
            n_here += u64::from(*all && !stays);
            *all &= stays;
        }
        n_dropped.push(n_here);
    }
    Ok((all.into(), n_dropped))
}
