//! Rows of the embedding matrix: token ids to (T, C).

use candle_core::{DType, Result, Tensor};

/// weight: (V, C) in any dtype; ids: (T) u32 below V. Returns (T, C) in `dtype`.
pub fn forward(weight: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    weight.index_select(ids, 0)?.to_dtype(dtype)
}

/// d_y: (T, C) to the weight's gradient (V, C): a row is the sum over the tokens that have its id.
pub fn weight_gradient(d_y: &Tensor, ids: &Tensor, vocab_size: usize) -> Result<Tensor> {
    let zeros = Tensor::zeros((vocab_size, d_y.dims2()?.1), d_y.dtype(), d_y.device())?;
    zeros.index_add(ids, d_y, 0)
}
