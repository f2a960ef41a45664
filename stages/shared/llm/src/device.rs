//! Where a model runs, and the name of what computes there.

use candle_core::Device;
use pipe_contract::Reader;

use crate::CANDLE_VERSION;
use crate::error::LlmError;

/// The setting `device:` of every stage that runs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A GPU where this build and machine have one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or an error.
    Cuda,
}

impl DeviceChoice {
    /// Reads `device` and `engine`. Both enter the fingerprint as the compute class, not as settings.
    pub fn read(reader: &mut Reader) -> Self {
        let device = reader.choice("device", "auto", &["auto", "cpu", "cuda"]);
        reader.choice("engine", "auto", &["auto", "candle"]);
        reader.not_in_key("device");
        reader.not_in_key("engine");
        match device {
            "cpu" => DeviceChoice::Cpu,
            "cuda" => DeviceChoice::Cuda,
            _ => DeviceChoice::Auto,
        }
    }
}

/// Whether this choice means a GPU in this build.
fn is_cuda(choice: DeviceChoice) -> bool {
    match choice {
        DeviceChoice::Cpu => false,
        DeviceChoice::Cuda => true,
        DeviceChoice::Auto => candle_core::utils::cuda_is_available(),
    }
}

/// The device to run on.
///
/// # Errors
/// When a GPU was asked for and there is none.
pub fn open(choice: DeviceChoice) -> Result<Device, LlmError> {
    if !is_cuda(choice) {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(0).map_err(|source| LlmError::NoCuda { source })
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
