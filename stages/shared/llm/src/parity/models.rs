//! Whole models: the native engine on the CPU against the candle engine on the device.

use candle_core::{DType, Device, Tensor};

use super::{CURVE_TOLERANCE, Comparison, SEED, TOLERANCE, random, relative_difference};
use crate::adapter::{Adapter, EMBEDDING, HEAD, LoraConfig, TokenIndices};
use crate::config::ModelConfig;
use crate::engine::native::Weight;
use crate::engine::{CandleEngine, DropoutKey, Engine, NativeEngine, Sums};
use crate::error::LlmError;
use crate::optimizer::AdamWSettings;
use crate::program::{Program, TrainedTokens};
use crate::schedule::{Schedule, ScheduleType};
use crate::sequence::Sequence;
use crate::trainer::{Trained, Trainer};

/// Grouped key and value heads; a tied head in the first, biases in the second; norms around, window, caps and a scaled embedding in the third;
/// fused matrices and LongRoPE in the fourth; learned positions, LayerNorm and matrices of the other layout in the fifth.
const CONFIGS: [(&str, &str); 5] = [
    (
        "llama",
        r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 211, "hidden_size": 60, "intermediate_size": 100,
            "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true}"#,
    ),
    (
        "qwen2",
        r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 211, "hidden_size": 48, "intermediate_size": 80,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu", "tie_word_embeddings": false}"#,
    ),
    (
        "gemma2",
        r#"{"architectures": ["Gemma2ForCausalLM"], "vocab_size": 211, "hidden_size": 48, "intermediate_size": 80,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
            "head_dim": 10, "query_pre_attn_scalar": 12, "sliding_window": 19, "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0}"#,
    ),
    (
        "phi3",
        r#"{"architectures": ["Phi3ForCausalLM"], "vocab_size": 211, "hidden_size": 48, "intermediate_size": 80,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
            "original_max_position_embeddings": 50, "partial_rotary_factor": 0.5, "rope_scaling": {"type": "longrope",
            "short_factor": [1.0, 1.5, 2.0], "long_factor": [1.2, 3.0, 9.0]}}"#,
    ),
    (
        "gpt2",
        r#"{"architectures": ["GPT2LMHeadModel"], "vocab_size": 211, "n_embd": 48, "n_inner": 80, "n_layer": 2, "n_head": 4,
            "n_positions": 128}"#,
    ),
];
/// Of what transformers starts a model with: large enough that attention is not flat.
const WEIGHT_SCALE: f32 = 0.1;
const DROPOUT: f64 = 0.1;
/// Tokens that an adapter has rows of.
const TOKENS: [u32; 3] = [5, 2, 11];
const N_STEPS: u64 = 20;
/// Tokens of a pack, in documents of three lengths.
const DOCUMENT_LENGTHS: [usize; 3] = [41, 1, 58];
const SETTINGS: AdamWSettings =
    AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 };

/// Comparisons of all models, trained by an adapter and in full, and whether the device repeats its bits.
pub(super) fn compare(device: &Device) -> Result<(Vec<Comparison>, bool), LlmError> {
    let mut comparisons = Vec::new();
    let mut has_same_bits = true;
    for (family, text) in CONFIGS {
        let config = ModelConfig::from_json(text)?;
        let targets = Program::all_linear(&config);
        let adapter = Program::new(&config, &targets)?;
        let indices = [EMBEDDING, HEAD].map(|name| (name.to_string(), TOKENS.to_vec()));
        let tokens = Program::new(&config, &targets)?.with_tokens(&indices.into())?;
        let full = Program::full(&config, &[])?;
        for (what, program) in [("adapter", adapter), ("adapter with tokens", tokens), ("full", full)] {
            let case = Case { name: format!("{family}, {what}"), program, device };
            has_same_bits &= case.compare(&mut comparisons)?;
        }
    }
    Ok((comparisons, has_same_bits))
}

/// A model and what of it is trained.
struct Case<'d> {
    name: String,
    program: Program,
    device: &'d Device,
}

