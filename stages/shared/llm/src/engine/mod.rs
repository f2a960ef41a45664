//! Engines run a [`crate::Program`] forward and backward.
//!
//! ```text
//! native   kernels on slices, CPU: training and evaluation, the same bits everywhere
//! candle   tensors on the CPU or a GPU: everything, generation too
//! ```
//!
//! Both take the same programs, sequences and adapters, and promise: a sequence's loss is the sum over its supervised tokens, its
//! gradients are of that sum, and neither depends on the sequences beside it.

pub mod cache;
pub mod candle;
pub mod native;
mod parts;

pub use cache::{Extension, KvCache};
pub use candle::CandleEngine;
pub use native::NativeEngine;
pub use parts::Parts;

use candle_core::{Device, Tensor};
use pipe_kernels::dropout::Mask;

use crate::adapter::Adapter;
use crate::error::LlmError;
use crate::sequence::Sequence;

use crate::program::{AdaptedIdx, ParameterIdx, Program};

/// One of the two.
pub enum Engine {
    /// Kernels on slices.
    Native(NativeEngine),
    /// candle's tensors.
    Candle(CandleEngine),
}

impl From<NativeEngine> for Engine {
    fn from(engine: NativeEngine) -> Self {
        Engine::Native(engine)
    }
}

impl From<CandleEngine> for Engine {
    fn from(engine: CandleEngine) -> Self {
        Engine::Candle(engine)
    }
}

impl Engine {
    /// The list it runs.
    pub fn program(&self) -> &Program {
        match self {
            Engine::Native(engine) => engine.program(),
            Engine::Candle(engine) => engine.program(),
        }
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        match self {
            Engine::Native(_) => &Device::Cpu,
            Engine::Candle(engine) => engine.device(),
        }
    }

    /// The weights that are trained, in the order of [`Program::trained`].
    pub fn trained(&self) -> Vec<&Tensor> {
        match self {
            Engine::Native(engine) => engine.trained(),
            Engine::Candle(engine) => engine.program().trained.iter().map(|&w| &engine.weights()[w]).collect(),
        }
    }

    /// As [`Engine::trained`], to be written.
    pub fn trained_mut(&mut self) -> Vec<&mut Tensor> {
        match self {
            Engine::Native(engine) => engine.trained_mut(),
            Engine::Candle(engine) => engine.trained_mut(),
        }
    }

    /// Every weight as a tensor, in the order of [`Program::weights`]: what is trained in f32, the others as they are stored.
    ///
    /// # Errors
    /// When a weight cannot be read from its file.
    pub fn tensors(&self) -> Result<Vec<Tensor>, LlmError> {
        match self {
            Engine::Native(engine) => engine.tensors(),
            Engine::Candle(engine) => Ok(engine.weights().to_vec()),
        }
    }

    /// The loss of the supervised tokens, without dropout.
    ///
    /// # Errors
    /// A document longer than the engine was made for; memory; a failing tensor operation.
    pub fn loss(&self, adapter: Option<&Adapter>, sequence: &Sequence) -> Result<LossSum, LlmError> {
        match self {
            Engine::Native(engine) => engine.loss(adapter, sequence),
            Engine::Candle(engine) => engine.loss(adapter, sequence),
        }
    }

    /// Losses and gradients of all supervised tokens of `sequences`. `check` is called on the way with the number of sequences done, and may stop it.
    ///
    /// # Errors
    /// As [`Engine::loss`]; what `check` returns.
    pub fn sums<E: From<LlmError>>(
        &self,
        adapter: Option<&Adapter>,
        sequences: &[Sequence],
        dropout: Option<DropoutKey>,
        check: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Sums, E> {
        match self {
            Engine::Native(engine) => engine.sums(adapter, sequences, dropout, check),
            Engine::Candle(engine) => engine.sums(adapter, sequences, dropout, check),
        }
    }

    /// Seconds by part that [`Engine::sums`] took since the last call of this; together they are all of its time.
    pub fn take_parts(&self) -> Parts {
        match self {
            Engine::Native(engine) => engine.take_parts(),
            Engine::Candle(engine) => engine.take_parts(),
        }
    }
}

/// Which dropout masks to draw: none when evaluating.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// Optimizer steps taken before this one.
    pub optimizer_step: u64,
    /// Probability of zeroing a channel.
    pub probability: f64,
}

impl DropoutKey {
    /// The mask of an adapted module, `None` where nothing is dropped.
    fn mask(self, module: AdaptedIdx) -> Option<Mask> {
        (self.probability > 0.0).then_some(Mask {
            seed: self.seed,
            optimizer_step: self.optimizer_step,
            module: module as u64,
            probability: self.probability as f32,
        })
    }
}

/// Sum of the losses of a sequence's supervised tokens, in nats.
pub type LossSum = f64;

/// What an optimizer step needs of its sequences.
#[derive(Debug)]
pub struct Sums {
    /// Of the losses of all supervised tokens.
    pub loss: LossSum,
    /// Per [`ParameterIdx`] the gradient of that sum, row-major; `None` where no backward has written it.
    pub gradients: Vec<Option<Vec<f32>>>,
}

/// Gradients of every trained tensor, added up over sequences in the order they were given.
#[derive(Debug, Default)]
pub struct GradientSum {
    /// Per [`ParameterIdx`]; `None` until a backward has written it.
    pub tensors: Vec<Option<Tensor>>,
}

impl GradientSum {
    /// Nothing written yet, for the parameters of `program`.
    pub fn new(program: &Program) -> Self {
        GradientSum { tensors: vec![None; program.n_parameters()] }
    }

    /// Adds a gradient of one parameter.
    ///
    /// # Errors
    /// When the shape differs from what was added before.
    pub fn add(&mut self, parameter_idx: ParameterIdx, gradient: Tensor) -> candle_core::Result<()> {
        let slot = &mut self.tensors[parameter_idx];
        *slot = Some(match slot.take() {
            None => gradient,
            Some(sum) => (sum + gradient)?,
        });
        Ok(())
    }
}
