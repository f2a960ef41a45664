//! What a template knows of a text besides prompt and completion: the turns of the assistant, and its special tokens.
//!
//! ```text
//! text                <s>[INST] hi [/INST] yo </s>        characters, as all spans of an example
//! control_starts      0  3         12         24          special tokens that the template wrote, never the data
//! assistant_starts                           20           what the assistant says, with the token that ends it
//! ```
//!
//! Four list columns of `examples.parquet`, which then is of format version 2: `assistant_starts` and `assistant_ends` where
//! the turns are known, `control_starts` and `control_ends` where the template writes special tokens.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, UInt32Builder};
use arrow::datatypes::{DataType, Field, Schema};

use crate::RecordsError;
use crate::columns::{Place, u32_lists};
use crate::examples::list_field;

/// Who writes the special tokens of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialTokens {
    /// The tokenizer, which adds what it adds to every text. The text itself has none, whatever it looks like.
    #[default]
    Tokenizer,
    /// The template writes those in [`Marks::control`], and the tokenizer adds what it adds to every text.
    Both,
    /// The template, and nobody else: a chat.
    Template,
}

impl SpecialTokens {
    /// The word in the footer; none for the default.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            SpecialTokens::Tokenizer => None,
            SpecialTokens::Both => Some("both"),
            SpecialTokens::Template => Some("template"),
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [SpecialTokens::Both, SpecialTokens::Template].into_iter().find(|special| special.name() == Some(name))
    }
}

/// What a template knows of a text. Spans are characters, rising and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// What the assistant says, turn by turn.
    pub assistant: Vec<Range<u32>>,
    /// Special tokens that the template wrote.
    pub control: Vec<Range<u32>>,
    /// Whether the tokenizer adds its own; the same for all examples of a file.
    pub special_tokens: SpecialTokens,
}

/// A list of spans as two columns.
#[derive(Clone, Copy)]
pub(crate) struct SpanLists {
    what: &'static str,
    columns: [&'static str; 2],
}

pub(crate) const ASSISTANT: SpanLists =
    SpanLists { what: "assistant", columns: ["assistant_starts", "assistant_ends"] };
pub(crate) const CONTROL: SpanLists = SpanLists { what: "control", columns: ["control_starts", "control_ends"] };

impl SpanLists {
    pub(crate) fn fields(self) -> [Field; 2] {
        self.columns.map(|name| list_field(name, DataType::UInt32))
    }

    pub(crate) fn is_in(self, schema: &Schema) -> bool {
        schema.column_with_name(self.columns[0]).is_some()
    }

    /// The spans of each row.
    pub(crate) fn read(self, batch: &RecordBatch, place: Place) -> Result<Vec<Vec<Range<u32>>>, RecordsError> {
        let [starts, ends] = self.columns.map(|name| u32_lists(batch, name, place));
        let (starts, ends) = (starts?, ends?);
        let row = |row: usize| {
            let (starts, ends) = (starts.row(row), ends.row(row));
            if starts.len() == ends.len() {
                return Ok(starts.into_iter().zip(ends).map(|(start, end)| start..end).collect());
            }
            let problem = format!("it has {} {} starts, but {} ends", starts.len(), self.what, ends.len());
            Err(RecordsError::BadRow { row: place.first_row + row as u64, problem })
        };
        (0..batch.num_rows()).map(row).collect()
    }

    /// Spans must be rising, apart, and within the text.
    pub(crate) fn check(self, spans: &[Range<u32>], n_characters: usize, row: u64) -> Result<(), RecordsError> {
        let mut least = 0;
        for span in spans {
            if span.start < least || span.start > span.end || span.end as usize > n_characters {
                let problem = format!(
                    "the {} span {}..{} is not within {least}..{n_characters} characters",
                    self.what, span.start, span.end
                );
                return Err(RecordsError::BadRow { row, problem });
            }
            least = span.end;
        }
        Ok(())
    }
}

/// Collects spans into two columns.
pub(crate) struct SpanListsBuilder {
    builders: [ListBuilder<UInt32Builder>; 2],
}

impl SpanListsBuilder {
    pub(crate) fn new() -> Self {
        let item = Arc::new(Field::new("element", DataType::UInt32, false));
        SpanListsBuilder { builders: [(); 2].map(|()| ListBuilder::new(UInt32Builder::new()).with_field(item.clone())) }
    }

    pub(crate) fn push(&mut self, spans: &[Range<u32>]) {
        for span in spans {
            self.builders[0].values().append_value(span.start);
            self.builders[1].values().append_value(span.end);
        }
        self.builders.iter_mut().for_each(|builder| builder.append(true));
    }

    pub(crate) fn finish(&mut self) -> [ArrayRef; 2] {
        self.builders.each_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef)
    }
}
