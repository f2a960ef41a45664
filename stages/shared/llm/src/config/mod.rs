//! A Hugging Face `config.json` as the numbers a [`crate::Program`] is built from.
//!
//! ```text
//! config.json (transformers 4 or 5)  ->  ModelConfig  ->  Program, tensor names and shapes
//! ```
//!
//! A field that would change the arithmetic and that we do not compute is an error that names it; a field nobody here
//! has heard of is one too, because ignoring it may be wrong. Fields known to be harmless are listed by name.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::LlmError;

/// The families of models that have a [`crate::Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// `LlamaForCausalLM`: Llama 1 and 2, SmolLM, TinyLlama, XGen.
    Llama,
    /// `Qwen2ForCausalLM`: as Llama, with biases on q, k and v.
    Qwen2,
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
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads (H).
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Channels of a head (D), even.
    pub head_dim: usize,
    /// Longest sequence the positions were made for, in tokens.
    pub max_positions: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the head multiplies by the embedding matrix.
    pub is_tied: bool,
    /// Biases on q, k and v.
    pub has_qkv_bias: bool,
    /// Bias on o.
    pub has_o_bias: bool,
    /// Biases in the MLP.
    pub has_mlp_bias: bool,
}

/// Fields that do not change what a forward or backward pass computes, or whose values are checked elsewhere.
const HARMLESS: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict",
    "sliding_window",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
    "return_dict_in_generate",
];

