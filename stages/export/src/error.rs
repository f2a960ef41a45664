//! What can go wrong in `export` besides the model and the adapter.

use pipe_contract::StageError;

/// Errors of this stage kind.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// `formats: [adapter]` without an adapter.
    #[error("`formats` asks for the adapter, but nothing is connected to port `adapter`")]
    NoAdapter,
    /// The exported adapter does not read back as what was given.
    #[error("the exported adapter does not read back: {why}")]
    NotTheSame {
        /// What differs.
        why: String,
    },
}

impl From<ExportError> for StageError {
    fn from(error: ExportError) -> Self {
        let (slug, help) = match &error {
            ExportError::NoAdapter => ("missing-input", "connect it, or set `formats: [merged]`"),
            ExportError::NotTheSame { .. } => {
                ("export-check", "this is a bug; please report it with the pipeline file")
            }
        };
        StageError::user(slug, error.to_string()).help(help)
    }
}
