//! Dropout on the input of an adapter: each channel is zeroed with probability p, the others are scaled by 1 / (1 - p).
//!
//! The mask is a function of (seed, optimizer step, module, example, position in the example, channel), not a stream:
//! it does not depend on packing, threads or micro-batches, and the backward makes it again instead of keeping it.

use std::cell::OnceCell;

use candle_core::{Device, Result, Tensor};
use pipe_kernels::dropout as kernel;
pub use pipe_kernels::dropout::Mask;

use super::{cpu_slice, from_cpu, is_fast, once};
use crate::sequence::Sequence;

/// The dropout of one module on one sequence. Where it is done in tensor operations, the mask is made on the CPU and goes to the device once:
/// forward and backward use it twice.
pub struct Dropout<'a> {
    mask: Mask,
    sequence: &'a Sequence,
    /// (T, C): 0 or 1 / (1 - p).
    factors: OnceCell<Tensor>,
}

impl<'a> Dropout<'a> {
    /// Of the module that `mask` names.
    pub fn new(mask: Mask, sequence: &'a Sequence) -> Self {
        Dropout { mask, sequence, factors: OnceCell::new() }
    }

    /// x: (T, C), always with the same C. Returns x masked and scaled. Its own backward.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let Sequence { example_ids, position_ids, .. } = self.sequence;
        let (n_tokens, width) = x.dims2()?;
        if is_fast(x) {
            let mut y = vec![0.0; n_tokens * width];
            kernel::apply(self.mask, &cpu_slice(x)?, example_ids, position_ids, &mut y);
            return from_cpu(y, &[n_tokens, width]);
        }
        let factors = once(&self.factors, || {
            let mut factors = vec![0.0; n_tokens * width];
            kernel::apply(self.mask, &vec![1.0; n_tokens * width], example_ids, position_ids, &mut factors);
            let factors = Tensor::from_vec(factors, (n_tokens, width), &Device::Cpu)?;
            factors.to_dtype(x.dtype())?.to_device(x.device())
        })?;
        x * factors
    }
}
