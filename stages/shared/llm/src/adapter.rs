//! LoRA adapters: their config, their first values, and PEFT's folder of them.
//!
//! ```text
//! adapter_config.json  +  adapter_model.safetensors  <->  LoraConfig + modules (path, A (r, in), B (out, r)) + rows of tokens (n, C)
//! ```
//!
//! Names and fields as PEFT writes them (`peft/tuners/lora/config.py`, `peft/utils/save_and_load.py`): tensors are called
//! `base_model.model.<module path>.lora_A.weight`, and every field that changes the arithmetic is honoured or refused. Rows of tokens
//! (`peft/tuners/trainable_tokens/layer.py`) are called `<module path>.token_adapter.trainable_tokens_delta`, and are no difference in spite of
//! that name: they stand in the place of the matrix's rows. A tied head has none of its own.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pipe_kernels::random::Stream;
use serde_json::{Map, Value, json};

use crate::error::LlmError;
use crate::program::{AdaptedModule, Program, TrainedTokens, last_part};

/// What PEFT prefixes module paths with.
const PREFIX: &str = "base_model.model.";

/// The input embedding in `trainable_token_indices`, whatever the family calls it.
pub const EMBEDDING: &str = "embed_tokens";
/// The head in `trainable_token_indices`.
pub const HEAD: &str = "lm_head";

/// The tokens that an adapter has rows of: the last part of a module's path to token ids.
pub type TokenIndices = BTreeMap<String, Vec<u32>>;

/// The settings of an adapter that its folder carries.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// The rank of the update.
    pub lora_rank: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Probability of dropout on the adapter's input, in training.
    pub lora_dropout: f64,
    /// Scale by alpha / sqrt(r) instead of alpha / r (arXiv 2312.03732).
    pub use_rslora: bool,
    /// Last parts of the adapted modules' paths, sorted.
    pub target_modules: Vec<String>,
    /// Tokens with rows of their own in the embedding and the head; empty where there are none.
    pub trainable_token_indices: TokenIndices,
    /// Whether the adapted modules store `[in, out]` (GPT-2's `Conv1D`). It follows from the model, whatever a file says: PEFT sets it right too.
    pub fan_in_fan_out: bool,
    /// Hub id of the base, `None` for a local folder.
    pub base_model: Option<String>,
    /// Commit of the base.
    pub revision: Option<String>,
}

impl LoraConfig {
    /// The same for the matrices of a program.
    fn of(self, program: &Program) -> Self {
        let named = |tokens: &TrainedTokens| (last_part(&tokens.path).to_string(), tokens.ids.clone());
        LoraConfig {
            fan_in_fan_out: program.config.architecture.fan_in_fan_out(),
            trainable_token_indices: program.tokens.iter().map(named).collect(),
            ..self
        }
    }

    /// How many tokens have rows of their own.
    pub fn n_tokens(&self) -> usize {
        self.trainable_token_indices.values().map(Vec::len).max().unwrap_or(0)
    }

    /// What B A is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.lora_rank as f64;
        if self.use_rslora { self.lora_alpha / libm::sqrt(rank) } else { self.lora_alpha / rank }
    }
}

/// A and B of one module, f32.
#[derive(Clone, Debug)]
pub struct LoraModule {
    /// Full module path.
    pub path: String,
    /// (r, in).
    pub a: Tensor,
    /// (out, r).
    pub b: Tensor,
}

/// Rows that stand in the place of those of a matrix over the vocabulary, f32.
#[derive(Clone, Debug)]
pub struct TokenRows {
    /// Full path of the matrix's module.
    pub path: String,
    /// (n, C), in the order of the program's ids.
    pub rows: Tensor,
}

/// An adapter for a [`Program`]: modules in the order of [`Program::adapted`], rows in that of [`Program::tokens`].
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its settings.
    pub config: LoraConfig,
    /// Its matrices.
    pub modules: Vec<LoraModule>,
    /// Its rows of tokens.
    pub tokens: Vec<TokenRows>,
}

