//! Which columns rows have, and what they are called.
//!
//! ```text
//! columns: { prompt: question }   question, answer, id   ->   prompt, answer, id
//! select_columns: [prompt, answer]                        ->   prompt, answer
//! ```
//!
//! Names are changed first; all other settings use the new ones. An input that has the new name and not the old one is left as it
//! is, so that one mapping serves inputs of which only some need it. All inputs must come to the same columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use pipe_records::show::type_name;

use crate::error::PrepareError;

/// The settings about columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnSettings {
    /// New name to old name.
    pub columns: BTreeMap<String, String>,
    /// If given, the columns that stay, in this order.
    pub select: Option<Vec<String>>,
    /// Columns that do not stay.
    pub remove: Vec<String>,
}

/// What is taken of the rows of one input.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Columns of the input.
    taken: Vec<usize>,
    /// As they are called now.
    schema: SchemaRef,
}

impl Mapping {
    /// For rows of `input`, which come in at `port`.
    ///
    /// # Errors
    /// `MissingColumn`, `ColumnTwice`.
    pub fn new(settings: &ColumnSettings, input: &Schema, port: &str) -> Result<Self, PrepareError> {
        let old_names: Vec<String> = input.fields().iter().map(|field| field.name().clone()).collect();
        let mut names = old_names.clone();
        for (new, old) in &settings.columns {
            match old_names.iter().position(|name| name == old) {
                Some(index) => names[index].clone_from(new),
                None if old_names.contains(new) => {}
                None => return Err(missing("`columns`", port, old, &old_names)),
            }
        }
        if let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
            return Err(PrepareError::ColumnTwice { port: port.to_string(), column: twice.1.clone() });
        }
        let place = |what: &'static str, name: &String| {
            names.iter().position(|known| known == name).ok_or_else(|| missing(what, port, name, &names))
        };
        let mut taken: Vec<usize> = match &settings.select {
            None => (0..names.len()).collect(),
            Some(select) => select.iter().map(|name| place("`select_columns`", name)).collect::<Result<_, _>>()?,
        };
        for name in &settings.remove {
            let removed = place("`remove_columns`", name)?;
            taken.retain(|index| *index != removed);
        }
        Ok(Mapping::of(input, &names, taken))
    }

    fn of(input: &Schema, names: &[String], taken: Vec<usize>) -> Self {
        let field = |index: &usize| Field::new(&names[*index], input.field(*index).data_type().clone(), true);
        let schema = Arc::new(Schema::new(taken.iter().map(field).collect::<Vec<_>>()));
        Mapping { taken, schema }
    }

    /// The columns, as they are called now.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Brings the columns to the order of `target`, that of the input at `target_port`.
    ///
    /// # Errors
    /// `InputsDiffer` when they are not the same.
    pub fn align(&mut self, port: &str, target: &SchemaRef, target_port: &str) -> Result<(), PrepareError> {
        let differs = |difference: String| PrepareError::InputsDiffer {
            port: port.to_string(),
            first_port: target_port.to_string(),
            difference,
        };
        let mut taken = Vec::with_capacity(self.taken.len());
        for wanted in target.fields() {
            let Some((index, found)) = self.schema.column_with_name(wanted.name()) else {
                return Err(differs(format!("it has no column `{}`", wanted.name())));
            };
            if found.data_type() != wanted.data_type() {
                let (found, wanted_type) = (type_name(found.data_type()), type_name(wanted.data_type()));
                return Err(differs(format!("column `{}` is {found}, and {wanted_type} there", wanted.name())));
            }
            taken.push(self.taken[index]);
        }
        if let Some(more) = self.schema.fields().iter().find(|field| target.column_with_name(field.name()).is_none()) {
            return Err(differs(format!("it also has the column `{}`", more.name())));
        }
        (self.taken, self.schema) = (taken, target.clone());
        Ok(())
    }

    /// The rows of `batch` with these columns.
    ///
    /// # Errors
    /// `Records` when the batch is not of the input.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, PrepareError> {
        let columns = self.taken.iter().map(|index| batch.column(*index).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// The place of `name` among `schema`'s columns; `what` needs it.
///
/// # Errors
/// `MissingColumn`.
pub fn find(schema: &Schema, what: &'static str, name: &str, port: &str) -> Result<usize, PrepareError> {
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    names.iter().position(|known| known == name).ok_or_else(|| missing(what, port, name, &names))
}

fn missing(what: &'static str, port: &str, column: &str, found: &[String]) -> PrepareError {
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    PrepareError::MissingColumn {
        what,
        port: port.to_string(),
        column: column.to_string(),
        found: found.to_vec(),
        nearest: pipe_settings::nearest(column, &names).map(str::to_string),
    }
}