impl ModelConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Not JSON, an unknown architecture, a missing or unsupported field, sizes that do not fit together.
    pub fn from_json(text: &str) -> Result<Self, LlmError> {
        let value: Value = serde_json::from_str(text).map_err(|source| LlmError::ConfigSyntax { source })?;
        let Value::Object(map) = value else { return Err(LlmError::config("", "is not a JSON object")) };
        let mut fields = Fields { map: map.into_iter().collect(), seen: Vec::new() };
        let architecture = fields.architecture()?;
        let config = fields.read(architecture)?;
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
        if !self.head_dim.is_multiple_of(2) {
            return Err(LlmError::config(
                "head_dim",
                format!("is {}; rotary positions need an even number", self.head_dim),
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(LlmError::config("rope_theta", format!("is {}", self.rope_theta)));
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

/// Name and shape of every weight of the model, as Hugging Face stores them: `[out, in]`, in the order of the forward pass.
pub fn tensor_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (c, i, q, kv) = (config.hidden_size, config.intermediate_size, config.q_width(), config.kv_width());
    let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![config.vocab_size, c])];
    for layer_idx in 0..config.n_layers {
        let prefix = format!("model.layers.{layer_idx}");
        let mut linear = |module: &str, out: usize, input: usize, has_bias: bool| {
            shapes.push((format!("{prefix}.{module}.weight"), vec![out, input]));
            if has_bias {
                shapes.push((format!("{prefix}.{module}.bias"), vec![out]));
            }
        };
        linear("self_attn.q_proj", q, c, config.has_qkv_bias);
        linear("self_attn.k_proj", kv, c, config.has_qkv_bias);
        linear("self_attn.v_proj", kv, c, config.has_qkv_bias);
        linear("self_attn.o_proj", c, q, config.has_o_bias);
        linear("mlp.gate_proj", i, c, config.has_mlp_bias);
        linear("mlp.up_proj", i, c, config.has_mlp_bias);
        linear("mlp.down_proj", c, i, config.has_mlp_bias);
        shapes.push((format!("{prefix}.input_layernorm.weight"), vec![c]));
        shapes.push((format!("{prefix}.post_attention_layernorm.weight"), vec![c]));
    }
    shapes.push(("model.norm.weight".to_string(), vec![c]));
    if !config.is_tied {
        shapes.push(("lm_head.weight".to_string(), vec![config.vocab_size, c]));
    }
    shapes
}

/// The fields of a config with a note of which were looked at.
struct Fields {
    map: BTreeMap<String, Value>,
    seen: Vec<&'static str>,
}

impl Fields {
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.seen.push(name);
        self.map.get(name).filter(|v| !v.is_null()).cloned()
    }

    fn size(&mut self, name: &'static str) -> Result<Option<usize>, LlmError> {
        self.take(name)
            .map(|value| {
                let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
                number.ok_or_else(|| LlmError::config(name, format!("is `{value}`, not a whole number")))
            })
            .transpose()
    }

    fn required_size(&mut self, name: &'static str) -> Result<usize, LlmError> {
        self.size(name)?.ok_or_else(|| LlmError::config(name, "is missing"))
    }

    fn number(&mut self, name: &'static str) -> Result<Option<f64>, LlmError> {
        self.take(name)
            .map(|value| value.as_f64().ok_or_else(|| LlmError::config(name, format!("is `{value}`, not a number"))))
            .transpose()
    }

    fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, LlmError> {
        self.take(name).map_or(Ok(default), |value| {
            value.as_bool().ok_or_else(|| LlmError::config(name, format!("is `{value}`, not true or false")))
        })
    }

    /// `name` may only be absent or `only`: anything else would change the arithmetic.
    fn only(&mut self, name: &'static str, only: &Value) -> Result<(), LlmError> {
        match self.take(name) {
            Some(value) if !same(&value, only) => {
                Err(LlmError::config(name, format!("is `{value}`; only `{only}` is supported")))
            }
            _ => Ok(()),
        }
    }

    fn architecture(&mut self) -> Result<Architecture, LlmError> {
        let named =
            self.take("architectures").and_then(|v| v.as_array().and_then(|a| a.first()?.as_str().map(str::to_string)));
        let model_type = self.take("model_type").and_then(|v| v.as_str().map(str::to_string));
        let known = |name: &str| match name {
            "LlamaForCausalLM" | "llama" => Ok(Architecture::Llama),
            "Qwen2ForCausalLM" | "qwen2" => Ok(Architecture::Qwen2),
            _ => Err(LlmError::UnknownArchitecture { name: name.to_string() }),
        };
        match (named.as_deref(), model_type.as_deref()) {
            (None, None) => Err(LlmError::config("architectures", "is missing")),
            (Some(name), None) | (None, Some(name)) => known(name),
            // transformers goes by either, so both must say the same.
            (Some(name), Some(model_type)) => match (known(name)?, known(model_type)?) {
                (one, other) if one == other => Ok(one),
                _ => {
                    Err(LlmError::config("model_type", format!("is `{model_type}`, but `architectures` says `{name}`")))
                }
            },
        }
    }

    fn read(&mut self, architecture: Architecture) -> Result<ModelConfig, LlmError> {
        self.only("hidden_act", &Value::from("silu"))?;
        self.only("pretraining_tp", &Value::from(1))?;
        self.only("attention_dropout", &Value::from(0.0))?;
        self.only("rope_interleaved", &Value::from(false))?;
        self.only("partial_rotary_factor", &Value::from(1.0))?;
        let is_qwen2 = architecture == Architecture::Qwen2;
        if is_qwen2 {
            self.only("use_sliding_window", &Value::from(false))?;
            self.full_attention_only()?;
        }
        let attention_bias = if is_qwen2 { false } else { self.flag("attention_bias", false)? };
        let has_mlp_bias = if is_qwen2 { false } else { self.flag("mlp_bias", false)? };
        let hidden_size = self.required_size("hidden_size")?;
        let n_heads = self.required_size("num_attention_heads")?;
        let head_dim = self.size("head_dim")?;
        if head_dim.is_none() && (n_heads == 0 || !hidden_size.is_multiple_of(n_heads)) {
            let why = format!("is {n_heads}, which does not divide hidden_size {hidden_size}");
            return Err(LlmError::config("num_attention_heads", why));
        }
        Ok(ModelConfig {
            architecture,
            vocab_size: self.required_size("vocab_size")?,
            hidden_size,
            intermediate_size: self.required_size("intermediate_size")?,
            n_layers: self.required_size("num_hidden_layers")?,
            n_heads,
            n_kv_heads: self.size("num_key_value_heads")?.unwrap_or(n_heads),
            head_dim: head_dim.unwrap_or_else(|| hidden_size / n_heads),
            max_positions: self.required_size("max_position_embeddings")?,
            rope_theta: self.rope_theta()?,
            rms_norm_eps: self.number("rms_norm_eps")?.unwrap_or(1e-6),
            is_tied: self.flag("tie_word_embeddings", false)?,
            has_qkv_bias: is_qwen2 || attention_bias,
            has_o_bias: attention_bias,
            has_mlp_bias,
        })
    }

    /// transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 `rope_parameters: {rope_theta, rope_type}`.
    fn rope_theta(&mut self) -> Result<f64, LlmError> {
        let classic = self.number("rope_theta")?;
        let mut found = classic;
        for name in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.take(name) else { continue };
            let Some(map) = value.as_object() else {
                return Err(LlmError::config(name, format!("is `{value}`, not an object")));
            };
            for (key, inner) in map {
                let is_default = match key.as_str() {
                    "rope_type" | "type" => inner == "default",
                    "partial_rotary_factor" => inner.as_f64() == Some(1.0),
                    "rope_theta" => {
                        let theta = inner
                            .as_f64()
                            .ok_or_else(|| LlmError::config(name, "has a `rope_theta` that is not a number"))?;
                        if classic.is_some_and(|other| other != theta) {
                            let why = format!(
                                "says rope_theta {theta}, but the field `rope_theta` says {}",
                                classic.unwrap_or(theta)
                            );
                            return Err(LlmError::config(name, why));
                        }
                        found = Some(theta);
                        true
                    }
                    _ => false,
                };
                if !is_default {
                    return Err(LlmError::config(
                        name,
                        format!("has `{key}: {inner}`; only the default rotary positions are supported"),
                    ));
                }
            }
        }
        // Both Llama and Qwen2 in transformers take 10,000 where the config does not say.
        Ok(found.unwrap_or(10_000.0))
    }

    fn full_attention_only(&mut self) -> Result<(), LlmError> {
        let Some(layers) = self.take("layer_types") else { return Ok(()) };
        let is_full = layers.as_array().is_some_and(|l| l.iter().all(|kind| kind == "full_attention"));
        if is_full { Ok(()) } else { Err(LlmError::config("layer_types", "has other kinds than `full_attention`")) }
    }

    fn refuse_the_rest(&self) -> Result<(), LlmError> {
        let is_known = |name: &String| self.seen.contains(&name.as_str()) || HARMLESS.contains(&name.as_str());
        match self.map.iter().find(|(name, value)| !is_known(name) && !value.is_null()) {
            None => Ok(()),
            Some((name, value)) => {
                let shown: String = value.to_string().chars().take(60).collect();
                Err(LlmError::config(
                    name,
                    format!("is `{shown}`; this field is not supported, and ignoring it could be wrong"),
                ))
            }
        }
    }
}

