//! `*.parquet`: the schema, the number of rows, or the first column in which a row differs.
//!
//! Both files are read together, a batch at a time, so memory does not grow with them.

use std::panic::catch_unwind;
use std::path::Path;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Metadata};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pipe_contract::StageError;
use pipe_records::files::{ParquetBatches, read_parquet};
use pipe_records::show::type_name;
use pipe_records::{RecordsError, thousands};
use serde_json::Value;

use crate::bytes::Place;
use crate::json::value_difference;
use crate::shown::{change, quoted};

/// The rows of one column that differ.
struct Differing {
    /// Index of the first, and both values.
    first: (u64, String, String),
    n_rows: u64,
}

/// `None` if one of the files is not of this form. A file that breaks off inside is named with the first differing byte.
pub(crate) fn first_difference(place: &Place, before: &Path, now: &Path) -> Result<Option<String>, StageError> {
    // The parquet crate panics on some damaged files: an index out of bounds, say. They are compared as bytes then.
    let compared = catch_unwind(|| {
        let (Ok(before), Ok(now)) = (read_parquet(before), read_parquet(now)) else { return None };
        Some(compare(before, now))
    });
    Ok(match compared {
        Ok(Some(Ok(Some(difference)))) => Some(difference),
        Ok(Some(Ok(None))) => Some(format!("all values are equal, but not how they are written: {place}")),
        Ok(Some(Err(error))) => Some(format!("{place}; {}", StageError::from(error).chain())),
        Ok(None) | Err(_) => None,
    })
}

fn compare(before: ParquetBatches, now: ParquetBatches) -> Result<Option<String>, RecordsError> {
    let (left, right) = (before.schema(), now.schema());
    if let Some(difference) = schema_difference(left.fields(), right.fields()) {
        return Ok(Some(difference));
    }
    let (n_rows, n_rows_now) = (before.num_rows(), now.num_rows());
    if n_rows != n_rows_now {
        return Ok(Some(format!("{} rows -> {} rows", thousands(n_rows), thousands(n_rows_now))));
    }
    let columns = differing_rows(before, now, left.fields().len())?;
    let n_differing = columns.iter().flatten().count();
    let first = left.fields().iter().zip(&columns).find_map(|(field, column)| Some((field, column.as_ref()?)));
    let Some((field, Differing { first: (row, before, now), n_rows: n_rows_differing })) = first else {
        return Ok(metadata_difference(left.metadata(), right.metadata()));
    };
    let shown = change(before, now).unwrap_or_else(|| "other bytes".to_string());
    let mut text = format!(
        "column `{}`, row {} (counted from 0): {shown}; {} of {} rows differ in it",
        field.name(),
        thousands(*row),
        thousands(*n_rows_differing),
        thousands(n_rows)
    );
    if columns.len() > 1 {
        text += &format!("; {n_differing} of {} columns differ", columns.len());
    }
    Ok(Some(text))
}

/// The first column that is gone, new, of another type, or elsewhere.
fn schema_difference(before: &[impl AsRef<Field>], now: &[impl AsRef<Field>]) -> Option<String> {
    let named = |field: &Field| format!("column `{}` ({})", field.name(), field_type(field));
    let find = |fields: &[&Field], name: &str| fields.iter().any(|field| field.name() == name);
    let before: Vec<&Field> = before.iter().map(AsRef::as_ref).collect();
    let now: Vec<&Field> = now.iter().map(AsRef::as_ref).collect();
    for (left, right) in before.iter().zip(&now) {
        if left.name() == right.name() {
            if (left.data_type(), left.is_nullable()) != (right.data_type(), right.is_nullable()) {
                return Some(type_difference(left, right));
            }
        } else if !find(&now, left.name()) {
            return Some(format!("{} is gone", named(left)));
        } else if !find(&before, right.name()) {
            return Some(format!("{} is new", named(right)));
        } else {
            return Some(format!("the order of the columns: `{}` -> `{}`", left.name(), right.name()));
        }
    }
    let n_common = before.len().min(now.len());
    let gone = before.get(n_common).map(|field| format!("{} is gone", named(field)));
    gone.or_else(|| now.get(n_common).map(|field| format!("{} is new", named(field))))
}

