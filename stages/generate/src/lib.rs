//! The stage kind `generate`: prompts and a model, with an adapter or without, become samples.
//!
//! ```text
//! examples whose prompt is not in training --> prompts --[base]---------------> what it says --\
//!                                                      --[base and adapter]--> what it says ----> samples.jsonl
//! ```
//!
//! Reading order: [`settings`] (names of GenerationConfig), [`samples`] (the file, and how it is shown), [`run`].
//!
//! It deliberately has no arithmetic and no search: tokens are `pipe_llm::generate`'s, one after the other.

pub mod error;
pub mod run;
pub mod samples;
pub mod settings;

use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};

/// The kind as the runner's registry lists it.
pub static KIND: GenerateKind = GenerateKind;

/// `uses: generate`.
pub struct GenerateKind;

impl StageKind for GenerateKind {
    fn name(&self) -> &'static str {
        "generate"
    }

    fn summary(&self) -> &'static str {
        "prompts and a model -> samples: what it says to them, without and with an adapter"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "prompts", kind: ArtifactKind::Examples, is_required: true },
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: true },
            InputPort { name: "adapter", kind: ArtifactKind::Adapter, is_required: false },
            InputPort { name: "training", kind: ArtifactKind::Examples, is_required: false },
        ]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[OutputPort { name: "samples", kind: ArtifactKind::Samples }]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Generate { settings: settings::Settings::read(reader) })
    }

    fn show(&self, _port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        samples::show(artifact, n_rows)
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        samples::figures(artifact)
    }
}
