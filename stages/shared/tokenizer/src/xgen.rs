//! The tokenizer of Salesforce's XGen-7B, built in: on the hub it is Python code around tiktoken, and no `tokenizer.json`.
//!
//! ```text
//! ids        0..50255   GPT-2's ranks (tiktoken's r50k_base)
//!        50256          <|endoftext|>
//!        50257..50286   runs of 31, 30, ... 2 spaces
//!        50287..50294   runs of 9, 8, ... 2 tabs
//!        50295..50312   <fim_prefix> ... <reponame>
//!        50313..51199   rows of the embedding that nothing uses
//! ```
//!
//! The ranks come from the crate `tiktoken-rs`; they say which bytes a token has, and a byte-level BPE of Hugging Face's needs the pair it
//! was merged from: the two parts that the ranks before it leave of its bytes. A run of n spaces is merged from a run of n - 1 and a space,
//! the longest first, which gives tiktoken's ids. The result is an ordinary `tokenizer.json`, for us and for whoever loads an export.
//!
//! What is special is so by name only: no text can create these ids ([`crate::model_tokenizer`]), unlike in XGen's own code. There is no
//! padding token; the `pad_token_id` 0 of its config is the token `!`, and nothing here uses it.

use std::collections::HashMap;

use pipe_contract::Artifact;
use serde_json::{Value, json};

use crate::TokenizerError;
use crate::bpe::{Pair, Vocabulary, tokenizer_json};
use crate::special::read_json;

/// `tokenizer_class` in its `tokenizer_config.json`.
const CLASS: &str = "XgenTokenizer";
/// Ends a text; its id comes right behind the ranks.
const END_OF_TEXT: &str = "<|endoftext|>";
/// GPT-2's: 256 bytes and 50,000 merges.
const N_RANKS: u32 = 50_256;
/// What runs are of, and how long the longest is (tokenization_xgen.py, `include_whitespace` and `include_tabs`).
const RUNS: [(char, usize); 2] = [(' ', 31), ('\t', 9)];
/// StarCoder's, behind all else (tokenization_xgen.py, `fim_tokens`).
const SPECIAL_TOKENS: [&str; 18] = [
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    "<reponame>",
];

/// Whether `model` is to be read with the tokenizer that is built in: XGen's folder, without a `tokenizer.json` that somebody made.
///
/// # Errors
/// A `tokenizer_config.json` that cannot be read.
pub fn is_built_in(model: &Artifact) -> Result<bool, TokenizerError> {
    Ok(model.get("tokenizer.json").is_none() && read_json(model, "tokenizer_config.json")?["tokenizer_class"] == CLASS)
}

/// The files that make the tokenizer of `model` an ordinary one, for transformers without its code: `tokenizer.json`, and
/// `tokenizer_config.json` with a class that transformers has. None where the model has a `tokenizer.json` or is no XGen.
///
/// # Errors
/// As [`is_built_in`].
pub fn generated_files(model: &Artifact) -> Result<Vec<(&'static str, Vec<u8>)>, TokenizerError> {
    if !is_built_in(model)? {
        return Ok(Vec::new());
    }
    let mut config = read_json(model, "tokenizer_config.json")?;
    if let Value::Object(fields) = &mut config {
        // Where its code lies, and settings of that code.
        fields.remove("auto_map");
        fields.remove("add_special_tokens");
        fields.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
        fields.insert("eos_token".into(), END_OF_TEXT.into());
        // It would take spaces out of what is decoded.
        fields.insert("clean_up_tokenization_spaces".into(), json!(false));
    }
    let text = serde_json::to_string_pretty(&config).expect("a JSON value can be written") + "\n";
    Ok(vec![("tokenizer.json", xgen_json()?), ("tokenizer_config.json", text.into_bytes())])
}

