//! Why a command ended early, and with which exit code.

use std::io;

use pipe_cache::CacheError;
use pipe_contract::StageError;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::error::{RunnerError, chain};
use crate::exit_code;
use crate::report::style::Style;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum CliError {
    /// The pipeline file, the command line, the lock file or the store.
    Unusable(Diagnostics),
    /// The lock file does not fit the pipeline, or there is nothing to compare with.
    Drift(Diagnostics),
    /// A stage kind could not do what it was asked outside a run.
    Stage(Diagnostics),
    /// Whoever read standard output is gone: not an error.
    ReaderGone,
}

impl CliError {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            CliError::Unusable(_) => exit_code::PIPELINE,
            CliError::Drift(_) => exit_code::LOCK_DRIFT,
            CliError::Stage(_) => exit_code::STAGE_FAILED,
            CliError::ReaderGone => exit_code::OK,
        }
    }

    pub(super) fn render(&self, style: Style) -> String {
        match self {
            CliError::Unusable(diagnostics) | CliError::Drift(diagnostics) | CliError::Stage(diagnostics) => {
                diagnostics.render(style.colour())
            }
            CliError::ReaderGone => String::new(),
        }
    }

    /// Code of a stage kind that was called without a pipeline, before it did anything.
    #[cfg(feature = "stages")]
    pub(super) fn before(error: &StageError) -> Self {
        CliError::Unusable(with_help(Diagnostic::new(error.slug, chain(error)), error.help.clone()).into())
    }

    /// The same, while it worked.
    #[cfg(feature = "stages")]
    pub(super) fn during(error: &StageError) -> Self {
        CliError::Stage(with_help(Diagnostic::new(error.slug, chain(error)), error.help.clone()).into())
    }

    /// A stage of a pipeline, outside a run.
    pub(super) fn of_stage(stage: &str, error: &StageError) -> Self {
        let diagnostic = Diagnostic::new(error.slug, format!("stage `{stage}`: {}", chain(error)));
        CliError::Stage(with_help(diagnostic, error.help.clone()).into())
    }
}

fn with_help(diagnostic: Diagnostic, help: Option<String>) -> Diagnostic {
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

impl From<Diagnostics> for CliError {
    fn from(diagnostics: Diagnostics) -> Self {
        CliError::Unusable(diagnostics)
    }
}

impl From<Diagnostic> for CliError {
    fn from(diagnostic: Diagnostic) -> Self {
        CliError::Unusable(diagnostic.into())
    }
}

impl From<RunnerError> for CliError {
    fn from(error: RunnerError) -> Self {
        let slug = match &error {
            RunnerError::Store(_) => "store",
            RunnerError::LockFile { .. } | RunnerError::ForeignLock { .. } => "lock-file",
            RunnerError::Io { .. } => "io",
        };
        with_help(Diagnostic::new(slug, chain(&error)), error.help()).into()
    }
}

impl From<CacheError> for CliError {
    fn from(error: CacheError) -> Self {
        RunnerError::Store(error).into()
    }
}

/// Only for writing to standard output.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return CliError::ReaderGone;
        }
        Diagnostic::new("io", format!("failed to write to standard output: {error}")).into()
    }
}
