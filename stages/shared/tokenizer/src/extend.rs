//! A model's tokenizer with new tokens.
//!
//! ```text
//! tokenizer.json, tokenizer_config.json, ... + tokens --> the same files with them, and of each token: its id, the ids its text was before
//! ```
//!
//! Ids go on behind the last one, as those of transformers' `add_tokens` do. A model whose embedding has more rows than its tokenizer
//! has tokens has a place for them; `n_rows` says how many rows there must be. An ordinary new token is made of any text that has it; a
//! special one only where a template writes it.

use std::collections::BTreeSet;

use pipe_contract::Artifact;
use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, Tokenizer};

use crate::model_tokenizer::unusable;
use crate::special::read_json;
use crate::{ModelTokenizer, TokenizerError, generated};

/// A tokenizer with new tokens.
pub struct Extension {
    /// With rising ids.
    pub tokens: Vec<Added>,
    /// Ids below it are those of tokens that there were before.
    pub n_before: u32,
    /// Name and content of the files that change.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// A new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// From `n_before` on.
    pub id: u32,
    /// Its text.
    pub content: String,
    /// Whether no text of the data makes it.
    pub is_special: bool,
    /// The ids that its text was before.
    pub pieces: Vec<u32>,
}

impl Extension {
    /// The tokenizer of `model` with `ordinary` tokens and then `special` ones, in their order.
    ///
    /// # Errors
    /// As [`ModelTokenizer::load`]; a text that is empty, is given twice or is a token already; ids that are not without gaps.
    pub fn new(model: &Artifact, ordinary: &[String], special: &[String]) -> Result<Self, TokenizerError> {
        let before = ModelTokenizer::load(model)?;
        let mut files = Files::read(model)?;
        let mut tokenizer = Tokenizer::from_bytes(&files.tokenizer).map_err(|e| unusable(&*e))?;
        let n_before = n_ids(&tokenizer);
        let wanted: Vec<(&String, bool)> =
            ordinary.iter().map(|t| (t, false)).chain(special.iter().map(|t| (t, true))).collect();
        check(&tokenizer, &wanted)?;
        let mut tokens = Vec::with_capacity(wanted.len());
        for (content, is_special) in wanted {
            let pieces = before.pieces_of(content)?;
            let id = n_before + tokens.len() as u32;
            // As transformers: the text of an ordinary token is looked for in the normalized text.
            let added = AddedToken::from(content.clone(), is_special).normalized(!is_special);
            if is_special { tokenizer.add_special_tokens([added]) } else { tokenizer.add_tokens([added]) }
                .map_err(|e| unusable(&*e))?;
            if tokenizer.token_to_id(content) != Some(id) {
                return Err(TokenizerError::Gaps { id });
            }
            files.add(id, content, is_special);
            tokens.push(Added { id, content: content.clone(), is_special, pieces });
        }
        files.tokenizer = tokenizer.to_string(true).map_err(|e| unusable(&*e))?.into_bytes();
        Ok(Extension { tokens, n_before, files: files.written() })
    }

    /// Rows that the embedding needs.
    pub fn n_rows(&self) -> usize {
        self.n_before as usize + self.tokens.len()
    }
}

/// One more than the largest id.
fn n_ids(tokenizer: &Tokenizer) -> u32 {
    tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id + 1)
}

fn check(tokenizer: &Tokenizer, wanted: &[(&String, bool)]) -> Result<(), TokenizerError> {
    let mut seen = BTreeSet::new();
    for (content, _) in wanted {
        let why = match tokenizer.token_to_id(content) {
            _ if content.is_empty() => "it is empty".to_string(),
            Some(id) => format!("it is a token already, with id {id}"),
            None if !seen.insert(content.as_str()) => "it is listed twice".to_string(),
            None => continue,
        };
        return Err(TokenizerError::NewToken { token: (*content).clone(), why });
    }
    Ok(())
}

/// The files of a tokenizer that list added tokens.
struct Files {
    tokenizer: Vec<u8>,
    config: Value,
    /// Slow tokenizers' list; null where there is none.
    added: Value,
}

impl Files {
    fn read(model: &Artifact) -> Result<Self, TokenizerError> {
        let added = read_json(model, "added_tokens.json")?;
        let generated = generated::files(model)?;
        let file = |name: &str| generated.iter().find(|(generated, _)| *generated == name).map(|(_, bytes)| bytes);
        let config = match file("tokenizer_config.json") {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|e| unusable(&e))?,
            None => read_json(model, "tokenizer_config.json")?,
        };
        let tokenizer = match file("tokenizer.json") {
            Some(bytes) => bytes.clone(),
            None => generated::tokenizer_json(model)?,
        };
        Ok(Files { tokenizer, config, added })
    }

    fn add(&mut self, id: u32, content: &str, is_special: bool) {
        // transformers 4.34 and later list every added token there; a list without ours would say that they are not.
        if let Some(decoder) = self.config.get_mut("added_tokens_decoder").and_then(Value::as_object_mut) {
            let token = json!({
                "content": content, "lstrip": false, "normalized": !is_special, "rstrip": false, "single_word": false,
                "special": is_special,
            });
            decoder.insert(id.to_string(), token);
        }
        if is_special {
            let fields = match &mut self.config {
                Value::Object(fields) => fields,
                other => {
                    *other = Value::Object(Map::new());
                    other.as_object_mut().expect("just made")
                }
            };
            // Its name since transformers 5; before, `additional_special_tokens`.
            let is_new = fields.contains_key("extra_special_tokens");
            let key = if is_new { "extra_special_tokens" } else { "additional_special_tokens" };
            let listed = fields.entry(key).or_insert_with(|| json!([]));
            match listed {
                Value::Array(tokens) => tokens.push(content.into()),
                // A mapping of names of the model's own: ours has none.
                Value::Object(_) => {}
                other => *other = json!([content]),
            }
        }
        if let Value::Object(added) = &mut self.added {
            added.insert(content.to_string(), id.into());
        }
    }

    fn written(self) -> Vec<(&'static str, Vec<u8>)> {
        let text = |value: &Value| {
            (serde_json::to_string_pretty(value).expect("a JSON value can be written") + "\n").into_bytes()
        };
        let mut files = vec![("tokenizer.json", self.tokenizer)];
        for (name, value) in [("tokenizer_config.json", &self.config), ("added_tokens.json", &self.added)] {
            if !value.is_null() {
                files.push((name, text(value)));
            }
        }
        files
    }
}