/// The bytes of XGen's `tokenizer.json`: 50,313 tokens.
///
/// # Errors
/// Ranks that are not GPT-2's.
pub fn xgen_json() -> Result<Vec<u8>, TokenizerError> {
    let ranks = gpt2_ranks()?;
    let mut merges = merges(&ranks)?;
    let characters = byte_characters();
    let written = |bytes: &[u8]| bytes.iter().map(|byte| characters[usize::from(*byte)]).collect::<String>();
    let mut vocabulary = Vocabulary::default();
    for bytes in &ranks {
        vocabulary.add(written(bytes));
    }
    let end_id = vocabulary.add(END_OF_TEXT.to_string());
    for (character, longest) in RUNS {
        let written = characters[character as usize].to_string();
        // The run of n lies `longest - n` behind the longest; a run of one is the character's own token.
        let (first, single) = (vocabulary.len() as u32, vocabulary.id(&written));
        let id_of = |n: usize| if n == 1 { single } else { first + (longest - n) as u32 };
        for n in (2..=longest).rev() {
            vocabulary.add(written.repeat(n));
            merges.push((id_of(n - 1), single));
        }
    }
    let first_special = vocabulary.len() as u32;
    let special = (first_special..).zip(SPECIAL_TOKENS);
    let added: Vec<(u32, &str)> = std::iter::once((end_id, END_OF_TEXT)).chain(special).collect();
    Ok(tokenizer_json(&vocabulary, &merges, &added))
}

/// The bytes of each of GPT-2's tokens, by rank.
fn gpt2_ranks() -> Result<Vec<Vec<u8>>, TokenizerError> {
    let unusable = |message: String| TokenizerError::Tokenizer { message };
    let ranks = tiktoken_rs::r50k_base().map_err(|e| unusable(e.to_string()))?;
    (0..N_RANKS).map(|rank| ranks.decode_bytes(&[rank]).map_err(|e| unusable(e.to_string()))).collect()
}

/// The pair that each token of more than one byte is merged from, by rank: what the merges before it make of its bytes.
fn merges(ranks: &[Vec<u8>]) -> Result<Vec<Pair>, TokenizerError> {
    let mut id_of_byte = [0; 256];
    for (id, bytes) in (0..).zip(ranks) {
        if let [byte] = bytes.as_slice() {
            id_of_byte[usize::from(*byte)] = id;
        }
    }
    let mut merged: HashMap<Pair, u32> = HashMap::with_capacity(ranks.len());
    let mut merges = Vec::with_capacity(ranks.len());
    for (id, bytes) in (0..).zip(ranks).filter(|(_, bytes)| bytes.len() > 1) {
        let mut parts: Vec<u32> = bytes.iter().map(|byte| id_of_byte[usize::from(*byte)]).collect();
        while parts.len() > 2 {
            let pairs = parts.windows(2).enumerate();
            // The lowest rank, and of equal ones the leftmost.
            let known = pairs.filter_map(|(at, pair)| Some((*merged.get(&(pair[0], pair[1]))?, at)));
            let Some((rank, at)) = known.min() else { break };
            parts[at] = rank;
            parts.remove(at + 1);
        }
        let [left, right] = parts[..] else {
            return Err(TokenizerError::Tokenizer { message: format!("the rank {id} is not merged from two parts") });
        };
        merged.insert((left, right), id);
        merges.push((left, right));
    }
    Ok(merges)
}

/// How a byte-level tokenizer writes each byte as a character: itself if it is printable Latin-1, else one from U+0100 on, in order
/// (GPT-2's encoder.py, `bytes_to_unicode`).
fn byte_characters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte as u8 {
        printable @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(printable),
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("there are characters up to U+0143")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn bytes_are_written_as_the_library_writes_them() {
        let ours: BTreeSet<char> = byte_characters().into_iter().collect();
        assert_eq!(ours, ByteLevel::alphabet().into_iter().collect());
        let characters = byte_characters();
        assert_eq!(['\0', ' ', '\t', '\n', 'a'].map(|c| characters[c as usize]), ['Ā', 'Ġ', 'ĉ', 'Ċ', 'a']);
    }

    #[test]
    fn a_token_is_merged_from_what_earlier_ranks_leave_of_it() {
        let ranks = ["a", "b", "c", "ab", "bc", "abc", "abab"].map(|token| token.as_bytes().to_vec());
        // `abc`: `ab` comes before `bc`, so it is `ab` and `c`.
        assert_eq!(merges(&ranks).unwrap(), [(0, 1), (1, 2), (3, 2), (3, 3)]);
        let broken = ["a", "b", "aab"].map(|token| token.as_bytes().to_vec());
        assert!(merges(&broken).unwrap_err().to_string().contains("rank 2 is not merged from two parts"));
    }
}
