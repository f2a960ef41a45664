//! Why a run could not even begin, or could not be recorded. What goes wrong inside a stage is a
//! [`pipe_contract::StageError`] instead, and what is wrong in a pipeline file a [`crate::diagnostic::Diagnostic`].

use std::io;
use std::path::{Path, PathBuf};

/// Why the runner could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The store refused.
    #[error("the store cannot be used: {0}")]
    Store(#[from] pipe_cache::CacheError),
    /// The lock file is not JSON of the expected form: an editor or a merge left it so.
    #[error("the lock file `{}` cannot be read", path.display())]
    LockFile {
        /// The file.
        path: PathBuf,
        /// Where in it, and why.
        source: serde_json::Error,
    },
    /// A lock file that another version of pipe wrote: it is not known what it keeps from being removed.
    #[error("the lock file `{}` is of another version of pipe, so it is not known which results it keeps", path.display())]
    ForeignLock {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("failed to {verb} `{}`", path.display())]
    Io {
        /// `read`, `write`, ...
        verb: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl RunnerError {
    /// `failed to {verb} {path}`, for `map_err`.
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunnerError {
        move |source| RunnerError::Io { verb, path: path.to_path_buf(), source }
    }

    /// How to fix it, if we know.
    pub fn help(&self) -> Option<String> {
        match self {
            RunnerError::LockFile { .. } => {
                Some("repair it, or delete it: `pipe update FILE` asks for every revision again and writes it".into())
            }
            RunnerError::ForeignLock { .. } => Some("take that version, or move the file away".into()),
            RunnerError::Store(_) | RunnerError::Io { .. } => None,
        }
    }
}

/// The message of `error` and of every cause below it, `: ` between them; a cause that repeats its parent is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let message = inner.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use pipe_contract::StageError;

    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("I/O error: {0}")]
        struct Doubled(#[source] io::Error);
        let full = io::Error::other("no space left on device");
        let error = StageError::user("io", "failed to write `x`").because(Doubled(full));
        assert_eq!(chain(&error), "failed to write `x`: I/O error: no space left on device");
    }
}
