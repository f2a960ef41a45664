//! An adapter added into its base: `W' = W + scale B A` in f32, cast once.
//!
//! Row by row, products before sums, no fused multiply-add: the same bytes on every machine, whatever it trains with. A weight that is stored as `[in, out]`
//! gets the update's transpose.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::adapter::{Adapter, LoraModule};
use crate::error::LlmError;
use crate::program::Layout;

/// A module's low-rank update on the host: `left right`, (rows, r) times (r, columns) of the stored weight.
pub struct Update {
    scale: f32,
    lora_rank: usize,
    n_columns: usize,
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Update {
    /// The update of one module of `adapter`, whose weight is stored as `layout` says.
    ///
    /// # Errors
    /// When a tensor cannot be read back from its device.
    pub fn new(adapter: &Adapter, module: &LoraModule, layout: Layout) -> Result<Self, LlmError> {
        let (left, right) = match layout {
            Layout::OutIn => (module.b.clone(), module.a.clone()),
            Layout::InOut => (module.a.t()?, module.b.t()?),
        };
        let (lora_rank, n_columns) = right.dims2()?;
        let host = |tensor: &candle_core::Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let scale = adapter.config.scale() as f32;
        Ok(Update { scale, lora_rank, n_columns, left: host(&left)?, right: host(&right)? })
    }

    /// Adds the update to `weight`, f32, as it is stored.
    pub fn add_to(&self, weight: &mut [f32]) {
        assert_eq!(
            weight.len() * self.lora_rank,
            self.left.len() * self.n_columns,
            "the weight has the update's shape"
        );
        let rows = weight.par_chunks_mut(self.n_columns).zip(self.left.par_chunks(self.lora_rank));
        rows.for_each(|(row, left)| {
            let mut delta = vec![0.0f32; self.n_columns];
            for (left, right) in left.iter().zip(self.right.chunks(self.n_columns)) {
                delta.iter_mut().zip(right).for_each(|(sum, right)| *sum += left * right);
            }
            row.iter_mut().zip(&delta).for_each(|(w, d)| *w += self.scale * d);
        });
    }
}

/// Bytes of F32, F16 or BF16 to f32: exact.
///
/// # Errors
/// Another dtype.
pub fn to_f32(bytes: &[u8], dtype: Dtype) -> Result<Vec<f32>, LlmError> {
    Ok(match dtype {
        Dtype::F32 => bytes.par_chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
        Dtype::F16 => bytes.par_chunks_exact(2).map(|c| f16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
        Dtype::BF16 => bytes.par_chunks_exact(2).map(|c| bf16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
        other => return Err(unsupported(other)),
    })
}

/// f32 to bytes of F32, F16 or BF16, rounded to nearest, ties to even.
///
/// # Errors
/// Another dtype; a finite number that `dtype` has no finite number for.
pub fn from_f32(values: &[f32], dtype: Dtype) -> Result<Vec<u8>, LlmError> {
    let overflows = |x: &f32| x.is_finite() && dtype == Dtype::F16 && f16::from_f32(*x).is_infinite();
    if let Some(value) = values.iter().find(|x| overflows(x)) {
        return Err(LlmError::Input { why: format!("{value} does not fit into float16; use bfloat16 or float32") });
    }
    Ok(match dtype {
        Dtype::F32 => values.par_iter().flat_map_iter(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => values.par_iter().flat_map_iter(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        Dtype::BF16 => values.par_iter().flat_map_iter(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        other => return Err(unsupported(other)),
    })
}

fn unsupported(dtype: Dtype) -> LlmError {
    LlmError::Input { why: format!("tensors of {dtype:?} are not supported; F32, F16 and BF16 are") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_adds_scaled_b_a() {
        // B (2, 1) = [1, 2], A (1, 3) = [1, 2, 3], scale 0.5.
        let update =
            Update { scale: 0.5, lora_rank: 1, n_columns: 3, left: vec![1.0, 2.0], right: vec![1.0, 2.0, 3.0] };
        let mut weight = vec![10.0; 6];
        update.add_to(&mut weight);
        assert_eq!(weight, [10.5, 11.0, 11.5, 11.0, 12.0, 13.0]);
    }

    #[test]
    fn casts_round_once_and_back_exactly() {
        let values = [1.0f32, -0.0, 1.0 + 1.0 / 512.0, 3.3e38, f32::INFINITY];
        let bytes = from_f32(&values, Dtype::BF16).expect("fits");
        // 1 + 2^-9 lies between 1 and 1 + 2^-7: down, as a tie goes to even.
        assert_eq!(to_f32(&bytes, Dtype::BF16).expect("bf16")[..3], [1.0, -0.0, 1.0]);
        assert!(from_f32(&values, Dtype::F16).expect_err("too large").to_string().contains("float16"));
        assert_eq!(to_f32(&from_f32(&values, Dtype::F32).expect("f32"), Dtype::F32).expect("f32"), values);
    }
}
