//! Rows of the embedding matrix: token ids to (T, C). Frozen, so it has no backward.

use candle_core::{DType, Result, Tensor};

/// weight: (V, C) in any dtype; ids: (T) u32 below V. Returns (T, C) in `dtype`.
pub fn forward(weight: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    weight.index_select(ids, 0)?.to_dtype(dtype)
}
