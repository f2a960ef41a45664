//! What can go wrong with a weight file.

use std::path::{Path, PathBuf};

use pipe_contract::StageError;

/// Why weights could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file that cannot be read.
    #[error("failed to read `{}`", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("`{file}`: {why}")]
    Broken {
        /// Name of the file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that may be whole, but asks for what is not supported.
    #[error("`{file}`: {why}")]
    Unsupported {
        /// Name of the file.
        file: String,
        /// What it asks for.
        why: String,
        /// What to do.
        help: String,
    },
}

impl WeightsError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        WeightsError::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn broken(file: &str, why: impl Into<String>) -> Self {
        WeightsError::Broken { file: file.to_string(), why: why.into() }
    }

    /// The stable word for tools and tests.
    pub fn slug(&self) -> &'static str {
        match self {
            WeightsError::Io { .. } => "io",
            WeightsError::Broken { .. } | WeightsError::Unsupported { .. } => "weights",
        }
    }

    /// How to fix it.
    pub fn help(&self) -> Option<&str> {
        match self {
            WeightsError::Io { .. } => None,
            WeightsError::Broken { .. } => {
                Some("is the file whole? download the model again, or use one with weights of its config")
            }
            WeightsError::Unsupported { help, .. } => Some(help),
        }
    }
}

impl From<WeightsError> for StageError {
    fn from(error: WeightsError) -> Self {
        let plain = StageError::user(error.slug(), error.to_string());
        let helped = match error.help() {
            Some(help) => plain.help(help),
            None => plain,
        };
        match error {
            WeightsError::Io { source, .. } => helped.because(source),
            _ => helped,
        }
    }
}

/// What a format module finds wrong: the file's name is added by whoever opened it.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(std::io::Error),
    Broken(String),
    Unsupported { why: String, help: String },
}

impl Fault {
    pub(crate) fn broken(why: impl Into<String>) -> Self {
        Fault::Broken(why.into())
    }

    pub(crate) fn unsupported(why: impl Into<String>, help: impl Into<String>) -> Self {
        Fault::Unsupported { why: why.into(), help: help.into() }
    }

    pub(crate) fn in_file(self, file: &str, path: &Path) -> WeightsError {
        match self {
            Fault::Io(source) => WeightsError::io(path, source),
            Fault::Broken(why) => WeightsError::broken(file, why),
            Fault::Unsupported { why, help } => WeightsError::Unsupported { file: file.to_string(), why, help },
        }
    }
}

/// A read beyond the end is a file that is cut off, not a disk that failed.
impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Fault::broken("it is cut off"),
            _ => Fault::Io(error),
        }
    }
}

/// Text of a file for a message: control characters escaped, and no more of it than fits on a line.
pub(crate) fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let escaped: String = text.chars().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARACTERS_MAX).is_some() { escaped + "..." } else { escaped }
}
