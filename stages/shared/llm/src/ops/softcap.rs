//! Numbers bent to stay between `-cap` and `cap` (Gemma 2: arXiv 2408.00118, section 2.1): `y = cap tanh(x / cap)`.

use candle_core::{Result, Tensor};
use pipe_kernels::softcap as kernel;

use super::{cpu_slice, from_cpu, is_fast};

/// x: any shape. Returns the same shape.
pub fn forward(cap: f64, x: &Tensor) -> Result<Tensor> {
    if !is_fast(x) {
        return plain(cap, x);
    }
    let mut y = cpu_slice(x)?.to_vec();
    kernel::forward(cap as f32, &mut y);
    from_cpu(y, x.dims())
}

/// [`forward`] in tensor operations.
pub fn plain(cap: f64, x: &Tensor) -> Result<Tensor> {
    (x * (1.0 / cap))?.tanh()? * cap
}

/// d_y to d_x; y: what [`forward`] made.
pub fn backward(cap: f64, d_y: &Tensor, y: &Tensor) -> Result<Tensor> {
    if !is_fast(y) {
        return plain_backward(cap, d_y, y);
    }
    let mut d_x = cpu_slice(d_y)?.to_vec();
    kernel::backward(cap as f32, &cpu_slice(y)?, &mut d_x);
    from_cpu(d_x, y.dims())
}

/// [`backward`] in tensor operations: `d_x = d_y (1 - (y / cap)^2)`, since tanh' = 1 - tanh^2.
pub fn plain_backward(cap: f64, d_y: &Tensor, y: &Tensor) -> Result<Tensor> {
    d_y * (y * (1.0 / cap))?.sqr()?.affine(-1.0, 1.0)?
}
