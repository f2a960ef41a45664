//! RMSNorm (arXiv 1910.07467, eq. 4): `y = x r w` with `r = 1 / sqrt(mean(x^2) + eps)`.

use candle_core::{D, Result, Tensor};
use pipe_kernels::rms_norm as kernel;

use super::{cpu_slice, from_cpu, is_fast};

/// x: (T, C), weight: (C) of the same dtype. Returns y (T, C) and r (T).
pub fn forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    if !is_fast(x) {
        return plain(x, weight, eps);
    }
    let (n_tokens, width) = x.dims2()?;
    let (mut y, mut inv_rms) = (vec![0.0; n_tokens * width], vec![0.0; n_tokens]);
    kernel::forward(&cpu_slice(x)?, &cpu_slice(weight)?, eps as f32, &mut y, &mut inv_rms);
    Ok((from_cpu(y, &[n_tokens, width])?, from_cpu(inv_rms, &[n_tokens])?))
}

/// [`forward`] in tensor operations.
pub fn plain(x: &Tensor, weight: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let inv_rms = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    let y = x.broadcast_mul(&inv_rms)?.broadcast_mul(weight)?;
    Ok((y, inv_rms.squeeze(D::Minus1)?))
}

/// d_y: (T, C) to d_x (T, C).
pub fn backward(d_y: &Tensor, x: &Tensor, weight: &Tensor, inv_rms: &Tensor) -> Result<Tensor> {
    if !is_fast(x) {
        return plain_backward(d_y, x, weight, inv_rms);
    }
    let (n_tokens, width) = x.dims2()?;
    let mut d_x = vec![0.0; n_tokens * width];
    kernel::backward(&cpu_slice(d_y)?, &cpu_slice(x)?, &cpu_slice(weight)?, &cpu_slice(inv_rms)?, &mut d_x);
    from_cpu(d_x, &[n_tokens, width])
}

/// [`backward`] in tensor operations. With g = d_y w: `d_x = r g - x r^3 mean(g x)`, the second term from d r / d x.
pub fn plain_backward(d_y: &Tensor, x: &Tensor, weight: &Tensor, inv_rms: &Tensor) -> Result<Tensor> {
    let r = inv_rms.unsqueeze(D::Minus1)?;
    let g = d_y.broadcast_mul(weight)?;
    let mean_gx = (&g * x)?.mean_keepdim(D::Minus1)?;
    let through_r = x.broadcast_mul(&(mean_gx * r.powf(3.0)?)?)?;
    g.broadcast_mul(&r)? - through_r
}

/// d_y and x: (T, C), inv_rms: (T) to the weight's gradient (C).
pub fn weight_gradient(d_y: &Tensor, x: &Tensor, inv_rms: &Tensor) -> Result<Tensor> {
    if !is_fast(x) {
        return plain_weight_gradient(d_y, x, inv_rms);
    }
    let width = x.dims2()?.1;
    let mut d_weight = vec![0.0; width];
    kernel::weight_gradient(&cpu_slice(d_y)?, &cpu_slice(x)?, &cpu_slice(inv_rms)?, &mut d_weight);
    from_cpu(d_weight, &[width])
}

/// [`weight_gradient`] in tensor operations: `sum over tokens of d_y x r`.
pub fn plain_weight_gradient(d_y: &Tensor, x: &Tensor, inv_rms: &Tensor) -> Result<Tensor> {
    (d_y * x)?.broadcast_mul(&inv_rms.unsqueeze(D::Minus1)?)?.sum(0)
}
