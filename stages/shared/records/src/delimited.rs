//! CSV and TSV: a header, then a row a record, with the types that the cells show.
//!
//! ```text
//! id,prompt,score          id: int64, prompt: string, score: float64
//! 1,"Hi, you",0.5    --->  1         Hi, you         0.5
//! 2,,                      2         (empty text)    null
//! ```
//!
//! Quotes, doubled quotes and line ends inside of quotes are as in RFC 4180; a byte order mark is not part of the first name,
//! blank lines are skipped, and a column without a name is called `Unnamed: 0` by its place: all that as in pandas, which is
//! what Hugging Face `datasets` reads with. A column is
//!
//! - `int64` where each cell that is not empty is a whole number as it would be printed: `007` and 20 digits are text,
//! - `float64` where each is such a number or one with a point or an exponent,
//! - `bool` where each is `true` or `false` (also `True`, `TRUE`, ...),
//! - `string` otherwise, and where all are empty.
//!
//! An empty cell is null in a column of numbers, and the empty text in one of text. That, and that `NA`, `null` and `nan` are the
//! texts they are, differs from pandas on purpose: there, an answer `None` is lost silently.
//!
//! A record with more or fewer cells than the header is a bad row. A quote that is not closed would take in the rest of
//! the file, so it ends the reading.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use csv::{ByteRecord, StringRecord};

use crate::RecordsError;
use crate::bad_rows::{RowsOfFile, Sieve, Unreadable, without};
use crate::files::BATCH_ROWS;
use crate::source::{Bytes, DataSource};

/// One data file of cells between delimiters.
#[derive(Clone)]
pub(crate) struct DelimitedFile {
    pub(crate) source: DataSource,
    /// `,` or a tab.
    pub(crate) delimiter: u8,
}

/// The columns seen so far, over all such files of an artifact.
#[derive(Default)]
pub(crate) struct CellColumns {
    names: Vec<String>,
    cells: Vec<Cells>,
}

/// What the cells of a column were so far.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cells {
    Empty,
    Bool,
    Whole,
    Number,
    Text,
}

impl CellColumns {
    pub(crate) fn schema(&self) -> SchemaRef {
        let field = |(name, cells): (&String, &Cells)| {
            let data_type = match cells {
                Cells::Bool => DataType::Boolean,
                Cells::Whole => DataType::Int64,
                Cells::Number => DataType::Float64,
                Cells::Empty | Cells::Text => DataType::Utf8,
            };
            Field::new(name, data_type, true)
        };
        Arc::new(Schema::new(self.names.iter().zip(&self.cells).map(field).collect::<Vec<_>>()))
    }

    fn widen(&mut self, record: &StringRecord) {
        for (known, cell) in self.cells.iter_mut().zip(record) {
            *known = known.with(Cells::of(cell));
        }
    }
}

impl Cells {
    fn of(cell: &str) -> Self {
        match cell.as_bytes() {
            [] => Cells::Empty,
            [b'-' | b'0'..=b'9', ..] => number(cell),
            _ if truth(cell).is_some() => Cells::Bool,
            _ => Cells::Text,
        }
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (known, Cells::Empty) => known,
            (Cells::Empty, found) => found,
            (known, found) if known == found => known,
            (Cells::Whole | Cells::Number, Cells::Whole | Cells::Number) => Cells::Number,
            _ => Cells::Text,
        }
    }
}

/// Whole numbers must print as they stand, so that no zero and no digit is lost; the others are written as in JSON.
fn number(cell: &str) -> Cells {
    let has_fraction = cell.contains(['.', 'e', 'E']);
    if !has_fraction {
        let is_whole = cell.parse::<i64>().is_ok_and(|value| value.to_string() == cell);
        return if is_whole { Cells::Whole } else { Cells::Text };
    }
    match serde_json::from_str::<f64>(cell) {
        Ok(value) if value.is_finite() => Cells::Number,
        _ => Cells::Text,
    }
}