/// Equality where `0` and `0.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(x), Some(y)) if x == y)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"{"architectures":["LlamaForCausalLM"],"hidden_size":64,"intermediate_size":172,"num_hidden_layers":5,
        "num_attention_heads":8,"num_key_value_heads":4,"vocab_size":512,"max_position_embeddings":256,"rms_norm_eps":1e-5"#;

    fn llama(rest: &str) -> Result<ModelConfig, LlmError> {
        ModelConfig::from_json(&format!("{LLAMA}{rest}}}"))
    }

    #[test]
    fn both_ways_to_write_rope_theta_are_read() {
        let classic = llama(r#","rope_theta":50000.0,"rope_scaling":null"#).expect("classic");
        let new = llama(r#","rope_parameters":{"rope_theta":50000.0,"rope_type":"default"}"#).expect("new");
        assert_eq!(classic, new);
        assert_eq!(new.rope_theta, 50_000.0);
        assert_eq!(llama("").expect("absent").rope_theta, 10_000.0);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (rest, field) in [
            (r#","rope_scaling":{"rope_type":"llama3","factor":8.0}"#, "rope_scaling"),
            (r#","rope_theta":1.0,"rope_parameters":{"rope_theta":2.0}"#, "rope_parameters"),
            (r#","hidden_act":"gelu""#, "hidden_act"),
            (r#","quantization_config":{"bits":4}"#, "quantization_config"),
            (r#","some_new_field":true"#, "some_new_field"),
            (r#","pretraining_tp":2"#, "pretraining_tp"),
            (r#","attention_dropout":0.1"#, "attention_dropout"),
        ] {
            let error = llama(rest).expect_err(rest).to_string();
            assert!(error.contains(field), "{rest}: {error}");
        }
    }

    #[test]
    fn an_unknown_architecture_is_an_error() {
        let error = ModelConfig::from_json(r#"{"architectures":["GPT2LMHeadModel"]}"#).expect_err("gpt2 is not built");
        assert!(error.to_string().contains("GPT2LMHeadModel"), "{error}");
        assert!(llama(r#","model_type":"mistral""#).expect_err("not Llama").to_string().contains("mistral"));
        assert!(llama(r#","model_type":"qwen2""#).expect_err("both").to_string().contains("model_type"));
    }

    #[test]
    fn sizes_must_fit_together() {
        let error = llama(r#","head_dim":7"#).expect_err("odd");
        assert!(error.to_string().contains("head_dim"), "{error}");
    }

    #[test]
    fn tensor_shapes_count_the_parameters() {
        let config = llama(r#","tie_word_embeddings":true"#).expect("valid");
        let count: usize = tensor_shapes(&config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(count, 260_032); // stories260K has these sizes
    }
}
