//! Training state: all that decides how a run goes on.
//!
//! The value and both moments of every tensor that is trained are with the trainer; the [`Progress`] of a run is what it has
//! found out so far. Masks, learning rates and the order of packs are functions of the optimizer step's number, so nothing
//! else is needed to go on with equal bits.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use pipe_llm::LlmError;
use pipe_llm::trainer::Trainer;

use crate::chain::Link;
use crate::metrics::History;

/// What a run has found out, besides the trainer's own state.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Losses so far.
    pub history: History,
    /// The chain so far.
    pub links: Vec<Link>,
    /// The best by the loss on port `eval`, of the evaluations in `history`.
    pub best: Option<Best>,
}

/// What was trained, where the loss on port `eval` was lowest.
#[derive(Clone, Debug)]
pub struct Best {
    /// Optimizer steps taken.
    pub step: u64,
    /// That loss, in nats.
    pub eval_loss: f64,
    /// Per parameter, on the CPU.
    pub values: Vec<Vec<f32>>,
}

/// The values of every parameter, on the CPU.
///
/// # Errors
/// When a tensor cannot be moved from its device.
pub fn values(trainer: &Trainer) -> Result<Vec<Vec<f32>>, LlmError> {
    trainer.parameters().iter().map(|parameter| on_host(parameter.tensor)).collect()
}

/// Replaces the values of every parameter.
///
/// # Errors
/// When a tensor cannot be moved to its device.
pub fn set_values(trainer: &mut Trainer, values: Vec<Vec<f32>>) -> Result<(), LlmError> {
    let tensor = |(parameter, values): (&pipe_llm::optimizer::Parameter<'_>, Vec<f32>)| {
        let tensor = Tensor::from_vec(values, parameter.tensor.dims(), &Device::Cpu)?;
        tensor.to_device(parameter.tensor.device())
    };
    let tensors = trainer.parameters().iter().zip(values).map(tensor).collect::<candle_core::Result<Vec<Tensor>>>()?;
    trainer.set_parameters(tensors);
    Ok(())
}

/// A tensor of the state: its name, and its elements or why they cannot be moved from their device.
pub type StateTensor<'t> = (String, Result<Cow<'t, [f32]>, LlmError>);

/// Every tensor of the state: of each parameter its value and its `first` and `second` moment. Values are copied one at a time.
pub fn tensors(trainer: &Trainer) -> impl Iterator<Item = StateTensor<'_>> {
    trainer.parameters().into_iter().zip(&trainer.optimizer.moments).flat_map(|(parameter, moments)| {
        let name = |part: &str| format!("{}.{part}", parameter.name);
        [
            (name("value"), on_host(parameter.tensor).map(Cow::Owned)),
            (name("first"), Ok(Cow::Borrowed(moments.first.as_slice()))),
            (name("second"), Ok(Cow::Borrowed(moments.second.as_slice()))),
        ]
    })
}

/// Elements that become bytes at a time.
pub(crate) const CHUNK: usize = 16_384;

/// As files and digests have them: little-endian.
pub(crate) fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn on_host(tensor: &Tensor) -> Result<Vec<f32>, LlmError> {
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?)
}
