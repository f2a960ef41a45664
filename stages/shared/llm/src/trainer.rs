//! One optimizer step: gradients over the sequences of a global batch, gates, AdamW.
//!
//! ```text
//! sequences --engine--> sums of losses and gradients --(/ supervised tokens)--> gates --> AdamW --> StepReport
//! ```
//!
//! The loss and the gradients of an optimizer step are sums over all its supervised tokens, divided once: how they are cut
//! into micro-batches does not matter. Order of sequences, epochs, logging and files are the `train` stage's business.

use candle_core::Tensor;
use pipe_kernels::reduce;

use crate::adapter::Adapter;
use crate::engine::{DropoutKey, Engine};
use crate::error::LlmError;
use crate::optimizer::{AdamW, AdamWSettings, Parameter};
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

/// What is trained.
#[derive(Clone, Debug)]
pub enum Trained {
    /// The matrices of an adapter, and its rows of tokens; the model is frozen.
    Adapter(Adapter),
    /// The weights that [`crate::Program::trained`] names; the engine holds them.
    Weights,
}

/// A model or an adapter in training.
pub struct Trainer {
    /// The model.
    pub engine: Engine,
    /// What is trained.
    pub trained: Trained,
    /// Its optimizer.
    pub optimizer: AdamW,
    /// Learning rates.
    pub schedule: Schedule,
    /// Seed of dropout.
    pub seed: u64,
    /// Whether everything that is trained has been seen with a gradient that is not zero.
    pub gates: GateState,
}

/// How far the gate on gradients has got: weights and B must have a gradient at the first optimizer step, A from the first
/// one after B has moved (with B = 0, A's gradient is exactly zero). Rows of tokens may be without one for as long as no pack has these tokens.
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
    /// A trainer before its first optimizer step.
    pub fn new(
        engine: impl Into<Engine>,
        trained: Trained,
        settings: AdamWSettings,
        schedule: Schedule,
        seed: u64,
    ) -> Self {
        let engine = engine.into();
        let optimizer = AdamW::new(settings, &parameters(&engine, &trained));
        Trainer { engine, trained, optimizer, schedule, seed, gates: GateState::Start }
    }

    /// The adapter, where one is trained.
    pub fn adapter(&self) -> Option<&Adapter> {
        match &self.trained {
            Trained::Adapter(adapter) => Some(adapter),
            Trained::Weights => None,
        }
    }

    /// The tensors that are trained, in the order of [`crate::program::ParameterIdx`].
    pub fn parameters(&self) -> Vec<Parameter<'_>> {
        parameters(&self.engine, &self.trained)
    }

    /// Replaces them, in the same order.
    pub fn set_parameters(&mut self, tensors: Vec<Tensor>) {
        let slots = slots(&mut self.engine, &mut self.trained);
        assert_eq!(slots.len(), tensors.len(), "there is a value for each parameter");
        slots.into_iter().zip(tensors).for_each(|(slot, tensor)| *slot = tensor);
    }

    /// Takes one optimizer step over `sequences`. `check` is called between sequences, with the number done, and may stop the run.
    ///
    /// # Errors
    /// The gates (`nothing-to-learn`, `not-finite`, `no-gradient`), what `check` returns, a failing tensor operation. What
    /// is trained is unchanged then.
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
        let dropout = self.adapter().map(|adapter| DropoutKey {
            seed: self.seed,
            optimizer_step: self.optimizer.n_done,
            probability: adapter.config.lora_dropout,
        });
        let sums = self.engine.sums(self.adapter(), sequences, dropout, &mut check)?;
        let loss = sums.loss / n_supervised as f64;
        let gradients = self.mean_gradients(sums.gradients, n_supervised)?;
        if !loss.is_finite() {
            return Err(not_finite("loss", loss, self.optimizer.n_done + 1).into());
        }
        self.check_gates(&gradients)?;
        let learning_rate = self.schedule.learning_rate(self.optimizer.n_done);
        let n_before = self.optimizer.n_done;
        let slots = slots(&mut self.engine, &mut self.trained);
        let grad_norm = self.optimizer.step(slots, gradients, learning_rate).map_err(LlmError::from)?;
        if !grad_norm.is_finite() {
            return Err(not_finite("gradient norm", grad_norm, n_before + 1).into());
        }
        Ok(StepReport { loss, grad_norm, learning_rate, n_tokens, n_supervised })
    }

    fn mean_gradients(&self, sums: Vec<Option<Vec<f32>>>, n_supervised: usize) -> Result<Vec<Vec<f32>>, LlmError> {
        let factor = (1.0 / n_supervised as f64) as f32;
        let parameters = self.parameters();
        let mean = |(parameter, sum): (&Parameter<'_>, Option<Vec<f32>>)| {
            let mut sum = sum.ok_or_else(|| no_gradient(&parameter.name))?;
            reduce::scale(&mut sum, factor);
            Ok(sum)
        };
        parameters.iter().zip(sums).map(mean).collect()
    }

    fn check_gates(&mut self, gradients: &[Vec<f32>]) -> Result<(), LlmError> {
        if self.gates == GateState::Passed {
            return Ok(());
        }
        let adapter_is_fresh = self.adapter().map(Adapter::is_zero).transpose()?.unwrap_or(false);
        let n_matrices = 2 * self.engine.program().adapted.len();
        let rows = n_matrices..n_matrices + self.engine.program().tokens.len();
        for (parameter_idx, (parameter, gradient)) in self.parameters().iter().zip(gradients).enumerate() {
            // A and B alternate in an adapter. While B is zero, A's gradient is zero by its nature.
            let is_a = parameter_idx < n_matrices && parameter_idx.is_multiple_of(2);
            let may_be_zero = (adapter_is_fresh && is_a) || rows.contains(&parameter_idx);
            if !may_be_zero && gradient.iter().all(|g| *g == 0.0) {
                return Err(no_gradient(&parameter.name));
            }
        }
        self.gates = if adapter_is_fresh { GateState::SeenB } else { GateState::Passed };
        Ok(())
    }
}

