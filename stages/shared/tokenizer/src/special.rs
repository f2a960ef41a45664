//! Which ids begin and end a sequence: read from a model folder's small JSON files.
//!
//! ```text
//! eos: tokenizer_config.json `eos_token` -> special_tokens_map.json `eos_token`      (a token, looked up)
//!      -> generation_config.json `eos_token_id` -> config.json `eos_token_id`        (an id; the first of a list)
//! bos: likewise
//! ```
//!
//! Where a GGUF has no `config.json` beside it, its metadata stands for that file.
//!
//! The padding token is never read: labels come from spans, so nothing depends on it.

use pipe_contract::Artifact;
use serde_json::Value;

use crate::TokenizerError;

/// The files that name tokens, in the order they are asked.
const TOKEN_FILES: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];
/// The files that name ids, in the order they are asked.
const ID_FILES: [&str; 2] = ["generation_config.json", "config.json"];

/// The small JSON files of a model folder; a file that is not there is null.
pub(crate) struct ModelFiles {
    token_files: [Value; 2],
    id_files: [Value; 2],
}

/// One of the two special tokens we need.
#[derive(Clone, Copy)]
pub(crate) struct SpecialKey {
    token: &'static str,
    id: &'static str,
}

/// Begins a sequence.
pub(crate) const BOS: SpecialKey = SpecialKey { token: "bos_token", id: "bos_token_id" };
/// Ends a sequence.
pub(crate) const EOS: SpecialKey = SpecialKey { token: "eos_token", id: "eos_token_id" };

impl ModelFiles {
    /// Reads what is there; `config.json` must be, or a GGUF that says it.
    pub(crate) fn read(model: &Artifact) -> Result<Self, TokenizerError> {
        let config = pipe_weights::config_json(model)?.ok_or(TokenizerError::NoConfig)?;
        let json = |source| TokenizerError::Json { file: ID_FILES[1].to_string(), source };
        let config = serde_json::from_str(&config).map_err(json)?;
        let read = |name: &str| read_json(model, name);
        let token_files = [read(TOKEN_FILES[0])?, read(TOKEN_FILES[1])?];
        Ok(ModelFiles { token_files, id_files: [read(ID_FILES[0])?, config] })
    }

