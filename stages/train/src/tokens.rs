//! New tokens, and others with rows of their own: what would keep them from being learned is said before the first optimizer step.

use std::collections::BTreeSet;

use pipe_contract::{Context, StageError};
use pipe_llm::Program;
use pipe_llm::new_tokens::NewTokens;
use pipe_llm::trainer::{Trained, Trainer};
use pipe_records::packed::PackedReader;

/// Warns of new tokens whose rows nothing trains, and of tokens with rows that no pack has.
///
/// # Errors
/// Packs that cannot be read; as [`NewTokens::of`].
pub(crate) fn tell(ctx: &Context<'_>, trainer: &Trainer, packs: &PackedReader) -> Result<(), StageError> {
    let new = NewTokens::of(ctx.input("model")?)?;
    let new_ids: BTreeSet<u32> = new.iter().flat_map(NewTokens::ids).collect();
    let program = trainer.engine.program();
    let trained: BTreeSet<u32> = match &trainer.trained {
        Trained::Adapter(_) => program.tokens.iter().flat_map(|tokens| tokens.ids.iter().copied()).collect(),
        Trained::Weights if has_frozen_vocabulary(program) => BTreeSet::new(),
        Trained::Weights => new_ids.clone(),
    };
    let names = |ids: &mut dyn Iterator<Item = u32>| -> Vec<String> {
        let known = new.as_ref().map_or(&[][..], |new| &new.tokens);
        let token = |id: u32| known.iter().find(|token| token.id == id).map(|token| format!("`{}`", token.content));
        ids.map(|id| token(id).unwrap_or_else(|| format!("id {id}"))).collect()
    };
    let frozen = names(&mut new_ids.difference(&trained).copied());
    if !frozen.is_empty() {
        ctx.warn(format!(
            "nothing trains the rows of the model's new tokens {}: in embedding and head they stay as they are",
            frozen.join(", ")
        ));
    }
    let mut unseen = trained;
    for pack in packs.packs() {
        if unseen.is_empty() {
            break;
        }
        ctx.check_cancelled()?;
        pack?.input_ids.iter().for_each(|id| {
            unseen.remove(id);
        });
    }
    let unseen = names(&mut unseen.into_iter());
    if !unseen.is_empty() {
        ctx.warn(format!("no pack has the tokens {}: nothing is learned of what they mean", unseen.join(", ")));
    }
    Ok(())
}

/// Whether the embedding or the head is not trained.
fn has_frozen_vocabulary(program: &Program) -> bool {
    let (embedding, head) = program.vocabulary_weights();
    [embedding, head].iter().any(|&weight| program.parameter_of(weight).is_none())
}