fn truth(cell: &str) -> Option<bool> {
    match cell {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

impl DelimitedFile {
    /// First pass: widens `columns` by every row.
    pub(crate) fn infer(&self, columns: &mut CellColumns, mut sieve: Sieve<'_>) -> Result<RowsOfFile, RecordsError> {
        let Records { names, records } = self.records()?;
        if columns.names.is_empty() {
            columns.cells = vec![Cells::Empty; names.len()];
            columns.names = names;
        } else if columns.names != names {
            return Err(self.other_header(&columns.names, &names));
        }
        for record in records {
            sieve.take(record.map(|record| columns.widen(&record)))?;
        }
        Ok(sieve.finish())
    }

    /// Second pass: the rows as batches of `schema`, which [`CellColumns::schema`] gave.
    pub(crate) fn batches(
        &self,
        schema: SchemaRef,
        rows: &RowsOfFile,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RecordsError>> + use<>, RecordsError> {
        let mut records = without(self.records()?.records, rows.bad.clone());
        Ok(std::iter::from_fn(move || {
            let chunk: Result<Vec<StringRecord>, Unreadable> = records.by_ref().take(BATCH_ROWS).collect();
            match chunk {
                Err(unreadable) => Some(Err(unreadable.into())),
                Ok(chunk) if chunk.is_empty() => None,
                Ok(chunk) => Some(batch(&schema, &chunk)),
            }
        }))
    }

    fn records(&self) -> Result<Records<impl Iterator<Item = Result<StringRecord, Unreadable>> + use<>>, RecordsError> {
        let bytes = QuoteWatch::new(self.source.text()?, self.delimiter);
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(1 << 16)
            .from_reader(bytes);
        let mut next = Cursor { file: self.clone(), n_columns: 0, row: 0 };
        let header = match next.record(&mut reader) {
            Some(header) => header.map_err(RecordsError::from)?,
            None => return Err(self.bad(1, 0, "it has no line that names the columns".to_string())),
        };
        let names = self.names(&header)?;
        next.row = 0;
        next.n_columns = names.len();
        Ok(Records { names, records: std::iter::from_fn(move || next.record(&mut reader)) })
    }

    fn names(&self, header: &StringRecord) -> Result<Vec<String>, RecordsError> {
        let mut names: Vec<String> = Vec::with_capacity(header.len());
        for (index, name) in header.iter().enumerate() {
            let name = if name.is_empty() { format!("Unnamed: {index}") } else { name.to_string() };
            if names.contains(&name) {
                return Err(self.bad(1, 0, format!("it names the column `{name}` twice")));
            }
            names.push(name);
        }
        Ok(names)
    }

    fn other_header(&self, expected: &[String], found: &[String]) -> RecordsError {
        let listed = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        RecordsError::SchemaDiffers {
            file: self.source.label.clone(),
            first_file: "the file before it".to_string(),
            difference: format!("{} where there is {}", listed(found), listed(expected)),
        }
    }

    fn bad(&self, line: u64, row: u64, problem: String) -> RecordsError {
        RecordsError::BadText { file: self.source.label.clone(), line, row, problem }
    }
}

/// The names of the columns, and the rows.
struct Records<I> {
    names: Vec<String>,
    records: I,
}

/// Where in its file a reader stands.
struct Cursor {
    file: DelimitedFile,
    /// 0 for the header, which says how many there are.
    n_columns: usize,
    row: u64,
}

impl Cursor {
    fn record(&mut self, reader: &mut csv::Reader<QuoteWatch<Bytes>>) -> Option<Result<StringRecord, Unreadable>> {
        let mut record = ByteRecord::new();
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(Unreadable::File(self.failed(error)))),
        }
        let line = record.position().map_or(0, csv::Position::line);
        let watch = reader.get_ref();
        // Only the last record needs to see the end of the file; it took in all that follows the quote.
        if watch.is_open_at_end() {
            let line = watch.quote_line;
            let problem = "the quote that opens in this line is not closed".to_string();
            return Some(Err(Unreadable::File(self.file.bad(line, self.row, problem))));
        }
        let row = self.row;
        self.row += 1;
        let bad = |problem: String| Some(Err(Unreadable::Row(self.file.bad(line, row, problem))));
        let n_found = record.len();
        if self.n_columns > 0 && n_found != self.n_columns {
            return bad(format!("it has {n_found} cells, but there are {} columns", self.n_columns));
        }
        match StringRecord::from_byte_record(record) {
            Ok(record) => Some(Ok(record)),
            Err(error) => {
                let cell = error.utf8_error().field();
                bad(format!("cell {cell} (counted from 0) is not UTF-8"))
            }
        }
    }

    fn failed(&self, error: csv::Error) -> RecordsError {
        match error.into_kind() {
            csv::ErrorKind::Io(source) => self.file.source.unreadable(source),
            other => self.file.bad(0, self.row, format!("{other:?}")),
        }
    }
}

fn batch(schema: &SchemaRef, records: &[StringRecord]) -> Result<RecordBatch, RecordsError> {
    let column = |(index, field): (usize, &Arc<Field>)| -> ArrayRef {
        let cells = records.iter().map(|record| &record[index]);
        match field.data_type() {
            DataType::Boolean => Arc::new(cells.map(truth).collect::<BooleanArray>()),
            DataType::Int64 => Arc::new(cells.map(|cell| cell.parse().ok()).collect::<Int64Array>()),
            DataType::Float64 => Arc::new(cells.map(|cell| cell.parse().ok()).collect::<Float64Array>()),
            _ => Arc::new(StringArray::from_iter_values(cells)),
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Bytes on their way to the parser, which reads an open quote to the end of the file without a word.
struct QuoteWatch<R> {
    inner: R,
    delimiter: u8,
    place: Place,
    line: u64,
    /// Where the last quote opened.
    quote_line: u64,
    is_at_end: bool,
}

/// Where in a cell the next byte stands; the rules are the parser's.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Start,
    Plain,
    Quoted,
    /// Behind a quote that closes the cell, or doubles.
    Closed,
}

impl<R> QuoteWatch<R> {
    fn new(inner: R, delimiter: u8) -> Self {
        QuoteWatch { inner, delimiter, place: Place::Start, line: 1, quote_line: 0, is_at_end: false }
    }

    fn is_open_at_end(&self) -> bool {
        self.is_at_end && self.place == Place::Quoted
    }

    fn see(&mut self, byte: u8) {
        let ends_cell = byte == self.delimiter || byte == b'\n' || byte == b'\r';
        self.place = match (self.place, byte) {
            (Place::Start, b'"') => {
                self.quote_line = self.line;
                Place::Quoted
            }
            (Place::Closed, b'"') => Place::Quoted,
            (Place::Quoted, b'"') => Place::Closed,
            (Place::Quoted, _) => Place::Quoted,
            _ if ends_cell => Place::Start,
            _ => Place::Plain,
        };
        self.line += u64::from(byte == b'\n');
    }
}

impl<R: Read> Read for QuoteWatch<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n_read = self.inner.read(buffer)?;
        self.is_at_end |= n_read == 0 && !buffer.is_empty();
        for byte in &buffer[..n_read] {
            self.see(*byte);
        }
        Ok(n_read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_cells_has_the_narrowest_type_that_loses_nothing() {
        let kind = |cells: &[&str]| cells.iter().fold(Cells::Empty, |known, cell| known.with(Cells::of(cell)));
        assert_eq!(kind(&["1", "", "-20"]), Cells::Whole);
        assert_eq!(kind(&["1", "0.5", "2e-3"]), Cells::Number);
        assert_eq!(kind(&["true", "False"]), Cells::Bool);
        assert_eq!(kind(&["", ""]), Cells::Empty);
        for text in ["007", "+1", "-0", "-", "1.", ".5", "1e999", "12345678901234567890", "nan", "NA", "1 ", "0x1"] {
            assert_eq!(kind(&[text]), Cells::Text, "{text}");
        }
        assert_eq!(kind(&["1", "true"]), Cells::Text);
        assert_eq!(kind(&["1", "x", "2"]), Cells::Text);
    }
}
