//! Parsed values into Arrow arrays of a type that [`super::kind`] has inferred from them.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, SchemaRef};

use super::value::Json;
use crate::RecordsError;

/// The columns of `rows`, each an object.
pub(crate) fn batch(schema: &SchemaRef, rows: &[Json]) -> Result<RecordBatch, RecordsError> {
    let columns: Vec<ArrayRef> = schema
        .fields()
        .iter()
        .map(|field| array(field.data_type(), &rows.iter().map(|row| row.get(field.name())).collect::<Vec<_>>()))
        .collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn array(data_type: &DataType, values: &[&Json]) -> ArrayRef {
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(values.iter().map(|value| match value {
            Json::Bool(value) => Some(*value),
            _ => None,
        }))),
        DataType::Int64 => Arc::new(Int64Array::from_iter(values.iter().map(|value| match value {
            Json::Int(value) => Some(*value),
            _ => None,
        }))),
        DataType::Float64 => Arc::new(Float64Array::from_iter(values.iter().map(|value| match value {
            Json::Int(value) => Some(*value as f64),
            Json::Float(value) => Some(*value),
            _ => None,
        }))),
        DataType::Utf8 => Arc::new(StringArray::from_iter(values.iter().map(|value| match value {
            Json::Text(value) => Some(value.as_str()),
            _ => None,
        }))),
        DataType::List(item) => {
            let lists: Vec<&[Json]> = values.iter().map(|value| items(value)).collect();
            let flat: Vec<&Json> = lists.iter().flat_map(|list| list.iter()).collect();
            let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.len()));
            let nulls: NullBuffer = values.iter().map(|value| matches!(value, Json::List(_))).collect();
            Arc::new(ListArray::new(item.clone(), offsets, array(item.data_type(), &flat), Some(nulls)))
        }
        DataType::Struct(fields) => {
            let nulls: NullBuffer = values.iter().map(|value| matches!(value, Json::Object(_))).collect();
            if fields.is_empty() {
                return Arc::new(StructArray::new_empty_fields(values.len(), Some(nulls)));
            }
            let column = |name: &str, data_type: &DataType| {
                array(data_type, &values.iter().map(|value| value.get(name)).collect::<Vec<_>>())
            };
            let columns = fields.iter().map(|field| column(field.name(), field.data_type())).collect();
            Arc::new(StructArray::new(fields.clone(), columns, Some(nulls)))
        }
        other => new_null_array(other, values.len()),
    }
}

fn items(value: &Json) -> &[Json] {
    match value {
        Json::List(items) => items,
        _ => &[],
    }
}
