//! The tokenizer with new tokens, and the model's other files: as they are, or with rows added.

use std::collections::BTreeSet;

use pipe_contract::{Artifact, Context, ExternalFile, OutputPort, Stage, StageError, StageKind as _};
use pipe_llm::load;
use pipe_llm::new_tokens::{NewToken, NewTokens};
use pipe_records::thousands;
use pipe_tokenizer::Extension;
use pipe_weights::select::is_weights;

use crate::error::ExtendError;
use crate::resize;
use crate::settings::{FirstRows, Settings};

const PORT: &str = "model";

/// `uses: extend` with its settings.
pub struct Extend {
    /// As resolved.
    pub settings: Settings,
}

impl Stage for Extend {
    fn outputs(&self) -> Vec<OutputPort> {
        crate::KIND.outputs().to_vec()
    }

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), StageError> {
        let model = ctx.input(PORT)?.clone();
        let config = load::model_config(&model)?;
        let extension = Extension::new(&model, &self.settings.new_tokens, &self.settings.special_tokens)?;
        let (n_before, vocab_size) = (extension.n_before, config.vocab_size);
        if n_before as usize > vocab_size {
            return Err(ExtendError::TokenizerTooLarge { n_tokens: n_before, vocab_size }.into());
        }
        let new = self.new_tokens(&model, &extension)?;
        let folder = ctx.output_dir(PORT)?;
        let mut written: BTreeSet<&str> = [pipe_llm::new_tokens::FILE].into();
        new.write(&folder)?;
        for (name, bytes) in &extension.files {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|e| StageError::io("write", &path, e))?;
            written.insert(*name);
        }
        let n_rows = extension.n_rows();
        let is_resized = n_rows > vocab_size;
        if is_resized {
            resize::write(ctx, &model, &config, &new, n_rows, &folder)?;
            written.insert("config.json");
        }
        let is_weights = |name: &str| is_weights(name) || name.ends_with(".index.json");
        for (name, file) in &model.files {
            if written.contains(name.as_str()) || (is_resized && is_weights(name)) {
                continue;
            }
            let digest = Some(file.digest.clone()).filter(|digest| !digest.is_empty());
            let (port, name, path) = (PORT.to_string(), name.clone(), file.path.clone());
            ctx.publish_external(ExternalFile { port, name, path, digest });
        }
        tell(ctx, &extension, vocab_size);
        Ok(())
    }
}

impl Extend {
    /// The tokens of `extension`, behind those that an `extend` before this one gave the model.
    fn new_tokens(&self, model: &Artifact, extension: &Extension) -> Result<NewTokens, StageError> {
        let earlier = NewTokens::of(model)?;
        let n_before = earlier.as_ref().map_or(extension.n_before, |earlier| earlier.n_before);
        let from = |pieces: &[u32]| match self.settings.first_rows {
            FirstRows::Mean => Vec::new(),
            // A row that is new itself has nothing to give.
            FirstRows::Pieces => pieces.iter().copied().filter(|&id| id < n_before).collect(),
        };
        let ours = extension.tokens.iter().map(|token| NewToken {
            id: token.id,
            content: token.content.clone(),
            special: token.is_special,
            from: from(&token.pieces),
        });
        Ok(NewTokens::new(n_before, earlier.into_iter().flat_map(|earlier| earlier.tokens).chain(ours).collect()))
    }
}

fn tell(ctx: &Context<'_>, extension: &Extension, vocab_size: usize) {
    for token in &extension.tokens {
        let kind = if token.is_special { "special token" } else { "token" };
        ctx.log(format!("{kind} {:?}: id {}", token.content, token.id));
    }
    let n_spare = extension.tokens.iter().filter(|token| (token.id as usize) < vocab_size).count();
    let n_added = extension.tokens.len() - n_spare;
    let places = [(n_spare, "in spare rows"), (n_added, "in rows that were added")];
    let places = places.iter().filter(|(n, _)| *n > 0).map(|(n, place)| format!("{n} {place}"));
    ctx.fact("new tokens", places.collect::<Vec<_>>().join(", "));
    if n_added > 0 {
        ctx.fact("vocabulary", format!("{} -> {}", thousands(vocab_size as u64), thousands(extension.n_rows() as u64)));
    }
}
