//! Why examples could not be tokenized.

use pipe_contract::StageError;
use pipe_tokenizer::TokenizerError;

/// What can go wrong beyond reading and writing records.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum TokenizeError {
    #[error(
        "`max_length` is {max_length}, but the model has {max_positions} positions (`max_position_embeddings` in its `config.json`)"
    )]
    LongerThanPositions { max_length: usize, max_positions: usize },
    #[error("`append_eos` is true, but the model names no end-of-sequence token")]
    NoEos,
    #[error("the model's vocabulary of {vocab_size} is too large: labels hold ids below {}", i32::MAX)]
    VocabularyTooLarge { vocab_size: usize },
    #[error("failed to tokenize row {row} of the examples (counted from 0)")]
    Row { row: u64, source: TokenizerError },
    #[error(
        "row {row} of the examples (counted from 0) has {n_tokens} tokens, more than `max_length`, which is {max_length}"
    )]
    TooLong { row: u64, n_tokens: usize, max_length: usize },
    #[error(
        "row {row} of the pretokenized examples (counted from 0) has {n_tokens} tokens, more than `max_length`, which is {max_length}"
    )]
    PretokenizedTooLong { row: u64, n_tokens: usize, max_length: usize },
    #[error("nothing to learn: none of the {n_rows} examples has a supervised token that a model could predict")]
    NothingToLearn { n_rows: u64, help: &'static str },
    #[error("`assistant_only_loss` is true, but the examples do not say where the assistant speaks")]
    NoTurns,
    #[error("there are more than {} examples", u32::MAX)]
    TooManyRows,
    #[error("row {row} of the pretokenized examples (counted from 0) {problem}")]
    Pretokenized { row: u64, problem: String },
    #[error("`{setting}` cannot be used with pretokenized examples, which are taken as they are")]
    NotForPretokenized { setting: &'static str },
    #[error("failed to keep documents in a scratch file")]
    Spill(#[source] std::io::Error),
}

impl TokenizeError {
    fn slug(&self) -> &'static str {
        match self {
            TokenizeError::LongerThanPositions { .. } => "max-length-above-positions",
            TokenizeError::NoEos => "no-end-token",
            TokenizeError::VocabularyTooLarge { .. } => "vocabulary-too-large",
            TokenizeError::Row { .. } => "bad-example",
            TokenizeError::TooLong { .. } | TokenizeError::PretokenizedTooLong { .. } => "document-too-long",
            TokenizeError::NothingToLearn { .. } => "nothing-to-learn",
            TokenizeError::NoTurns => "no-turns",
            TokenizeError::TooManyRows => "too-many-rows",
            TokenizeError::Pretokenized { .. } => "bad-pretokenized-row",
            TokenizeError::NotForPretokenized { .. } => "unsupported-setting",
            TokenizeError::Spill(_) => "io",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            TokenizeError::LongerThanPositions { max_positions, .. } => {
                Some(format!("set `max_length` to at most {max_positions}"))
            }
            TokenizeError::NoEos => {
                Some("set `append_eos: false`, or name `eos_token` in `tokenizer_config.json`".into())
            }
            TokenizeError::TooLong { .. } => Some("raise `max_length`, or set `truncation: truncate` or `drop`".into()),
            TokenizeError::PretokenizedTooLong { .. } => Some("raise `max_length`, or shorten the rows".into()),
            TokenizeError::NothingToLearn { help, .. } => Some((*help).into()),
            TokenizeError::NoTurns => {
                Some("format the rows with `template: chat`, or with a template that has `{% generation %}`".into())
            }
            TokenizeError::Pretokenized { .. } => {
                Some("correct the row, or connect the model whose tokenizer made the ids".into())
            }
            TokenizeError::NotForPretokenized { .. } => Some("leave it out".into()),
            _ => None,
        }
    }
}

impl From<TokenizeError> for StageError {
    fn from(error: TokenizeError) -> Self {
        let mut stage_error = StageError::user(error.slug(), error.to_string());
        stage_error.help = error.help();
        match error {
            TokenizeError::Row { source, .. } => stage_error.because(source),
            TokenizeError::Spill(source) => stage_error.because(source),
            _ => stage_error,
        }
    }
}
