//! GELU with its tanh (arXiv 1606.08415, section 2): `y = x/2 (1 + tanh(u))`, `u = sqrt(2/pi) (x + 0.044715 x^3)`.
//!
//! Computed as `x s(2 u)` with the logistic function s, which is the same and keeps the digits of negative x.

use candle_core::{Result, Tensor};
use pipe_kernels::gelu as kernel;

use super::{cpu_slice, from_cpu, is_fast, sigmoid};

/// x: (T, I). Returns the same shape.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    if !is_fast(x) {
        return plain(x);
    }
    let mut y = vec![0.0; x.elem_count()];
    kernel::forward(&cpu_slice(x)?, &mut y);
    from_cpu(y, x.dims())
}

/// [`forward`] in tensor operations.
pub fn plain(x: &Tensor) -> Result<Tensor> {
    x * sigmoid(&twice_u(x)?)?
}

/// d_y: (T, I) to d_x (T, I).
pub fn backward(d_y: &Tensor, x: &Tensor) -> Result<Tensor> {
    if !is_fast(x) {
        return plain_backward(d_y, x);
    }
    let mut d_x = vec![0.0; x.elem_count()];
    kernel::backward(&cpu_slice(d_y)?, &cpu_slice(x)?, &mut d_x);
    from_cpu(d_x, x.dims())
}

/// [`backward`] in tensor operations.
pub fn plain_backward(d_y: &Tensor, x: &Tensor) -> Result<Tensor> {
    d_y * plain_slope(x)?
}

/// The derivative, with s = s(2 u): `s + x s (1 - s) 2 u'`.
pub(crate) fn plain_slope(x: &Tensor) -> Result<Tensor> {
    let (c1, c3) = constants();
    let s = sigmoid(&twice_u(x)?)?;
    let twice_u_slope = (x.sqr()? * (3.0 * c3))?.affine(1.0, c1)?;
    &s + ((x * &s)? * (s.affine(-1.0, 1.0)? * twice_u_slope)?)?
}

fn twice_u(x: &Tensor) -> Result<Tensor> {
    let (c1, c3) = constants();
    x * (x.sqr()? * c3)?.affine(1.0, c1)?
}

/// `2 sqrt(2/pi)`, and the same times 0.044715.
fn constants() -> (f64, f64) {
    let c1 = 2.0 * libm::sqrt(2.0 / std::f64::consts::PI);
    (c1, 0.044_715 * c1)
}
