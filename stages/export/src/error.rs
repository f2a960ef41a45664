//! What can go wrong in `export` besides the model and the adapter.

use std::path::PathBuf;

use pipe_contract::StageError;

/// Errors of this stage kind.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// `formats: [adapter]` without an adapter.
    #[error("`formats` asks for the adapter, but nothing is connected to port `adapter`")]
    NoAdapter,
    /// A file of this stage.
    #[error("failed to {verb} `{}`", path.display())]
    Io {
        /// `read`, `write` or `copy`.
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A JSON file of the model that cannot be used.
    #[error("`{name}` of the model is not a JSON object")]
    BadJson {
        /// Which.
        name: String,
    },
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
            ExportError::Io { .. } => ("io", "is the disk full, or the folder read-only?"),
            ExportError::BadJson { .. } => ("model-config", "is the model folder complete?"),
            ExportError::NotTheSame { .. } => {
                ("export-check", "this is a bug; please report it with the pipeline file")
            }
        };
        let stage_error = StageError::user(slug, error.to_string()).help(help);
        match error {
            ExportError::Io { source, .. } => stage_error.because(source),
            _ => stage_error,
        }
    }
}
