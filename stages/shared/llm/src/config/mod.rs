//! A Hugging Face `config.json` as the numbers a [`crate::Program`] is built from.
//!
//! ```text
//! config.json (transformers 4 or 5)  --a reader per family-->  ModelConfig  ->  Program, tensor names and shapes
//! ```
//!
//! A field that would change the arithmetic and that we do not compute is an error that names it; a field nobody here
//! has heard of is one too, because ignoring it may be wrong. Fields known to be harmless are listed by name. A field that is absent means what it
//! means to transformers' config class of that family.
//!
//! Reading order: `fields` (the object and what was looked at), `rope` (rotary positions, all spellings), then a file per family.

mod fields;
mod gemma;
mod gpt2;
mod llama;
mod phi3;
pub mod rope;
#[cfg(test)]
mod tests;

pub use pipe_kernels::gated_mlp::Activation;
pub use rope::{Rope, RopeScaling};

use crate::error::LlmError;
use fields::Fields;

/// The families of models that have a [`crate::Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 1, 2 and 3, SmolLM, TinyLlama, XGen.
    Llama,
    /// As Llama, with a sliding window.
    Mistral,
    /// As Llama, with biases on q, k and v, and a sliding window on some layers.
    Qwen2,
    /// As Qwen2 without biases, with norms of each head's q and k.
    Qwen3,
    /// As Llama with fused q, k, v and fused gate and up; LongRoPE.
    Phi3,
    /// Norms before and after, capped scores and logits, a window on every other layer.
    Gemma2,
    /// As Gemma 2 without caps, with norms of q and k, and a rope of its own on layers with a window. Text only.
    Gemma3,
    /// Learned positions, LayerNorm, biases everywhere, matrices stored the other way round.
    Gpt2,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 8] = [
        Architecture::Llama,
        Architecture::Mistral,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::Phi3,
        Architecture::Gemma2,
        Architecture::Gemma3,
        Architecture::Gpt2,
    ];

    /// The name in `architectures`: transformers' class.
    pub fn class_name(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Mistral => "MistralForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
            Architecture::Phi3 => "Phi3ForCausalLM",
            Architecture::Gemma2 => "Gemma2ForCausalLM",
            Architecture::Gemma3 => "Gemma3ForCausalLM",
            Architecture::Gpt2 => "GPT2LMHeadModel",
        }
    }

    /// The name in `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Phi3 => "phi3",
            Architecture::Gemma2 => "gemma2",
            Architecture::Gemma3 => "gemma3_text",
            Architecture::Gpt2 => "gpt2",
        }
    }

    /// The modules that PEFT adapts where nobody says which (`peft/utils/constants.py`,
    /// `TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING`). It has none for Phi-3 and asks for a list: so do we.
    pub fn default_targets(self) -> Option<&'static [&'static str]> {
        match self {
            Architecture::Phi3 => None,
            Architecture::Gpt2 => Some(&["c_attn"]),
            _ => Some(&["q_proj", "v_proj"]),
        }
    }

    /// Whether linear modules are transformers' `Conv1D`, which stores `[in, out]`: PEFT's `fan_in_fan_out`.
    pub fn fan_in_fan_out(self) -> bool {
        self == Architecture::Gpt2
    }
}

/// What lies between a product of query and key and the softmax of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Factor of every product, positive.
    pub scale: f64,
    /// A score s becomes `cap tanh(s / cap)`.
    pub cap: Option<f64>,
    /// Tokens that a token sees, itself among them: at least 1.
    pub window: Option<usize>,
}

/// What differs between the layers of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    /// Of its attention.
    pub scores: Scores,
    /// Index into [`ModelConfig::ropes`]; `None` where positions are learned.
    pub rope: Option<usize>,
}

/// The numbers of a decoder-only model. Sizes are counts of f32 channels, tokens or layers.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Rows of the embedding (V).
    pub vocab_size: usize,
    /// Width of the residual stream (C).
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads (H).
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Channels of a head (D).
    pub head_dim: usize,
    /// Longest sequence the positions were made for, in tokens.
    pub max_positions: usize,
    /// Rotary positions, each once.
    pub ropes: Vec<Rope>,
    /// One per layer.
    pub layers: Vec<Layer>,
    /// Added to the mean square, or to the variance, in norms.
    pub norm_eps: f64,
    /// The function of the MLP.
    pub activation: Activation,
    /// Logits l become `cap tanh(l / cap)`.
    pub logit_cap: Option<f64>,
    /// Whether the head multiplies by the embedding matrix.
    pub is_tied: bool,
    /// Biases on q, k and v.
    pub has_qkv_bias: bool,
    /// Bias on o.
    pub has_o_bias: bool,
    /// Biases in the MLP.
    pub has_mlp_bias: bool,
    /// Dropout that transformers applies in training and we do not: fields with a probability above 0.
    pub dropouts: Vec<(&'static str, f64)>,
}

