//! Why examples could not be scored.

use pipe_contract::StageError;
use pipe_tokenizer::TokenizerError;

/// What can go wrong beyond the model, the tokenizer and the records.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum EvaluateError {
    #[error("there are no examples to score")]
    NoExamples,
    #[error("all {n_rows} examples are in `training`: there is nothing left to score")]
    AllInTraining { n_rows: u64 },
    #[error(
        "`max_length` is {max_length}, but the model has {max_positions} positions (`max_position_embeddings` in its `config.json`)"
    )]
    LongerThanPositions { max_length: usize, max_positions: usize },
    #[error("`append_eos` is true, but the model names no end-of-sequence token")]
    NoEos,
    #[error("`metrics` asks for `exact_match`, but the model names no end-of-sequence token: its answers never end")]
    NoEnd,
    #[error("the model's vocabulary of {vocab_size} is too large: labels hold ids below {}", i32::MAX)]
    VocabularyTooLarge { vocab_size: usize },
    #[error("failed to tokenize row {row} of the examples (counted from 0)")]
    Row { row: u64, source: TokenizerError },
    #[error("row {row} of the examples (counted from 0) has no {part}, so no answer can be compared with it")]
    NoPart { row: u64, part: &'static str },
    #[error("`assistant_only_loss` is true, but the examples do not say where the assistant speaks")]
    NoTurns,
    #[error("none of the {n_examples} examples has a supervised token that a model could predict")]
    NothingToScore { n_examples: usize },
    #[error("the loss of row {row} of the examples (counted from 0) is {loss} {of}")]
    NotFinite { row: u64, loss: f64, of: &'static str },
    #[error("`{file}` of the scores cannot be read: {why}")]
    BadScores { file: &'static str, why: String },
}

impl EvaluateError {
    fn slug(&self) -> &'static str {
        match self {
            EvaluateError::NoExamples | EvaluateError::AllInTraining { .. } => "no-examples",
            EvaluateError::LongerThanPositions { .. } => "max-length-above-positions",
            EvaluateError::NoEos | EvaluateError::NoEnd => "no-end-token",
            EvaluateError::VocabularyTooLarge { .. } => "vocabulary-too-large",
            EvaluateError::Row { .. } => "bad-example",
            EvaluateError::NoPart { .. } => "nothing-to-match",
            EvaluateError::NoTurns => "no-turns",
            EvaluateError::NothingToScore { .. } => "nothing-to-score",
            EvaluateError::NotFinite { .. } => "not-finite",
            EvaluateError::BadScores { .. } => "bad-scores",
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            EvaluateError::AllInTraining { .. } => "give `examples` rows that `training` does not have".into(),
            EvaluateError::LongerThanPositions { max_positions, .. } => {
                format!("set `max_length` to at most {max_positions}")
            }
            EvaluateError::NoEos => "set `append_eos: false`, or name `eos_token` in `tokenizer_config.json`".into(),
            EvaluateError::NoEnd => "name `eos_token` in `tokenizer_config.json`, or leave `exact_match` out".into(),
            EvaluateError::NoTurns => {
                "format the rows with `template: chat`, or with a template that has `{% generation %}`".into()
            }
            EvaluateError::NoPart { .. } => {
                "leave `exact_match` out, or format the rows with a template that has a prompt and a completion".into()
            }
            EvaluateError::NothingToScore { .. } => "raise `max_length`, or set `completion_only_loss: false`".into(),
            EvaluateError::NotFinite { .. } => "the weights are damaged, or training did not converge".into(),
            EvaluateError::BadScores { .. } => "run the stage that made it again with this version".into(),
            _ => return None,
        })
    }
}

impl From<EvaluateError> for StageError {
    fn from(error: EvaluateError) -> Self {
        let mut stage_error = StageError::user(error.slug(), error.to_string());
        stage_error.help = error.help();
        match error {
            EvaluateError::Row { source, .. } => stage_error.because(source),
            _ => stage_error,
        }
    }
}
