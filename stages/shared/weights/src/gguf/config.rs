//! The `config.json` of a model, made from the metadata of a GGUF.
//!
//! ```text
//! general.architecture = "gemma2"       "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]
//! gemma2.attention.key_length = 256  -> "head_dim": 256
//! token_embd.weight (256000, 2304)      "vocab_size": 256000
//! no output.weight                      "tie_word_embeddings": true
//! ```
//!
//! After transformers' GGUF_CONFIG_MAPPING (integrations/ggml.py) and, for what it leaves out, what convert_hf_to_gguf.py writes and llama.cpp
//! reads (llama-model.cpp). Fields are left out where the family's default is what every file of that family means.
//!
//! What cannot be told is refused, with the key or the reason: a missing number, a key of the model that nobody here knows, the window of
//! a Mistral, and the scale of the scores of a Gemma that is none of the released sizes.
//!
//! It deliberately does not say whether the numbers fit together: that is for whoever reads a `config.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Family;
use super::reader::{Metadata, Raw};
use crate::error::{Fault, shown};

/// What to do where the metadata does not do.
const HELP: &str = "put the `config.json` of the model that the GGUF was made of beside it";

/// The scale of the scores, `query_pre_attn_scalar`, is not in the file: llama.cpp tells it from the number of layers (llama-model.cpp).
/// Layers, channels of a head, scalar.
const GEMMA2_SIZES: [[u64; 3]; 3] = [[26, 256, 256], [42, 256, 256], [46, 128, 144]];
/// Likewise: 270M, 1B, 4B, 12B, 27B.
const GEMMA3_SIZES: [[u64; 3]; 5] = [[18, 256, 256], [26, 256, 256], [34, 256, 256], [48, 256, 256], [62, 128, 168]];

/// The fields of a config, sorted.
type Fields = BTreeMap<String, Value>;

/// Numbers of a rope that are tensors.
#[derive(Default)]
pub(super) struct Factors {
    /// `rope_freqs.weight`.
    pub(super) freqs: Option<Vec<f64>>,
    /// `rope_factors_long.weight`.
    pub(super) long: Option<Vec<f64>>,
    /// `rope_factors_short.weight`.
    pub(super) short: Option<Vec<f64>>,
}

/// The object of a `config.json`. `is_tied`: whether the head is the embedding.
pub(super) fn config(
    raw: &Raw,
    (architecture, family): (&str, Family),
    is_tied: bool,
    factors: &Factors,
) -> Result<Fields, Fault> {
    let mut maker = Maker { raw, architecture, seen: BTreeSet::new(), fields: Fields::new() };
    maker.set("tie_word_embeddings", is_tied);
    match family {
        Family::Gpt2 => maker.gpt2()?,
        _ => maker.rotary_model(family, factors)?,
    }
    let embedding = maker.tensor("token_embd.weight")?;
    maker.set("vocab_size", embedding.0[0]);
    let dtype = match embedding.1 {
        0 => Some("float32"),
        1 => Some("float16"),
        30 => Some("bfloat16"),
        _ => None,
    };
    if let Some(dtype) = dtype {
        maker.set("torch_dtype", dtype);
    }
    maker.special_ids()?;
    maker.refuse_the_rest()?;
    Ok(maker.fields)
}

struct Maker<'r> {
    raw: &'r Raw,
    architecture: &'r str,
    /// Keys of the model that were looked at.
    seen: BTreeSet<String>,
    fields: Fields,
}

