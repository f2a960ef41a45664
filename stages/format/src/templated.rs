//! Rows to examples by a template of the model or of the user: everything that `pipe_template` knows of a text goes along.
//!
//! ```text
//! rows --conversation--> messages --Chat---------> Formatted --Example { text, prompt, completion, marks }
//!      --columns-------> variables --RowTemplate-->
//! ```
//!
//! With `chat` the template writes all special tokens. With `jinja` it writes those that its text has, where a model is connected
//! whose tokenizer has them, and the tokenizer adds what it adds to every text.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use pipe_contract::Artifact;
use pipe_records::{Example, ExamplesForm, Marks, RecordsError, SpecialTokens};
use pipe_template::{Chat, Formatted, ModelTemplates, RowTemplate, SpecialTexts, TemplateError, Value};
use pipe_tokenizer::ModelTokenizer;

use crate::cells::cell;
use crate::conversation::{Cells, ConversationForm, conversation};
use crate::error::FormatError;
use crate::settings::{ColumnNames, OwnTemplate, Settings};
use crate::template::Template;

/// A template, ready for rows of one schema.
pub struct Formatter {
    engine: Engine,
    form: ExamplesForm,
}

enum Engine {
    Chat { chat: Box<Chat>, columns: ChatColumns, wants_turns: bool },
    Row(Box<RowTemplate>),
}

/// The columns of a conversation, by name; none where the rows have none.
struct ChatColumns {
    form: ConversationForm,
    messages: Option<String>,
    prompt: Option<String>,
    completion: Option<String>,
    system: Option<String>,
    tools: Option<String>,
    documents: Option<String>,
}

/// What a row became.
pub struct FormattedRow {
    /// The example.
    pub example: Example,
    /// Turns that the template does not show as they were said.
    pub n_changed_turns: u64,
}

impl Formatter {
    /// For the templates `chat` and `jinja`. `rows`: all of their columns. `base_dir`: the pipeline file's folder.
    ///
    /// # Errors
    /// A template, model or column that is missing or cannot be used.
    pub fn new(
        settings: &Settings,
        rows: &Schema,
        model: Option<&Artifact>,
        base_dir: &Path,
    ) -> Result<Self, FormatError> {
        let templated = &settings.templated;
        let own = templated.own.as_ref().map(|own| source_of(own, base_dir)).transpose()?;
        let own = own.as_ref().map(|(name, source)| (name.as_str(), source.as_str()));
        let templates = model.map(ModelTemplates::read).transpose()?.unwrap_or_default();
        let special = match model {
            Some(model) => SpecialTexts::new(ModelTokenizer::load(model)?.special_tokens()),
            None => SpecialTexts::default(),
        };
        if settings.template == Template::Chat {
            let columns = ChatColumns::new(rows, &settings.columns)?;
            let chat = Box::new(Chat::new(&templates, own, special, templated.kwargs.clone(), templated.date)?);
            let form = ExamplesForm {
                is_completion_only: columns.form == ConversationForm::PromptCompletion,
                has_turns: templated.wants_turns,
                special_tokens: SpecialTokens::Template,
            };
            return Ok(Formatter { engine: Engine::Chat { chat, columns, wants_turns: templated.wants_turns }, form });
        }
        let own = own.expect("the settings of `jinja` have a template, or a problem that stops the pipeline");
        let template = RowTemplate::new(own, special, templates.variables().collect(), templated.date)?;
        let special_tokens = if model.is_some() { SpecialTokens::Both } else { SpecialTokens::Tokenizer };
        let has_turns = template.has_generation();
        let form = ExamplesForm { is_completion_only: has_turns, has_turns, special_tokens };
        Ok(Formatter { engine: Engine::Row(Box::new(template)), form })
    }

    /// What its examples have in common.
    pub fn form(&self) -> ExamplesForm {
        self.form
    }