impl Adapter {
    /// A fresh adapter: A uniform in ±1/sqrt(in) (`kaiming_uniform_(a=sqrt(5))`), B zero, so it changes nothing yet. `rows`: the first
    /// values of each of [`Program::tokens`], (n, C) row-major, as `new_tokens` makes them.
    ///
    /// # Errors
    /// When a tensor cannot be put on `device`.
    pub fn fresh(
        config: LoraConfig,
        program: &Program,
        rows: Vec<Vec<f32>>,
        seed: u64,
        device: &Device,
    ) -> Result<Self, LlmError> {
        let config = config.of(program);
        let rank = config.lora_rank;
        let module = |adapted: &AdaptedModule| -> Result<LoraModule, LlmError> {
            let stream = Stream::named(seed, &format!("lora_A/{}", adapted.path));
            let bound = (1.0 / libm::sqrt(adapted.n_in as f64)) as f32;
            let values: Vec<f32> =
                (0..rank * adapted.n_in).map(|i| (2.0 * stream.uniform(i as u64) - 1.0) * bound).collect();
            Ok(LoraModule {
                path: adapted.path.clone(),
                a: Tensor::from_vec(values, (rank, adapted.n_in), device)?,
                b: Tensor::zeros((adapted.n_out, rank), DType::F32, device)?,
            })
        };
        let modules = program.adapted.iter().map(module).collect::<Result<_, _>>()?;
        assert_eq!(rows.len(), program.tokens.len(), "there are rows for each matrix");
        let token_rows = |(tokens, rows): (&TrainedTokens, Vec<f32>)| -> Result<TokenRows, LlmError> {
            let shape = tokens_shape(program, tokens);
            Ok(TokenRows { path: tokens.path.clone(), rows: Tensor::from_vec(rows, &shape, device)? })
        };
        let tokens = program.tokens.iter().zip(rows).map(token_rows).collect::<Result<_, _>>()?;
        Ok(Adapter { config, modules, tokens })
    }