fn parameters<'t>(engine: &'t Engine, trained: &'t Trained) -> Vec<Parameter<'t>> {
    let named = |path: &str, which: &str, tensor: &'t Tensor| Parameter { name: format!("{path}.{which}"), tensor };
    match trained {
        Trained::Adapter(adapter) => {
            let both = adapter.modules.iter().flat_map(|m| [named(&m.path, "A", &m.a), named(&m.path, "B", &m.b)]);
            both.chain(adapter.tokens.iter().map(|tokens| named(&tokens.path, "tokens", &tokens.rows))).collect()
        }
        Trained::Weights => {
            let program = engine.program();
            let weight = |(&weight_idx, tensor): (&usize, &'t Tensor)| Parameter {
                name: program.weights[weight_idx].name.clone(),
                tensor,
            };
            program.trained.iter().zip(engine.trained()).map(weight).collect()
        }
    }
}

fn slots<'t>(engine: &'t mut Engine, trained: &'t mut Trained) -> Vec<&'t mut Tensor> {
    match trained {
        Trained::Adapter(Adapter { modules, tokens, .. }) => {
            let both = modules.iter_mut().flat_map(|m| [&mut m.a, &mut m.b]);
            both.chain(tokens.iter_mut().map(|tokens| &mut tokens.rows)).collect()
        }
        Trained::Weights => engine.trained_mut(),
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

fn no_gradient(parameter: &str) -> LlmError {
    LlmError::Gate {
        slug: "no-gradient",
        why: format!("`{parameter}` got no gradient: it would never learn"),
        help:
            "this is a bug, or a model with dead weights there; leave the module out of `target_modules`, or `freeze` \
               it, to go on"
                .into(),
    }
}
