//! The `config.json` of a model: the file, or what its GGUF says. Likewise the vocabulary of a GGUF.
//!
//! ```text
//! config.json                 -> its text
//! a.gguf and no config.json   -> the same made from the metadata of a.gguf
//! ```
//!
//! Whoever needs a model's config asks here. What is made is made anew each time, in milliseconds; nothing is written.

use std::fs::File;

use pipe_contract::Artifact;

use crate::error::{Fault, WeightsError};
use crate::gguf::Vocabulary;
use crate::{gguf, select};

/// The file.
pub const CONFIG: &str = "config.json";

/// The text of the `config.json` of a `model` artifact; `None` where it has no such file and its weights are no GGUF. See [`gguf`] for what is made.
///
/// # Errors
/// A file that cannot be read; a GGUF whose metadata does not say all that a config has to say.
pub fn config_json(model: &Artifact) -> Result<Option<String>, WeightsError> {
    if let Some(path) = model.get(CONFIG) {
        return std::fs::read_to_string(path).map(Some).map_err(|source| WeightsError::io(path, source));
    }
    of_gguf(model, gguf::config_json)
}

/// The vocabulary of the GGUF that the weights of a `model` artifact are; `None` where they are none, or it has none.
///
/// # Errors
/// A file that cannot be read; lists of the vocabulary that do not fit together.
pub fn gguf_vocabulary(model: &Artifact) -> Result<Option<Vocabulary>, WeightsError> {
    Ok(of_gguf(model, gguf::vocabulary)?.flatten())
}

/// What `read` makes of the GGUF that the weights of `model` are.
fn of_gguf<T>(model: &Artifact, read: impl FnOnce(&File) -> Result<T, Fault>) -> Result<Option<T>, WeightsError> {
    if !model.files.keys().any(|name| select::is_gguf(name)) {
        return Ok(None);
    }
    let selected = select::weight_files(model)?;
    let Some((name, path)) = selected.files.first().filter(|(name, _)| select::is_gguf(name)) else { return Ok(None) };
    let made = File::open(path).map_err(Fault::Io).and_then(|file| read(&file));
    made.map(Some).map_err(|fault| fault.in_file(name, path))
}
