//! Text files: a row a line, in one column `text`, as the `text` builder of Hugging Face `datasets` makes them.
//!
//! Lines end with `\n` or `\r\n`, which are not part of them; an empty line is a row with an empty text. A last line without
//! an end is a row too. It deliberately joins no lines to paragraphs.

use std::io::BufRead as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::RecordsError;
use crate::bad_rows::{RowsOfFile, Sieve, Unreadable, batches_without};
use crate::source::DataSource;

/// One data file of lines.
#[derive(Clone)]
pub(crate) struct TextFile(pub(crate) DataSource);

impl TextFile {
    /// The columns of any text file.
    pub(crate) fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]))
    }

    /// Counts the rows.
    pub(crate) fn count(&self, mut sieve: Sieve<'_>) -> Result<RowsOfFile, RecordsError> {
        for line in self.lines()? {
            sieve.take(line.map(drop))?;
        }
        Ok(sieve.finish())
    }

    pub(crate) fn batches(
        &self,
        rows: &RowsOfFile,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, RecordsError>> + use<>, RecordsError> {
        let schema = Self::schema();
        Ok(batches_without(self.lines()?, rows.bad.clone(), move |lines| {
            let column: ArrayRef = Arc::new(StringArray::from_iter_values(lines));
            Ok(RecordBatch::try_new(schema.clone(), vec![column])?)
        }))
    }

    fn lines(&self) -> Result<impl Iterator<Item = Result<String, Unreadable>> + use<>, RecordsError> {
        let (source, mut reader, mut row) = (self.0.clone(), self.0.text()?, 0);
        Ok(std::iter::from_fn(move || {
            let mut bytes = Vec::new();
            match reader.read_until(b'\n', &mut bytes) {
                Err(error) => return Some(Err(Unreadable::File(source.unreadable(error)))),
                Ok(0) => return None,
                Ok(_) => {}
            }
            if bytes.ends_with(b"\n") {
                bytes.pop();
                if bytes.ends_with(b"\r") {
                    bytes.pop();
                }
            }
            let line = String::from_utf8(bytes).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                let problem = format!("byte {at} of the line begins no character of UTF-8");
                Unreadable::Row(RecordsError::BadText { file: source.label.clone(), line: row + 1, row, problem })
            });
            row += 1;
            Some(line)
        }))
    }
}
