//! Where a model runs, and the name of what computes there.

use candle_core::Device;
use pipe_contract::{ProblemKind, Reader};

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
        read_both(reader, &["auto", "candle"]).0
    }
}

/// What a stage that trains runs on: the settings `device:` and `engine:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingDevice {
    /// The setting `device:`.
    pub device: DeviceChoice,
    engine: EngineChoice,
}

/// The setting `engine:` of a stage that trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EngineChoice {
    /// The native engine on the CPU, candle on a GPU.
    Auto,
    /// Our kernels, on the CPU.
    Native,
    /// candle's tensors.
    Candle,
}

/// Of everything the native engine computes: one class on every host. The number goes up when an order of additions changes.
const NATIVE_CLASS: &str = "cpu-f32/1";

impl TrainingDevice {
    /// Reads `device` and `engine`. Both enter the fingerprint as the compute class, not as settings.
    pub fn read(reader: &mut Reader) -> Self {
        let (device, engine) = read_both(reader, &["auto", "native", "candle"]);
        let engine = match engine {
            "native" => EngineChoice::Native,
            "candle" => EngineChoice::Candle,
            _ => EngineChoice::Auto,
        };
        if device == DeviceChoice::Cuda && engine == EngineChoice::Native {
            let help = "set `engine: auto`, or `device: cpu`".to_string();
            reader.problem("engine", ProblemKind::OutOfRange, "the native engine runs on the CPU alone", Some(help));
        }
        TrainingDevice { device, engine }
    }

    /// Whether the native engine is meant.
    pub fn is_native(self) -> bool {
        match self.engine {
            EngineChoice::Native => true,
            EngineChoice::Candle => false,
            EngineChoice::Auto => !is_cuda(self.device),
        }
    }

    /// The compute class of what it trains.
    pub fn compute_class(self) -> String {
        if self.is_native() { NATIVE_CLASS.to_string() } else { compute_class(self.device) }
    }
}

fn read_both(reader: &mut Reader, engines: &[&'static str]) -> (DeviceChoice, &'static str) {
    let device = reader.choice("device", "auto", &["auto", "cpu", "cuda"]);
    let engine = reader.choice("engine", "auto", engines);
    reader.not_in_key("device");
    reader.not_in_key("engine");
    let device = match device {
        "cpu" => DeviceChoice::Cpu,
        "cuda" => DeviceChoice::Cuda,
        _ => DeviceChoice::Auto,
    };
    (device, engine)
}

/// Whether this choice means a GPU in this build.
fn is_cuda(choice: DeviceChoice) -> bool {
    match choice {
        DeviceChoice::Cpu => false,
        DeviceChoice::Cuda => true,
        DeviceChoice::Auto => candle_core::utils::cuda_is_available(),
    }
}

/// The device to run on. `gpus`: the numbers of those that may be used; the first is, and GPU 0 where none is named.
///
/// # Errors
/// When a GPU was asked for and there is none.
pub fn open(choice: DeviceChoice, gpus: &[usize]) -> Result<Device, LlmError> {
    if !is_cuda(choice) {
        return Ok(Device::Cpu);
    }
    Device::new_cuda(gpus.first().copied().unwrap_or(0)).map_err(|source| LlmError::NoCuda { source })
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
