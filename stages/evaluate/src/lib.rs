//! The stage kind `evaluate`: examples and a model, with an adapter or without, become scores.
//!
//! ```text
//! examples that are not in training --[items]--> documents --[loss]-----> loss, perplexity \
//!                                           \--> prompts   --[answers]--> exact match       --[scores]--> scores.json,
//!                                                          each for the base, and for base and adapter    examples.jsonl
//! ```
//!
//! Reading order: [`settings`], [`items`] (what is scored of an example), [`loss`], [`answers`], [`scores`] (the files, and how
//! they are shown), [`run`].
//!
//! It deliberately has no arithmetic of models, trains nothing and shows no progress of learning: it scores what is finished.

pub mod answers;
pub mod error;
pub mod items;
pub mod loss;
pub mod run;
pub mod scores;
pub mod settings;

use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};

/// The kind as the runner's registry lists it.
pub static KIND: EvaluateKind = EvaluateKind;

/// `uses: evaluate`.
pub struct EvaluateKind;

impl StageKind for EvaluateKind {
    fn name(&self) -> &'static str {
        "evaluate"
    }

    fn summary(&self) -> &'static str {
        "examples and a model -> loss, perplexity and exact match, without and with an adapter"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "examples", kind: ArtifactKind::Examples, is_required: true },
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: true },
            InputPort { name: "adapter", kind: ArtifactKind::Adapter, is_required: false },
            InputPort { name: "training", kind: ArtifactKind::Examples, is_required: false },
        ]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[OutputPort { name: "scores", kind: ArtifactKind::Scores }]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Evaluate { settings: settings::Settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        scores::show(artifact, n_rows)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        scores::figures(artifact)
    }
}
