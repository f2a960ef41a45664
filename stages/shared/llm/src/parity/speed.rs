//! How fast a device multiplies.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use crate::error::LlmError;

/// Rows and columns of the matrices: a product of 137 GFLOP fills every GPU of today.
const SIZE: usize = 4096;
const N_REPEATS: usize = 10;

/// Rates of matrix products, in TFLOP/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Of f32 matrices, in which the engine computes.
    pub f32_tflops: f64,
    /// Of bf16 matrices.
    pub bf16_tflops: f64,
}

impl Speed {
    /// Multiplies matrices of 4,096 x 4,096 ten times each; one product before them warms up.
    ///
    /// # Errors
    /// No memory for them.
    pub fn measure(device: &Device) -> Result<Self, LlmError> {
        Ok(Speed { f32_tflops: tflops(device, DType::F32)?, bf16_tflops: tflops(device, DType::BF16)? })
    }
}

fn tflops(device: &Device, dtype: DType) -> Result<f64, LlmError> {
    let matrix = || Tensor::randn(0f32, 1.0, (SIZE, SIZE), device)?.to_dtype(dtype);
    let (a, b) = (matrix()?, matrix()?);
    a.matmul(&b)?;
    device.synchronize()?;
    let started = Instant::now();
    for _ in 0..N_REPEATS {
        a.matmul(&b)?;
    }
    device.synchronize()?;
    Ok((2 * N_REPEATS * SIZE.pow(3)) as f64 / started.elapsed().as_secs_f64() / 1e12)
}
