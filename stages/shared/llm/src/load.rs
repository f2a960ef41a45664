//! Artifacts of a model and an adapter to what runs them.
//!
//! ```text
//! model    config.json, or a *.gguf that says it --model_config--> ModelConfig --Program--> list --engine--> CandleEngine
//!          *.safetensors, pytorch_model*.bin, *.gguf  --weight_files--------------------------------^
//! adapter  adapter_config.json, adapter_model.safetensors --adapter--> Adapter
//! ```

use candle_core::{DType, Device};
use pipe_contract::{Artifact, StageError};
use pipe_weights::config::CONFIG;

use crate::claims;
use crate::device::TrainingDevice;
use crate::weights::{self, WeightFiles};
use crate::{Adapter, CandleEngine, Engine, LoraConfig, ModelConfig, NativeEngine, Program};

/// Longest table of rotary positions that is made: 65,536 positions of 64 channels take 16 MiB.
const POSITIONS_MAX: usize = 65_536;

/// Reads `config.json` of a `model` artifact, or what its GGUF says in place of it ([`pipe_weights::config_json`]).
///
/// # Errors
/// No such file, one that [`ModelConfig::from_json`] refuses, a GGUF that does not say all of it.
pub fn model_config(model: &Artifact) -> Result<ModelConfig, StageError> {
    let Some(text) = pipe_weights::config_json(model)? else {
        return Err(model.file(CONFIG).expect_err("there is no such file"));
    };
    let config = ModelConfig::from_json(&text)?;
    if model.get(CONFIG).is_none() {
        let check = |claim| claims::check(&config, claim);
        weight_files(model)?.claims().iter().try_for_each(check).map_err(|error| {
            let help = "its metadata does not say all of the model: put the `config.json` of the model that the GGUF was made of beside it";
            StageError::from(error).help(help)
        })?;
    }
    Ok(config)
}

/// Reads `adapter_config.json` of an `adapter` artifact.
///
/// # Errors
/// No such file, or one that [`LoraConfig::from_json`] refuses.
pub fn lora_config(adapter: &Artifact) -> Result<LoraConfig, StageError> {
    Ok(LoraConfig::from_json(&text(adapter, "adapter_config.json")?)?)
}

/// Opens the weights of a `model` artifact; data is read when asked for.
///
/// # Errors
/// As [`WeightFiles::of_model`].
pub fn weight_files(model: &Artifact) -> Result<WeightFiles, StageError> {
    Ok(WeightFiles::of_model(model)?)
}

/// An engine for `program` with the weights of `model`, computing in f32.
///
/// # Errors
/// As [`weights::load`].
pub fn engine(model: &Artifact, program: Program, device: &Device) -> Result<CandleEngine, StageError> {
    let weights = weights::load(&program, &weight_files(model)?, device)?;
    let n_positions = program.config.max_positions.min(POSITIONS_MAX);
    Ok(CandleEngine::new(program, weights, n_positions, device.clone(), DType::F32)?)
}

/// The engine that trains `program` from the weights of `model`. `device`: as [`crate::device::open`] gave it.
///
/// # Errors
/// As [`engine`].
pub fn training_engine(
    model: &Artifact,
    program: Program,
    choice: TrainingDevice,
    device: &Device,
) -> Result<Engine, StageError> {
    if !choice.is_native() {
        return Ok(engine(model, program, device)?.into());
    }
    let weights = weights::map(&program, &weight_files(model)?)?;
    let n_positions = program.config.max_positions.min(POSITIONS_MAX);
    Ok(NativeEngine::new(program, weights, n_positions)?.into())
}

/// The adapter of an `adapter` artifact on the CPU, for a model with `config`.
///
/// # Errors
/// As [`lora_config`] and [`Adapter::load`].
pub fn adapter(config: &ModelConfig, adapter: &Artifact) -> Result<Adapter, StageError> {
    let lora = lora_config(adapter)?;
    let program = Program::for_adapter(config, Some(&lora))?;
    adapter_with(lora, adapter, &program, &Device::Cpu)
}

/// The matrices of an `adapter` artifact on `device`, with the config `lora`, for the modules that `program` adapts.
///
/// # Errors
/// As [`Adapter::load`].
pub fn adapter_with(
    lora: LoraConfig,
    adapter: &Artifact,
    program: &Program,
    device: &Device,
) -> Result<Adapter, StageError> {
    Ok(Adapter::load(lora, adapter.file("adapter_model.safetensors")?, program, device)?)
}

/// An engine for `model` as it is, and the adapter to run it with, both on `device`: `None` runs the base, the adapter both.
///
/// # Errors
/// As [`engine`] and [`adapter`].
pub fn engine_and_adapter(
    model: &Artifact,
    adapter: Option<&Artifact>,
    device: &Device,
) -> Result<(CandleEngine, Option<Adapter>), StageError> {
    let config = model_config(model)?;
    let lora = adapter.map(lora_config).transpose()?;
    let engine = engine(model, Program::for_adapter(&config, lora.as_ref())?, device)?;
    let Some((artifact, lora)) = adapter.zip(lora) else { return Ok((engine, None)) };
    let adapter = adapter_with(lora, artifact, engine.program(), device)?;
    Ok((engine, Some(adapter)))
}

fn text(artifact: &Artifact, name: &str) -> Result<String, StageError> {
    let path = artifact.file(name)?;
    std::fs::read_to_string(path).map_err(|e| StageError::io("read", path, e))
}