impl<'r> Maker<'r> {
    fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.fields.insert(field.to_string(), value.into());
    }

    fn class(&mut self, class: &str, model_type: &str) {
        self.set("architectures", json!([class]));
        self.set("model_type", model_type);
    }

    /// A key of the model.
    fn take(&mut self, key: &str) -> Option<&'r Metadata> {
        let key = format!("{}.{key}", self.architecture);
        let value = self.raw.metadata.get(&key);
        self.seen.insert(key);
        value
    }

    fn number(&mut self, key: &str) -> Result<Option<f64>, Fault> {
        match self.take(key) {
            None => Ok(None),
            Some(Metadata::Number(number)) if number.is_finite() => Ok(Some(*number)),
            Some(_) => Err(self.cannot(key, "is not one number")),
        }
    }

    fn required(&mut self, key: &str) -> Result<f64, Fault> {
        self.number(key)?.ok_or_else(|| self.cannot(key, "is missing"))
    }

    fn size(&mut self, key: &str) -> Result<Option<u64>, Fault> {
        match self.number(key)? {
            Some(number) if number.fract() != 0.0 || !(0.0..9e15).contains(&number) => {
                Err(self.cannot(key, &format!("is {number}, not a whole number")))
            }
            number => Ok(number.map(|number| number as u64)),
        }
    }

    fn required_size(&mut self, key: &str) -> Result<u64, Fault> {
        self.size(key)?.ok_or_else(|| self.cannot(key, "is missing"))
    }

    fn cannot(&self, key: &str, why: &str) -> Fault {
        let key = format!("{}.{key}", self.architecture);
        Fault::unsupported(format!("its metadata makes no `config.json`: `{key}` {why}"), HELP)
    }

    /// Shape, outermost first, and type of a tensor that has a size.
    fn tensor(&self, name: &str) -> Result<(&'r [usize], u32), Fault> {
        let found = self.raw.listed.iter().find(|tensor| tensor.name == name && !tensor.shape.is_empty());
        let found = found.map(|tensor| (tensor.shape.as_slice(), tensor.type_id));
        found.ok_or_else(|| Fault::broken(format!("the tensor `{name}` is missing")))
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.raw.listed.iter().any(|tensor| tensor.name == name)
    }

    fn gpt2(&mut self) -> Result<(), Fault> {
        self.class("GPT2LMHeadModel", "gpt2");
        let fields = [
            ("n_layer", "block_count"),
            ("n_embd", "embedding_length"),
            ("n_head", "attention.head_count"),
            ("n_positions", "context_length"),
        ];
        for (field, key) in fields {
            let size = self.required_size(key)?;
            self.set(field, size);
        }
        let eps = self.required("attention.layer_norm_epsilon")?;
        self.set("layer_norm_epsilon", eps);
        // The converter always writes 4 x the channels.
        self.take("feed_forward_length");
        let width = self.tensor("blk.0.ffn_up.weight")?.0[0];
        self.set("n_inner", width);
        Ok(())
    }

    fn rotary_model(&mut self, family: Family, factors: &Factors) -> Result<(), Fault> {
        let fields = [
            ("num_hidden_layers", "block_count"),
            ("hidden_size", "embedding_length"),
            ("intermediate_size", "feed_forward_length"),
            ("num_attention_heads", "attention.head_count"),
            ("max_position_embeddings", "context_length"),
        ];
        for (field, key) in fields {
            let size = self.required_size(key)?;
            self.set(field, size);
        }
        let n_heads = self.required_size("attention.head_count")?;
        let n_kv_heads = self.size("attention.head_count_kv")?.unwrap_or(n_heads);
        self.set("num_key_value_heads", n_kv_heads);
        let eps = self.required("attention.layer_norm_rms_epsilon")?;
        self.set("rms_norm_eps", eps);
        let head_dim = self.head_dim(family, n_heads)?;
        self.take("vocab_size");
        match family {
            Family::Llama => self.llama()?,
            Family::Qwen2 => self.class("Qwen2ForCausalLM", "qwen2"),
            Family::Qwen3 => self.class("Qwen3ForCausalLM", "qwen3"),
            Family::Phi3 => self.phi3()?,
            Family::Gemma2 => self.gemma2(head_dim)?,
            Family::Gemma3 => self.gemma3(head_dim)?,
            Family::Gpt2 => unreachable!("has learned positions"),
        }
        if matches!(family, Family::Llama | Family::Qwen3) && self.has_tensor("blk.0.attn_q.bias") {
            self.set("attention_bias", true);
        }
        self.rope(family, head_dim, factors)
    }

    /// Channels of a head, of which k and v must have the same.
    fn head_dim(&mut self, family: Family, n_heads: u64) -> Result<u64, Fault> {
        let (key_length, value_length) = (self.size("attention.key_length")?, self.size("attention.value_length")?);
        if value_length != key_length {
            return Err(self.cannot("attention.value_length", "is not the `key_length`"));
        }
        if let Some(head_dim) = key_length {
            self.set("head_dim", head_dim);
            return Ok(head_dim);
        }
        // The classes of these have defaults of their own.
        if matches!(family, Family::Qwen3 | Family::Gemma2 | Family::Gemma3) {
            return Err(self.cannot("attention.key_length", "is missing"));
        }
        let width = self.required_size("embedding_length")?;
        if n_heads == 0 || !width.is_multiple_of(n_heads) {
            return Err(self.cannot("attention.head_count", &format!("is {n_heads}, which does not divide {width}")));
        }
        Ok(width / n_heads)
    }

    /// A Mistral is a `llama` too, and the converter drops its window: transformers goes by the name, and so does this.
    fn llama(&mut self) -> Result<(), Fault> {
        let window = self.size("attention.sliding_window")?;
        match window {
            Some(window) if window > 0 => {
                self.class("MistralForCausalLM", "mistral");
                self.set("sliding_window", window);
                return Ok(());
            }
            Some(_) => {}
            None => {
                for key in ["general.name", "general.basename"] {
                    let name = self.raw.text(key).unwrap_or_default();
                    if ["mistral", "ministral"].iter().any(|family| name.to_lowercase().contains(family)) {
                        let why =
                            format!("by its `{key}`, `{}`, it may have a window, which it does not say", shown(name));
                        return Err(Fault::unsupported(format!("its metadata makes no `config.json`: {why}"), HELP));
                    }
                }
            }
        }
        self.class("LlamaForCausalLM", "llama");
        if self.has_tensor("blk.0.ffn_up.bias") {
            self.set("mlp_bias", true);
        }
        Ok(())
    }

    fn phi3(&mut self) -> Result<(), Fault> {
        self.class("Phi3ForCausalLM", "phi3");
        // 0 is none.
        let window = self.required_size("attention.sliding_window")?;
        self.set("sliding_window", if window == 0 { Value::Null } else { window.into() });
        Ok(())
    }

    fn gemma2(&mut self, head_dim: u64) -> Result<(), Fault> {
        self.class("Gemma2ForCausalLM", "gemma2");
        let window = self.required_size("attention.sliding_window")?;
        self.set("sliding_window", window);
        for field in ["attn_logit_softcapping", "final_logit_softcapping"] {
            let cap = self.required(field)?;
            self.set(field, cap);
        }
        self.gemma_scale(&GEMMA2_SIZES, head_dim)
    }

    fn gemma3(&mut self, head_dim: u64) -> Result<(), Fault> {
        self.class("Gemma3ForCausalLM", "gemma3_text");
        let window = self.required_size("attention.sliding_window")?;
        self.set("sliding_window", window);
        if let Some(pattern) = self.size("attention.sliding_window_pattern")? {
            self.set("sliding_window_pattern", pattern);
        }
        if let Some(cap) = self.number("final_logit_softcapping")? {
            self.set("final_logit_softcapping", cap);
        }
        let theta = self.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
        self.set("rope_local_base_freq", theta);
        self.gemma_scale(&GEMMA3_SIZES, head_dim)
    }

    fn gemma_scale(&mut self, sizes: &[[u64; 3]], head_dim: u64) -> Result<(), Fault> {
        let n_layers = self.required_size("block_count")?;
        let Some([_, _, scalar]) = sizes.iter().find(|[layers, dim, _]| (*layers, *dim) == (n_layers, head_dim)) else {
            let why = format!(
                "is {n_layers}, and no released model has that with heads of {head_dim}: its `query_pre_attn_scalar` is not in the file"
            );
            return Err(self.cannot("block_count", &why));
        };
        self.set("query_pre_attn_scalar", *scalar);
        Ok(())
    }

    fn rope(&mut self, family: Family, head_dim: u64, factors: &Factors) -> Result<(), Fault> {
        // transformers and llama.cpp take 10,000 where it is missing; the converter has always written it but for these.
        let theta = match family {
            Family::Llama | Family::Gemma2 => self.number("rope.freq_base")?.unwrap_or(10_000.0),
            _ => self.required("rope.freq_base")?,
        };
        self.set("rope_theta", theta);
        if family == Family::Phi3 {
            return self.phi3_rope(head_dim, factors);
        }
        if let Some(turned) = self.size("rope.dimension_count")?.filter(|turned| *turned != head_dim) {
            return Err(self.cannot("rope.dimension_count", &format!("is {turned} of {head_dim} channels of a head")));
        }
        let scaling = match (self.scaling()?, &factors.freqs) {
            (scaling, None) => scaling,
            (None, Some(freqs)) => {
                let factor = freqs.iter().copied().fold(1.0, f64::max);
                // What Llama 3.1, 3.2 and 3.3 say beside the factor; whether it is so is seen by the frequencies in the file.
                let scaling = json!({
                    "factor": factor, "high_freq_factor": 4, "low_freq_factor": 1, "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                });
                // All are 1 where nothing is scaled.
                Some(scaling).filter(|_| factor > 1.0)
            }
            (Some(_), Some(_)) => return Err(self.cannot("rope.scaling.type", "is given beside `rope_freqs.weight`")),
        };
        if let Some(scaling) = scaling {
            self.set("rope_scaling", scaling);
        }
        Ok(())
    }

    /// Linear or YaRN, as `rope_scaling` of transformers.
    fn scaling(&mut self) -> Result<Option<Value>, Fault> {
        self.take("rope.scaling.finetuned");
        let kind = match self.take("rope.scaling.type") {
            None => return Ok(None),
            Some(Metadata::Text(kind)) => kind.clone(),
            Some(_) => return Err(self.cannot("rope.scaling.type", "is not a name")),
        };
        match kind.as_str() {
            "none" => Ok(None),
            "linear" => Ok(Some(json!({ "factor": self.required("rope.scaling.factor")?, "rope_type": "linear" }))),
            "yarn" => {
                let original = self.required_size("rope.scaling.original_context_length")?;
                let mut scaling = BTreeMap::from([
                    ("factor", Value::from(self.required("rope.scaling.factor")?)),
                    ("original_max_position_embeddings", original.into()),
                    ("rope_type", "yarn".into()),
                ]);
                let optional = [
                    ("attention_factor", "rope.scaling.yarn_attn_factor"),
                    ("beta_fast", "rope.scaling.yarn_beta_fast"),
                    ("beta_slow", "rope.scaling.yarn_beta_slow"),
                ];
                for (field, key) in optional {
                    if let Some(number) = self.number(key)? {
                        scaling.insert(field, number.into());
                    }
                }
                Ok(Some(scaling.into_iter().map(|(field, value)| (field.to_string(), value)).collect()))
            }
            other => {
                Err(self.cannot("rope.scaling.type", &format!("is `{}`, which this family has not", shown(other))))
            }
        }
    }

    fn phi3_rope(&mut self, head_dim: u64, factors: &Factors) -> Result<(), Fault> {
        let turned = self.required_size("rope.dimension_count")?;
        if turned != head_dim {
            // transformers takes the whole part of the product.
            let factor = turned as f64 / head_dim as f64;
            let is_short = ((head_dim as f64 * factor) as u64) < turned;
            self.set("partial_rotary_factor", if is_short { factor.next_up() } else { factor });
        }
        let original = self.size("rope.scaling.original_context_length")?;
        if let Some(original) = original {
            self.set("original_max_position_embeddings", original);
        }
        // Follows from the lengths; whether it does is seen when the weights are opened.
        self.take("rope.scaling.attn_factor");
        match (&factors.long, &factors.short, original) {
            (None, None, _) => Ok(()),
            (Some(long), Some(short), Some(_)) => {
                // The name that Phi3Config of transformers 4 asks for.
                self.set("rope_scaling", json!({ "long_factor": long, "short_factor": short, "type": "longrope" }));
                Ok(())
            }
            (Some(_), Some(_), None) => Err(self.cannot("rope.scaling.original_context_length", "is missing")),
            _ => Err(Fault::broken("it has one of `rope_factors_long.weight` and `rope_factors_short.weight`")),
        }
    }

    /// The ids that begin and end a sequence; more than one may end it, and the first is the text's.
    fn special_ids(&mut self) -> Result<(), Fault> {
        let id = |name: &str| self.raw.number(&format!("tokenizer.ggml.{name}_token_id"));
        let as_value = |id: f64| Value::from(id as u64);
        let (bos, eos, eot, pad) = (id("bos"), id("eos"), id("eot"), id("padding"));
        for (field, id) in [("bos_token_id", bos), ("pad_token_id", pad)] {
            if let Some(id) = id {
                self.set(field, as_value(id));
            }
        }
        match (eos, eot.filter(|eot| Some(*eot) != eos)) {
            (Some(eos), Some(eot)) => self.set("eos_token_id", json!([eos as u64, eot as u64])),
            (Some(id), None) | (None, Some(id)) => self.set("eos_token_id", as_value(id)),
            (None, None) => {}
        }
        Ok(())
    }

    /// A key of the model that nobody looked at may change what it computes.
    fn refuse_the_rest(&self) -> Result<(), Fault> {
        let prefix = format!("{}.", self.architecture);
        let is_unknown = |(key, value): &(&String, &Metadata)| {
            key.starts_with(&prefix) && !self.seen.contains(*key) && **value != Metadata::Number(0.0)
        };
        match self.raw.metadata.iter().find(is_unknown) {
            None => Ok(()),
            Some((key, _)) => {
                let why = format!("`{}` is not known here, and ignoring it could be wrong", shown(key));
                Err(Fault::unsupported(format!("its metadata makes no `config.json`: {why}"), HELP))
            }
        }
    }
}
