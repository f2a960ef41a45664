//! Rows of an embedding matrix: token ids or positions to (T, C), scaled in some models.

use candle_core::{DType, Result, Tensor};
use half::{bf16, f16};

/// weight: (V, C) in any dtype; ids: (T) u32 below V. Returns (T, C) in `dtype`, before it is [`scaled`].
pub fn forward(weight: &Tensor, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    weight.index_select(ids, 0)?.to_dtype(dtype)
}

/// rows: (T, C), times `scale` where there is one.
pub fn scaled(rows: Tensor, scale: Option<f64>) -> Result<Tensor> {
    scale.map_or_else(|| Ok(rows.clone()), |scale| &rows * scale)
}

/// d_y: (T, C) to the weight's gradient (V, C): a row is the sum over the tokens that have its id.
pub fn weight_gradient(d_y: &Tensor, ids: &Tensor, scale: Option<f64>, n_rows: usize) -> Result<Tensor> {
    let zeros = Tensor::zeros((n_rows, d_y.dims2()?.1), d_y.dtype(), d_y.device())?;
    scaled(zeros.index_add(ids, d_y, 0)?, scale)
}

/// A scale as transformers has it: a number of the dtype that the weight is stored in. sqrt(2304) is 48 in any, sqrt(3072) is 55.5 in bf16.
pub fn rounded_scale(scale: f64, stored: DType) -> f64 {
    match stored {
        DType::BF16 => bf16::from_f64(scale).to_f64(),
        DType::F16 => f16::from_f64(scale).to_f64(),
        _ => f64::from(scale as f32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_has_the_dtype_of_its_weight() {
        let scale = libm::sqrt(3072.0);
        assert_eq!(rounded_scale(scale, DType::BF16), 55.5);
        assert_eq!(rounded_scale(scale, DType::F16), 55.4375);
        assert_eq!(rounded_scale(scale, DType::F32), f64::from(55.425_626_f32));
        assert_eq!(rounded_scale(48.0, DType::BF16), 48.0);
    }
}
