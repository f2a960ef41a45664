//! Engines run a [`crate::Program`] forward and backward.
//!
//! The candle engine is the first; a native one will take the same programs, sequences and adapters. What both promise:
//! a sequence's loss is the sum over its supervised tokens, its gradients are of that sum, and neither depends on the
//! sequences beside it.

pub mod candle;

pub use candle::CandleEngine;

use candle_core::Tensor;

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

/// Gradients of A and B of every adapted module, added up over sequences in the order they were given.
#[derive(Debug, Default)]
pub struct GradientSum {
    /// Per adapted module; `None` until a backward has written it.
    pub modules: Vec<Option<(Tensor, Tensor)>>,
}

impl GradientSum {
    /// Nothing written yet.
    pub fn new(n_modules: usize) -> Self {
        GradientSum { modules: vec![None; n_modules] }
    }

    /// Adds one sequence's gradients of one module.
    ///
    /// # Errors
    /// When shapes differ from what was added before.
    pub fn add(&mut self, module_idx: usize, d_a: Tensor, d_b: Tensor) -> candle_core::Result<()> {
        let slot = &mut self.modules[module_idx];
        *slot = Some(match slot.take() {
            None => (d_a, d_b),
            Some((sum_a, sum_b)) => ((sum_a + d_a)?, (sum_b + d_b)?),
        });
        Ok(())
    }
}
