//! LayerNorm (arXiv 1607.06450): `y = x_hat w + b`, `x_hat = (x - mean) r`, `r = 1 / sqrt(mean((x - mean)^2) + eps)`.

use candle_core::{D, Result, Tensor};
use pipe_kernels::layer_norm as kernel;

use super::{cpu_slice, from_cpu, is_fast};

/// x: (T, C), weight, bias: (C) of the same dtype. Returns y (T, C), and mean and r, (2, T).
pub fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    if !is_fast(x) {
        return plain(x, weight, bias, eps);
    }
    let (n_tokens, width) = x.dims2()?;
    let (mut y, mut moments) = (vec![0.0; n_tokens * width], vec![0.0; 2 * n_tokens]);
    let (mean, inv_std) = moments.split_at_mut(n_tokens);
    kernel::forward(&cpu_slice(x)?, &cpu_slice(weight)?, &cpu_slice(bias)?, eps as f32, &mut y, mean, inv_std);
    Ok((from_cpu(y, &[n_tokens, width])?, from_cpu(moments, &[2, n_tokens])?))
}

/// [`forward`] in tensor operations.
pub fn plain(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<(Tensor, Tensor)> {
    let mean = x.mean_keepdim(D::Minus1)?;
    let centred = x.broadcast_sub(&mean)?;
    let inv_std = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    let y = centred.broadcast_mul(&inv_std)?.broadcast_mul(weight)?.broadcast_add(bias)?;
    let moments = Tensor::stack(&[mean.squeeze(D::Minus1)?, inv_std.squeeze(D::Minus1)?], 0)?;
    Ok((y, moments))
}

/// d_y: (T, C) to d_x (T, C); moments: (2, T) of the forward.
pub fn backward(d_y: &Tensor, x: &Tensor, weight: &Tensor, moments: &Tensor) -> Result<Tensor> {
    if !is_fast(x) {
        return plain_backward(d_y, x, weight, moments);
    }
    let (n_tokens, width) = x.dims2()?;
    let mut d_x = vec![0.0; n_tokens * width];
    let moments = cpu_slice(moments)?;
    let (mean, inv_std) = moments.split_at(n_tokens);
    kernel::backward(&cpu_slice(d_y)?, &cpu_slice(x)?, &cpu_slice(weight)?, mean, inv_std, &mut d_x);
    from_cpu(d_x, &[n_tokens, width])
}

/// [`backward`] in tensor operations. With g = d_y w: `d_x = r (g - mean(g) - x_hat mean(g x_hat))`.
pub fn plain_backward(d_y: &Tensor, x: &Tensor, weight: &Tensor, moments: &Tensor) -> Result<Tensor> {
    let (x_hat, inv_std) = normed(x, moments)?;
    let g = d_y.broadcast_mul(weight)?;
    let mean_g = g.mean_keepdim(D::Minus1)?;
    let mean_gx = (&g * &x_hat)?.mean_keepdim(D::Minus1)?;
    (g.broadcast_sub(&mean_g)? - x_hat.broadcast_mul(&mean_gx)?)?.broadcast_mul(&inv_std)
}

/// d_y and x: (T, C), moments: (2, T) to the gradients of weight and bias, (C) each.
pub fn parameter_gradients(d_y: &Tensor, x: &Tensor, moments: &Tensor) -> Result<(Tensor, Tensor)> {
    if !is_fast(x) {
        return plain_parameter_gradients(d_y, x, moments);
    }
    let (n_tokens, width) = x.dims2()?;
    let (mut d_weight, mut d_bias) = (vec![0.0; width], vec![0.0; width]);
    let moments = cpu_slice(moments)?;
    let (mean, inv_std) = moments.split_at(n_tokens);
    kernel::parameter_gradients(&cpu_slice(d_y)?, &cpu_slice(x)?, mean, inv_std, &mut d_weight, &mut d_bias);
    Ok((from_cpu(d_weight, &[width])?, from_cpu(d_bias, &[width])?))
}

/// [`parameter_gradients`] in tensor operations: sums over tokens of `d_y x_hat` and of `d_y`.
pub fn plain_parameter_gradients(d_y: &Tensor, x: &Tensor, moments: &Tensor) -> Result<(Tensor, Tensor)> {
    Ok(((d_y * normed(x, moments)?.0)?.sum(0)?, d_y.sum(0)?))
}

/// `x_hat` (T, C) and r (T, 1).
fn normed(x: &Tensor, moments: &Tensor) -> Result<(Tensor, Tensor)> {
    let row = |i: usize| moments.narrow(0, i, 1)?.t();
    let (mean, inv_std) = (row(0)?, row(1)?);
    Ok((x.broadcast_sub(&mean)?.broadcast_mul(&inv_std)?, inv_std))
}
