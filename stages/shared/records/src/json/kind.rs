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

    /// The same, but a row that does not fit changes nothing.
    pub(crate) fn widen_if_it_fits(&mut self, row: &Json) -> Result<(), Mismatch> {
        let mut own = Columns::default();
        own.widen(row)?;
        check_entries(&self.0, &own.0, "")?;
        self.widen(row)
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

/// Whether `known` can be widened by `own`.
fn check_entries(known: &[(String, Kind)], own: &[(String, Kind)], path: &str) -> Result<(), Mismatch> {
    for (name, kind) in own {
        if let Some((_, known)) = known.iter().find(|(known_name, _)| known_name == name) {
            known.check(kind, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") })?;
        }
    }
    Ok(())
}

impl Kind {
    fn check(&self, own: &Kind, path: &str) -> Result<(), Mismatch> {
        match (self, own) {
            (Kind::Null, _) | (_, Kind::Null) => Ok(()),
            (Kind::Int | Kind::Float, Kind::Int | Kind::Float) => Ok(()),
            (Kind::List(known), Kind::List(own)) => known.check(own, &format!("{path}[]")),
            (Kind::Object(known), Kind::Object(own)) => check_entries(known, own, path),
            (known, own) if known == own => Ok(()),
            (known, own) => Err(Mismatch {
                column: path.to_string(),
                expected: known.describe().to_string(),
                found: own.describe().to_string(),
            }),
        }
    }

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