impl Case<'_> {
    fn compare(&self, comparisons: &mut Vec<Comparison>) -> Result<bool, LlmError> {
        let packs = self.packs(0)?;
        let cpu = self.sums(&self.native()?, &Device::Cpu, &packs)?;
        let (candle, again) = (self.candle()?, self.candle()?);
        let (candle, again) = (self.sums(&candle, self.device, &packs)?, self.sums(&again, self.device, &packs)?);
        let mut add = |what: &str, difference, tolerance| {
            comparisons.push(Comparison { name: format!("{}: {what}", self.name), difference, tolerance });
        };
        add("loss", (candle.loss / cpu.loss - 1.0).abs(), TOLERANCE);
        let names = self.program.adapted.iter().flat_map(|m| ["A", "B"].map(|matrix| format!("{}.{matrix}", m.path)));
        let tokens = self.program.tokens.iter().map(|tokens| format!("tokens of {}", tokens.path));
        let trained = self.program.trained.iter().map(|&weight| self.program.weights[weight].name.clone());
        for (name, (ours, theirs)) in
            names.chain(tokens).chain(trained).zip(candle.gradients.iter().zip(&cpu.gradients))
        {
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                add(&format!("no gradient of {name}"), f64::INFINITY, TOLERANCE);
                continue;
            };
            let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu);
            let difference = relative_difference(&tensor(ours)?, &tensor(theirs)?)?;
            add(&format!("gradient of {name}"), difference, TOLERANCE);
        }
        let (ours, theirs) = (self.curve(self.candle()?, self.device)?, self.curve(self.native()?, &Device::Cpu)?);
        let largest = ours.iter().zip(&theirs).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        add(&format!("losses of {N_STEPS} optimizer steps"), largest, CURVE_TOLERANCE);
        Ok(bits(&candle) == bits(&again))
    }

    /// Weights of norms 1 with a little noise, everything else normal; matrices in bf16, as models are stored.
    fn weights(&self, device: &Device) -> Result<Vec<Tensor>, LlmError> {
        let weight = |spec: &crate::program::WeightSpec| -> Result<Tensor, LlmError> {
            let tensor = random(&spec.name, &spec.shape, WEIGHT_SCALE)?;
            let is_norm = spec.shape.len() == 1 && !spec.name.ends_with("bias");
            let tensor = if is_norm { (tensor + 1.0)? } else { tensor };
            let tensor = if spec.shape.len() > 1 { tensor.to_dtype(DType::BF16)? } else { tensor };
            Ok(tensor.to_device(device)?)
        };
        self.program.weights.iter().map(weight).collect()
    }

    fn native(&self) -> Result<Engine, LlmError> {
        let weights = self.weights(&Device::Cpu)?.into_iter().map(Weight::Tensor).collect();
        Ok(NativeEngine::new(self.program.clone(), weights, self.program.config.max_positions)?.into())
    }

    fn candle(&self) -> Result<Engine, LlmError> {
        let (program, weights) = (self.program.clone(), self.weights(self.device)?);
        let n_positions = program.config.max_positions;
        Ok(CandleEngine::new(program, weights, n_positions, self.device.clone(), DType::F32)?.into())
    }

    /// `None` where the weights are trained. B is not zero, so that A has a gradient.
    fn adapter(&self, device: &Device) -> Result<Option<Adapter>, LlmError> {
        if self.program.adapted.is_empty() {
            return Ok(None);
        }
        let config = LoraConfig {
            lora_rank: 5,
            lora_alpha: 10.0,
            lora_dropout: DROPOUT,
            use_rslora: false,
            target_modules: Program::all_linear(&self.program.config),
            trainable_token_indices: TokenIndices::new(),
            fan_in_fan_out: false,
            base_model: None,
            revision: None,
        };
        let rows = |tokens: &TrainedTokens| -> Result<Vec<f32>, LlmError> {
            let shape = [tokens.ids.len(), self.program.config.hidden_size];
            Ok(random(&format!("{}.tokens", tokens.path), &shape, WEIGHT_SCALE)?.flatten_all()?.to_vec1()?)
        };
        let rows = self.program.tokens.iter().map(rows).collect::<Result<_, LlmError>>()?;
        let mut adapter = Adapter::fresh(config, &self.program, rows, SEED, device)?;
        for module in &mut adapter.modules {
            module.b = random(&module.path, module.b.dims(), WEIGHT_SCALE)?.to_device(device)?;
        }
        Ok(Some(adapter))
    }

    /// Two packs of random ids, the second half of every document supervised.
    fn packs(&self, step_idx: u64) -> Result<Vec<Sequence>, LlmError> {
        let pack = |pack_idx: u64| {
            let stream = pipe_kernels::random::Stream::named(SEED, &format!("parity/ids/{step_idx}/{pack_idx}"));
            let (mut labels, mut positions, mut documents) = (Vec::new(), Vec::new(), Vec::new());
            let n_tokens: usize = DOCUMENT_LENGTHS.iter().sum();
            let vocab_size = self.program.config.vocab_size as f32;
            let ids: Vec<u32> = (0..n_tokens as u64).map(|i| (stream.uniform(i) * vocab_size) as u32).collect();
            for (document_idx, length) in DOCUMENT_LENGTHS.into_iter().enumerate() {
                for position in 0..length {
                    let id = ids[labels.len()] as i32;
                    labels.push(if 2 * position >= length { id } else { -100 });
                    positions.push(position as u32);
                    documents.push(document_idx as u32);
                }
            }
            Sequence::new(&self.program.config, &ids, &labels, &positions, &documents)
        };
        (0..2).map(pack).collect()
    }

    fn sums(&self, engine: &Engine, device: &Device, packs: &[Sequence]) -> Result<Sums, LlmError> {
        let adapter = self.adapter(device)?;
        let key = DropoutKey { seed: SEED, optimizer_step: 3, probability: DROPOUT };
        engine.sums::<LlmError>(adapter.as_ref(), packs, adapter.as_ref().map(|_| key), |_| Ok(()))
    }

    fn curve(&self, engine: Engine, device: &Device) -> Result<Vec<f64>, LlmError> {
        let trained = self.adapter(device)?.map_or(Trained::Weights, Trained::Adapter);
        let schedule =
            Schedule { schedule_type: ScheduleType::Linear, peak: 2e-3, n_warmup_steps: 3, n_steps: N_STEPS };
        let mut trainer = Trainer::new(engine, trained, SETTINGS, schedule, SEED);
        (0..N_STEPS).map(|step_idx| Ok(trainer.step::<LlmError>(&self.packs(step_idx)?, |_| Ok(()))?.loss)).collect()
    }
}

fn bits(sums: &Sums) -> (u64, Vec<Option<Vec<u32>>>) {
    let bits = |gradient: &Option<Vec<f32>>| Some(gradient.as_ref()?.iter().map(|x| x.to_bits()).collect());
    (sums.loss.to_bits(), sums.gradients.iter().map(bits).collect())
}
