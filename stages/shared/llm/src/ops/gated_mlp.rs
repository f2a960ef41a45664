//! The gate of Llama's MLP (SwiGLU, arXiv 2002.05202): `y = silu(gate) up`, `silu(g) = g sigmoid(g)`.

use candle_core::{Result, Tensor};
use pipe_kernels::gated_mlp::{self as kernel, Activation};

use super::{cpu_slice, from_cpu, is_fast};

/// gate, up: (T, I). Returns (T, I).
pub fn forward(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !is_fast(gate) {
        return plain(gate, up);
    }
    let mut y = vec![0.0; gate.elem_count()];
    kernel::forward(Activation::Silu, &cpu_slice(gate)?, &cpu_slice(up)?, &mut y);
    from_cpu(y, gate.dims())
}

/// [`forward`] in tensor operations.
pub fn plain(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    (gate * sigmoid(gate)?)? * up
}

/// d_y: (T, I) to (d_gate, d_up), both (T, I).
pub fn backward(d_y: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    if !is_fast(gate) {
        return plain_backward(d_y, gate, up);
    }
    let (mut d_gate, mut d_up) = (vec![0.0; gate.elem_count()], vec![0.0; gate.elem_count()]);
    kernel::backward(Activation::Silu, &cpu_slice(d_y)?, &cpu_slice(gate)?, &cpu_slice(up)?, &mut d_gate, &mut d_up);
    Ok((from_cpu(d_gate, gate.dims())?, from_cpu(d_up, gate.dims())?))
}

/// [`backward`] in tensor operations: `d silu(g) / d g = s + g s (1 - s)` with s = sigmoid(g).
pub fn plain_backward(d_y: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let s = sigmoid(gate)?;
    let silu = (gate * &s)?;
    let slope = (&s + (&silu * s.affine(-1.0, 1.0)?)?)?;
    Ok((((d_y * up)? * slope)?, (d_y * silu)?))
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}
