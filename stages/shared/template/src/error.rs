//! What can be wrong with a template, or with what it is given.

use std::path::PathBuf;

use pipe_contract::StageError;

/// Why a template gave no text. `template` is its name: `chat_template.jinja` of the model, or a file of the user.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum TemplateError {
    #[error("the template `{template}` is not valid{}: {message}", at_line(*line))]
    Syntax { template: String, line: Option<usize>, message: String },
    #[error("the template `{template}` refuses the conversation: {message}")]
    Raised { template: String, message: String },
    #[error("the template `{template}` fails{}: {message}", at_line(*line))]
    Failed { template: String, line: Option<usize>, message: String },
    #[error(
        "the template `{template}` asks for today's date (`strftime_now`), on which what a stage writes must not depend"
    )]
    NeedsDate { template: String },
    #[error("the template `{template}` formats a date with `{directive}`, which is not known")]
    UnknownDirective { template: String, directive: String },
    #[error("the data has the character U+{:X}, with which spans are marked inside of templates", u32::from(*character))]
    ReservedCharacter { character: char },
    #[error(
        "the data has the text of a special token, and the template `{template}` gives another text where that is marked"
    )]
    MarksVisible { template: String },
    #[error(
        "the template `{template}` does not show where message {message} (an answer of the assistant) begins and ends: {why}"
    )]
    NoTurn { template: String, message: usize, why: &'static str },
    #[error(
        "the model has no chat template: neither `chat_template.jinja` nor `chat_template` in `tokenizer_config.json`"
    )]
    NoChatTemplate,
    #[error("the model has several chat templates and none of them is called `default`: {}", names.join(", "))]
    NoDefault { names: Vec<String> },
    #[error("{0}")]
    Weights(#[from] pipe_weights::WeightsError),
    #[error("failed to read `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("`{file}` is not valid JSON")]
    Json { file: &'static str, source: serde_json::Error },
    #[error("`{file}` has a `{key}` that is not {expected}")]
    Field { file: &'static str, key: String, expected: &'static str },
    #[error("`{text}` is not a date")]
    BadDate { text: String },
}

impl TemplateError {
    /// The stable word for tools and tests.
    pub fn slug(&self) -> &'static str {
        match self {
            TemplateError::Syntax { .. } => "bad-template",
            TemplateError::Raised { .. } => "template-refuses",
            TemplateError::Failed { .. } | TemplateError::UnknownDirective { .. } => "template-fails",
            TemplateError::NeedsDate { .. } => "needs-date",
            TemplateError::ReservedCharacter { .. } => "reserved-character",
            TemplateError::MarksVisible { .. } => "special-token-in-data",
            TemplateError::NoTurn { .. } => "no-turn",
            TemplateError::NoChatTemplate | TemplateError::NoDefault { .. } => "no-chat-template",
            TemplateError::Weights(error) => error.slug(),
            TemplateError::Io { .. } => "io",
            TemplateError::Json { .. } | TemplateError::Field { .. } => "bad-model",
            TemplateError::BadDate { .. } => "bad-date",
        }
    }

    /// How to fix it, if we know.
    pub fn help(&self) -> Option<&str> {
        match self {
            TemplateError::Weights(error) => error.help(),
            TemplateError::NeedsDate { .. } => Some("say which date it is to be: `date: 2026-07-26`"),
            TemplateError::BadDate { .. } => Some("write it as year, month and day: `2026-07-26`"),
            TemplateError::ReservedCharacter { .. } => {
                Some("U+10FF00 to U+10FF0F are for private use; take them out of the data")
            }
            TemplateError::MarksVisible { .. } => Some("write the token in another way in the data"),
            TemplateError::NoTurn { .. } => Some(
                "put `{% generation %}` and `{% endgeneration %}` around what the assistant says in the template \
                 (`chat_template_path`), or set `return_assistant_tokens_mask: false` where answers are not masked",
            ),
            TemplateError::NoChatTemplate | TemplateError::NoDefault { .. } => {
                Some("give one with `chat_template_path`")
            }
            _ => None,
        }
    }
}

impl From<TemplateError> for StageError {
    fn from(error: TemplateError) -> Self {
        let plain = StageError::user(error.slug(), error.to_string());
        let helped = match error.help() {
            Some(help) => plain.help(help),
            None => plain,
        };
        match error {
            TemplateError::Io { source, .. } => helped.because(source),
            TemplateError::Json { source, .. } => helped.because(source),
            _ => helped,
        }
    }
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" at line {line}"))
}
