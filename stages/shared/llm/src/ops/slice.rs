//! Some columns of a value: what a fused matrix made for q, k and v, or for gate and up.

use candle_core::{Result, Tensor};

/// x: (T, width). Returns the columns from `start` on: (T, `n_columns`).
pub fn forward(x: &Tensor, start: usize, n_columns: usize) -> Result<Tensor> {
    x.narrow(1, start, n_columns)?.contiguous()
}

/// d_y: (T, columns) to d_x (T, width), 0 in the other columns.
pub fn backward(d_y: &Tensor, start: usize, width: usize) -> Result<Tensor> {
    d_y.pad_with_zeros(1, start, width - start - d_y.dims2()?.1)
}
