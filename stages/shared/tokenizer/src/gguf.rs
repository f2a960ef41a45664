//! The `tokenizer.json` of a model, made from the vocabulary of its GGUF.
//!
//! ```text
//! model "gpt2"    tokens, merges, pre "llama-bpe"   -> byte-level BPE, cut by Llama 3's regular expression
//! model "llama"   tokens, scores                    -> BPE with bytes for what no token covers; merges in the order of the scores
//! ```
//!
//! A SentencePiece model of the kind BPE joins the two neighbours whose token has the highest score. So each pair of tokens that makes a token is
//! a merge, the one with the highest score first. The regular expressions are those of the models' own
//! `tokenizer.json`, by llama.cpp's names for them (llama-vocab.cpp); a name that is not known here is refused.
//!
//! Refused too, since the file does not tell what matters: SentencePiece of a Phi-3 (its special tokens take the white space behind them) and of
//! a Gemma (the order of its merges is not that of the scores).
//!
//! It deliberately reads no chat template: `files` hands it on in `tokenizer_config.json`, and pipe-template reads the GGUF itself.

use std::collections::{BTreeMap, HashMap};

use pipe_contract::Artifact;
use pipe_weights::{TokenType, Vocabulary};
use serde_json::{Value, json};

use crate::TokenizerError;

/// Llama 3's pieces (its `tokenizer.json`).
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: as Llama 3's, each digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a byte-level tokenizer cuts a text, by `tokenizer.ggml.pre`.
struct Pre {
    names: &'static [&'static str],
    /// Composed characters first.
    is_nfc: bool,
    cut: Cut,
    /// A piece that is a token stays whole, whatever the merges make of it.
    ignores_merges: bool,
    /// Whether a text begins with `bos` where the file does not say (llama-vocab.cpp).
    adds_bos: bool,
}

enum Cut {
    Gpt2,
    /// Each digit alone, else as GPT-2.
    DigitsThenGpt2,
    Regex(&'static str),
}

const PRES: [Pre; 4] = [
    Pre { names: &["gpt-2"], is_nfc: false, cut: Cut::Gpt2, ignores_merges: false, adds_bos: false },
    Pre { names: &["smollm"], is_nfc: false, cut: Cut::DigitsThenGpt2, ignores_merges: false, adds_bos: false },
    Pre { names: &["qwen2"], is_nfc: true, cut: Cut::Regex(QWEN2), ignores_merges: false, adds_bos: false },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3"],
        is_nfc: false,
        cut: Cut::Regex(LLAMA3),
        ignores_merges: true,
        adds_bos: true,
    },
];

/// The bytes of the `tokenizer.json` that the GGUF of `model` stands for; `None` where the model's weights are no GGUF with a vocabulary.
///
/// # Errors
/// A GGUF that cannot be read; a vocabulary that makes no tokenizer.
pub(crate) fn tokenizer_json(model: &Artifact) -> Result<Option<Vec<u8>>, TokenizerError> {
    pipe_weights::gguf_vocabulary(model)?.map(|vocabulary| json_of(&vocabulary)).transpose()
}

/// `tokenizer.json` and, where the model has none, `tokenizer_config.json`, for whoever loads a model of `vocabulary` without its GGUF.
pub(crate) fn files(model: &Artifact) -> Result<Vec<(&'static str, Vec<u8>)>, TokenizerError> {
    const CONFIG: &str = "tokenizer_config.json";
    let Some(vocabulary) = pipe_weights::gguf_vocabulary(model)? else { return Ok(Vec::new()) };
    let mut files = vec![("tokenizer.json", json_of(&vocabulary)?)];
    if model.get(CONFIG).is_none() {
        let mut config = BTreeMap::from([
            ("clean_up_tokenization_spaces", json!(false)),
            ("tokenizer_class", json!("PreTrainedTokenizerFast")),
        ]);
        config.extend(vocabulary.special_tokens().map(|(name, token)| (name, token.into())));
        if let Some(template) = &vocabulary.chat_template {
            config.insert("chat_template", template.as_str().into());
        }
        files.push((CONFIG, pretty(&config)));
    }
    Ok(files)
}

fn pretty(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("strings and numbers always serialize");
    bytes.push(b'\n');
    bytes
}

fn json_of(vocabulary: &Vocabulary) -> Result<Vec<u8>, TokenizerError> {
    let ids = ids(vocabulary)?;
    match vocabulary.model.as_str() {
        "gpt2" => byte_level(vocabulary, &ids),
        "llama" => sentence_piece(vocabulary, &ids),
        other => Err(refused(format!("its tokenizer is `{other}`; `gpt2` and `llama` are supported"))),
    }
}

