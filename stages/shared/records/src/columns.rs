//! Typed columns of a record batch, or an error that names what is there instead.

use arrow::array::{Array, AsArray, GenericListArray, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Int32Type, UInt32Type};

use crate::RecordsError;
use crate::show::type_name;

/// Where a batch stands: for messages.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a str,
    /// Row of the file that is the batch's first.
    pub(crate) first_row: u64,
}

pub(crate) fn column<'b>(batch: &'b RecordBatch, name: &str, place: Place) -> Result<&'b dyn Array, RecordsError> {
    batch.column_by_name(name).map(AsRef::as_ref).ok_or_else(|| RecordsError::MissingColumn {
        file: place.file.to_string(),
        column: name.to_string(),
        found: batch.schema().fields().iter().map(|f| f.name().clone()).collect(),
    })
}

pub(crate) fn text_column<'b>(
    batch: &'b RecordBatch,
    name: &str,
    place: Place,
) -> Result<&'b StringArray, RecordsError> {
    let array = column(batch, name, place)?;
    let typed = array.as_string_opt::<i32>().ok_or_else(|| wrong_type(array, name, "string", place))?;
    no_nulls(typed, name, place)?;
    Ok(typed)
}

pub(crate) fn u32_column<'b>(
    batch: &'b RecordBatch,
    name: &str,
    place: Place,
) -> Result<&'b UInt32Array, RecordsError> {
    let array = column(batch, name, place)?;
    let typed = array.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong_type(array, name, "uint32", place))?;
    no_nulls(typed, name, place)?;
    Ok(typed)
}

/// A column of lists of `uint32`, without nulls on either level.
pub(crate) struct U32Lists<'b> {
    lists: &'b GenericListArray<i32>,
    values: &'b UInt32Array,
}

impl U32Lists<'_> {
    pub(crate) fn row(&self, row: usize) -> Vec<u32> {
        self.values.values()[range(self.lists, row)].to_vec()
    }
}

/// A column of lists of `int32`, without nulls on either level.
pub(crate) struct I32Lists<'b> {
    lists: &'b GenericListArray<i32>,
    values: &'b Int32Array,
}

impl I32Lists<'_> {
    pub(crate) fn row(&self, row: usize) -> Vec<i32> {
        self.values.values()[range(self.lists, row)].to_vec()
    }
}

pub(crate) fn u32_lists<'b>(batch: &'b RecordBatch, name: &str, place: Place) -> Result<U32Lists<'b>, RecordsError> {
    let lists = list_column(batch, name, "list<uint32>", place)?;
    let values = lists.values().as_primitive_opt::<UInt32Type>();
    let values = values.ok_or_else(|| wrong_type(lists, name, "list<uint32>", place))?;
    no_nulls(values, name, place)?;
    Ok(U32Lists { lists, values })
}

pub(crate) fn i32_lists<'b>(batch: &'b RecordBatch, name: &str, place: Place) -> Result<I32Lists<'b>, RecordsError> {
    let lists = list_column(batch, name, "list<int32>", place)?;
    let values = lists.values().as_primitive_opt::<Int32Type>();
    let values = values.ok_or_else(|| wrong_type(lists, name, "list<int32>", place))?;
    no_nulls(values, name, place)?;
    Ok(I32Lists { lists, values })
}

fn list_column<'b>(
    batch: &'b RecordBatch,
    name: &str,
    expected: &'static str,
    place: Place,
) -> Result<&'b GenericListArray<i32>, RecordsError> {
    let array = column(batch, name, place)?;
    let lists = array.as_list_opt::<i32>().ok_or_else(|| wrong_type(array, name, expected, place))?;
    no_nulls(lists, name, place)?;
    Ok(lists)
}

fn range(lists: &GenericListArray<i32>, row: usize) -> std::ops::Range<usize> {
    let offsets = lists.value_offsets();
    let at = |i: usize| usize::try_from(offsets[i]).expect("Arrow offsets are not negative");
    at(row)..at(row + 1)
}

fn wrong_type(array: &dyn Array, name: &str, expected: &'static str, place: Place) -> RecordsError {
    let found: &DataType = array.data_type();
    RecordsError::WrongColumnType {
        file: place.file.to_string(),
        column: name.to_string(),
        expected,
        found: type_name(found),
    }
}

fn no_nulls(array: &dyn Array, name: &str, place: Place) -> Result<(), RecordsError> {
    let Some(row) = array.nulls().and_then(|nulls| (0..nulls.len()).find(|row| nulls.is_null(*row))) else {
        return Ok(());
    };
    let row = place.first_row + row as u64;
    Err(RecordsError::NullCell { file: place.file.to_string(), column: name.to_string(), row })
}
