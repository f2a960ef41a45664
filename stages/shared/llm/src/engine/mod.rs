//! Engines run a [`crate::Program`] forward and backward.
//!
//! The candle engine is the first; a native one will take the same programs, sequences and adapters. What both promise:
//! a sequence's loss is the sum over its supervised tokens, its gradients are of that sum, and neither depends on the
//! sequences beside it.

pub mod cache;
pub mod candle;

pub use cache::{Extension, KvCache};
pub use candle::CandleEngine;

use candle_core::Tensor;

use crate::program::{ParameterIdx, Program};

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

/// Sum of the losses of a sequence's supervised tokens, in nats.
pub type LossSum = f64;

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