fn refused(why: impl Into<String>) -> TokenizerError {
    TokenizerError::Gguf { why: why.into() }
}

/// Tokens that there are: rows that nothing uses have made-up names.
fn ids(vocabulary: &Vocabulary) -> Result<HashMap<&str, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(vocabulary.tokens.len());
    for ((id, token), kind) in (0..).zip(&vocabulary.tokens).zip(&vocabulary.types) {
        if *kind == TokenType::Unused && *token == format!("[PAD{id}]") {
            continue;
        }
        if let Some(other) = ids.insert(token.as_str(), id) {
            return Err(refused(format!("the ids {other} and {id} are both `{token}`")));
        }
    }
    Ok(ids)
}

fn byte_level(vocabulary: &Vocabulary, ids: &HashMap<&str, u32>) -> Result<Vec<u8>, TokenizerError> {
    let name = vocabulary.pre.as_deref().unwrap_or("default");
    let Some(pre) = PRES.iter().find(|pre| pre.names.contains(&name)) else {
        let known: Vec<String> = PRES.iter().flat_map(|pre| pre.names).map(|name| format!("`{name}`")).collect();
        return Err(refused(format!("its `tokenizer.ggml.pre` is `{name}`; supported are {}", known.join(", "))));
    };
    let mapped = |use_regex: bool| json!({"add_prefix_space": false, "trim_offsets": true, "type": "ByteLevel", "use_regex": use_regex});
    let first_and_mapped =
        |first: Value, use_regex: bool| json!({"pretokenizers": [first, mapped(use_regex)], "type": "Sequence"});
    let cut = match pre.cut {
        Cut::Gpt2 => mapped(true),
        Cut::DigitsThenGpt2 => first_and_mapped(json!({"individual_digits": true, "type": "Digits"}), true),
        Cut::Regex(regex) => {
            let split = json!({"behavior": "Isolated", "invert": false, "pattern": {"Regex": regex}, "type": "Split"});
            first_and_mapped(split, false)
        }
    };
    let mut merges = Vec::with_capacity(vocabulary.merges.len());
    for merge in &vocabulary.merges {
        match merge.split_once(' ').filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right)) {
            Some(pair) => merges.push(pair),
            None => return Err(refused(format!("the merge `{merge}` is not of two tokens"))),
        }
    }
    let parts = Parts {
        normalizer: if pre.is_nfc { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: cut,
        decoder: mapped(true),
        adds_bos: pre.adds_bos,
        unknown: None,
        ignores_merges: pre.ignores_merges,
        merges,
    };
    file(vocabulary, ids, parts)
}

fn sentence_piece(vocabulary: &Vocabulary, ids: &HashMap<&str, u32>) -> Result<Vec<u8>, TokenizerError> {
    if vocabulary.architecture != "llama" {
        let why = format!("SentencePiece of the architecture `{}` is not told by a GGUF", vocabulary.architecture);
        return Err(refused(why));
    }
    if vocabulary.scores.is_empty() {
        return Err(refused("it has no `tokenizer.ggml.scores`"));
    }
    let unknown = vocabulary.types.iter().position(|kind| *kind == TokenType::Unknown);
    let Some(unknown) = unknown.and_then(|id| vocabulary.tokens.get(id)) else {
        return Err(refused("none of its tokens is the unknown one"));
    };
    let has_prefix = vocabulary.add_space_prefix.unwrap_or(true);
    let space = json!({"content": "▁", "pattern": {"String": " "}, "type": "Replace"});
    let prefix = json!({"prepend": "▁", "type": "Prepend"});
    let normalizers: Vec<Value> = [prefix].into_iter().filter(|_| has_prefix).chain([space]).collect();
    let mut decoders = vec![
        json!({"content": " ", "pattern": {"String": "▁"}, "type": "Replace"}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if has_prefix {
        decoders.push(json!({"content": " ", "start": 1, "stop": 0, "type": "Strip"}));
    }
    let parts = Parts {
        normalizer: json!({"normalizers": normalizers, "type": "Sequence"}),
        pre_tokenizer: Value::Null,
        decoder: json!({"decoders": decoders, "type": "Sequence"}),
        adds_bos: true,
        unknown: Some(unknown),
        ignores_merges: false,
        merges: merges_by_score(vocabulary, ids),
    };
    file(vocabulary, ids, parts)
}

/// Each pair of tokens that makes a token, the one with the highest score first; of one token that with the lowest ids first. What is not made of
/// text is in none. So they stand in the `tokenizer.json` that Llama 2 has on the hub; transformers 5 orders those of one token by their lengths.
fn merges_by_score<'v>(vocabulary: &'v Vocabulary, ids: &HashMap<&str, u32>) -> Vec<(&'v str, &'v str)> {
    let is_text = |id: u32| matches!(vocabulary.types[id as usize], TokenType::Normal | TokenType::UserDefined);
    let is_part = |part: &str| ids.get(part).is_some_and(|id| is_text(*id));
    let mut merges = Vec::new();
    for ((id, token), score) in (0..).zip(&vocabulary.tokens).zip(&vocabulary.scores) {
        if !is_text(id) || ids.get(token.as_str()) != Some(&id) {
            continue;
        }
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut pairs: Vec<(&str, &str)> = splits.filter(|(left, right)| is_part(left) && is_part(right)).collect();
        pairs.sort_by_key(|(left, right)| (ids[left], ids[right]));
        merges.extend(pairs.into_iter().map(|pair| (*score, pair)));
    }
    // Tokens of one score stay in the order of their ids.
    merges.sort_by(|(score, _), (other, _)| other.total_cmp(score));
    merges.into_iter().map(|(_, pair)| pair).collect()
}

/// What tokenizers differ in.
struct Parts<'v> {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    /// Where the file does not say.
    adds_bos: bool,
    /// The token of what nothing covers, which is else written as bytes.
    unknown: Option<&'v str>,
    ignores_merges: bool,
    merges: Vec<(&'v str, &'v str)>,
}

