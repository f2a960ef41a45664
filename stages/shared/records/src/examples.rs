//! The artifact kind `examples`: one file, `examples.parquet`, in one of two forms.
//!
//! Text, with the characters that are prompt and completion:
//!
//! ```text
//! text: "Q: 2+2?\nA: 4"      prompt_start 0, prompt_end 10, completion_start 11, completion_end 12
//!        |---prompt---| '- completion                    (counted in Unicode scalar values, ends exclusive)
//! ```
//!
//! Or pretokenized: `input_ids`, and if the rows had them `labels`, `position_ids`, `doc_ids`.
//!
//! No cell is null. The footer carries `pipe.format_version`: 1, or 2 where there are list columns of [`crate::marks`] too, which
//! templates give. It deliberately holds no token ids beside text: what a
//! text's tokens are is the tokenizer's to say.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, UInt32Builder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pipe_contract::Artifact;

use crate::RecordsError;
use crate::columns::{Place, i32_lists, text_column, u32_column, u32_lists};
use crate::files::{BATCH_ROWS, FORMAT_VERSION_KEY, ParquetBatches, ParquetFile, RecordWriter, parquet_writer};
use crate::marks::{ASSISTANT, CONTROL, Marks, SpanLists, SpanListsBuilder, SpecialTokens};

/// The one file of the kind.
pub const EXAMPLES_FILE: &str = "examples.parquet";

/// Version of the columns without marks.
pub const EXAMPLES_FORMAT_VERSION: u32 = 1;

/// Version of the columns with marks.
pub const EXAMPLES_WITH_MARKS_FORMAT_VERSION: u32 = 2;

const SPAN_COLUMNS: [&str; 4] = ["prompt_start", "prompt_end", "completion_start", "completion_end"];

/// A row with its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// The whole text: prompt, what stands between, completion.
    pub text: String,
    /// Characters (Unicode scalar values) of `text` that are the prompt; empty where there is none.
    pub prompt: Range<u32>,
    /// Characters of `text` that are the completion.
    pub completion: Range<u32>,
    /// What a template knows besides; nothing where none made the text.
    pub marks: Marks,
}

impl Example {
    /// These characters of the text; what lies behind its end is not there.
    pub fn part(&self, characters: Range<u32>) -> &str {
        let byte =
            |character: u32| self.text.char_indices().nth(character as usize).map_or(self.text.len(), |(byte, _)| byte);
        let start = byte(characters.start);
        &self.text[start..byte(characters.end).max(start)]
    }

    /// Characters of the completion without the special tokens of the template at its end, which end the turn, and the white
    /// space between them.
    pub fn said(&self) -> Range<u32> {
        let Range { start, mut end } = self.completion;
        while let Some(last) = self.marks.control.iter().rfind(|control| start <= control.start && control.end <= end) {
            if !self.part(last.end..end).trim().is_empty() {
                break;
            }
            end = last.start;
        }
        start..end
    }
}

/// A row that came with its token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PretokenizedRow {
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// -100 where not supervised, not shifted; as long as `input_ids`.
    pub labels: Option<Vec<i32>>,
    /// As long as `input_ids`.
    pub position_ids: Option<Vec<u32>>,
    /// As long as `input_ids`.
    pub doc_ids: Option<Vec<u32>>,
}

/// Key in the schema's metadata: `true` where `completion_only_loss` defaults to true.
const COMPLETION_ONLY_KEY: &str = "pipe.completion_only_loss_default";
/// Key in the schema's metadata: who writes special tokens, where that is not the tokenizer alone.
const SPECIAL_TOKENS_KEY: &str = "pipe.special_tokens";

/// What all examples of a file have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExamplesForm {
    /// Whether prompts are not to be learned unless a setting says so: what trl does with prompt and completion.
    pub is_completion_only: bool,
    /// Whether [`Marks::assistant`] is known.
    pub has_turns: bool,
    /// Who writes special tokens; other than by the tokenizer alone, [`Marks::control`] is written.
    pub special_tokens: SpecialTokens,
}

/// Writes `examples.parquet` of text.
pub struct ExamplesWriter {
    writer: RecordWriter,
    schema: SchemaRef,
    text: StringBuilder,
    spans: [UInt32Builder; 4],
    turns: Option<SpanListsBuilder>,
    control: Option<SpanListsBuilder>,
    n_buffered: usize,
}

