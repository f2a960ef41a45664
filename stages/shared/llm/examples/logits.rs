//! Writes the logits that `pipe` computes for a model folder with an adapter folder, for `scripts/check_peft.py`.
//!
//! ```text
//! cargo run -p pipe-llm --example logits -- MODEL_DIR ADAPTER_DIR OUT.safetensors
//! ```
//!
//! The tokens are made up: 64 ids spread over the vocabulary. OUT holds `input_ids` (1, T) int64 and `logits` (T, V) f32.

use std::error::Error;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use pipe_contract::{Artifact, ArtifactKind};
use pipe_llm::{Adapter, CandleEngine, LoraConfig, ModelConfig, Program, Sequence, load, weights};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, adapter, out] = arguments.as_slice() else {
        return Err("usage: logits MODEL_DIR ADAPTER_DIR OUT.safetensors".into());
    };
    let config = ModelConfig::from_json(&std::fs::read_to_string(model.join("config.json"))?)?;
    let lora = LoraConfig::from_json(&std::fs::read_to_string(adapter.join("adapter_config.json"))?)?;
    let program = Program::for_adapter(&config, Some(&lora))?;
    let files = load::weight_files(&Artifact::from_folder(ArtifactKind::Model, model)?)?;
    let weights = weights::load(&program, &files, &Device::Cpu)?;
    let engine = CandleEngine::new(program, weights, config.max_positions, Device::Cpu, DType::F32)?;
    let adapter = Adapter::load(lora, &adapter.join("adapter_model.safetensors"), engine.program(), &Device::Cpu)?;
    let vocab_size = u32::try_from(config.vocab_size)?;
    let ids: Vec<u32> = (0..64).map(|t| (t * t * 31 + t * 7 + 3) % vocab_size).collect();
    let logits = engine.logits(Some(&adapter), &Sequence::plain(&config, &ids)?)?;
    let input_ids = Tensor::new(ids.as_slice(), &Device::Cpu)?.to_dtype(DType::I64)?.unsqueeze(0)?;
    let tensors = [("input_ids".to_string(), input_ids), ("logits".to_string(), logits)];
    candle_core::safetensors::save(&tensors.into_iter().collect(), out)?;
    Ok(())
}
