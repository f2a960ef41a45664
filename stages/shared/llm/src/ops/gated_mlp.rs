//! The gate of an MLP (arXiv 2002.05202): `y = f(gate) up`, where f is `silu(g) = g sigmoid(g)` (Llama) or [`super::gelu`] (Gemma).

use candle_core::{Result, Tensor};
use pipe_kernels::gated_mlp as kernel;

use super::{cpu_slice, from_cpu, gelu, is_fast, sigmoid};
use crate::config::Activation;

/// gate, up: (T, I). Returns (T, I).
pub fn forward(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if !is_fast(gate) {
        return plain(activation, gate, up);
    }
    let mut y = vec![0.0; gate.elem_count()];
    kernel::forward(activation, &cpu_slice(gate)?, &cpu_slice(up)?, &mut y);
    from_cpu(y, gate.dims())
}

/// [`forward`] in tensor operations.
pub fn plain(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => (gate * sigmoid(gate)?)? * up,
        Activation::GeluTanh => gelu::plain(gate)? * up,
    }
}

/// d_y: (T, I) to (d_gate, d_up), both (T, I).
pub fn backward(activation: Activation, d_y: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    if !is_fast(gate) {
        return plain_backward(activation, d_y, gate, up);
    }
    let (mut d_gate, mut d_up) = (vec![0.0; gate.elem_count()], vec![0.0; gate.elem_count()]);
    kernel::backward(activation, &cpu_slice(d_y)?, &cpu_slice(gate)?, &cpu_slice(up)?, &mut d_gate, &mut d_up);
    Ok((from_cpu(d_gate, gate.dims())?, from_cpu(d_up, gate.dims())?))
}

/// [`backward`] in tensor operations: `d silu(g) / d g = s + g s (1 - s)` with s = sigmoid(g).
pub fn plain_backward(activation: Activation, d_y: &Tensor, gate: &Tensor, up: &Tensor) -> Result<(Tensor, Tensor)> {
    let (value, slope) = match activation {
        Activation::Silu => {
            let s = sigmoid(gate)?;
            let silu = (gate * &s)?;
            let slope = (&s + (&silu * s.affine(-1.0, 1.0)?)?)?;
            (silu, slope)
        }
        Activation::GeluTanh => (gelu::plain(gate)?, gelu::plain_slope(gate)?),
    };
    Ok((((d_y * up)? * slope)?, (d_y * value)?))
}
