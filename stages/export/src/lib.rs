//! The stage kind `export`: a model and an adapter in, folders that others load out.
//!
//! ```text
//! adapter --------------------> adapter   a PEFT folder, read back and checked against the model
//! model + adapter --[merge]---> merged    the model's folder with the adapter added into its weights: f32, cast once
//! ```
//!
//! Reading order: [`settings`], [`probe`] (whether the merged model says the same), [`run`]. The merge itself is `pipe-llm`'s `rewrite`.
//!
//! It deliberately converts no tokenizer and no config: they are copied as they are, but for the dtype. A tokenizer that only this
//! program has built in is written out.

pub mod error;
pub mod probe;
pub mod run;
pub mod settings;

use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};

/// The kind as the runner's registry lists it.
pub static KIND: ExportKind = ExportKind;

/// `uses: export`.
pub struct ExportKind;

impl StageKind for ExportKind {
    fn name(&self) -> &'static str {
        "export"
    }

    fn summary(&self) -> &'static str {
        "a model and an adapter -> a PEFT adapter folder, a merged model folder"
    }

    fn version(&self) -> u32 {
        1 // The first.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: true },
            InputPort { name: "adapter", kind: ArtifactKind::Adapter, is_required: false },
        ]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[
            OutputPort { name: "adapter", kind: ArtifactKind::Adapter },
            OutputPort { name: "merged", kind: ArtifactKind::Model },
        ]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Export { settings: settings::read(reader) })
    }

    fn figures(&self, _port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        pipe_records::folders::figures(artifact)
    }
}
