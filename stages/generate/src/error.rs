//! Why nothing could be generated.

use pipe_contract::StageError;
use pipe_tokenizer::TokenizerError;

/// What can go wrong beyond the model, the tokenizer and the records.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum GenerateError {
    #[error("there are no prompts")]
    NoPrompts,
    #[error("the prompts of all {n_rows} examples are in `training`: there is none left to show")]
    AllInTraining { n_rows: u64 },
    #[error("failed to tokenize row {row} of the prompts (counted from 0)")]
    Row { row: u64, source: TokenizerError },
    #[error("row {row} of the prompts (counted from 0) has no prompt: its completion begins the text")]
    NoPrompt { row: u64 },
    #[error(
        "the prompt of row {row} (counted from 0) has {n_tokens} tokens, and the model has {max_positions} positions (`max_position_embeddings` in its `config.json`)"
    )]
    TooLong { row: u64, n_tokens: usize, max_positions: usize },
    #[error("`{file}` cannot be read: line {line} {why}")]
    BadSamples { file: &'static str, line: usize, why: String },
}

impl GenerateError {
    fn slug(&self) -> &'static str {
        match self {
            GenerateError::NoPrompts | GenerateError::AllInTraining { .. } => "no-examples",
            GenerateError::Row { .. } => "bad-example",
            GenerateError::NoPrompt { .. } => "no-prompt",
            GenerateError::TooLong { .. } => "prompt-too-long",
            GenerateError::BadSamples { .. } => "bad-samples",
        }
    }

    fn help(&self) -> Option<&'static str> {
        match self {
            GenerateError::AllInTraining { .. } => Some("give `prompts` rows that `training` does not have"),
            GenerateError::NoPrompt { .. } => Some("format the rows with a template that has a prompt"),
            GenerateError::TooLong { .. } => Some("shorten the row, or leave it out of the prompts"),
            GenerateError::BadSamples { .. } => Some("run the stage that made it again with this version"),
            GenerateError::NoPrompts | GenerateError::Row { .. } => None,
        }
    }
}

impl From<GenerateError> for StageError {
    fn from(error: GenerateError) -> Self {
        let mut stage_error = StageError::user(error.slug(), error.to_string());
        stage_error.help = error.help().map(str::to_string);
        match error {
            GenerateError::Row { source, .. } => stage_error.because(source),
            _ => stage_error,
        }
    }
}
