//! What can be wrong with rows that are to become examples.

use pipe_contract::StageError;
use pipe_records::RecordsError;
use pipe_template::TemplateError;
use pipe_tokenizer::TokenizerError;

/// Why rows could not be formatted. Rows are counted from 0 over all files.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum FormatError {
    #[error("template `{template}` needs the column `{column}`, but the rows have {}", listed(found))]
    MissingColumn {
        template: &'static str,
        field: &'static str,
        column: String,
        found: Vec<String>,
        nearest: Option<String>,
    },
    #[error("column `{column}` is {found} in every row from row 0, but template `{template}` needs {expected}")]
    WrongType { template: &'static str, column: String, found: String, expected: &'static str },
    #[error("column `{column}` is empty (null) in row {row}")]
    NullCell { column: String, row: u64, help: &'static str },
    #[error("column `{column}` has {value} in row {row}, but must hold numbers from {least} to {most}")]
    OutOfRange { column: String, row: u64, value: i64, least: i64, most: i64 },
    #[error("row {row} has {n_tokens} `input_ids`, but {found} `{column}`")]
    LengthDiffers { column: String, row: u64, n_tokens: usize, found: usize },
    #[error(
        "column `attention_mask` has {value} in row {row} at token {token}, but must be 1 everywhere: padding would be trained on"
    )]
    Padding { row: u64, token: usize, value: i64 },
    #[error("message {message} of row {row} {problem}")]
    BadMessage { row: u64, message: usize, problem: String },
    #[error("column `{column}` in row {row} must be {expected}")]
    BadColumn { row: u64, column: &'static str, expected: &'static str },
    #[error("row {row} has no message")]
    NoMessages { row: u64 },
    #[error(
        "template `chat` needs the column `messages` or `conversations`, or `prompt` and `completion`, but the rows have {}",
        listed(found)
    )]
    NoConversation { found: Vec<String> },
    #[error("failed to format row {row}")]
    Row { row: u64, source: TemplateError },
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("failed to read the template `{path}`")]
    TemplateFile { path: String, source: std::io::Error },
    #[error("the rows have no row")]
    NoRows,
    #[error("row {row} is longer than 4,294,967,295 characters")]
    TooLong { row: u64 },
    #[error(transparent)]
    Records(#[from] RecordsError),
}

impl From<FormatError> for StageError {
    fn from(error: FormatError) -> Self {
        let message = error.to_string();
        match error {
            FormatError::Records(error) => error.into(),
            FormatError::MissingColumn { field, nearest, .. } => {
                StageError::user("missing-column", message).help(match nearest {
                    Some(nearest) => {
                        format!("did you mean `{nearest}`? say so with `columns: {{ {field}: {nearest} }}`")
                    }
                    None => "name the columns with `columns:`, or choose another `template:`".to_string(),
                })
            }
            FormatError::WrongType { .. } => StageError::user("wrong-column-type", message),
            FormatError::NullCell { help, .. } => StageError::user("null-cell", message).help(help),
            FormatError::OutOfRange { .. } => StageError::user("out-of-range", message),
            FormatError::LengthDiffers { .. } => StageError::user("length-differs", message)
                .help("each list of a row must have an entry per token of `input_ids`"),
            FormatError::Padding { .. } => StageError::user("padding", message).help(
                "cut the tokens whose `attention_mask` is not 1 from all lists of the row; rows may have any length",
            ),
            FormatError::BadMessage { .. } | FormatError::BadColumn { .. } => StageError::user("bad-message", message),
            FormatError::NoMessages { .. } => {
                StageError::user("bad-message", message).help("take the row out of the data")
            }
            FormatError::NoConversation { .. } => StageError::user("missing-column", message)
                .help("name the columns with `columns:`, or choose another `template:`"),
            FormatError::Row { source, .. } => {
                let error = StageError::user(source.slug(), message);
                let error = match source.help() {
                    Some(help) => error.help(help),
                    None => error,
                };
                error.because(source)
            }
            FormatError::Template(error) => error.into(),
            FormatError::Tokenizer(error) => error.into(),
            FormatError::TemplateFile { source, .. } => StageError::user("io", message).because(source),
            FormatError::NoRows => StageError::user("no-rows", message).help("give `rows` files with at least one row"),
            FormatError::TooLong { .. } => StageError::user("row-too-long", message),
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no column".to_string();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