fn type_difference(before: &Field, now: &Field) -> String {
    let (left, right) = (field_type(before), field_type(now));
    if left == right {
        // What differs is deep inside: the name of a list's items, say.
        return format!("column `{}`: {:?} -> {:?}", before.name(), before.data_type(), now.data_type());
    }
    format!("column `{}`: {left} -> {right}", before.name())
}

fn field_type(field: &Field) -> String {
    format!("{}{}", type_name(field.data_type()), if field.is_nullable() { "" } else { ", never null" })
}

/// Of each column the rows that differ. Both files say that they have the same number of rows.
fn differing_rows(
    mut before: ParquetBatches,
    mut now: ParquetBatches,
    n_columns: usize,
) -> Result<Vec<Option<Differing>>, RecordsError> {
    let mut columns: Vec<Option<Differing>> = (0..n_columns).map(|_| None).collect();
    let (mut left, mut right) = (next(&mut before)?, next(&mut now)?);
    let mut n_done = 0;
    while let (Some(a), Some(b)) = (&left, &right) {
        // Row groups of other lengths may cut the two into other batches.
        let n_rows = a.num_rows().min(b.num_rows());
        for (index, column) in columns.iter_mut().enumerate() {
            let (a, b) = (a.column(index).slice(0, n_rows), b.column(index).slice(0, n_rows));
            if *a != *b {
                add_rows(column, a.as_ref(), b.as_ref(), n_done)?;
            }
        }
        n_done += n_rows as u64;
        left = rest_or_next(a, n_rows, &mut before)?;
        right = rest_or_next(b, n_rows, &mut now)?;
    }
    Ok(columns)
}

fn rest_or_next(
    batch: &RecordBatch,
    n_done: usize,
    batches: &mut ParquetBatches,
) -> Result<Option<RecordBatch>, RecordsError> {
    if n_done < batch.num_rows() {
        return Ok(Some(batch.slice(n_done, batch.num_rows() - n_done)));
    }
    next(batches)
}

fn next(batches: &mut ParquetBatches) -> Result<Option<RecordBatch>, RecordsError> {
    let is_filled = |batch: &Result<RecordBatch, _>| batch.as_ref().map_or(true, |batch| batch.num_rows() > 0);
    batches.find(is_filled).transpose()
}

fn add_rows(
    column: &mut Option<Differing>,
    before: &dyn Array,
    now: &dyn Array,
    n_before: u64,
) -> Result<(), RecordsError> {
    for row in (0..before.len()).filter(|row| *before.slice(*row, 1) != *now.slice(*row, 1)) {
        if let Some(column) = column {
            column.n_rows += 1;
            continue;
        }
        *column = Some(Differing { first: (n_before + row as u64, cell(before, row)?, cell(now, row)?), n_rows: 1 });
    }
    Ok(())
}

/// A cell as text; text in quotes, so that `null` and "null" differ.
fn cell(column: &dyn Array, row: usize) -> Result<String, RecordsError> {
    let options = FormatOptions::default().with_null("null");
    let text = ArrayFormatter::try_new(column, &options)?.value(row).to_string();
    let is_text = matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    Ok(if is_text && column.is_valid(row) { quoted(&text) } else { text })
}

fn metadata_difference(before: &Metadata, now: &Metadata) -> Option<String> {
    let value = |metadata: &Metadata| -> Value {
        let pairs = metadata.iter().map(|(key, value)| (key.clone(), Value::from(value.clone())));
        Value::Object(pairs.collect())
    };
    let difference = value_difference(&value(before), &value(now), "")?;
    Some(format!("all values are equal, but not the footer's metadata: {difference}"))
}
