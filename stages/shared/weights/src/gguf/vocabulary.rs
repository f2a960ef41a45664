//! The vocabulary in the metadata of a GGUF: `tokenizer.ggml.*`.
//!
//! ```text
//! tokenizer.ggml.model  = "gpt2"          byte-level BPE: tokens, merges and the name of a regular expression (`pre`)
//!                         "llama"         SentencePiece: tokens and scores
//! tokenizer.ggml.tokens = ["!", "\"", ..., "<|endoftext|>"]     the place is the id
//! ```
//!
//! It deliberately makes no tokenizer: that is pipe-tokenizer's.

use super::reader::{Metadata, Raw};
use crate::error::Fault;

/// What a token is (llama.cpp's `llama_token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Made of text.
    Normal,
    /// What text no token covers becomes.
    Unknown,
    /// Special: made by templates alone.
    Control,
    /// Added: found whole in a text.
    UserDefined,
    /// A row that nothing uses.
    Unused,
    /// `<0x0A>`: a byte of what no other token covers.
    Byte,
}

/// The vocabulary of a GGUF.
#[derive(Clone, Debug, PartialEq)]
pub struct Vocabulary {
    /// `general.architecture`.
    pub architecture: String,
    /// `gpt2`, `llama`, ...
    pub model: String,
    /// Name of the regular expression that cuts texts, of `gpt2`.
    pub pre: Option<String>,
    /// By id.
    pub tokens: Vec<String>,
    /// By id.
    pub types: Vec<TokenType>,
    /// By id, of `llama`; empty where there are none.
    pub scores: Vec<f32>,
    /// `"a b"`, the first to be merged first; empty where there are none.
    pub merges: Vec<String>,
    /// Ids of `bos`, `eos`, `unknown` and `padding`, below the number of tokens.
    pub special: [Option<u32>; 4],
    /// Whether a text begins with `bos`, where the file says it.
    pub add_bos: Option<bool>,
    /// Whether a text ends with `eos`, where the file says it.
    pub add_eos: Option<bool>,
    /// Whether a space is put before a text, where the file says it.
    pub add_space_prefix: Option<bool>,
    /// The model's chat template.
    pub chat_template: Option<String>,
}

impl Vocabulary {
    /// Hugging Face's name of each special token, and its text.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let names = ["bos_token", "eos_token", "unk_token", "pad_token"];
        names.into_iter().zip(self.special).filter_map(|(name, id)| Some((name, self.tokens[id? as usize].as_str())))
    }
}

/// The names of [`Vocabulary::special`] in the keys.
const SPECIAL: [&str; 4] = ["bos", "eos", "unknown", "padding"];

/// The vocabulary, where there is one.
pub(super) fn read(raw: &Raw) -> Result<Option<Vocabulary>, Fault> {
    let value = |key: &str| raw.metadata.get(&format!("tokenizer.ggml.{key}"));
    let texts = |key: &str| match value(key) {
        Some(Metadata::Texts(texts)) => Some(texts.clone()),
        _ => None,
    };
    let numbers = |key: &str| match value(key) {
        Some(Metadata::Numbers(numbers)) => numbers.as_slice(),
        _ => &[],
    };
    let (Some(model), Some(tokens)) = (raw.text("tokenizer.ggml.model"), texts("tokens")) else { return Ok(None) };
    let types = match numbers("token_type") {
        [] => vec![TokenType::Normal; tokens.len()],
        types => types.iter().map(|number| token_type(*number)).collect::<Result<_, _>>()?,
    };
    let scores: Vec<f32> = numbers("scores").iter().map(|score| *score as f32).collect();
    for (name, n_items) in [("token_type", types.len()), ("scores", scores.len())] {
        if n_items != tokens.len() && (name, n_items) != ("scores", 0) {
            let why = format!("it has {} tokens, but {n_items} items of `tokenizer.ggml.{name}`", tokens.len());
            return Err(Fault::broken(why));
        }
    }
    let mut special = [None; 4];
    for (id, name) in special.iter_mut().zip(SPECIAL) {
        let Some(number) = raw.number(&format!("tokenizer.ggml.{name}_token_id")) else { continue };
        if !(0.0..tokens.len() as f64).contains(&number) {
            return Err(Fault::broken(format!("its `{name}_token_id` is {number}, of {} tokens", tokens.len())));
        }
        *id = Some(number as u32);
    }
    let flag = |key: &str| raw.number(&format!("tokenizer.ggml.{key}")).map(|number| number != 0.0);
    Ok(Some(Vocabulary {
        architecture: raw.text("general.architecture").unwrap_or_default().to_string(),
        model: model.to_string(),
        pre: raw.text("tokenizer.ggml.pre").map(str::to_string),
        types,
        scores,
        merges: texts("merges").unwrap_or_default(),
        special,
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
        add_space_prefix: flag("add_space_prefix"),
        chat_template: raw.text("tokenizer.chat_template").map(str::to_string),
        tokens,
    }))
}

fn token_type(number: f64) -> Result<TokenType, Fault> {
    Ok(match number as i64 {
        1 => TokenType::Normal,
        2 => TokenType::Unknown,
        3 => TokenType::Control,
        4 => TokenType::UserDefined,
        5 => TokenType::Unused,
        6 => TokenType::Byte,
        _ => return Err(Fault::broken(format!("it has a token of the type {number}, which there is not"))),
    })
}
