//! The fields of a `config.json`, with a note of which were looked at: what nobody has looked at is refused.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Architecture;
use crate::error::LlmError;

/// Fields that no family computes with: they do not change a forward or backward pass.
const HARMLESS: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict",
    "return_dict_in_generate",
    "task_specific_params",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
];

/// The object of a `config.json`.
pub(crate) struct Fields {
    map: BTreeMap<String, Value>,
    seen: Vec<&'static str>,
}

impl Fields {
    pub(crate) fn parse(text: &str) -> Result<Self, LlmError> {
        let value: Value = serde_json::from_str(text).map_err(|source| LlmError::ConfigSyntax { source })?;
        let Value::Object(map) = value else { return Err(LlmError::config("", "is not a JSON object")) };
        Ok(Fields { map: map.into_iter().collect(), seen: Vec::new() })
    }

    /// The value of a field; `None` where it is absent or null.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.seen.push(name);
        self.map.get(name).filter(|v| !v.is_null()).cloned()
    }

    /// Whether the field is there, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Says that these change nothing in this family.
    pub(crate) fn ignore(&mut self, names: &[&'static str]) {
        self.seen.extend(names);
    }

    pub(crate) fn size(&mut self, name: &'static str) -> Result<Option<usize>, LlmError> {
        self.take(name)
            .map(|value| {
                let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
                number.ok_or_else(|| LlmError::config(name, format!("is `{value}`, not a whole number")))
            })
            .transpose()
    }

    pub(crate) fn required_size(&mut self, name: &'static str) -> Result<usize, LlmError> {
        self.size(name)?.ok_or_else(|| LlmError::config(name, "is missing"))
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<f64>, LlmError> {
        self.take(name)
            .map(|value| value.as_f64().ok_or_else(|| LlmError::config(name, format!("is `{value}`, not a number"))))
            .transpose()
    }

    /// A positive number, or none: `default` where the field is absent, none where it is null.
    pub(crate) fn positive_or_null(
        &mut self,
        name: &'static str,
        default: Option<f64>,
    ) -> Result<Option<f64>, LlmError> {
        let number = if self.has(name) { self.number(name)? } else { default };
        match number {
            Some(number) if !(number.is_finite() && number > 0.0) => {
                Err(LlmError::config(name, format!("is {number}, not a number above 0")))
            }
            number => Ok(number),
        }
    }

    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, LlmError> {
        self.take(name).map_or(Ok(default), |value| {
            value.as_bool().ok_or_else(|| LlmError::config(name, format!("is `{value}`, not true or false")))
        })
    }

    /// `name` may only be absent or one of `allowed`: anything else would change the arithmetic.
    pub(crate) fn only<V: Into<Value> + Clone>(&mut self, name: &'static str, allowed: &[V]) -> Result<(), LlmError> {
        let allowed: Vec<Value> = allowed.iter().cloned().map(Into::into).collect();
        match self.take(name) {
            Some(value) if !allowed.iter().any(|allowed| same(&value, allowed)) => {
                let listed: Vec<String> = allowed.iter().map(|value| format!("`{value}`")).collect();
                Err(LlmError::config(name, format!("is `{value}`; only {} is supported", listed.join(" or "))))
            }
            _ => Ok(()),
        }
    }

    /// The family, by `architectures` and `model_type`, which must say the same where both are there.
    pub(crate) fn architecture(&mut self) -> Result<Architecture, LlmError> {
        let named =
            self.take("architectures").and_then(|v| v.as_array().and_then(|a| a.first()?.as_str().map(str::to_string)));
        let model_type = self.take("model_type").and_then(|v| v.as_str().map(str::to_string));
        let known = |name: &str| {
            let family = Architecture::ALL.into_iter().find(|a| a.class_name() == name || a.model_type() == name);
            family.ok_or_else(|| LlmError::UnknownArchitecture { name: name.to_string() })
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

    pub(crate) fn refuse_the_rest(&self) -> Result<(), LlmError> {
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
