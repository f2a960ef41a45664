//! Cells of Arrow columns as values of templates.
//!
//! ```text
//! list<{role: string, content: string, name: string}>   ->   [{role: user, content: "hi"}, ...]      a null entry is not there
//! string with JSON                                      ->   the same, where lists are wanted ([`parsed`])
//! ```
//!
//! Arrow gives every struct of a column the fields of all of them, null where there were none; JSON's own nulls go with them.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use pipe_records::RecordsError;
use pipe_template::Value;

/// The value in `row` of a column; none where it is null.
///
/// # Errors
/// `Arrow` for a type that is neither text, number, truth value, list nor struct.
pub fn cell(column: &dyn Array, row: usize) -> Result<Value, RecordsError> {
    if column.is_null(row) {
        return Ok(Value::from(()));
    }
    Ok(match column.data_type() {
        DataType::Null => Value::from(()),
        DataType::Utf8 => Value::from(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Value::from(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Value::from(column.as_string_view().value(row)),
        DataType::Boolean => Value::from(column.as_boolean().value(row)),
        DataType::UInt64 => Value::from(column.as_primitive::<UInt64Type>().value(row)),
        DataType::Float16 => Value::from(column.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => Value::from(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => Value::from(column.as_primitive::<Float64Type>().value(row)),
        data_type if data_type.is_integer() => {
            let number = arrow::compute::cast(&column.slice(row, 1), &DataType::Int64)?;
            Value::from(number.as_primitive::<Int64Type>().value(0))
        }
        DataType::List(_) => items(column.as_list::<i32>().value(row).as_ref())?,
        DataType::LargeList(_) => items(column.as_list::<i64>().value(row).as_ref())?,
        DataType::FixedSizeList(..) => items(column.as_fixed_size_list().value(row).as_ref())?,
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            let entries = columns.map(|(field, column)| Ok((field.name().clone(), cell(column, row)?)));
            let entries: Vec<(String, Value)> = entries.collect::<Result<_, RecordsError>>()?;
            Value::from_pairs(entries.into_iter().filter(|(_, value)| !value.is_none()))
        }
        // Dates and the like as they are shown.
        _ => Value::from(arrow::util::display::array_value_to_string(column, row)?),
    })
}

fn items(items: &dyn Array) -> Result<Value, RecordsError> {
    (0..items.len()).map(|row| cell(items, row)).collect()
}

/// `value`, or what it says where it is text of JSON; `None` where it is other text.
pub fn parsed(value: Value) -> Option<Value> {
    match value.as_str() {
        Some(text) => serde_json::from_str(text).ok(),
        None => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int32Array, ListArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn structs_lose_their_nulls_and_keep_their_order() {
        let text = |values: &[Option<&str>]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
        let message = StructArray::from(vec![
            (Arc::new(Field::new("role", DataType::Utf8, true)), text(&[Some("b"), Some("a"), None])),
            (
                Arc::new(Field::new("n", DataType::Int32, true)),
                Arc::new(Int32Array::from(vec![None, Some(2), None])) as ArrayRef,
            ),
            (
                Arc::new(Field::new("x", DataType::Float64, true)),
                Arc::new(Float64Array::from(vec![0.5, 1.0, 2.0])) as ArrayRef,
            ),
        ]);
        let field = Arc::new(Field::new("element", message.data_type().clone(), true));
        let lists = ListArray::new(field, OffsetBuffer::new(vec![0, 2, 2, 3].into()), Arc::new(message), None);
        let shown = |row: usize| cell(&lists, row).unwrap().to_string();
        assert_eq!(shown(0), "[{'role': 'b', 'x': 0.5}, {'role': 'a', 'n': 2, 'x': 1.0}]");
        assert_eq!((shown(1).as_str(), shown(2).as_str()), ("[]", "[{'x': 2.0}]"));
    }

    #[test]
    fn text_of_json_is_read_where_it_is_wanted() {
        let read = |text: &str| parsed(Value::from(text)).map(|value| value.to_string());
        assert_eq!(read(r#"[{"b": 1, "a": null}]"#).as_deref(), Some("[{'b': 1, 'a': None}]"));
        assert_eq!(read("[broken"), None);
        assert_eq!(parsed(Value::from(3)), Some(Value::from(3)));
    }
}