fn file(vocabulary: &Vocabulary, ids: &HashMap<&str, u32>, parts: Parts<'_>) -> Result<Vec<u8>, TokenizerError> {
    let added = (0..).zip(&vocabulary.tokens).zip(&vocabulary.types).filter_map(|((id, token), kind)| {
        let is_special = match kind {
            TokenType::Control | TokenType::Unknown => true,
            TokenType::UserDefined => false,
            TokenType::Normal | TokenType::Unused | TokenType::Byte => return None,
        };
        Some(json!({"content": token, "id": id, "lstrip": false, "normalized": false, "rstrip": false,
                    "single_word": false, "special": is_special}))
    });
    let [bos, eos, ..] = vocabulary.special;
    let around = |name: &str, is_added: bool, id: Option<u32>| match (is_added, id) {
        (false, _) => Ok(None),
        (true, Some(id)) => Ok(Some((id, vocabulary.tokens[id as usize].as_str()))),
        (true, None) => Err(refused(format!("it adds `{name}`, but has no `tokenizer.ggml.{name}_token_id`"))),
    };
    let before = around("bos", vocabulary.add_bos.unwrap_or(parts.adds_bos), bos)?;
    let behind = around("eos", vocabulary.add_eos.unwrap_or(false), eos)?;
    let has_bytes = parts.unknown.is_some();
    let ids: BTreeMap<&str, u32> = ids.iter().map(|(token, id)| (*token, *id)).collect();
    Ok(pretty(&json!({
        "added_tokens": added.collect::<Vec<_>>(),
        "decoder": parts.decoder,
        "model": {
            "byte_fallback": has_bytes,
            "continuing_subword_prefix": null,
            "dropout": null,
            "end_of_word_suffix": null,
            "fuse_unk": has_bytes,
            "ignore_merges": parts.ignores_merges,
            "merges": parts.merges,
            "type": "BPE",
            "unk_token": parts.unknown,
            "vocab": ids,
        },
        "normalizer": parts.normalizer,
        "padding": null,
        "post_processor": template(before, behind),
        "pre_tokenizer": parts.pre_tokenizer,
        "truncation": null,
        "version": "1.0",
    })))
}

/// The post-processor that puts a token before and one behind each text; null where there is neither.
fn template(before: Option<(u32, &str)>, behind: Option<(u32, &str)>) -> Value {
    if before.is_none() && behind.is_none() {
        return Value::Null;
    }
    let around = |letter: &str, type_id: u32| -> Vec<Value> {
        let token = |(_, token): &(u32, &str)| json!({"SpecialToken": {"id": token, "type_id": type_id}});
        let text = json!({"Sequence": {"id": letter, "type_id": type_id}});
        before.iter().map(token).chain([text]).chain(behind.iter().map(token)).collect()
    };
    let special: BTreeMap<&str, Value> = before
        .iter()
        .chain(&behind)
        .map(|(id, token)| (*token, json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let pair = [around("A", 0), around("B", 1)].concat();
    json!({
        "pair": pair,
        "single": around("A", 0),
        "special_tokens": special,
        "type": "TemplateProcessing",
    })
}
