//! Tokenizers made from the vocabulary of a GGUF, against those of the models that they are of.

/// The texts of the test data.
mod data;

use std::path::Path;

use pipe_contract::{Artifact, ArtifactKind, StageError};
use pipe_tokenizer::{ModelTokenizer, generated};
use serde_json::{Value, json};

use crate::data::{each_text, test_data};

/// One of so many texts of the data is looked at: vocabulary and merges are compared whole.
const EVERY: usize = 10;

/// Types of tokens.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const UNUSED: u64 = 5;

/// A GGUF of a small `llama` with these keys behind `tokenizer.` and an embedding with `n_rows` rows.
fn gguf(tokenizer: &Value, architecture: &str, n_rows: u64) -> Vec<u8> {
    let model = json!({"block_count": 1, "context_length": 32, "embedding_length": 4, "feed_forward_length": 8,
        "attention.head_count": 2, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 10000.0,
        "attention.key_length": 2, "attention.value_length": 2, "attention.sliding_window": 0});
    let is_llama = architecture == "llama";
    let model = model.as_object().unwrap().iter().filter(|(key, _)| !is_llama || !key.contains("window"));
    let mut keys = vec![("general.architecture".to_string(), json!(architecture))];
    keys.extend(model.map(|(key, value)| (format!("{architecture}.{key}"), value.clone())));
    keys.extend(tokenizer.as_object().unwrap().iter().map(|(key, value)| (format!("tokenizer.{key}"), value.clone())));
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = [&b"GGUF"[..], &3_u32.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    bytes.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in &keys {
        bytes.extend(text(key));
        let type_of = |value: &Value| match value {
            Value::String(_) => 8_u32,
            Value::Bool(_) => 7,
            Value::Number(number) if number.is_u64() => 4,
            _ => 6,
        };
        let raw = |value: &Value| match value {
            Value::String(value) => text(value),
            Value::Bool(value) => vec![u8::from(*value)],
            Value::Number(number) if number.is_u64() => (number.as_u64().unwrap() as u32).to_le_bytes().to_vec(),
            value => (value.as_f64().unwrap() as f32).to_le_bytes().to_vec(),
        };
        match value {
            Value::Array(items) => {
                bytes.extend([9, type_of(&items[0])].map(u32::to_le_bytes).concat());
                bytes.extend((items.len() as u64).to_le_bytes());
                items.iter().for_each(|item| bytes.extend(raw(item)));
            }
            value => bytes.extend([&type_of(value).to_le_bytes()[..], &raw(value)].concat()),
        }
    }
    bytes.extend(text("token_embd.weight"));
    bytes.extend(2_u32.to_le_bytes());
    bytes.extend([4, n_rows].map(u64::to_le_bytes).concat());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32) + n_rows as usize * 16, 0);
    bytes
}

fn folder_of(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Artifact) {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
    let artifact = Artifact::from_folder(ArtifactKind::Model, folder.path()).unwrap();
    (folder, artifact)
}

/// `tokenizer.json` and the tokenizer of a GGUF alone.
fn made(bytes: &[u8]) -> (Value, ModelTokenizer) {
    let (_folder, model) = folder_of(&[("a.gguf", bytes)]);
    let files = generated::files(&model).unwrap();
    assert_eq!(files.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["tokenizer.json", "tokenizer_config.json"]);
    (serde_json::from_slice(&files[0].1).unwrap(), ModelTokenizer::load(&model).unwrap())
}

fn refusal(tokenizer: &Value, architecture: &str) -> String {
    let (_folder, model) = folder_of(&[("a.gguf", &gguf(tokenizer, architecture, 8))]);
    let error = StageError::from(ModelTokenizer::load(&model).err().expect("it should be refused"));
    assert_eq!(error.slug, "bad-tokenizer");
    assert!(error.help.is_some_and(|help| help.contains("`tokenizer.json`")));
    error.message
}

fn json_of(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap()
}

fn pairs(json: &Value) -> Vec<(String, String)> {
    let pair = |merge: &Value| match merge {
        Value::String(merge) => {
            merge.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string())).unwrap()
        }
        merge => (merge[0].as_str().unwrap().to_string(), merge[1].as_str().unwrap().to_string()),
    };
    json["model"]["merges"].as_array().unwrap().iter().map(pair).collect()
}

