//! Rows that come with token ids: their lists are checked, brought to one integer type, and passed on in file order.
//!
//! `input_ids` is needed; `labels`, `position_ids` and `doc_ids` are taken where they are; other columns are left out.
//! An `attention_mask` must be 1 everywhere: what it masks is padding, which packs do not have.
//! It deliberately does not compare ids with a vocabulary: no model is known here.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Builder, ListBuilder, RecordBatch, UInt32Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use pipe_records::examples::pretokenized_schema;
use pipe_records::show::type_name;

use crate::error::FormatError;

/// The columns that may come along with `input_ids`.
const OPTIONAL_COLUMNS: [&str; 3] = ["labels", "position_ids", "doc_ids"];

/// Hugging Face's column that is 0 where a token is padding; checked and left out.
const ATTENTION_MASK: &str = "attention_mask";

/// Which of the optional columns `rows` has.
///
/// # Errors
/// `MissingColumn` without `input_ids`; `WrongType` for a column that is no list of whole numbers.
pub fn optional_columns(rows: &Schema) -> Result<Vec<&'static str>, FormatError> {
    if rows.column_with_name("input_ids").is_none() {
        let found = rows.fields().iter().map(|field| field.name().clone()).collect();
        return Err(FormatError::MissingColumn {
            template: "pretokenized",
            field: "input_ids",
            column: "input_ids".to_string(),
            found,
            nearest: None,
        });
    }
    for name in ["input_ids", ATTENTION_MASK].into_iter().chain(OPTIONAL_COLUMNS) {
        let Some((_, field)) = rows.column_with_name(name) else { continue };
        if !is_list_of_whole_numbers(field) {
            return Err(FormatError::WrongType {
                template: "pretokenized",
                column: name.to_string(),
                found: type_name(field.data_type()),
                expected: "lists of whole numbers",
            });
        }
    }
    Ok(OPTIONAL_COLUMNS.into_iter().filter(|name| rows.column_with_name(name).is_some()).collect())
}

/// The columns of a batch as `examples` has them. `first_row`: its first row, counted over all files.
///
/// # Errors
/// `NullCell`, `OutOfRange`, `LengthDiffers` and `Padding` with the row.
pub fn convert(batch: &RecordBatch, with_columns: &[&str], first_row: u64) -> Result<RecordBatch, FormatError> {
    let schema = pretokenized_schema(with_columns);
    let input_ids = lists(batch, "input_ids", first_row)?;
    if batch.column_by_name(ATTENTION_MASK).is_some() {
        let masks = lists(batch, ATTENTION_MASK, first_row)?;
        check_lengths(&input_ids, &masks, ATTENTION_MASK, first_row)?;
        check_mask(&masks, first_row)?;
    }
    let mut columns: Vec<Arc<dyn Array>> = Vec::new();
    for field in schema.fields() {
        let rows = if field.name() == "input_ids" { input_ids.clone() } else { lists(batch, field.name(), first_row)? };
        check_lengths(&input_ids, &rows, field.name(), first_row)?;
        columns.push(match field.name().as_str() {
            "labels" => labels_array(&schema, &rows, first_row)?,
            name => ids_array(&schema, name, &rows, first_row)?,
        });
    }
    Ok(RecordBatch::try_new(schema, columns).map_err(pipe_records::RecordsError::from)?)
}

fn check_lengths(input_ids: &[Vec<i64>], rows: &[Vec<i64>], name: &str, first_row: u64) -> Result<(), FormatError> {
    let Some(index) = input_ids.iter().zip(rows).position(|(ids, row)| ids.len() != row.len()) else { return Ok(()) };
    let (n_tokens, found) = (input_ids[index].len(), rows[index].len());
    Err(FormatError::LengthDiffers { column: name.to_string(), row: first_row + index as u64, n_tokens, found })
}

fn check_mask(masks: &[Vec<i64>], first_row: u64) -> Result<(), FormatError> {
    for (index, mask) in masks.iter().enumerate() {
        if let Some(token) = mask.iter().position(|value| *value != 1) {
            return Err(FormatError::Padding { row: first_row + index as u64, token, value: mask[token] });
        }
    }
    Ok(())
}

fn is_list_of_whole_numbers(field: &Field) -> bool {
    match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().is_integer()
        }
        _ => false,
    }
}

/// Each row's numbers, from whichever list and integer type they are in.
fn lists(batch: &RecordBatch, name: &str, first_row: u64) -> Result<Vec<Vec<i64>>, FormatError> {
    let column = batch.column_by_name(name).expect("the columns were checked against the schema of all rows");
    let wanted = DataType::List(Arc::new(Field::new("element", DataType::Int64, true)));
    let column = cast(column, &wanted).map_err(pipe_records::RecordsError::from)?;
    let column = column.as_list::<i32>();
    (0..column.len())
        .map(|row| {
            let values = column.value(row);
            if column.is_null(row) || values.null_count() > 0 {
                return Err(FormatError::NullCell {
                    column: name.to_string(),
                    row: first_row + row as u64,
                    help: "write a list of whole numbers without null, or remove the row from the data",
                });
            }
            Ok(values.as_primitive::<Int64Type>().values().to_vec())
        })
        .collect()
}

fn ids_array(schema: &SchemaRef, name: &str, rows: &[Vec<i64>], first_row: u64) -> Result<Arc<dyn Array>, FormatError> {
    let mut builder = ListBuilder::new(UInt32Builder::new()).with_field(item_field(schema, name));
    for (index, row) in rows.iter().enumerate() {
        for value in row {
            let id = u32::try_from(*value).map_err(|_| FormatError::OutOfRange {
                column: name.to_string(),
                row: first_row + index as u64,
                value: *value,
                least: 0,
                most: u32::MAX.into(),
            })?;
            builder.values().append_value(id);
        }
        builder.append(true);
    }
    Ok(Arc::new(builder.finish()))
}

fn labels_array(schema: &SchemaRef, rows: &[Vec<i64>], first_row: u64) -> Result<Arc<dyn Array>, FormatError> {
    let mut builder = ListBuilder::new(Int32Builder::new()).with_field(item_field(schema, "labels"));
    for (index, row) in rows.iter().enumerate() {
        for value in row {
            let label = i32::try_from(*value).map_err(|_| FormatError::OutOfRange {
                column: "labels".to_string(),
                row: first_row + index as u64,
                value: *value,
                least: i32::MIN.into(),
                most: i32::MAX.into(),
            })?;
            builder.values().append_value(label);
        }
        builder.append(true);
    }
    Ok(Arc::new(builder.finish()))
}

fn item_field(schema: &Schema, name: &str) -> Arc<Field> {
    match schema.field_with_name(name).map(Field::data_type) {
        Ok(DataType::List(item)) => item.clone(),
        _ => unreachable!("`pretokenized_schema` has lists only"),
    }
}