impl ExamplesWriter {
    /// Creates the file in `folder`, the output folder of the port.
    ///
    /// # Errors
    /// `Io` when it cannot be made.
    pub fn create(folder: &Path) -> Result<Self, RecordsError> {
        Self::create_with(folder, ExamplesForm::default())
    }

    /// As [`ExamplesWriter::create`], for examples of this form. [`form`] reads it back.
    ///
    /// # Errors
    /// `Io` when it cannot be made.
    pub fn create_with(folder: &Path, form: ExamplesForm) -> Result<Self, RecordsError> {
        let mut metadata = HashMap::new();
        if form.is_completion_only {
            metadata.insert(COMPLETION_ONLY_KEY.to_string(), "true".to_string());
        }
        if let Some(name) = form.special_tokens.name() {
            metadata.insert(SPECIAL_TOKENS_KEY.to_string(), name.to_string());
        }
        let has_control = form.special_tokens != SpecialTokens::Tokenizer;
        let spans = SPAN_COLUMNS.iter().map(|name| Field::new(*name, DataType::UInt32, false));
        let mut fields: Vec<Field> = std::iter::once(Field::new("text", DataType::Utf8, false)).chain(spans).collect();
        fields.extend(form.has_turns.then(|| ASSISTANT.fields()).into_iter().flatten());
        fields.extend(has_control.then(|| CONTROL.fields()).into_iter().flatten());
        let version = match form.has_turns || has_control {
            true => EXAMPLES_WITH_MARKS_FORMAT_VERSION,
            false => EXAMPLES_FORMAT_VERSION,
        };
        let schema = versioned(fields, metadata, version);
        Ok(ExamplesWriter {
            writer: parquet_writer(&folder.join(EXAMPLES_FILE), schema.clone())?,
            schema,
            text: StringBuilder::new(),
            spans: Default::default(),
            turns: form.has_turns.then(SpanListsBuilder::new),
            control: has_control.then(SpanListsBuilder::new),
            n_buffered: 0,
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `BadRow` when a span is reversed or ends behind the text; `Parquet` when the disk refuses.
    pub fn write(&mut self, example: &Example) -> Result<(), RecordsError> {
        check_spans(example, self.writer.num_rows() + self.n_buffered as u64)?;
        self.text.append_value(&example.text);
        let ends = [example.prompt.start, example.prompt.end, example.completion.start, example.completion.end];
        for (builder, end) in self.spans.iter_mut().zip(ends) {
            builder.append_value(end);
        }
        let lists = [(&mut self.turns, &example.marks.assistant), (&mut self.control, &example.marks.control)];
        for (builder, spans) in lists {
            builder.iter_mut().for_each(|builder| builder.push(spans));
        }
        self.n_buffered += 1;
        if self.n_buffered == BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    /// Closes the file. Returns the number of rows.
    ///
    /// # Errors
    /// `Parquet` when the disk refuses.
    pub fn finish(mut self) -> Result<u64, RecordsError> {
        self.flush()?;
        self.writer.finish()
    }

    fn flush(&mut self) -> Result<(), RecordsError> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.text.finish())];
        for builder in &mut self.spans {
            columns.push(Arc::new(builder.finish()));
        }
        for builder in [&mut self.turns, &mut self.control].into_iter().flatten() {
            columns.extend(builder.finish());
        }
        self.n_buffered = 0;
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

/// Creates `examples.parquet` in `folder` for pretokenized batches: `input_ids` and those of the other three columns that
/// `with_columns` names, each a list without nulls: [`pretokenized_schema`].
///
/// # Errors
/// `Io` when it cannot be made.
pub fn pretokenized_writer(folder: &Path, with_columns: &[&str]) -> Result<RecordWriter, RecordsError> {
    parquet_writer(&folder.join(EXAMPLES_FILE), pretokenized_schema(with_columns))
}

/// `input_ids: list<uint32>` and, where named, `labels: list<int32>`, `position_ids` and `doc_ids: list<uint32>`.
pub fn pretokenized_schema(with_columns: &[&str]) -> SchemaRef {
    let mut fields = vec![list_field("input_ids", DataType::UInt32)];
    for (name, item) in [("labels", DataType::Int32), ("position_ids", DataType::UInt32), ("doc_ids", DataType::UInt32)]
    {
        if with_columns.contains(&name) {
            fields.push(list_field(name, item));
        }
    }
    versioned(fields, HashMap::new(), EXAMPLES_FORMAT_VERSION)
}

/// Whether the artifact holds token ids instead of text.
///
/// # Errors
/// When `examples.parquet` is missing, unreadable or of another version.
pub fn is_pretokenized(artifact: &Artifact) -> Result<bool, RecordsError> {
    Ok(open(artifact)?.schema().column_with_name("input_ids").is_some())
}

/// Whether only completions of these examples are supervised where `completion_only_loss` does not say.
///
/// # Errors
/// When `examples.parquet` is missing, unreadable or of another version.
pub fn is_completion_only(artifact: &Artifact) -> Result<bool, RecordsError> {
    Ok(form(artifact)?.is_completion_only)
}

/// What the examples have in common.
///
/// # Errors
/// When `examples.parquet` is missing, unreadable or of another version.
pub fn form(artifact: &Artifact) -> Result<ExamplesForm, RecordsError> {
    Ok(form_of(&open(artifact)?.schema()))
}

fn form_of(schema: &Schema) -> ExamplesForm {
    let value = |key: &str| schema.metadata().get(key).map(String::as_str);
    ExamplesForm {
        is_completion_only: value(COMPLETION_ONLY_KEY) == Some("true"),
        has_turns: ASSISTANT.is_in(schema),
        special_tokens: value(SPECIAL_TOKENS_KEY).and_then(SpecialTokens::of_name).unwrap_or_default(),
    }
}

/// Batches of text rows.
pub struct ExamplesReader {
    batches: ParquetBatches,
    form: ExamplesForm,
    n_read: u64,
}

/// Opens an `examples` artifact of text.
///
/// # Errors
/// When `examples.parquet` is missing, unreadable, of another version, or pretokenized (`MissingColumn`).
pub fn read_examples(artifact: &Artifact) -> Result<ExamplesReader, RecordsError> {
    let file = open(artifact)?;
    require_column(&file, "text")?;
    Ok(ExamplesReader { form: form_of(&file.schema()), batches: file.batches(None)?, n_read: 0 })
}

impl ExamplesReader {
    /// Rows in the file.
    pub fn num_rows(&self) -> u64 {
        self.batches.num_rows()
    }
}

impl Iterator for ExamplesReader {
    /// At most [`BATCH_ROWS`] rows.
    type Item = Result<Vec<Example>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        Some(batch.and_then(|batch| {
            let examples = examples_of(&batch, self.form, Place { file: EXAMPLES_FILE, first_row: self.n_read })?;
            self.n_read += examples.len() as u64;
            Ok(examples)
        }))
    }
}

/// Batches of pretokenized rows.
pub struct PretokenizedReader {
    batches: ParquetBatches,
    n_read: u64,
}

/// Opens a pretokenized `examples` artifact.
///
/// # Errors
/// When `examples.parquet` is missing, unreadable, of another version, or has text (`MissingColumn`).
pub fn read_pretokenized(artifact: &Artifact) -> Result<PretokenizedReader, RecordsError> {
    let file = open(artifact)?;
    require_column(&file, "input_ids")?;
    Ok(PretokenizedReader { batches: file.batches(None)?, n_read: 0 })
}

impl PretokenizedReader {
    /// Rows in the file.
    pub fn num_rows(&self) -> u64 {
        self.batches.num_rows()
    }
}

impl Iterator for PretokenizedReader {
    /// At most [`BATCH_ROWS`] rows.
    type Item = Result<Vec<PretokenizedRow>, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        Some(batch.and_then(|batch| {
            let rows = pretokenized_rows_of(&batch, Place { file: EXAMPLES_FILE, first_row: self.n_read })?;
            self.n_read += rows.len() as u64;
            Ok(rows)
        }))
    }
}

/// A list column without nulls, its items named as the Parquet format asks.
pub(crate) fn list_field(name: &str, item: DataType) -> Field {
    Field::new(name, DataType::List(Arc::new(Field::new("element", item, false))), false)
}

fn open(artifact: &Artifact) -> Result<ParquetFile, RecordsError> {
    let path = artifact.file(EXAMPLES_FILE).map_err(RecordsError::Artifact)?;
    let file = ParquetFile::open(path, EXAMPLES_FILE)?;
    if file.check_version(EXAMPLES_WITH_MARKS_FORMAT_VERSION).is_err() {
        file.check_version(EXAMPLES_FORMAT_VERSION)?;
    }
    Ok(file)
}

fn require_column(file: &ParquetFile, name: &str) -> Result<(), RecordsError> {
    let schema = file.schema();
    if schema.column_with_name(name).is_some() {
        return Ok(());
    }
    let found = schema.fields().iter().map(|field| field.name().clone()).collect();
    Err(RecordsError::MissingColumn { file: EXAMPLES_FILE.to_string(), column: name.to_string(), found })
}

fn versioned(fields: Vec<Field>, mut metadata: HashMap<String, String>, version: u32) -> SchemaRef {
    metadata.insert(FORMAT_VERSION_KEY.to_string(), version.to_string());
    Arc::new(Schema::new(fields).with_metadata(metadata))
}

fn examples_of(batch: &RecordBatch, form: ExamplesForm, place: Place) -> Result<Vec<Example>, RecordsError> {
    let text = text_column(batch, "text", place)?;
    let [prompt_start, prompt_end, completion_start, completion_end] =
        [0, 1, 2, 3].map(|index| u32_column(batch, SPAN_COLUMNS[index], place));
    let (prompt_start, prompt_end) = (prompt_start?, prompt_end?);
    let (completion_start, completion_end) = (completion_start?, completion_end?);
    let lists = |lists: SpanLists, are_there: bool| match are_there {
        true => lists.read(batch, place),
        false => Ok(vec![Vec::new(); batch.num_rows()]),
    };
    let turns = lists(ASSISTANT, form.has_turns)?;
    let control = lists(CONTROL, form.special_tokens != SpecialTokens::Tokenizer)?;
    turns
        .into_iter()
        .zip(control)
        .enumerate()
        .map(|(row, (assistant, control))| {
            let example = Example {
                text: text.value(row).to_string(),
                prompt: prompt_start.value(row)..prompt_end.value(row),
                completion: completion_start.value(row)..completion_end.value(row),
                marks: Marks { assistant, control, special_tokens: form.special_tokens },
            };
            check_spans(&example, place.first_row + row as u64)?;
            Ok(example)
        })
        .collect()
}

fn check_spans(example: &Example, row: u64) -> Result<(), RecordsError> {
    let n_characters = example.text.chars().count();
    for (name, span) in [("prompt", &example.prompt), ("completion", &example.completion)] {
        if span.start > span.end || span.end as usize > n_characters {
            let problem =
                format!("the {name} span {}..{} is not within {n_characters} characters", span.start, span.end);
            return Err(RecordsError::BadRow { row, problem });
        }
    }
    ASSISTANT.check(&example.marks.assistant, n_characters, row)?;
    CONTROL.check(&example.marks.control, n_characters, row)
}

fn pretokenized_rows_of(batch: &RecordBatch, place: Place) -> Result<Vec<PretokenizedRow>, RecordsError> {
    let has = |name: &str| batch.schema().column_with_name(name).is_some();
    let input_ids = u32_lists(batch, "input_ids", place)?;
    let labels = has("labels").then(|| i32_lists(batch, "labels", place)).transpose()?;
    let position_ids = has("position_ids").then(|| u32_lists(batch, "position_ids", place)).transpose()?;
    let doc_ids = has("doc_ids").then(|| u32_lists(batch, "doc_ids", place)).transpose()?;
    let rows = (0..batch.num_rows()).map(|row| PretokenizedRow {
        input_ids: input_ids.row(row),
        labels: labels.as_ref().map(|lists| lists.row(row)),
        position_ids: position_ids.as_ref().map(|lists| lists.row(row)),
        doc_ids: doc_ids.as_ref().map(|lists| lists.row(row)),
    });
    rows.enumerate()
        .map(|(index, row)| {
            let lengths = [
                row.labels.as_ref().map(Vec::len),
                row.position_ids.as_ref().map(Vec::len),
                row.doc_ids.as_ref().map(Vec::len),
            ];
            let n_tokens = row.input_ids.len();
            match lengths.into_iter().flatten().find(|length| *length != n_tokens) {
                None => Ok(row),
                Some(length) => Err(RecordsError::BadRow {
                    row: place.first_row + index as u64,
                    problem: format!("`input_ids` has {n_tokens} entries, another column {length}"),
                }),
            }
        })
        .collect()
}
