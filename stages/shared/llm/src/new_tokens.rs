//! Tokens that a model was given: `new_tokens.json` of a `model` artifact, and the first values of their rows.
//!
//! ```text
//! new_tokens.json   { "n_before": 50313, "tokens": [ { "id": 50313, "content": "<|user|>", "special": true, "from": [] }, .. ] }
//! first row         the mean of the rows of `from`, or of all n_before tokens that there were
//! ```
//!
//! A row that nothing has trained may hold anything: zeros, or what the model was started with. So whoever trains a new token begins with
//! a row that the model can read, whether the token lies in a spare row or in one that was added. The mean of all rows is what transformers
//! fills new rows with (`mean_resizing` of `resize_token_embeddings`), less its noise of variance 1e-9.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pipe_contract::{Artifact, StageError};
use serde::{Deserialize, Serialize};

use crate::adapter::{EMBEDDING, HEAD, TokenIndices};
use crate::config::ModelConfig;
use crate::engine::Engine;
use crate::error::LlmError;
use crate::load;
use crate::merge::to_f32;
use crate::program::Program;

/// The file of a `model` artifact.
pub const FILE: &str = "new_tokens.json";
const FORMAT_VERSION: u32 = 1;

/// The new tokens of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTokens {
    format_version: u32,
    /// Ids below it are those of tokens that there were before.
    pub n_before: u32,
    /// With rising ids.
    pub tokens: Vec<NewToken>,
}

/// A token that a model was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// From `n_before` on.
    pub id: u32,
    /// Its text.
    pub content: String,
    /// Whether only a template can make it, and no text of the data.
    pub special: bool,
    /// The tokens whose mean its row begins with, those that its text was before; all tokens where it is empty.
    pub from: Vec<u32>,
}

impl NewTokens {
    /// `tokens` with rising ids from `n_before` on.
    pub fn new(n_before: u32, tokens: Vec<NewToken>) -> Self {
        NewTokens { format_version: FORMAT_VERSION, n_before, tokens }
    }

    /// Those of a model, if it has some.
    ///
    /// # Errors
    /// A file that cannot be read, or is not ours.
    pub fn of(model: &Artifact) -> Result<Option<Self>, StageError> {
        let Some(path) = model.get(FILE) else { return Ok(None) };
        let bytes = std::fs::read(path).map_err(|e| StageError::io("read", path, e))?;
        let read = serde_json::from_slice::<NewTokens>(&bytes).map_err(|e| e.to_string());
        let checked = read.and_then(|tokens| match tokens.format_version {
            FORMAT_VERSION => Ok(tokens),
            other => Err(format!("its format is {other}, not {FORMAT_VERSION}")),
        });
        match checked {
            Ok(tokens) => Ok(Some(tokens).filter(|new| !new.tokens.is_empty())),
            Err(why) => Err(StageError::user("model-input", format!("`{FILE}` of the model cannot be used: {why}"))
                .help("run the `extend` that wrote it once more")),
        }
    }

    /// Writes the file into `folder`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), StageError> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).expect("plain data can be written") + "\n";
        std::fs::write(&path, text).map_err(|e| StageError::io("write", &path, e))
    }

    /// Their ids, rising.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// The first row of each new token, by its id. `matrix`: (V, C) row-major, V at least `n_before`.
    pub fn first_rows(&self, matrix: &[f32], width: usize) -> BTreeMap<u32, Vec<f32>> {
        let row = |id: u32| &matrix[id as usize * width..][..width];
        let all = if self.tokens.iter().any(|token| token.from.is_empty()) {
            mean((0..self.n_before).map(row), width)
        } else {
            Vec::new()
        };
        let first_row = |token: &NewToken| {
            if token.from.is_empty() { all.clone() } else { mean(token.from.iter().map(|&id| row(id)), width) }
        };
        self.tokens.iter().map(|token| (token.id, first_row(token))).collect()
    }
}

/// Added up in f64, one row after another.
fn mean<'m>(rows: impl ExactSizeIterator<Item = &'m [f32]>, width: usize) -> Vec<f32> {
    let n_rows = rows.len() as f64;
    let mut sums = vec![0.0f64; width];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sums.into_iter().map(|sum| (sum / n_rows) as f32).collect()
}

/// `ids` as an adapter names them: of the embedding, and of a head of its own. None where there are no ids.
pub fn indices(config: &ModelConfig, ids: &[u32]) -> TokenIndices {
    let names = [Some(EMBEDDING), (!config.is_tied).then_some(HEAD)];
    let names = names.into_iter().flatten().filter(|_| !ids.is_empty());
    names.map(|name| (name.to_string(), ids.to_vec())).collect()
}

/// The first values of an adapter's rows of tokens, for each of [`Program::tokens`]: those of the model, or the first row of a new token.
///
/// # Errors
/// As [`NewTokens::of`]; weights that do not fit `program`, or cannot be read.
pub fn adapter_rows(model: &Artifact, program: &Program) -> Result<Vec<Vec<f32>>, StageError> {
    if program.tokens.is_empty() {
        return Ok(Vec::new());
    }
    let (new, files) = (NewTokens::of(model)?, load::weight_files(model)?);
    crate::weights::check(program, &files)?;
    let width = program.config.hidden_size;
    let mut all = Vec::new();
    for tokens in &program.tokens {
        let name = &program.weights[tokens.weight].name;
        let matrix = to_f32(&files.read(name)?, files.entries()[name].dtype)?;
        let first = new.as_ref().map(|new| new.first_rows(&matrix, width)).unwrap_or_default();
        let row = |id: &u32| first.get(id).map_or(&matrix[*id as usize * width..][..width], Vec::as_slice);
        all.push(tokens.ids.iter().flat_map(row).copied().collect());
    }
    Ok(all)
}

/// Gives the new tokens of `model` their first rows where the matrix is trained itself.
///
/// # Errors
/// As [`NewTokens::of`]; a tensor that cannot be moved from its device.
pub fn begin_rows(model: &Artifact, engine: &mut Engine) -> Result<(), StageError> {
    let Some(new) = NewTokens::of(model)? else { return Ok(()) };
    let program = engine.program();
    let (embedding, head) = program.vocabulary_weights();
    let is_vocabulary: Vec<bool> = program.trained.iter().map(|weight| [embedding, head].contains(weight)).collect();
    for (tensor, _) in engine.trained_mut().into_iter().zip(is_vocabulary).filter(|(_, is_one)| *is_one) {
        *tensor = with_first_rows(&new, tensor).map_err(LlmError::from)?;
    }
    Ok(())
}

fn with_first_rows(new: &NewTokens, matrix: &Tensor) -> candle_core::Result<Tensor> {
    let (shape, device) = (matrix.dims2()?, matrix.device());
    let mut values: Vec<f32> = matrix.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    for (id, row) in new.first_rows(&values, shape.1) {
        values[id as usize * shape.1..][..shape.1].copy_from_slice(&row);
    }
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_device(device)?.to_dtype(matrix.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_begins_with_the_mean_of_what_its_text_was_or_of_all_tokens() {
        let token = |id, from: &[u32]| NewToken { id, content: "x".into(), special: true, from: from.to_vec() };
        let new = NewTokens::new(3, vec![token(3, &[]), token(4, &[2, 0])]);
        let matrix = [1.0, 10.0, 2.0, 20.0, 6.0, 60.0, 999.0, 999.0, 999.0, 999.0];
        let rows = new.first_rows(&matrix, 2);
        assert_eq!(rows, [(3, vec![3.0, 30.0]), (4, vec![3.5, 35.0])].into());
    }
}
