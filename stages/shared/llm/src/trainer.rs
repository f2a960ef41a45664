//! One optimizer step: gradients over the sequences of a global batch, gates, AdamW.
//!
//! ```text
//! sequences --engine--> sums of losses and gradients --(/ supervised tokens)--> gates --> AdamW --> StepReport
//! ```
//!
//! The loss and the gradients of an optimizer step are sums over all its supervised tokens, divided once: how they are cut
//! into micro-batches does not matter. Order of sequences, epochs, logging and files are the `train` stage's business.

use crate::adapter::Adapter;
use crate::engine::{CandleEngine, DropoutKey, GradientSum};
use crate::error::LlmError;
use crate::optimizer::{AdamW, ModuleGradient};
use crate::schedule::Schedule;
use crate::sequence::Sequence;

/// What an optimizer step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Mean loss of the supervised tokens, in nats.
    pub loss: f64,
    /// L2 norm of the gradients before clipping.
    pub grad_norm: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// Tokens read.
    pub n_tokens: usize,
    /// Tokens predicted.
    pub n_supervised: usize,
}

/// An adapter in training.
pub struct Trainer {
    /// The model.
    pub engine: CandleEngine,
    /// What is trained.
    pub adapter: Adapter,
    /// Its optimizer.
    pub optimizer: AdamW,
    /// Learning rates.
    pub schedule: Schedule,
    /// Seed of dropout.
    pub seed: u64,
    /// Whether every A and B has been seen with a gradient that is not zero.
    pub gates: GateState,
}

/// How far the gate on gradients has got: B must have a gradient at the first optimizer step, A from the first one after B
/// has moved (with B = 0, A's gradient is exactly zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateState {
    /// Nothing seen yet.
    Start,
    /// B has been seen, B is still zero.
    SeenB,
    /// All seen.
    Passed,
}

impl Trainer {
    /// Takes one optimizer step over `sequences`. `check` is called between sequences, with the number done, and may stop the run.
    ///
    /// # Errors
    /// The gates (`nothing-to-learn`, `not-finite`, `no-gradient`), what `check` returns, a failing tensor operation. The
    /// adapter is unchanged then.
    pub fn step<E: From<LlmError>>(
        &mut self,
        sequences: &[Sequence],
        mut check: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<StepReport, E> {
        let n_supervised: usize = sequences.iter().map(|s| s.targets.len()).sum();
        let n_tokens: usize = sequences.iter().map(Sequence::len).sum();
        if n_supervised == 0 {
            return Err(nothing_to_learn(self.optimizer.n_done + 1).into());
        }
        let dropout = DropoutKey {
            seed: self.seed,
            optimizer_step: self.optimizer.n_done,
            probability: self.adapter.config.lora_dropout,
        };
        let mut sums = GradientSum::new(self.adapter.modules.len());
        let mut loss_sum = 0.0;
        for (sequence_idx, sequence) in sequences.iter().enumerate() {
            check(sequence_idx)?;
            if !sequence.targets.is_empty() {
                loss_sum += self.engine.loss_and_gradients(&self.adapter, sequence, Some(dropout), &mut sums)?;
            }
        }
        let loss = loss_sum / n_supervised as f64;
        let gradients = self.mean_gradients(sums, n_supervised)?;
        if !loss.is_finite() {
            return Err(not_finite("loss", loss, self.optimizer.n_done + 1).into());
        }
        self.check_gates(&gradients)?;
        let learning_rate = self.schedule.learning_rate(self.optimizer.n_done);
        let n_before = self.optimizer.n_done;
        let grad_norm = self.optimizer.step(&mut self.adapter, &gradients, learning_rate).map_err(LlmError::from)?;
        if !grad_norm.is_finite() {
            return Err(not_finite("gradient norm", grad_norm, n_before + 1).into());
        }
        Ok(StepReport { loss, grad_norm, learning_rate, n_tokens, n_supervised })
    }

    fn mean_gradients(&self, sums: GradientSum, n_supervised: usize) -> Result<Vec<ModuleGradient>, LlmError> {
        let factor = 1.0 / n_supervised as f64;
        let mut gradients = Vec::with_capacity(sums.modules.len());
        for (module, sum) in self.adapter.modules.iter().zip(sums.modules) {
            let Some((d_a, d_b)) = sum else { return Err(no_gradient(&module.path, "A and B")) };
            gradients.push(((d_a * factor)?, (d_b * factor)?));
        }
        Ok(gradients)
    }

    fn check_gates(&mut self, gradients: &[ModuleGradient]) -> Result<(), LlmError> {
        if self.gates == GateState::Passed {
            return Ok(());
        }
        let b_is_zero = self.adapter.is_zero()?;
        for (module, (d_a, d_b)) in self.adapter.modules.iter().zip(gradients) {
            let is_zero = |tensor: &candle_core::Tensor| -> Result<bool, LlmError> {
                Ok(tensor.abs()?.max_all()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()? == 0.0)
            };
            if is_zero(d_b)? {
                return Err(no_gradient(&module.path, "B"));
            }
            if !b_is_zero && is_zero(d_a)? {
                return Err(no_gradient(&module.path, "A"));
            }
        }
        self.gates = if b_is_zero { GateState::SeenB } else { GateState::Passed };
        Ok(())
    }
}

fn nothing_to_learn(optimizer_step: u64) -> LlmError {
    LlmError::Gate {
        slug: "nothing-to-learn",
        why: format!("optimizer step {optimizer_step} has no supervised token"),
        help: "look at the labels with `pipe show`; a completion that was truncated away has none".into(),
    }
}

fn not_finite(what: &str, value: f64, optimizer_step: u64) -> LlmError {
    LlmError::Gate {
        slug: "not-finite",
        why: format!("the {what} is {value} at optimizer step {optimizer_step}"),
        help: "lower `learning_rate`, or raise `warmup_steps`; a checkpoint that was saved before is kept".into(),
    }
}

fn no_gradient(path: &str, which: &str) -> LlmError {
    LlmError::Gate {
        slug: "no-gradient",
        why: format!("{which} of `{path}` got no gradient: this module would never learn"),
        help: "this is a bug, or a model with dead weights there; leave the module out of `target_modules` to go on"
            .into(),
    }
}
