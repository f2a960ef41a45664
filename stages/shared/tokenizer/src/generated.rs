//! Tokenizers that no file of the model folder says as it is: they are made.
//!
//! ```text
//! XGen's folder                       -> its tokenizer, built in        (xgen)
//! a GGUF without a tokenizer.json     -> the vocabulary in its metadata (gguf)
//! ```

use pipe_contract::Artifact;

use crate::{TokenizerError, gguf, xgen};

/// The bytes of the model's `tokenizer.json`: of the file, else what is made.
///
/// # Errors
/// A file that cannot be read; a folder that has none and says none.
pub(crate) fn tokenizer_json(model: &Artifact) -> Result<Vec<u8>, TokenizerError> {
    match model.get("tokenizer.json") {
        Some(path) => std::fs::read(path).map_err(|source| TokenizerError::Io { path: path.to_path_buf(), source }),
        None if xgen::is_built_in(model)? => xgen::xgen_json(),
        None => gguf::tokenizer_json(model)?.ok_or(TokenizerError::NoTokenizer),
    }
}

/// The files that make the tokenizer of `model` an ordinary one, for whoever has not what it is made of: `tokenizer.json`, and a
/// `tokenizer_config.json` where there is none of use. None where the model has a `tokenizer.json`, or no tokenizer.
///
/// # Errors
/// A file that cannot be read; a vocabulary that makes no tokenizer.
pub fn files(model: &Artifact) -> Result<Vec<(&'static str, Vec<u8>)>, TokenizerError> {
    if model.get("tokenizer.json").is_some() {
        return Ok(Vec::new());
    }
    match xgen::is_built_in(model)? {
        true => xgen::generated_files(model),
        false => gguf::files(model),
    }
}
