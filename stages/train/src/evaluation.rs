//! The loss on port `eval`: packs that are not trained on, each as it is, without dropout.
//!
//! ```text
//! packs of 900 and 400 supervised tokens, sums of losses 1800.0 and 1000.0
//! eval_loss = (1800.0 + 1000.0) / (900 + 400) = 2.154        a mean over tokens, never one of means
//! ```
//!
//! It reads the trainer and changes nothing there: with and without it the same is trained, to the bit.

use pipe_contract::{Artifact, StageError};
use pipe_llm::trainer::Trainer;
use pipe_llm::{ModelConfig, Sequence};
use pipe_records::packed::PackedReader;

use crate::error::TrainError;

/// The packs on port `eval`.
pub struct EvalPacks {
    packs: PackedReader,
    /// Of all packs.
    pub n_supervised: usize,
}

impl EvalPacks {
    /// Opens an artifact and looks at every pack: what the model cannot take should not stop a run in its middle.
    ///
    /// # Errors
    /// Packs that the model cannot take, or without a supervised token.
    pub fn open(artifact: &Artifact, config: &ModelConfig) -> Result<Self, StageError> {
        let packs = PackedReader::open(artifact)?;
        let mut n_supervised = 0;
        for index in 0..packs.n_packs() {
            n_supervised += sequence(&packs, index, config)?.targets.len();
        }
        if n_supervised == 0 {
            return Err(TrainError::NothingToEvaluate { n_packs: packs.n_packs() }.into());
        }
        Ok(EvalPacks { packs, n_supervised })
    }

    /// How many there are.
    pub fn n_packs(&self) -> usize {
        self.packs.n_packs()
    }

    /// The mean loss of all supervised tokens, in nats. `check` is called before each pack and may stop it.
    ///
    /// # Errors
    /// What `check` returns, a loss that is not finite, a failing tensor operation.
    pub fn loss(
        &self,
        trainer: &Trainer,
        mut check: impl FnMut() -> Result<(), StageError>,
    ) -> Result<f64, StageError> {
        let mut sum = 0.0;
        for index in 0..self.packs.n_packs() {
            check()?;
            let sequence = sequence(&self.packs, index, &trainer.engine.program().config)?;
            if !sequence.targets.is_empty() {
                sum += trainer.engine.loss(trainer.adapter(), &sequence)?;
            }
        }
        let loss = sum / self.n_supervised as f64;
        if !loss.is_finite() {
            return Err(TrainError::EvalNotFinite { loss, optimizer_step: trainer.optimizer.n_done }.into());
        }
        Ok(loss)
    }
}

/// The pack at `index` as the engine takes it.
///
/// # Errors
/// A file that cannot be read, ids or positions that the model does not have.
pub fn sequence(packs: &PackedReader, index: usize, config: &ModelConfig) -> Result<Sequence, StageError> {
    let pack = packs.pack(index)?;
    Ok(Sequence::new(config, &pack.input_ids, &pack.labels, &pack.position_ids, &pack.doc_ids)?)
}
