//! Whether the candle engine computes on a device what the native engine computes on the CPU.
//!
//! ```text
//! made-up tensors  --each op-------> CPU kernels | device   relative difference
//! made-up models   --loss, gradients, 20 optimizer steps--> native on the CPU | candle on the device
//! the same once more on the device --> the same bits, or not
//! ```
//!
//! Inputs come from named streams of random numbers: the same on every machine. Nothing is read, nothing is written, and it
//! takes seconds: `pipe doctor --device cuda` is this, for whoever has a GPU. Reading order: `ops`, `models`.

mod models;
mod ops;
mod speed;

use candle_core::{DType, Device, Tensor};
use pipe_kernels::random::Stream;

use crate::device::{self, DeviceChoice};
use crate::error::LlmError;
pub use speed::Speed;

/// Two orders of adding the same f32 numbers.
const TOLERANCE: f64 = 1e-5;
/// The same over twenty optimizer steps, each of which starts where the one before ended.
const CURVE_TOLERANCE: f64 = 1e-4;

/// One thing computed twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What: `attention d_k`, `llama, adapter: gradient of model.layers.0.mlp.up_proj.A`.
    pub name: String,
    /// `|device - cpu| / |cpu|` in the L2 norm; of a curve, the largest of its losses.
    pub difference: f64,
    /// What may be.
    pub tolerance: f64,
}

impl Comparison {
    /// Whether it is close enough. A difference that is not a number is not.
    pub fn holds(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// What was found on a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Parity {
    /// Each op alone, forward and backward.
    pub ops: Vec<Comparison>,
    /// Whole models: loss, gradients, curves.
    pub models: Vec<Comparison>,
    /// Whether losses and gradients had the same bits when they were computed on the device again.
    pub has_same_bits: bool,
}

impl Parity {
    /// Compares `device` with the CPU.
    ///
    /// # Errors
    /// An operation that the device cannot do.
    pub fn measure(device: &Device) -> Result<Self, LlmError> {
        let ops = ops::compare(device)?;
        let (models, has_same_bits) = models::compare(device)?;
        Ok(Parity { ops, models, has_same_bits })
    }
}

/// Compares the first GPU with the CPU, and measures how fast it multiplies.
///
/// # Errors
/// No GPU in this build or machine; an operation that it cannot do.
pub fn measure_gpu() -> Result<(Parity, Speed), LlmError> {
    let device = device::open(DeviceChoice::Cuda, &[])?;
    Ok((Parity::measure(&device)?, Speed::measure(&device)?))
}

/// Normal numbers times `scale`, from the stream `name`.
fn random(name: &str, shape: &[usize], scale: f32) -> Result<Tensor, LlmError> {
    let stream = Stream::named(SEED, &format!("parity/{name}"));
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| scale * stream.normal(i as u64)).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

const SEED: u64 = 42;

/// `|a - b| / |b|` in the L2 norm, computed on the CPU in f64; `|a|` where b is zero.
fn relative_difference(a: &Tensor, b: &Tensor) -> Result<f64, LlmError> {
    let values = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (a, b) = (values(a)?, values(b)?);
    if a.len() != b.len() {
        return Err(LlmError::Input { why: format!("{} elements against {}", a.len(), b.len()) });
    }
    let norm = |squares: f64| libm::sqrt(squares);
    let size = norm(b.iter().map(|b| b * b).sum());
    let difference = norm(a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum());
    Ok(if size == 0.0 { difference } else { difference / size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_passes_and_repeats() {
        let parity = Parity::measure(&Device::Cpu).expect("it runs");
        let failed: Vec<&Comparison> = parity.ops.iter().chain(&parity.models).filter(|c| !c.holds()).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(parity.ops.len() > 20 && parity.models.len() > 60, "{} and {}", parity.ops.len(), parity.models.len());
        assert!(parity.has_same_bits);
    }

    #[test]
    fn what_differs_does_not_hold() {
        let comparison = |difference| Comparison { name: String::new(), difference, tolerance: TOLERANCE };
        assert!(comparison(9e-6).holds());
        assert!(!comparison(2e-5).holds());
        assert!(!comparison(f64::NAN).holds());
    }

    #[test]
    fn a_difference_is_relative_to_the_second() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).expect("a tensor");
        let difference = |a: &[f32], b: &[f32]| relative_difference(&tensor(a), &tensor(b)).expect("one shape");
        assert_eq!(difference(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(difference(&[3.0, 9.0], &[3.0, 4.0]), 1.0);
        assert_eq!(difference(&[0.5], &[0.0]), 0.5);
        assert!(difference(&[f32::NAN], &[1.0]).is_nan());
        assert!(relative_difference(&tensor(&[1.0]), &tensor(&[1.0, 2.0])).is_err());
    }
}