/// Tokens by id.
fn tokens(json: &Value) -> Vec<String> {
    let mut tokens: Vec<(u64, &String)> =
        json["model"]["vocab"].as_object().unwrap().iter().map(|(token, id)| (id.as_u64().unwrap(), token)).collect();
    tokens.sort_unstable();
    tokens.into_iter().map(|(_, token)| token.clone()).collect()
}

/// Gives `ours` and `theirs` the texts of all the data, and counts them and their ids.
fn compare(data: &Path, ours: &ModelTokenizer, theirs: &ModelTokenizer) {
    let (mut n_texts, mut n_ids) = (0, 0);
    let mut check = |text: &str| {
        n_texts += 1;
        if n_texts % EVERY == 0 {
            let encoded = ours.encode(text).unwrap();
            assert_eq!(encoded, theirs.encode(text).unwrap(), "{text:?}");
            assert_eq!(ours.decode(&encoded.ids).unwrap(), theirs.decode(&encoded.ids).unwrap());
            n_ids += encoded.ids.len();
        }
    };
    each_text(data, &mut check);
    for text in ["", " ", "  two", "a  b\n\n c", "\u{1f600} e\u{301}", "naïve\tx"] {
        assert_eq!(ours.encode(text).unwrap(), theirs.encode(text).unwrap(), "{text:?}");
    }
    assert!(n_texts > 25_000 && n_ids > 1_500_000 / EVERY, "{n_texts} texts, {n_ids} ids");
}

#[test]
fn gpt2_is_what_its_gguf_says() {
    let Some(data) = test_data("gpt2_is_what_its_gguf_says") else { return };
    let folder = data.join("tokenizers/gpt2");
    let json = json_of(&folder);
    let tokens = tokens(&json);
    let merges: Vec<String> = pairs(&json).into_iter().map(|(left, right)| format!("{left} {right}")).collect();
    let types: Vec<u64> = (0..tokens.len()).map(|id| if id == 50_256 { CONTROL } else { NORMAL }).collect();
    let bytes = gguf(
        &json!({"ggml.model": "gpt2", "ggml.pre": "gpt-2", "ggml.tokens": tokens, "ggml.merges": merges,
            "ggml.token_type": types, "ggml.bos_token_id": 50256, "ggml.eos_token_id": 50256}),
        "llama",
        50_257,
    );
    let (ours_json, ours) = made(&bytes);
    for part in ["/model/vocab", "/added_tokens", "/pre_tokenizer", "/normalizer", "/post_processor"] {
        assert!(ours_json.pointer(part) == json.pointer(part), "{part}");
    }
    assert!(pairs(&ours_json) == pairs(&json), "the merges differ");
    assert_eq!((ours.eos_id(), ours.bos_id(), ours.vocab_size()), (Some(50_256), Some(50_256), 50_257));
    let file = std::fs::read(folder.join("tokenizer.json")).unwrap();
    let (_folder, theirs) = folder_of(&[("a.gguf", &bytes), ("tokenizer.json", &file)]);
    compare(&data, &ours, &ModelTokenizer::load(&theirs).unwrap());
}

