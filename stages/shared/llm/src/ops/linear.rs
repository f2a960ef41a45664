//! A linear module, and the low-rank part of an adapter on it (LoRA, arXiv 2106.09685, eq. 3).
//!
//! ```text
//! y = x W^T + b + scale (drop(x) A^T) B^T        W: (out, in)   A: (r, in)   B: (out, r)
//! ```
//!
//! The backward is `d_x = d_y W`; where the weight is trained itself, `d_W = d_y^T x` and `d_b = sum over tokens of d_y`.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

/// x: (T, in), weight: (out, in) in any dtype, bias: (out). Returns (T, out).
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&widen(weight, x.dtype())?.t()?)?;
    match bias {
        None => Ok(y),
        Some(bias) => y.broadcast_add(&widen(bias, x.dtype())?),
    }
}

/// d_y: (T, out) to d_x (T, in).
pub fn backward(d_y: &Tensor, weight: &Tensor) -> Result<Tensor> {
    d_y.matmul(&widen(weight, d_y.dtype())?)
}

/// d_y: (T, out), x: (T, in) to the weight's gradient (out, in).
pub fn weight_gradient(d_y: &Tensor, x: &Tensor) -> Result<Tensor> {
    d_y.t()?.matmul(x)
}

/// d_y: (T, out) to the bias's gradient (out).
pub fn bias_gradient(d_y: &Tensor) -> Result<Tensor> {
    d_y.sum(0)
}

/// The two matrices of an adapted module.
#[derive(Clone, Copy)]
pub struct LowRank<'t> {
    /// A: (r, in).
    pub a: &'t Tensor,
    /// B: (out, r).
    pub b: &'t Tensor,
    /// alpha / r, or alpha / sqrt(r) for rsLoRA.
    pub scale: f64,
}

/// x: (T, in), after dropout. Returns `scale (x A^T) B^T` (T, out) and `h = x A^T` (T, r), which the backward needs.
pub fn low_rank_forward(x: &Tensor, low_rank: LowRank<'_>) -> Result<(Tensor, Tensor)> {
    let h = x.matmul(&low_rank.a.t()?)?;
    let y = (h.matmul(&low_rank.b.t()?)? * low_rank.scale)?;
    Ok((y, h))
}

/// Gradients of [`low_rank_forward`].
pub struct LowRankGradients {
    /// (T, in), before the backward of dropout; only if it was asked for.
    pub d_x: Option<Tensor>,
    /// (r, in).
    pub d_a: Tensor,
    /// (out, r).
    pub d_b: Tensor,
}

/// d_y: (T, out), x and h as in the forward. With `d_h = scale d_y B`: `d_b = scale d_y^T h`, `d_a = d_h^T x`, `d_x = d_h A`.
pub fn low_rank_backward(
    d_y: &Tensor,
    x: &Tensor,
    h: &Tensor,
    low_rank: LowRank<'_>,
    wants_d_x: bool,
) -> Result<LowRankGradients> {
    let d_y = (d_y * low_rank.scale)?;
    let d_h = d_y.matmul(low_rank.b)?;
    Ok(LowRankGradients {
        d_b: d_y.t()?.matmul(h)?,
        d_a: d_h.t()?.matmul(x)?,
        d_x: if wants_d_x { Some(d_h.matmul(low_rank.a)?) } else { None },
    })
}

/// `weight` in the dtype of the arithmetic. bf16 and f16 on the CPU are widened to f32 in parallel: exact, and a copy of
/// one matrix that lives as long as the product.
pub fn widen(weight: &Tensor, dtype: DType) -> Result<Tensor> {
    if weight.dtype() == dtype || !weight.device().is_cpu() || dtype != DType::F32 {
        return weight.to_dtype(dtype);
    }
    let (storage, layout) = weight.storage_and_layout();
    let values: Option<Vec<f32>> = match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::BF16(data)), Some((start, end))) => {
            Some(data[start..end].par_iter().with_min_len(1 << 14).map(|x: &bf16| x.to_f32()).collect())
        }
        (Storage::Cpu(CpuStorage::F16(data)), Some((start, end))) => {
            Some(data[start..end].par_iter().with_min_len(1 << 14).map(|x: &f16| x.to_f32()).collect())
        }
        _ => None,
    };
    match values {
        Some(values) => Tensor::from_vec(values, weight.dims(), &Device::Cpu),
        None => weight.to_dtype(dtype),
    }
}
