//! Why a model could not be made.

use pipe_contract::StageError;

/// What can go wrong beyond reading the examples and training the tokenizer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum InitError {
    #[error("there is nothing to train a tokenizer on: the examples have no rows")]
    NoRows,
    #[error("the model's configuration does not fit together: {message}")]
    Config { message: String },
    #[error("failed to write `model.safetensors`")]
    Weights(#[source] safetensors::SafeTensorError),
}

impl From<InitError> for StageError {
    fn from(error: InitError) -> Self {
        let message = error.to_string();
        match error {
            InitError::NoRows => StageError::user("no-rows", message),
            InitError::Config { .. } => StageError::user("bad-config", message),
            InitError::Weights(source) => StageError::user("io", message).because(source),
        }
    }
}
