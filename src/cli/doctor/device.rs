//! `--device cuda`: whether this build and this machine can train on a GPU, what is missing, and whether it computes there
//! what it computes on the CPU.

use super::Check;
use super::machine::{HAS_CUDA, n_driver_gpus};
use crate::cli::arguments::DoctorDevice;
use crate::cli::failure::CliError;
use crate::diagnostic::{Diagnostic, Diagnostics};

/// Parity and speed of the GPU, as checks.
///
/// # Errors
/// Everything that is missing.
pub(super) fn checks(device: DoctorDevice) -> Result<Vec<Check>, CliError> {
    let DoctorDevice::Cuda = device;
    let mut missing = Vec::new();
    if !HAS_CUDA {
        let message = "this build of pipe cannot use a GPU";
        missing.push(Diagnostic::new("no-cuda-build", message).help("build it with `--features cuda`"));
    }
    match n_driver_gpus() {
        None => {
            let message = "this machine has no NVIDIA driver: `/proc/driver/nvidia/gpus` is not there";
            missing.push(Diagnostic::new("no-driver", message).help("install the driver of the GPU"));
        }
        Some(0) => missing.push(Diagnostic::new("no-gpu", "the NVIDIA driver lists no GPU")),
        Some(_) => {}
    }
    if !missing.is_empty() {
        return Err(Diagnostics::new(missing, Vec::new()).into());
    }
    gpu()
}

#[cfg(feature = "cuda")]
fn gpu() -> Result<Vec<Check>, CliError> {
    use crate::registry::parity;
    let (parity, speed) = parity::measure_gpu().map_err(|error| CliError::during(&error.into()))?;
    Ok(vec![
        compared("ops", &parity.ops),
        compared("models", &parity.models),
        match parity.has_same_bits {
            true => Check::ok("bits", "losses and gradients are the same when they are computed again"),
            false => {
                let help = "training on this GPU is not reproducible to the bit: set `numerics: any` for such stages";
                Check::warning("bits", "losses and gradients differ when they are computed again", help)
            }
        },
        Check::ok(
            "speed",
            format!("products of matrices: {:.1} TFLOP/s in f32, {:.1} in bf16", speed.f32_tflops, speed.bf16_tflops),
        ),
    ])
}

#[cfg(not(feature = "cuda"))]
fn gpu() -> Result<Vec<Check>, CliError> {
    unreachable!("a build without the feature has said that it is missing")
}

/// How many were compared and the largest difference for its tolerance, or what is too far off.
#[cfg(feature = "cuda")]
fn compared(name: &'static str, comparisons: &[crate::registry::parity::Comparison]) -> Check {
    let shown = |c: &crate::registry::parity::Comparison| {
        format!("{} differs by {:.1e} of {:.0e}", c.name, c.difference, c.tolerance)
    };
    let failed: Vec<String> = comparisons.iter().filter(|c| !c.holds()).map(shown).collect();
    if failed.is_empty() {
        let share = |c: &crate::registry::parity::Comparison| c.difference / c.tolerance;
        let largest = comparisons.iter().max_by(|a, b| share(a).total_cmp(&share(b))).map(shown).unwrap_or_default();
        return Check::ok(name, format!("{} are what the CPU has; at most, {largest}", comparisons.len()));
    }
    let help =
        "results of this GPU are not those of the CPU: train on the CPU, and report this with the name of the GPU";
    Check::problem(name, format!("{} of {}: {}", failed.len(), comparisons.len(), failed.join("; ")), help)
}
