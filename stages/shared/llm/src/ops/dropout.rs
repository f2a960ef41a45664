//! Dropout on the input of an adapter: each channel is zeroed with probability p, the others are scaled by 1 / (1 - p).
//!
//! The mask is a function of (seed, optimizer step, module, example, position in the example, channel), not a stream:
//! it does not depend on packing, threads or micro-batches, and the backward makes it again instead of keeping it.

use candle_core::{Device, Result, Tensor};
use pipe_kernels::dropout as kernel;
pub use pipe_kernels::dropout::Mask;

use super::{cpu_slice, from_cpu, is_fast};

/// x: (T, C); example_ids, positions: (T). Returns x masked and scaled. Its own backward.
pub fn apply(mask: &Mask, x: &Tensor, example_ids: &[u32], positions: &[u32]) -> Result<Tensor> {
    let (n_tokens, width) = x.dims2()?;
    if is_fast(x) {
        let mut y = vec![0.0; n_tokens * width];
        kernel::apply(*mask, &cpu_slice(x)?, example_ids, positions, &mut y);
        return from_cpu(y, &[n_tokens, width]);
    }
    let mut factors = vec![0.0; n_tokens * width];
    kernel::apply(*mask, &vec![1.0; n_tokens * width], example_ids, positions, &mut factors);
    let factors = Tensor::from_vec(factors, (n_tokens, width), &Device::Cpu)?;
    x * factors.to_dtype(x.dtype())?.to_device(x.device())?
}
