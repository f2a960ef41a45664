//! The stage kind `train`: packs and a model in, a LoRA adapter or a trained model and the metrics out.
//!
//! ```text
//! packed --[batches]--> sequences --[pipe-llm]--> adapter or model, one line of metrics per optimizer step
//!                                       |   \--[evaluation]--> the loss on packs that are not trained on
//!                                 [checkpoint] at epochs and when interrupted; a run of the same trajectory goes on there
//! ```
//!
//! Reading order: [`settings`] (names of LoraConfig and TrainingArguments), [`points`] (when state is saved and evaluated),
//! [`batches`] (which packs an optimizer step takes), [`evaluation`], [`metrics`], [`curves`] (their pictures), [`state`],
//! [`chain`] (its digests), [`checkpoint`], [`run`] (a run from its inputs to its outputs), [`training`] (its optimizer steps),
//! `spot` (parts of a finished run taken again), `tokens` (new ones that nothing would train); beside them [`bench`], which measures how fast all that is.
//!
//! It deliberately has no arithmetic: ops, loss and optimizer are `pipe-llm`'s.

pub mod batches;
pub mod bench;
pub mod chain;
pub mod checkpoint;
pub mod curves;
pub mod error;
pub mod evaluation;
mod memory;
pub mod metrics;
pub mod points;
pub mod run;
pub mod settings;
mod spot;
pub mod state;
mod tokens;
pub mod training;

pub use pipe_llm::parity;

use pipe_contract::{Artifact, ArtifactKind, Figure, InputPort, OutputPort, Reader, Stage, StageError, StageKind};

/// The kind as the runner's registry lists it.
pub static KIND: TrainKind = TrainKind;

/// `uses: train`.
pub struct TrainKind;

impl StageKind for TrainKind {
    fn name(&self) -> &'static str {
        "train"
    }

    fn summary(&self) -> &'static str {
        "packs and a model -> a LoRA adapter or a trained model, and metrics of every optimizer step"
    }

    fn version(&self) -> u32 {
        3 // The native engine's bits; `metrics` has losses on `eval` and the chain of checkpoints.
    }

    fn inputs(&self) -> &'static [InputPort] {
        &[
            InputPort { name: "data", kind: ArtifactKind::Packed, is_required: true },
            InputPort { name: "model", kind: ArtifactKind::Model, is_required: true },
            InputPort { name: "eval", kind: ArtifactKind::Packed, is_required: false },
            InputPort { name: "adapter", kind: ArtifactKind::Adapter, is_required: false },
        ]
    }

    fn outputs(&self) -> &'static [OutputPort] {
        &[
            OutputPort { name: "adapter", kind: ArtifactKind::Adapter },
            OutputPort { name: "model", kind: ArtifactKind::Model },
            OutputPort { name: "metrics", kind: ArtifactKind::Metrics },
        ]
    }

    fn read(&self, reader: &mut Reader) -> Box<dyn Stage> {
        Box::new(run::Train { settings: settings::read(reader) })
    }

    fn show(&self, port: &str, artifact: &Artifact, n_rows: usize) -> Result<String, StageError> {
        match port {
            "metrics" => metrics::show(artifact, n_rows),
            "model" => {
                let path = artifact.file("config.json")?;
                std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))
            }
            _ => {
                let path = artifact.file("adapter_config.json")?;
                std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))
            }
        }
    }

    fn figures(&self, port: &str, artifact: &Artifact) -> Result<Vec<Figure>, StageError> {
        match port {
            "metrics" => metrics::figures(artifact),
            _ => pipe_records::folders::figures(artifact),
        }
    }
}
