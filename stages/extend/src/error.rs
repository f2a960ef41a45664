//! What can go wrong in `extend` besides the model and its tokenizer.

use pipe_contract::StageError;

/// Errors of this stage kind.
#[derive(Debug, thiserror::Error)]
pub enum ExtendError {
    /// A tokenizer with ids that the model has no rows for, before any token is new.
    #[error("the tokenizer has {n_tokens} tokens, but the model has rows for {vocab_size}")]
    TokenizerTooLarge {
        /// Of the tokenizer.
        n_tokens: u32,
        /// Of the model.
        vocab_size: usize,
    },
}

impl From<ExtendError> for StageError {
    fn from(error: ExtendError) -> Self {
        StageError::user("model-input", error.to_string())
            .help("the tokenizer and the weights are not from the same model")
    }
}