    /// The id that `key` stands for, or nothing where no file says it. `token_to_id` looks a token up.
    pub(crate) fn special_id(
        &self,
        key: SpecialKey,
        token_to_id: impl Fn(&str) -> Option<u32>,
    ) -> Result<Option<u32>, TokenizerError> {
        for (file, json) in TOKEN_FILES.into_iter().zip(&self.token_files) {
            let Some(token) = token_text(file, key.token, &json[key.token])? else { continue };
            return match token_to_id(token) {
                Some(id) => Ok(Some(id)),
                None => Err(TokenizerError::UnknownToken { file, key: key.token, token: token.to_string() }),
            };
        }
        for (file, json) in ID_FILES.into_iter().zip(&self.id_files) {
            if let Some(id) = first_id(file, key.id, &json[key.id])? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Every id that ends a sequence, rising: a chat model has one for the end of a turn and one for the end of a text.
    pub(crate) fn end_ids(&self, token_to_id: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, TokenizerError> {
        let mut ids: Vec<u32> = self.special_id(EOS, token_to_id)?.into_iter().collect();
        for (file, json) in ID_FILES.into_iter().zip(&self.id_files) {
            let value = &json[EOS.id];
            let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for item in items {
                ids.extend(first_id(file, EOS.id, item)?);
            }
            if !value.is_null() {
                break;
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// `key` of `config.json`: a whole number above 0, or nothing.
    pub(crate) fn config_number(&self, key: &'static str) -> Result<Option<usize>, TokenizerError> {
        let value = &self.id_files[1][key];
        if value.is_null() {
            return Ok(None);
        }
        match value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(field("config.json", key, value, "a whole number above 0")),
        }
    }
}

/// A JSON file of the folder; null where there is none.
pub(crate) fn read_json(model: &Artifact, name: &str) -> Result<Value, TokenizerError> {
    let Some(path) = model.get(name) else { return Ok(Value::Null) };
    let bytes = std::fs::read(path).map_err(|source| TokenizerError::Io { path: path.to_path_buf(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| TokenizerError::Json { file: name.to_string(), source })
}

/// `"</s>"` or `{"content": "</s>", ...}`, as older and newer transformers write it.
fn token_text<'a>(file: &'static str, key: &'static str, value: &'a Value) -> Result<Option<&'a str>, TokenizerError> {
    match value {
        Value::Null => Ok(None),
        Value::String(token) => Ok(Some(token)),
        Value::Object(object) => match object.get("content").and_then(Value::as_str) {
            Some(token) => Ok(Some(token)),
            None => Err(field(file, key, value, "a token")),
        },
        _ => Err(field(file, key, value, "a token")),
    }
}

/// `2` or `[2, 7]`, of which the first counts.
fn first_id(file: &'static str, key: &'static str, value: &Value) -> Result<Option<u32>, TokenizerError> {
    let first = match value {
        Value::Array(items) => items.first().unwrap_or(&Value::Null),
        other => other,
    };
    if first.is_null() {
        return Ok(None);
    }
    match first.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) => Ok(Some(id)),
        None => Err(field(file, key, value, "an id or a list of ids")),
    }
}

fn field(file: &'static str, key: &'static str, value: &Value, expected: &'static str) -> TokenizerError {
    TokenizerError::Field { file, key, value: value.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn files(tokenizer_config: Value, map: Value, generation: Value, config: Value) -> ModelFiles {
        ModelFiles { token_files: [tokenizer_config, map], id_files: [generation, config] }
    }

    fn lookup(token: &str) -> Option<u32> {
        (token == "</s>").then_some(2)
    }

    #[test]
    fn the_end_token_is_found_in_each_form() {
        let null = Value::Null;
        let cases = [
            (files(json!({"eos_token": "</s>"}), null.clone(), json!({"eos_token_id": 9}), null.clone()), Some(2)),
            (files(json!({"eos_token": {"content": "</s>"}}), null.clone(), null.clone(), null.clone()), Some(2)),
            (files(json!({"eos_token": null}), json!({"eos_token": "</s>"}), null.clone(), null.clone()), Some(2)),
            (files(null.clone(), null.clone(), json!({"eos_token_id": [7, 8]}), json!({"eos_token_id": 9})), Some(7)),
            (files(null.clone(), null.clone(), null.clone(), json!({"eos_token_id": 9})), Some(9)),
            (files(null.clone(), null.clone(), null.clone(), json!({})), None),
        ];
        for (files, expected) in cases {
            assert_eq!(files.special_id(EOS, lookup).unwrap(), expected);
        }
    }

    #[test]
    fn a_model_stops_at_each_of_its_end_ids() {
        let null = Value::Null;
        let token = json!({"eos_token": "</s>"});
        let cases = [
            (
                files(token.clone(), null.clone(), json!({"eos_token_id": [9, 7, 2]}), json!({"eos_token_id": 5})),
                [2, 7, 9],
            ),
            (files(token, null.clone(), null.clone(), json!({"eos_token_id": [7, 9]})), [2, 7, 9]),
        ];
        for (files, expected) in cases {
            assert_eq!(files.end_ids(lookup).unwrap(), expected);
        }
        assert!(files(null.clone(), null.clone(), null.clone(), null).end_ids(lookup).unwrap().is_empty());
    }

    #[test]
    fn a_token_that_does_not_exist_is_named() {
        let files = files(json!({"eos_token": "<end>"}), Value::Null, json!({"eos_token_id": 9}), Value::Null);
        let message = files.special_id(EOS, lookup).unwrap_err().to_string();
        assert_eq!(
            message,
            "`tokenizer_config.json` names `<end>` as `eos_token`, but `tokenizer.json` has no such token"
        );
    }

    #[test]
    fn wrong_types_are_named() {
        let bad_id = files(Value::Null, Value::Null, json!({"eos_token_id": "two"}), Value::Null);
        assert!(bad_id.special_id(EOS, lookup).unwrap_err().to_string().contains("`\"two\"`, which is not an id"));
        let bad_size = files(Value::Null, Value::Null, Value::Null, json!({"vocab_size": 0}));
        assert!(bad_size.config_number("vocab_size").is_err());
    }

    #[test]
    fn a_gguf_alone_stands_for_the_config() {
        let folder = tempfile::tempdir().unwrap();
        let model = || Artifact::from_folder(pipe_contract::ArtifactKind::Model, folder.path()).unwrap();
        assert!(matches!(ModelFiles::read(&model()), Err(TokenizerError::NoConfig)));
        let fixture =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/fixtures/weights/qwen2.gguf");
        std::fs::copy(fixture, folder.path().join("a.gguf")).unwrap();
        let files = ModelFiles::read(&model()).unwrap();
        assert_eq!(files.config_number("vocab_size").unwrap(), Some(128));
        assert_eq!(files.config_number("max_position_embeddings").unwrap(), Some(64));
        assert_eq!(
            (files.special_id(BOS, lookup).unwrap(), files.special_id(EOS, lookup).unwrap()),
            (Some(1), Some(2))
        );
    }
}