/// Text, score and type of each piece of a SentencePiece model (sentencepiece_model.proto: `ModelProto.pieces`).
fn pieces(model: &[u8]) -> Vec<(String, f32, u64)> {
    fn number(bytes: &[u8], at: &mut usize) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    /// Number and content of each field; a fixed one of 4 bytes has them as they are.
    fn fields(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let (mut at, mut found) = (0, Vec::new());
        while at < bytes.len() {
            let key = number(bytes, &mut at);
            let n_bytes = match key & 7 {
                0 => {
                    let value = number(bytes, &mut at);
                    found.push((key >> 3, value.to_le_bytes().to_vec()));
                    continue;
                }
                2 => number(bytes, &mut at) as usize,
                5 => 4,
                other => panic!("a field of the kind {other}"),
            };
            found.push((key >> 3, bytes[at..at + n_bytes].to_vec()));
            at += n_bytes;
        }
        found
    }
    let piece = |(_, bytes): (u64, Vec<u8>)| {
        let fields = fields(&bytes);
        let field = |number: u64| fields.iter().find(|(field, _)| *field == number).map(|(_, bytes)| bytes.clone());
        let score = field(2).map_or(0.0, |bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
        let kind = field(3).map_or(NORMAL, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        (String::from_utf8(field(1).unwrap()).unwrap(), score, kind)
    };
    fields(model).into_iter().filter(|(number, _)| *number == 1).map(piece).collect()
}

#[test]
fn llama2_is_what_its_gguf_says() {
    let Some(data) = test_data("llama2_is_what_its_gguf_says") else { return };
    let folder = data.join("tokenizers/llama2");
    let pieces = pieces(&std::fs::read(folder.join("tokenizer.model")).unwrap());
    assert_eq!((pieces.len(), &pieces[0].0, pieces[0].2), (32_000, &"<unk>".to_string(), UNKNOWN));
    let column = |value: &dyn Fn(&(String, f32, u64)) -> Value| -> Vec<Value> { pieces.iter().map(value).collect() };
    let bytes = gguf(
        &json!({"ggml.model": "llama", "ggml.pre": "default", "ggml.tokens": column(&|piece| json!(piece.0)),
            "ggml.scores": column(&|piece| json!(f64::from(piece.1))), "ggml.token_type": column(&|piece| json!(piece.2)),
            "ggml.bos_token_id": 1, "ggml.eos_token_id": 2, "ggml.unknown_token_id": 0, "ggml.add_bos_token": true}),
        "llama",
        32_000,
    );
    let (ours_json, ours) = made(&bytes);
    let json = json_of(&folder);
    for part in [
        "/model/vocab",
        "/model/unk_token",
        "/model/byte_fallback",
        "/model/fuse_unk",
        "/added_tokens",
        "/normalizer",
        "/decoder",
        "/pre_tokenizer",
        "/post_processor/single",
        "/post_processor/special_tokens",
    ] {
        assert!(ours_json.pointer(part) == json.pointer(part), "{part}");
    }
    assert!(pairs(&ours_json) == pairs(&json), "the merges differ");
    assert_eq!((ours.bos_id(), ours.eos_id(), ours.encode("a").unwrap().ids[0]), (Some(1), Some(2), 1));
    let file = std::fs::read(folder.join("tokenizer.json")).unwrap();
    let (_folder, theirs) = folder_of(&[("a.gguf", &bytes), ("tokenizer.json", &file)]);
    compare(&data, &ours, &ModelTokenizer::load(&theirs).unwrap());
}

/// A byte-level vocabulary: printable characters, a space as `Ġ`, a line's end as `Ċ`, and what these merges make.
fn byte_level(pre: &str) -> Value {
    let mut tokens: Vec<String> = ('!'..='~').chain(['Ġ', 'Ċ', 'Ã', '©', 'Ì', 'ģ', 'e']).map(String::from).collect();
    tokens.pop();
    let merges = ["1 2", "12 3", "123 4", "a b", "Ġ ab", "Ċ Ċ", "Ã ©", "e Ì"];
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let n_normal = tokens.len();
    tokens.extend(["<|end|>", "<tool>", "[PAD110]"].map(String::from));
    assert_eq!(tokens[110], "[PAD110]", "{n_normal}");
    let types: Vec<u64> = (0..tokens.len())
        .map(|id| if id < n_normal { NORMAL } else { [CONTROL, USER_DEFINED, UNUSED][id - n_normal] })
        .collect();
    json!({"ggml.model": "gpt2", "ggml.pre": pre, "ggml.tokens": tokens, "ggml.merges": merges, "ggml.token_type": types,
        "ggml.bos_token_id": n_normal, "ggml.eos_token_id": n_normal, "chat_template": "{{ messages }}"})
}

/// What a text is cut into, as llama.cpp's names for regular expressions say.
#[test]
fn texts_are_cut_as_the_name_of_the_expression_says() {
    for (pre, expected) in [
        ("gpt-2", "1234|Ġ|Ġab|ĊĊ"),
        ("smollm", "1|2|3|4|Ġ|Ġab|ĊĊ"),
        ("qwen2", "1|2|3|4|Ġ|Ġab|ĊĊ"),
        ("llama-bpe", "<|end|>|123|4|Ġ|Ġab|ĊĊ"),
    ] {
        let tokenizer = byte_level(pre);
        let (json, ours) = made(&gguf(&tokenizer, "llama", 111));
        let token = |id: &u32| tokenizer["ggml.tokens"][*id as usize].as_str().unwrap().to_string();
        let cut = |text: &str| ours.encode(text).unwrap().ids.iter().map(token).collect::<Vec<_>>().join("|");
        assert_eq!(cut("1234  ab\n\n"), expected, "{pre}");
        // A special token of a text is its characters; an added one is found; a row that nothing uses is no token.
        assert!(cut("a<|end|>").ends_with("a|<|||e|n|d|||>"), "{pre}: {}", cut("a<|end|>"));
        assert!(cut("a<tool>b").ends_with("a|<tool>|b"), "{pre}");
        assert!(json["model"]["vocab"].get("[PAD110]").is_none());
        // Qwen's composes characters first: é is one token, e and its accent are not.
        let composed = cut("e\u{301}");
        assert_eq!(composed.ends_with("Ã©"), pre == "qwen2", "{pre}: {composed}");
    }
}

#[test]
fn an_export_gets_the_files_that_the_gguf_stands_for() {
    let (_folder, model) = folder_of(&[("a.gguf", &gguf(&byte_level("qwen2"), "qwen2", 111))]);
    let files = generated::files(&model).unwrap();
    let config: Value = serde_json::from_slice(&files[1].1).unwrap();
    let expected = json!({"bos_token": "<|end|>", "chat_template": "{{ messages }}", "clean_up_tokenization_spaces": false,
        "eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"});
    assert_eq!(config, expected);
    // What is written is a tokenizer of its own.
    let ours = ModelTokenizer::load(&model).unwrap();
    let config = json!({"vocab_size": 111}).to_string();
    let (_written, written) =
        folder_of(&[("config.json", config.as_bytes()), (files[0].0, &files[0].1), (files[1].0, &files[1].1)]);
    let theirs = ModelTokenizer::load(&written).unwrap();
    assert_eq!(ours.encode("ab 1234").unwrap(), theirs.encode("ab 1234").unwrap());
    assert_eq!((theirs.eos_id(), ours.eos_id()), (Some(108), Some(108)));
    assert!(generated::files(&written).unwrap().is_empty());
}

#[test]
fn a_vocabulary_that_is_not_understood_is_refused_by_name() {
    let with = |key: &str, value: Value| {
        let mut tokenizer = byte_level("gpt-2");
        tokenizer[key] = value;
        tokenizer
    };
    let pieces = json!({"ggml.model": "llama", "ggml.tokens": ["<unk>", "a"], "ggml.token_type": [UNKNOWN, NORMAL], "ggml.scores": [0.0, -1.0]});
    let without_scores =
        json!({"ggml.model": "llama", "ggml.tokens": ["<unk>", "a"], "ggml.token_type": [UNKNOWN, NORMAL]});
    for (tokenizer, architecture, why) in [
        (
            with("ggml.pre", json!("deepseek-coder")),
            "llama",
            "its `tokenizer.ggml.pre` is `deepseek-coder`; supported are `gpt-2`",
        ),
        (with("ggml.model", json!("bert")), "llama", "its tokenizer is `bert`; `gpt2` and `llama` are supported"),
        (with("ggml.merges", json!(["a q q"])), "llama", "the merge `a q q` is not of two tokens"),
        (pieces, "phi3", "SentencePiece of the architecture `phi3` is not told by a GGUF"),
        (without_scores, "llama", "it has no `tokenizer.ggml.scores`"),
        (
            json!({"ggml.model": "gpt2", "ggml.pre": "gpt-2", "ggml.tokens": ["a", "b", "a"]}),
            "llama",
            "the ids 0 and 2 are both `a`",
        ),
        (
            json!({"ggml.model": "gpt2", "ggml.pre": "llama-bpe", "ggml.tokens": ["a", "b"]}),
            "llama",
            "it adds `bos`, but has no `tokenizer.ggml.bos_token_id`",
        ),
    ] {
        let message = refusal(&tokenizer, architecture);
        assert!(message.contains(why), "{message}");
    }
}
