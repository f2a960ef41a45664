//! `--device cuda`: whether this build and this machine can train on a GPU, and what is missing.

use super::machine::{HAS_CUDA, n_driver_gpus};
use crate::cli::arguments::DoctorDevice;
use crate::cli::failure::CliError;
use crate::cli::session::Session;
use crate::diagnostic::{Diagnostic, Diagnostics};

/// # Errors
/// Everything that is missing.
pub(super) fn try_out(_: &mut Session<'_>, device: DoctorDevice) -> Result<u8, CliError> {
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
    if missing.is_empty() {
        let message = "this build of pipe has no comparison of GPU and CPU to run yet";
        let help = "`pipe bench train --engine candle` measures optimizer steps on the GPU";
        missing.push(Diagnostic::new("no-parity", message).help(help));
    }
    Err(Diagnostics::new(missing, Vec::new()).into())
}
