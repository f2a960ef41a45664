//! One type for each meaning: rows have the same columns whichever form of file they came in.
//!
//! ```text
//! large_string, string_view, dictionary of string    ->  string
//! large_list, fixed_size_list, list<item: not null>  ->  list<element>, everything nullable
//! null (a column without any value)                  ->  string, as in JSON
//! ```
//!
//! It deliberately changes no value, no number type and no order of columns.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::RecordsError;

/// The columns as rows have them: all nullable, without metadata.
pub(crate) fn normal_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| normal_field(field.name(), field)).collect::<Vec<_>>()))
}

/// `batch` with the columns of `schema`, which [`normal_schema`] gave for its own.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, RecordsError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(column.clone()) } else { cast(column, field.data_type()) }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)?)
}

fn normal_field(name: &str, field: &Field) -> Field {
    Field::new(name, normal_type(field.data_type()), true)
}

fn normal_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => normal_type(values),
        // The name of an item differs from writer to writer; "element" is what Parquet says.
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => DataType::List(Arc::new(normal_field("element", item))),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| normal_field(field.name(), field)).collect())
        }
        other => other.clone(),
    }
}
