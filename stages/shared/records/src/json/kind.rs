//! The type of a column, widened row by row: null < whole number < float; all else must agree.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::value::Json;

/// A value that does not fit what its column was so far.
#[derive(Debug, PartialEq)]
pub(crate) struct Mismatch {
    /// `messages[].role` for a nested one.
    pub(crate) column: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// The columns seen so far, in the order of their first appearance.
#[derive(Default)]
pub(crate) struct Columns(Vec<(String, Kind)>);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Null,
    Bool,
    Int,
    Float,
    Text,
    List(Box<Kind>),
    Object(Vec<(String, Kind)>),
}

impl Columns {
    /// Takes in one row, an object.
    pub(crate) fn widen(&mut self, row: &Json) -> Result<(), Mismatch> {
        match row {
            Json::Object(entries) => widen_entries(&mut self.0, entries, ""),
            _ => Ok(()),
        }
    }

    /// All columns nullable; a column that is null in every row is text.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(fields(&self.0)))
    }
}

fn widen_entries(known: &mut Vec<(String, Kind)>, entries: &[(String, Json)], path: &str) -> Result<(), Mismatch> {
    for (position, (name, value)) in entries.iter().enumerate() {
        // Rows mostly have the same keys in the same order.
        let found = match known.get(position) {
            Some((at_position, _)) if at_position == name => Some(position),
            _ => known.iter().position(|(known_name, _)| known_name == name),
        };
        let index = found.unwrap_or_else(|| {
            known.push((name.clone(), Kind::Null));
            known.len() - 1
        });
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        known[index].1.widen(value, &path)?;
    }
    Ok(())
}

impl Kind {
    fn widen(&mut self, value: &Json, path: &str) -> Result<(), Mismatch> {
        if *self == Kind::Null {
            *self = match value {
                Json::Null => return Ok(()),
                Json::Bool(_) => Kind::Bool,
                Json::Int(_) => Kind::Int,
                Json::Float(_) => Kind::Float,
                Json::Text(_) => Kind::Text,
                Json::List(_) => Kind::List(Box::new(Kind::Null)),
                Json::Object(_) => Kind::Object(Vec::new()),
            };
        }
        match (self, value) {
            (_, Json::Null)
            | (Kind::Bool, Json::Bool(_))
            | (Kind::Int | Kind::Float, Json::Int(_))
            | (Kind::Float, Json::Float(_))
            | (Kind::Text, Json::Text(_)) => Ok(()),
            (kind @ Kind::Int, Json::Float(_)) => {
                *kind = Kind::Float;
                Ok(())
            }
            (Kind::List(item), Json::List(values)) => {
                let path = format!("{path}[]");
                values.iter().try_for_each(|value| item.widen(value, &path))
            }
            (Kind::Object(known), Json::Object(entries)) => widen_entries(known, entries, path),
            (kind, value) => Err(Mismatch {
                column: path.to_string(),
                expected: kind.describe().to_string(),
                found: value.describe().to_string(),
            }),
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "a truth value",
            Kind::Int | Kind::Float => "a number",
            Kind::Text => "text",
            Kind::List(_) => "a list",
            Kind::Object(_) => "an object",
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Kind::Bool => DataType::Boolean,
            Kind::Int => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::Null | Kind::Text => DataType::Utf8,
            Kind::List(item) => DataType::List(Arc::new(Field::new("element", item.data_type(), true))),
            Kind::Object(known) => DataType::Struct(fields(known).into()),
        }
    }
}

fn fields(known: &[(String, Kind)]) -> Vec<Field> {
    known.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true)).collect()
}