    /// The example in row `index` of a batch; `row`: counted over all files.
    ///
    /// # Errors
    /// What is wrong with the row, or with the template there.
    pub fn format(&self, batch: &RecordBatch, index: usize, row: u64) -> Result<FormattedRow, FormatError> {
        let failed = |source: TemplateError| FormatError::Row { row, source };
        let formatted = match &self.engine {
            Engine::Chat { chat, columns, wants_turns } => {
                let conversation = conversation(columns.cells(batch, index)?, columns.form, row)?;
                chat.format(&conversation, *wants_turns).map_err(failed)?
            }
            Engine::Row(template) => {
                let schema = batch.schema();
                let columns = schema.fields().iter().zip(batch.columns());
                let cells = columns.map(|(field, column)| Ok((field.name().clone(), cell(column, index)?)));
                template.format(&cells.collect::<Result<Vec<_>, RecordsError>>()?).map_err(failed)?
            }
        };
        let n_changed_turns = formatted.n_changed_turns as u64;
        Ok(FormattedRow { example: example_of(formatted, self.form.special_tokens, row)?, n_changed_turns })
    }
}

/// Name and source of a template of the user.
fn source_of(own: &OwnTemplate, base_dir: &Path) -> Result<(String, String), FormatError> {
    match own {
        OwnTemplate::Text(text) => Ok(("template_text".to_string(), text.clone())),
        OwnTemplate::File(path) => match std::fs::read_to_string(base_dir.join(path)) {
            Ok(source) => Ok((path.clone(), source)),
            Err(source) => Err(FormatError::TemplateFile { path: path.clone(), source }),
        },
    }
}

impl ChatColumns {
    fn new(rows: &Schema, names: &ColumnNames) -> Result<Self, FormatError> {
        let there = |name: &str| rows.column_with_name(name).map(|_| name.to_string());
        let messages = match &names.messages {
            Some(name) => there(name),
            None => there("messages").or_else(|| there("conversations")),
        };
        let (prompt, completion) = (there(&names.prompt), there(&names.completion));
        let form = match (&messages, &prompt, &completion) {
            (Some(_), ..) => ConversationForm::Messages,
            (None, Some(_), Some(_)) if names.messages.is_none() => ConversationForm::PromptCompletion,
            _ => {
                let found = rows.fields().iter().map(|field| field.name().clone()).collect();
                return Err(FormatError::NoConversation { found });
            }
        };
        let (system, tools, documents) = (there(&names.system), there(&names.tools), there(&names.documents));
        Ok(ChatColumns { form, messages, prompt, completion, system, tools, documents })
    }

    fn cells(&self, batch: &RecordBatch, index: usize) -> Result<Cells, RecordsError> {
        let of = |name: &Option<String>| match name.as_ref().and_then(|name| batch.column_by_name(name)) {
            Some(column) => cell(column, index),
            None => Ok(Value::from(())),
        };
        Ok(Cells {
            messages: of(&self.messages)?,
            prompt: of(&self.prompt)?,
            completion: of(&self.completion)?,
            system: of(&self.system)?,
            tools: of(&self.tools)?,
            documents: of(&self.documents)?,
        })
    }
}

/// Bytes become characters.
fn example_of(formatted: Formatted, special_tokens: SpecialTokens, row: u64) -> Result<Example, FormatError> {
    let text = &formatted.text;
    if u32::try_from(text.chars().count()).is_err() {
        return Err(FormatError::TooLong { row });
    }
    // The character that begins at each byte; nothing where every character is one byte.
    let of_byte: Option<Vec<u32>> = (!text.is_ascii()).then(|| {
        let sized = text.chars().zip(0u32..);
        let starts = sized.flat_map(|(character, at)| std::iter::repeat_n(at, character.len_utf8()));
        starts.chain([text.chars().count() as u32]).collect()
    });
    let character = |byte: usize| of_byte.as_ref().map_or(byte as u32, |of_byte| of_byte[byte]);
    let span = |range: &std::ops::Range<usize>| character(range.start)..character(range.end);
    let control = match special_tokens {
        SpecialTokens::Tokenizer => Vec::new(),
        SpecialTokens::Both | SpecialTokens::Template => formatted.control.iter().map(span).collect(),
    };
    let marks = Marks { assistant: formatted.assistant.iter().map(span).collect(), control, special_tokens };
    let (prompt, completion) = (0..character(formatted.prompt_end), span(&formatted.completion));
    Ok(Example { prompt, completion, marks, text: formatted.text })
}
