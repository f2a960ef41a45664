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

use std::io::BufRead as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::RecordsError;
use crate::bad_rows::{RowsOfFile, Sieve, Unreadable, batches_without};
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

    fn widen(&mut self, record: &Record) {
        for (known, cell) in self.cells.iter_mut().zip(record.cells()) {
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
        Ok(batches_without(self.records()?.records, rows.bad.clone(), move |records| batch(&schema, &records)))
    }

    fn records(&self) -> Result<Records<impl Iterator<Item = Result<Record, Unreadable>> + use<>>, RecordsError> {
        let mut cursor = Cursor {
            file: self.clone(),
            bytes: self.source.text()?,
            parser: ReaderBuilder::new().delimiter(self.delimiter).build(),
            quotes: Quotes::new(self.delimiter),
            n_columns: 0,
            row: 0,
        };
        let header = match cursor.record() {
            Some(header) => header.map_err(RecordsError::from)?,
            None => return Err(self.bad(1, 0, "it has no line that names the columns".to_string())),
        };
        let names = self.names(&header)?;
        (cursor.row, cursor.n_columns) = (0, names.len());
        Ok(Records { names, records: std::iter::from_fn(move || cursor.record()) })
    }

    fn names(&self, header: &Record) -> Result<Vec<String>, RecordsError> {
        let mut names: Vec<String> = Vec::with_capacity(header.ends.len());
        for (index, name) in header.cells().enumerate() {
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

/// The cells of one record, one after another.
struct Record {
    text: String,
    /// Where each cell ends, in bytes.
    ends: Vec<usize>,
}

impl Record {
    fn cells(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|index| self.cell(index))
    }

    fn cell(&self, index: usize) -> &str {
        &self.text[index.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[index]]
    }
}

/// Where in its file a reader stands.
struct Cursor {
    file: DelimitedFile,
    bytes: Bytes,
    parser: Reader,
    quotes: Quotes,
    /// 0 for the header, which says how many there are.
    n_columns: usize,
    row: u64,
}

impl Cursor {
    fn record(&mut self) -> Option<Result<Record, Unreadable>> {
        let (bytes, ends) = match self.parse() {
            Ok(record) => record?,
            Err(error) => return Some(Err(Unreadable::File(self.file.source.unreadable(error)))),
        };
        let (row, line) = (self.row, self.quotes.record_line);
        // Only the last record can see the end of the file in a quote; it took in all that follows the quote.
        if self.quotes.place == Place::Quoted {
            let problem = "the quote that opens in this line is not closed".to_string();
            return Some(Err(Unreadable::File(self.file.bad(self.quotes.quote_line, row, problem))));
        }
        self.row += 1;
        Some(self.checked(bytes, ends).map_err(|problem| Unreadable::Row(self.file.bad(line, row, problem))))
    }

    /// The bytes of the next record's cells, and where each ends. `None` at the end of the file.
    fn parse(&mut self) -> std::io::Result<Option<(Vec<u8>, Vec<usize>)>> {
        let (mut output, mut ends) = (vec![0; 512], vec![0; self.n_columns.max(16) + 1]);
        let (mut n_output, mut n_ends) = (0, 0);
        self.quotes.is_in_record = false;
        loop {
            let input = self.bytes.fill_buf()?;
            let (result, n_read, n_written, n_cells) =
                self.parser.read_record(input, &mut output[n_output..], &mut ends[n_ends..]);
            input[..n_read].iter().for_each(|byte| self.quotes.see(*byte));
            self.bytes.consume(n_read);
            n_output += n_written;
            n_ends += n_cells;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => output.resize(2 * output.len(), 0),
                ReadRecordResult::OutputEndsFull => ends.resize(2 * ends.len(), 0),
                ReadRecordResult::Record => {
                    output.truncate(n_output);
                    ends.truncate(n_ends);
                    return Ok(Some((output, ends)));
                }
                ReadRecordResult::End => return Ok(None),
            }
        }
    }

    fn checked(&self, bytes: Vec<u8>, ends: Vec<usize>) -> Result<Record, String> {
        let n_found = ends.len();
        if self.n_columns > 0 && n_found != self.n_columns {
            return Err(format!("it has {n_found} cells, but there are {} columns", self.n_columns));
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let is_text = |(start, end): (usize, &usize)| std::str::from_utf8(&bytes[start..*end]).is_ok();
        match starts.zip(&ends).position(|cell| !is_text(cell)) {
            Some(cell) => Err(format!("cell {cell} (counted from 0) is not UTF-8")),
            None => Ok(Record { text: String::from_utf8(bytes).expect("each cell is UTF-8"), ends }),
        }
    }
}

fn batch(schema: &SchemaRef, records: &[Record]) -> Result<RecordBatch, RecordsError> {
    let column = |(index, field): (usize, &Arc<Field>)| -> ArrayRef {
        let cells = records.iter().map(|record| record.cell(index));
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

/// Looks at what the parser reads: it takes an open quote to the end of the file without a word, and does not say in
/// which line a record begins.
struct Quotes {
    delimiter: u8,
    place: Place,
    line: u64,
    /// Where the last quote opened.
    quote_line: u64,
    /// Where the record began.
    record_line: u64,
    is_in_record: bool,
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

impl Quotes {
    fn new(delimiter: u8) -> Self {
        Quotes { delimiter, place: Place::Start, line: 1, quote_line: 0, record_line: 1, is_in_record: false }
    }

    fn see(&mut self, byte: u8) {
        let ends_line = byte == b'\n' || byte == b'\r';
        if !self.is_in_record && !ends_line {
            (self.is_in_record, self.record_line) = (true, self.line);
        }
        self.place = match (self.place, byte) {
            (Place::Start, b'"') => {
                self.quote_line = self.line;
                Place::Quoted
            }
            (Place::Closed, b'"') => Place::Quoted,
            (Place::Quoted, b'"') => Place::Closed,
            (Place::Quoted, _) => Place::Quoted,
            _ if ends_line || byte == self.delimiter => Place::Start,
            _ => Place::Plain,
        };
        self.line += u64::from(byte == b'\n');
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
