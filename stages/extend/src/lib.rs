//! The stage kind `extend`: a model in, the same model with new tokens out.
//!
//! ```text
//! model --[pipe-tokenizer: extend]--> tokenizer with the tokens, ids behind the last one
//!       \--spare rows are enough----> all other files as they are, by reference
//!       \--they are not-------------> embedding and head with rows behind the others, config.json with the new `vocab_size`
//! ```
//!
//! Reading order: [`settings`], [`run`], [`resize`] (rows behind the others).
//!
//! It deliberately trains nothing: `train` gives the new tokens' rows their first values (`new_tokens.json` says which) and moves them.

pub mod error;
pub mod resize;
pub mod run;
pub mod settings;

use std::fmt::Write as _;

use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};
use pipe_llm::new_tokens::NewTokens;

/// The kind as the runner's registry lists it.
pub static KIND: ExtendKind = ExtendKind;

/// `uses: extend`.
pub struct ExtendKind;

impl StageKind for ExtendKind {
    fn name(&self) -> &'static str {
        "extend"
    }

    fn summary(&self) -> &'static str {
        "a model -> the same with new tokens: in spare rows of its embedding, or with rows added"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[InputPort { name: "model", kind: ArtifactKind::Model, is_required: true }]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[OutputPort { name: "model", kind: ArtifactKind::Model }]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Extend { settings: settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        let Some(new) = NewTokens::of(artifact)? else { return Ok("no new tokens\n".into()) };
        let mut text = format!("{} new tokens behind the {} that there were\n\n", new.tokens.len(), new.n_before);
        for token in new.tokens.iter().take(n_rows) {
            let kind = if token.special { "special" } else { "ordinary" };
            let from = match token.from.as_slice() {
                [] => "the mean of all tokens".to_string(),
                ids => format!("the mean of {ids:?}"),
            };
            writeln!(text, "{:>8}  {kind:<8}  {:?}  begins with {from}", token.id, token.content)
                .expect("writing to a String cannot fail");
        }
        Ok(text)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        pipe_records::folders::figures(artifact)
    }
}
