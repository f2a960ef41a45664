//! Where training runs, and the name of what computes there.

use candle_core::Device;
use pipe_llm::CANDLE_VERSION;

use crate::error::TrainError;
use crate::settings::DeviceChoice;

/// Whether this choice means a GPU in this build.
fn is_cuda(choice: DeviceChoice) -> bool {
    match choice {
        DeviceChoice::Cpu => false,
        DeviceChoice::Cuda => true,
        DeviceChoice::Auto => candle_core::utils::cuda_is_available(),
    }
}

/// The device to train on.
///
/// # Errors
/// When a GPU was asked for and there is none.
pub fn open(choice: DeviceChoice) -> Result<Device, TrainError> {
    if !is_cuda(choice) {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(0).map_err(|source| TrainError::NoCuda { source })
}

/// The compute class: library, version, and the instruction set its matrix products pick at run time.
pub fn compute_class(choice: DeviceChoice) -> String {
    let hardware = if is_cuda(choice) { "cuda" } else { cpu_isa() };
    format!("candle-{CANDLE_VERSION}/{hardware}")
}

#[cfg(target_arch = "x86_64")]
fn cpu_isa() -> &'static str {
    if std::arch::is_x86_feature_detected!("avx512f") {
        "cpu-avx512"
    } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        "cpu-avx2"
    } else {
        "cpu-x86-64"
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_isa() -> &'static str {
    "cpu-generic"
}
