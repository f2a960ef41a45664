//! Why a picture could not be made.

use std::path::PathBuf;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what the variant and its fields mean")]
pub enum PlotError {
    #[error("failed to write `{path}`", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("failed to write `{path}`: {message}", path = path.display())]
    Png { path: PathBuf, message: String },
    #[error("failed to draw: {message}")]
    Draw { message: String },
    #[error("the font that comes with the program cannot be used")]
    Font,
}
