//! Rows behind the others, where the spare ones are not enough: the whole model is written once more.

use std::collections::BTreeSet;
use std::path::Path;

use pipe_contract::{Artifact, Context, StageError};
use pipe_llm::merge::to_f32;
use pipe_llm::new_tokens::NewTokens;
use pipe_llm::rewrite::{self, Change, Changes};
use pipe_llm::{ModelConfig, Program, load, model_folder, weights};

/// Writes `config.json` and the weights of `model` with `n_rows` rows in embedding and head into `folder`. The rows of `new` that lie
/// behind the model's begin as it says.
///
/// # Errors
/// Weights that are not those of the config, or cannot be read or written; cancellation.
pub fn write(
    ctx: &Context<'_>,
    model: &Artifact,
    config: &ModelConfig,
    new: &NewTokens,
    n_rows: usize,
    folder: &Path,
) -> Result<(), StageError> {
    let program = Program::new(config, &[])?;
    let files = load::weight_files(model)?;
    weights::check(&program, &files)?;
    let (embedding, head) = program.vocabulary_weights();
    let mut changes = Changes::new();
    for weight in BTreeSet::from([embedding, head]) {
        let name = &program.weights[weight].name;
        let matrix = to_f32(&files.read(name)?, files.entries()[name].dtype)?;
        let added = new.first_rows(&matrix, config.hidden_size).into_iter();
        let added = added.filter(|(id, _)| *id as usize >= config.vocab_size);
        let rows: Vec<f32> = added.flat_map(|(_, row)| row).collect();
        changes.insert(name.clone(), Change::Append { n_rows: n_rows - config.vocab_size, rows });
    }
    model_folder::edit_config(model, folder, |config| {
        config.insert("vocab_size".into(), n_rows.into());
    })?;
    rewrite::write(ctx, &files, &program, &changes, None, model_folder::MAX_SHARD_SIZE_BYTES, folder)
}
