//! The one error type that crosses from a stage to the runner.

use std::error::Error;
use std::path::Path;

/// Why a stage could not do its work: what, why, how to fix. A stage crate converts its own error enum to this at its border.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// A stable word for tools and tests: `out-of-memory`, `missing-file`, ...
    pub slug: &'static str,
    /// What went wrong and where; lower case, no final period, values in backticks.
    pub message: String,
    /// How to fix it, if we know.
    pub help: Option<String>,
    /// Whether the user stopped the run.
    pub is_cancelled: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StageError {
    /// An error the user can do something about.
    pub fn user(slug: &'static str, message: impl Into<String>) -> Self {
        StageError { slug, message: message.into(), help: None, is_cancelled: false, source: None }
    }

    /// `failed to {verb} {path}: {error}`, slug `io`. `verb`: `read`, `write`, `create`, ...
    pub fn io(verb: &str, path: &Path, error: std::io::Error) -> Self {
        StageError::user("io", format!("failed to {verb} `{}`", path.display())).because(error)
    }

    /// The run was interrupted: not a failure of the stage.
    pub fn cancelled() -> Self {
        StageError { is_cancelled: true, ..StageError::user("cancelled", "interrupted") }
    }

    /// Adds how to fix it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The message and every cause below it, `: ` between them.
    pub fn chain(&self) -> String {
        let errors = std::iter::successors(Some(self as &dyn Error), |error| (**error).source());
        errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
    }
}
