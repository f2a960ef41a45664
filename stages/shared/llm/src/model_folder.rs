//! A Hugging Face model folder made from a model artifact: its config and tokenizer, and weights in files of bounded size.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use pipe_contract::Artifact;
use pipe_weights::config::CONFIG;
use safetensors::{Dtype, View};
use serde_json::{Map, Value, json};

use crate::error::LlmError;

const GENERATION_CONFIG: &str = "generation_config.json";

/// Files that are copied as they are.
const COMPANIONS: &[&str] = &[
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    GENERATION_CONFIG,
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

/// Most bytes of a file of weights where nobody says otherwise: transformers' old default.
pub const MAX_SHARD_SIZE_BYTES: u64 = 5_000_000_000;

/// Copies tokenizer, chat template and generation config of `model` into `folder`, those that there are.
///
/// # Errors
/// A file that cannot be copied.
pub fn copy_companions(model: &Artifact, folder: &Path) -> Result<(), LlmError> {
    copy(model, folder, COMPANIONS.iter())
}

/// The same without the generation config, for a folder that is no model.
///
/// # Errors
/// A file that cannot be copied.
pub fn copy_tokenizer(model: &Artifact, folder: &Path) -> Result<(), LlmError> {
    copy(model, folder, COMPANIONS.iter().filter(|name| **name != GENERATION_CONFIG))
}

fn copy<'n>(model: &Artifact, folder: &Path, names: impl Iterator<Item = &'n &'static str>) -> Result<(), LlmError> {
    for name in names {
        if let Some(path) = model.get(name) {
            let to = folder.join(name);
            std::fs::copy(path, &to).map_err(|e| LlmError::io("copy", &to, e))?;
        }
    }
    Ok(())
}

/// Writes `config.json` of `model`, which its GGUF may stand for, into `folder`, with another dtype if one is given.
///
/// # Errors
/// No such file, one that is not a JSON object, one that cannot be written.
pub fn write_config(model: &Artifact, folder: &Path, dtype: Option<Dtype>) -> Result<(), LlmError> {
    edit_config(model, folder, |config| {
        let Some(dtype) = dtype else { return };
        let name = match dtype {
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
            _ => "float32",
        };
        // transformers 4 reads `torch_dtype`, transformers 5 `dtype`.
        let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        config.insert(key.into(), name.into());
    })
}

/// Writes `config.json` of `model` into `folder`, with what `edit` changes.
///
/// # Errors
/// As [`write_config`].
pub fn edit_config(
    model: &Artifact,
    folder: &Path,
    edit: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), LlmError> {
    let text = pipe_weights::config_json(model)?.ok_or_else(|| LlmError::config("", "is missing"))?;
    let value = serde_json::from_str(&text).map_err(|source| LlmError::ConfigSyntax { source })?;
    let Value::Object(mut config) = value else { return Err(LlmError::config("", "is not a JSON object")) };
    edit(&mut config);
    write_json(&folder.join(CONFIG), &Value::Object(config))
}

/// Writes `tensors` in their order into `model.safetensors`, or into files of at most `max_shard_size_bytes` (or of one
/// tensor) with an index.
///
/// # Errors
/// A file that cannot be written.
pub fn write_weights<V: View + Clone>(
    folder: &Path,
    tensors: &[(String, V)],
    max_shard_size_bytes: u64,
) -> Result<(), LlmError> {
    let shards = shards(tensors, max_shard_size_bytes);
    let mut weight_map = BTreeMap::new();
    for (shard_idx, shard) in shards.iter().enumerate() {
        let file_name = shard_name(shard_idx, shards.len());
        let path = folder.join(&file_name);
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let named = shard.iter().map(|(name, tensor)| (name.as_str(), tensor.clone()));
        safetensors::serialize_to_file(named, Some(metadata), &path)
            .map_err(|e| LlmError::io("write", &path, std::io::Error::other(e)))?;
        weight_map.extend(shard.iter().map(|(name, _)| (name.clone(), file_name.clone())));
    }
    if shards.len() > 1 {
        let total: usize = tensors.iter().map(|(_, tensor)| tensor.data_len()).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<(), LlmError> {
    let text = serde_json::to_string_pretty(value).expect("a JSON value can be written") + "\n";
    std::fs::write(path, text).map_err(|e| LlmError::io("write", path, e))
}

/// Runs of tensors that fit into a file.
fn shards<V: View>(tensors: &[(String, V)], max_shard_size_bytes: u64) -> Vec<&[(String, V)]> {
    let mut shards = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (tensor_idx, (_, tensor)) in tensors.iter().enumerate() {
        let tensor_size = tensor.data_len() as u64;
        if tensor_idx > start && size + tensor_size > max_shard_size_bytes {
            shards.push(&tensors[start..tensor_idx]);
            (start, size) = (tensor_idx, 0);
        }
        size += tensor_size;
    }
    shards.push(&tensors[start..]);
    shards
}

fn shard_name(shard_idx: usize, n_shards: usize) -> String {
    match n_shards {
        1 => "model.safetensors".to_string(),
        _ => format!("model-{:05}-of-{n_shards:05}.safetensors", shard_idx + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn a_file_is_full_before_the_next_begins() {
        let tensor = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).expect("zeros");
        let tensors: Vec<(String, Tensor)> =
            [3, 1, 9, 2].into_iter().enumerate().map(|(i, n)| (format!("t{i}"), tensor(n))).collect();
        let sizes = |max: u64| shards(&tensors, max).iter().map(|s| s.len()).collect::<Vec<_>>();
        assert_eq!(sizes(16), [2, 1, 1], "a tensor larger than a file has one of its own");
        assert_eq!((sizes(44), sizes(60), sizes(8)), (vec![2, 2], vec![4], vec![1, 1, 1, 1]));
        assert_eq!(
            (shard_name(0, 1), shard_name(1, 3)),
            ("model.safetensors".into(), "model-00002-of-00003.safetensors".into())
        );
    }
}