impl ModelConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Not JSON, an unknown architecture, a missing or unsupported field, sizes that do not fit together.
    pub fn from_json(text: &str) -> Result<Self, LlmError> {
        let mut fields = Fields::parse(text)?;
        let architecture = fields.architecture()?;
        let config = match architecture {
            Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
                llama::read(architecture, &mut fields)?
            }
            Architecture::Phi3 => phi3::read(&mut fields)?,
            Architecture::Gemma2 => gemma::read_gemma2(&mut fields)?,
            Architecture::Gemma3 => gemma::read_gemma3(&mut fields)?,
            Architecture::Gpt2 => gpt2::read(&mut fields)?,
        };
        fields.refuse_the_rest()?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), LlmError> {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.n_layers),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_positions),
        ] {
            if value == 0 {
                return Err(LlmError::config(name, "is 0"));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let why = format!("is {}, which does not divide the {} attention heads", self.n_kv_heads, self.n_heads);
            return Err(LlmError::config("num_key_value_heads", why));
        }
        if !self.ropes.is_empty() && !self.head_dim.is_multiple_of(2) {
            let why = format!("is {}; rotary positions need an even number", self.head_dim);
            return Err(LlmError::config("head_dim", why));
        }
        self.ropes.iter().try_for_each(|rope| rope.check(self.head_dim))?;
        if self.layers.iter().any(|layer| layer.scores.window == Some(0)) {
            return Err(LlmError::config("sliding_window", "is 0, so that a token would not see itself"));
        }
        if self.layers.iter().any(|layer| !(layer.scores.scale.is_finite() && layer.scores.scale > 0.0)) {
            return Err(LlmError::config("query_pre_attn_scalar", "is not a number above 0"));
        }
        Ok(())
    }

    /// Width of q: heads times channels.
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of k and of v.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }
}

/// Sizes that most families name alike.
struct Sizes {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    max_positions: usize,
}

impl Sizes {
    /// `default_head_dim`: of a config that does not say; otherwise `hidden_size` is cut into heads.
    fn read(fields: &mut Fields, default_head_dim: Option<usize>) -> Result<Self, LlmError> {
        let hidden_size = fields.required_size("hidden_size")?;
        let n_heads = fields.required_size("num_attention_heads")?;
        let head_dim = match fields.size("head_dim")?.or(default_head_dim) {
            Some(head_dim) => head_dim,
            None => channels_of_a_head(("num_attention_heads", n_heads), ("hidden_size", hidden_size))?,
        };
        Ok(Sizes {
            vocab_size: fields.required_size("vocab_size")?,
            hidden_size,
            intermediate_size: fields.required_size("intermediate_size")?,
            n_layers: fields.required_size("num_hidden_layers")?,
            n_heads,
            n_kv_heads: fields.size("num_key_value_heads")?.unwrap_or(n_heads),
            head_dim,
            max_positions: fields.required_size("max_position_embeddings")?,
        })
    }

    /// `1 / sqrt(D)`, no cap, no window.
    fn scores(&self) -> Scores {
        Scores { scale: 1.0 / libm::sqrt(self.head_dim as f64), cap: None, window: None }
    }

    /// A model of these sizes that is plain in all else: no positions, caps, windows or biases, a head of its own, SiLU.
    fn plain(&self, architecture: Architecture) -> ModelConfig {
        ModelConfig {
            architecture,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            max_positions: self.max_positions,
            ropes: vec![],
            layers: vec![Layer { scores: self.scores(), rope: None }; self.n_layers],
            norm_eps: 1e-6,
            activation: Activation::Silu,
            logit_cap: None,
            is_tied: false,
            has_qkv_bias: false,
            has_o_bias: false,
            has_mlp_bias: false,
            dropouts: vec![],
        }
    }
}

fn channels_of_a_head((heads, n_heads): (&str, usize), (size, width): (&str, usize)) -> Result<usize, LlmError> {
    if n_heads == 0 || !width.is_multiple_of(n_heads) {
        return Err(LlmError::config(heads, format!("is {n_heads}, which does not divide {size} {width}")));
    }
    Ok(width / n_heads)
}

/// Per layer, whether its attention has a window: `layer_types`, or `default` of the layer's index.
fn windowed_layers(
    fields: &mut Fields,
    n_layers: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, LlmError> {
    let name = "layer_types";
    let Some(value) = fields.take(name) else { return Ok((0..n_layers).map(default).collect()) };
    let Some(types) = value.as_array() else {
        return Err(LlmError::config(name, format!("is `{value}`, not a list")));
    };
    if types.len() != n_layers {
        return Err(LlmError::config(name, format!("has {} entries for {n_layers} layers", types.len())));
    }
    let is_windowed = |kind: &serde_json::Value| match kind.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(LlmError::config(name, format!("has {kind}; `full_attention` and `sliding_attention` are supported"))),
    };
    types.iter().map(is_windowed).collect()
}

/// Dropout outside of the adapter: the fields that are not 0.
fn dropouts(fields: &mut Fields, names: &[&'static str]) -> Result<Vec<(&'static str, f64)>, LlmError> {
    let mut found = Vec::new();
    for &name in names {
        match fields.number(name)? {
            Some(probability) if !(0.0..1.0).contains(&probability) => {
                return Err(LlmError::config(name, format!("is {probability}, not in [0, 1)")));
            }
            Some(probability) if probability > 0.0 => found.push((name, probability)),
            _ => {}
        }
    }
    Ok(found)
}