    /// The adapter in `weights` (the path of an `adapter_model.safetensors`) with the config already read.
    ///
    /// # Errors
    /// A missing or unexpected tensor, or one of the wrong shape.
    pub fn load(config: LoraConfig, weights: &Path, program: &Program, device: &Device) -> Result<Self, LlmError> {
        let config = config.of(program);
        let bytes = std::fs::read(weights).map_err(|e| LlmError::io("read", weights, e))?;
        let mut tensors: HashMap<String, Tensor> =
            candle_core::safetensors::load_buffer(&bytes, device).map_err(|e| LlmError::Weights {
                file: weights.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                why: format!("it is cut off, or not safetensors: {e}"),
            })?;
        let mut take = |name: String, shape: [usize; 2]| -> Result<Tensor, LlmError> {
            let tensor =
                tensors.remove(&name).ok_or_else(|| adapter_error(format!("the tensor `{name}` is missing")))?;
            if tensor.dims() != shape {
                return Err(adapter_error(format!(
                    "`{name}` has shape {:?}, but this model needs {shape:?}",
                    tensor.dims()
                )));
            }
            Ok(tensor.to_dtype(DType::F32)?)
        };
        let mut modules = Vec::new();
        for adapted in &program.adapted {
            let (a_name, b_name) = tensor_names(&adapted.path);
            modules.push(LoraModule {
                path: adapted.path.clone(),
                a: take(a_name, [config.lora_rank, adapted.n_in])?,
                b: take(b_name, [adapted.n_out, config.lora_rank])?,
            });
        }
        let mut token_rows = Vec::new();
        for tokens in &program.tokens {
            let rows = take(token_rows_name(&tokens.path), tokens_shape(program, tokens))?;
            token_rows.push(TokenRows { path: tokens.path.clone(), rows });
        }
        let mut unexpected: Vec<&String> = tensors.keys().collect();
        unexpected.sort();
        match unexpected.first() {
            None => Ok(Adapter { config, modules, tokens: token_rows }),
            Some(name) => Err(adapter_error(format!("has the tensor `{name}`, which this model has no place for"))),
        }
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`. Same adapter, same bytes.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), LlmError> {
        let config_path = folder.join("adapter_config.json");
        let text = serde_json::to_string_pretty(&self.config.to_json()).expect("a JSON value can be written");
        std::fs::write(&config_path, text).map_err(|e| LlmError::io("write", &config_path, e))?;
        let mut tensors = BTreeMap::new();
        for module in &self.modules {
            let (a_name, b_name) = tensor_names(&module.path);
            tensors.insert(a_name, module.a.to_device(&Device::Cpu)?);
            tensors.insert(b_name, module.b.to_device(&Device::Cpu)?);
        }
        for tokens in &self.tokens {
            tensors.insert(token_rows_name(&tokens.path), tokens.rows.to_device(&Device::Cpu)?);
        }
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let bytes = safetensors::serialize(tensors.iter(), Some(metadata))
            .map_err(|e| LlmError::Weights { file: "adapter_model.safetensors".into(), why: e.to_string() })?;
        let path = folder.join("adapter_model.safetensors");
        std::fs::write(&path, bytes).map_err(|e| LlmError::io("write", &path, e))
    }

    /// Whether every B is zero: an adapter that changes no linear module.
    ///
    /// # Errors
    /// When a tensor cannot be read back from its device.
    pub fn is_zero(&self) -> Result<bool, LlmError> {
        for module in &self.modules {
            if module.b.abs()?.max_all()?.to_scalar::<f32>()? != 0.0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// PEFT's names of A and B of a module.
pub fn tensor_names(path: &str) -> (String, String) {
    (format!("{PREFIX}{path}.lora_A.weight"), format!("{PREFIX}{path}.lora_B.weight"))
}

/// PEFT's name of the rows of tokens of a module.
pub fn token_rows_name(path: &str) -> String {
    format!("{PREFIX}{path}.token_adapter.trainable_tokens_delta")
}

fn tokens_shape(program: &Program, tokens: &TrainedTokens) -> [usize; 2] {
    [tokens.ids.len(), program.config.hidden_size]
}

fn adapter_error(why: impl Into<String>) -> LlmError {
    LlmError::Adapter { why: why.into() }
}

/// Fields that do not change what an adapter computes.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "ensure_weight_tying",
    "inference_mode",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "task_type",
];

impl LoraConfig {
    /// Reads the text of an `adapter_config.json`.
    ///
    /// # Errors
    /// Not JSON, not LoRA, a missing field, or a field that changes the arithmetic in a way that is not supported.
    pub fn from_json(text: &str) -> Result<Self, LlmError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| adapter_error(format!("adapter_config.json is not valid JSON: {e}")))?;
        let Value::Object(fields) = value else { return Err(adapter_error("adapter_config.json is not an object")) };
        if fields.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(adapter_error("`peft_type` is not `LORA`; only LoRA adapters are supported"));
        }
        // PEFT's defaults: r 8, lora_alpha 8, lora_dropout 0.
        let lora_alpha = field(&fields, "lora_alpha", "a number above 0", |v| v.as_f64().filter(|x| *x > 0.0))?;
        let lora_dropout =
            field(&fields, "lora_dropout", "a number in [0, 1)", |v| v.as_f64().filter(|x| (0.0..1.0).contains(x)))?;
        let lora_rank = field(&fields, "r", "a whole number above 0", |v| v.as_u64().filter(|r| *r > 0))?;
        let text = |name: &str| field(&fields, name, "text", |v| v.as_str().map(str::to_string));
        let config = LoraConfig {
            lora_rank: lora_rank.unwrap_or(8) as usize,
            lora_alpha: lora_alpha.unwrap_or(8.0),
            lora_dropout: lora_dropout.unwrap_or(0.0),
            use_rslora: field(&fields, "use_rslora", "true or false", Value::as_bool)?.unwrap_or(false),
            target_modules: target_modules(&fields)?,
            trainable_token_indices: token_indices(&fields)?,
            fan_in_fan_out: field(&fields, "fan_in_fan_out", "true or false", Value::as_bool)?.unwrap_or(false),
            base_model: text("base_model_name_or_path")?,
            revision: text("revision")?,
        };
        refuse_unsupported(&fields)?;
        Ok(config)
    }

    /// The fields every PEFT since 0.10 knows, sorted, and `trainable_token_indices` (0.15) where it is used.
    pub fn to_json(&self) -> Value {
        let alpha = if self.lora_alpha.fract() == 0.0 { json!(self.lora_alpha as i64) } else { json!(self.lora_alpha) };
        let mut entries = json!({
            "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": self.base_model, "bias": "none",
            "fan_in_fan_out": self.fan_in_fan_out, "inference_mode": true, "init_lora_weights": true, "layer_replication": null,
            "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": alpha,
            "lora_dropout": self.lora_dropout, "megatron_config": null, "megatron_core": "megatron.core",
            "modules_to_save": null, "peft_type": "LORA", "r": self.lora_rank, "rank_pattern": {},
            "revision": self.revision, "target_modules": self.target_modules, "task_type": "CAUSAL_LM",
            "use_dora": false, "use_rslora": self.use_rslora,
        });
        if !self.trainable_token_indices.is_empty() {
            entries["trainable_token_indices"] = json!(self.trainable_token_indices);
        }
        entries
    }
}

/// The value of `name`, `None` where it is absent or null.
fn field<T>(
    fields: &Map<String, Value>,
    name: &str,
    expected: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, LlmError> {
    match fields.get(name).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(adapter_error(format!("`{name}` is `{value}`, not {expected}"))),
        },
    }
}

fn target_modules(fields: &Map<String, Value>) -> Result<Vec<String>, LlmError> {
    match fields.get("target_modules") {
        Some(Value::Array(items)) if !items.is_empty() => {
            let names: Option<Vec<String>> = items.iter().map(|v| v.as_str().map(str::to_string)).collect();
            let mut names = names.ok_or_else(|| adapter_error("`target_modules` is not a list of names"))?;
            names.sort();
            Ok(names)
        }
        Some(Value::String(text)) => {
            Err(adapter_error(format!("`target_modules` is the pattern `{text}`; only a list of names is supported")))
        }
        _ => Err(adapter_error("`target_modules` is missing or empty")),
    }
}

/// A list of ids, of the input embedding, or a mapping of modules to such lists.
fn token_indices(fields: &Map<String, Value>) -> Result<TokenIndices, LlmError> {
    let ids = |value: &Value| -> Option<Vec<u32>> {
        let ids = value.as_array()?.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
        ids.collect()
    };
    let indices =
        field(fields, "trainable_token_indices", "a list of token ids, or a mapping of modules to them", |v| {
            match v {
                Value::Object(modules) => modules.iter().map(|(name, v)| Some((name.clone(), ids(v)?))).collect(),
                // An empty list asks for nothing.
                list => ids(list).map(|ids| if ids.is_empty() { vec![] } else { vec![(EMBEDDING.to_string(), ids)] }),
            }
        })?;
    Ok(indices.unwrap_or_default().into_iter().collect())
}

/// A field we do not compute may only have the value that turns it off.
fn refuse_unsupported(fields: &Map<String, Value>) -> Result<(), LlmError> {
    const READ: &[&str] = &[
        "peft_type",
        "r",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "target_modules",
        "trainable_token_indices",
        "fan_in_fan_out",
        "base_model_name_or_path",
        "revision",
    ];
    for (name, value) in fields {
        if READ.contains(&name.as_str()) || HARMLESS.contains(&name.as_str()) {
            continue;
        }
        let is_off = match value {
            Value::Null | Value::Bool(false) => true,
            // Other ways to start (pissa, olora, loftq, ...) change the base's weights too.
            Value::Bool(true) => name == "init_lora_weights",
            Value::String(text) => {
                (name == "bias" && text == "none") || (name == "init_lora_weights" && text == "gaussian")
            }
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_off {
            return Err(adapter_error(format!(
                "`{name}` is `{value}`; this field is not supported, and ignoring it would be wrong"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LoraConfig {
        LoraConfig {
            lora_rank: 4,
            lora_alpha: 8.0,
            lora_dropout: 0.05,
            use_rslora: false,
            target_modules: vec!["q_proj".into(), "v_proj".into()],
            trainable_token_indices: TokenIndices::new(),
            fan_in_fan_out: false,
            base_model: Some("owner/name".into()),
            revision: None,
        }
    }

    #[test]
    fn a_config_reads_back_what_it_wrote() {
        let text = config().to_json().to_string();
        assert_eq!(LoraConfig::from_json(&text).expect("our own"), config());
    }

    #[test]
    fn tokens_are_a_list_or_a_mapping() {
        let read = |value: Value| {
            let mut fields = config().to_json();
            fields["trainable_token_indices"] = value;
            LoraConfig::from_json(&fields.to_string()).expect("known forms")
        };
        let both: TokenIndices = [(EMBEDDING.into(), vec![7, 3]), (HEAD.into(), vec![7, 3])].into();
        assert_eq!(read(json!([7, 3])).trainable_token_indices, [(EMBEDDING.into(), vec![7, 3])].into());
        let config = read(json!({"embed_tokens": [7, 3], "lm_head": [7, 3]}));
        assert_eq!(config.trainable_token_indices, both);
        assert_eq!(LoraConfig::from_json(&config.to_json().to_string()).expect("our own"), config);
        for none in [json!([]), Value::Null, json!({})] {
            assert_eq!(read(none).trainable_token_indices, TokenIndices::new());
        }
    }

    #[test]
    fn what_changes_the_arithmetic_is_refused() {
        for (name, value) in [
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("modules_to_save", json!(["lm_head"])),
            ("rank_pattern", json!({"q_proj": 2})),
            ("fan_in_fan_out", json!("yes")),
            ("target_modules", json!(".*q_proj")),
            ("layers_to_transform", json!([1])),
            ("lora_bias", json!(true)),
            ("init_lora_weights", json!("pissa")),
            ("loftq_config", json!({"loftq_bits": 4})),
            ("lora_alpha", json!("16")),
            ("lora_dropout", json!(1.5)),
            ("use_rslora", json!("true")),
            ("r", json!(0)),
            ("trainable_token_indices", json!([-1])),
            ("trainable_token_indices", json!({"embed_tokens": 5})),
        ] {
            let mut fields = config().to_json();
            fields[name] = value;
            let error = LoraConfig::from_json(&fields.to_string()).expect_err(name).to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn scales_follow_the_papers() {
        assert_eq!(config().scale(), 2.0);
        assert_eq!(LoraConfig { use_rslora: true, ..config() }.scale(), 4.0);
    }
}
