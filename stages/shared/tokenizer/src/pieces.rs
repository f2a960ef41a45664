//! Many tokenizers encode a text piece by piece, and most pieces were seen before.
//!
//! ```text
//! bytes   "the cat, the end"   --regular expression-->   the | _cat | , | _the | _end      GPT-2, XGen, Llama 3, Qwen
//! words   "the cat, the end"   --before each space-->    the | _cat, | _the | _end         Llama 2, Mistral, Gemma
//!
//! piece seen before    --table of this thread--> ids with the bytes that each covers
//! new piece            --the tokenizers library--> the same, and into the table
//! ```
//!
//! What the ids of a piece are depends on the piece alone, so the result is the library's, several times as fast: it builds an alignment of
//! every byte for every text. Two forms are known:
//!
//! - *bytes*: a text is cut by one regular expression, and bytes are mapped to characters;
//! - *words*: nothing is cut, spaces become `▁`, and characters without a token become bytes. Where no merge makes a token with a `▁` behind
//!   another character, none crosses the place between such two, so what lies on both sides is merged for itself. The first piece of a
//!   text may get a `▁` in front, and so has a table of its own.
//!
//! [`Pieces::of`] says `None` for all others, and for dropout; [`Pieces::takes`] is false for a text that is more than its pieces: one that
//! has an added token, or that a normalizer may change. Then the library encodes the whole text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::tokenizer::pre_tokenizer::PreTokenizedString;
use tokenizers::utils::SysRegex;
use tokenizers::{
    AddedToken, Model as _, Normalizer as _, NormalizerWrapper, OffsetType, PreTokenizer as _, SplitDelimiterBehavior,
    Tokenizer,
};

use crate::TokenizerError;
use crate::control::Words;
use crate::model_tokenizer::unusable;

/// GPT-2's pieces: `regex` in its `encoder.py`, and the default of the library's `ByteLevel`.
const GPT2_PIECES: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Pieces that a thread keeps: some 3 MB. A full table is emptied.
const N_KNOWN_MAX: usize = 32_768;

/// Bytes of a piece that is kept.
const N_BYTES_MAX: usize = 64;

/// Tells the tables of tokenizers apart.
static N_MADE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// An id, and the bytes of its piece that it covers.
#[derive(Clone, Copy)]
struct Token {
    id: u32,
    start: u32,
    end: u32,
}

/// The pieces that this thread has seen with the tokenizer `number`.
#[derive(Default)]
struct Known {
    number: u64,
    places: HashMap<Box<str>, Range<usize>>,
    /// Of pieces at the beginning of a text, where that makes a difference.
    first_places: HashMap<Box<str>, Range<usize>>,
    tokens: Vec<Token>,
}

/// How a tokenizer cuts texts into pieces.
pub(crate) struct Pieces {
    /// From 1.
    number: u64,
    cut: Cut,
    /// Whether a text with other characters may be changed before it is cut.
    is_for_ascii: bool,
    /// Texts of added tokens that any text may make.
    ordinary_tokens: Words,
}

/// Where a text is cut, and what becomes of a piece before it is merged.
enum Cut {
    Bytes {
        pattern: SysRegex,
        byte_level: ByteLevel,
    },
    /// `first`: for the first piece, where it is another; `is_of_text`: not of each part of a text between special tokens.
    Words {
        rest: Spaces,
        first: Option<Spaces>,
        is_of_text: bool,
    },
}

/// What turns spaces into `▁`.
enum Spaces {
    Normalizer(NormalizerWrapper),
    PreTokenizer(PreTokenizerWrapper),
}

/// SentencePiece's space.
const SPACE: char = '\u{2581}';

impl Pieces {
    /// `None` where texts are more than their pieces. `json`: the `tokenizer.json` of `tokenizer`.
    pub(crate) fn of(tokenizer: &Tokenizer, json: &[u8]) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
        if bpe.dropout.is_some() {
            return None;
        }
        let ordinary: Vec<AddedToken> =
            tokenizer.get_added_tokens_decoder().into_values().filter(|token| !token.special).collect();
        let normalizer = tokenizer.get_normalizer().map(|normalizer| json!(normalizer));
        let (cut, is_for_ascii) = match by_bytes(tokenizer) {
            // Composed characters stay as they are, and ASCII is composed.
            Some(cut) => match normalizer.as_ref().map(|normalizer| &normalizer["type"]) {
                None => (cut, false),
                Some(kind) if kind == "NFC" => (cut, true),
                Some(_) => return None,
            },
            // The text of an ordinary token would be looked for among `▁`.
            None if ordinary.is_empty() => (by_words(tokenizer, normalizer.as_ref(), json)?, false),
            None => return None,
        };
        Some(Pieces {
            number: N_MADE.fetch_add(1, Ordering::Relaxed) + 1,
            cut,
            is_for_ascii,
            ordinary_tokens: Words::new(ordinary.into_iter().map(|token| token.content)),
        })
    }

    /// Whether the ids of `text` are those of its pieces.
    pub(crate) fn takes(&self, text: &str) -> bool {
        (!self.is_for_ascii || text.is_ascii()) && !self.ordinary_tokens.is_in(text)
    }

    /// Whether what lies between two special tokens is encoded as a text is. `are_normalized`: whether these are looked for in a text that was
    /// normalized as a whole.
    pub(crate) fn takes_parts(&self, are_normalized: bool) -> bool {
        match self.cut {
            Cut::Bytes { .. } | Cut::Words { first: None, .. } => true,
            Cut::Words { is_of_text, .. } => !is_of_text && !are_normalized,
        }
    }

    /// Calls `take` with each id of `text`, which [`Pieces::takes`], and the bytes of `text` that it covers, in order.
    pub(crate) fn encode(
        &self,
        text: &str,
        model: &ModelWrapper,
        mut take: impl FnMut(u32, usize, usize) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        KNOWN.with_borrow_mut(|known| {
            if known.number != self.number {
                *known = Known { number: self.number, ..Known::default() };
            }
            let encode = |start: usize, end: usize| {
                let piece = &text[start..end];
                let is_first = start == 0 && matches!(self.cut, Cut::Words { first: Some(_), .. });
                let places = if is_first { &known.first_places } else { &known.places };
                let place = match places.get(piece).cloned() {
                    Some(place) => place,
                    None => self.learn(piece, is_first, model, known)?,
                };
                let mut tokens = known.tokens[place].iter();
                tokens.try_for_each(|token| take(token.id, start + token.start as usize, start + token.end as usize))
            };
            match &self.cut {
                Cut::Bytes { pattern, .. } => by_pattern(pattern, text, encode),
                Cut::Words { .. } => before_spaces(text, encode),
            }
        })
    }

    /// The library's tokens of a piece; where they are in the table. Those of a long piece are last in it and will be dropped.
    fn learn(
        &self,
        piece: &str,
        is_first: bool,
        model: &ModelWrapper,
        known: &mut Known,
    ) -> Result<Range<usize>, TokenizerError> {
        let n_known = known.places.len() + known.first_places.len();
        if n_known >= N_KNOWN_MAX || known.tokens.len() >= N_KNOWN_MAX * 8 {
            known.places.clear();
            known.first_places.clear();
            known.tokens.clear();
        }
        let mut split = PreTokenizedString::from(piece);
        let mapped = match &self.cut {
            Cut::Bytes { byte_level, .. } => byte_level.pre_tokenize(&mut split),
            Cut::Words { rest, first, .. } => match first.as_ref().filter(|_| is_first).unwrap_or(rest) {
                Spaces::Normalizer(normalizer) => split.normalize(|text| normalizer.normalize(text)),
                Spaces::PreTokenizer(pre_tokenizer) => pre_tokenizer.pre_tokenize(&mut split),
            },
        };
        let encoding = mapped
            .and_then(|()| split.tokenize(|mapped| model.tokenize(mapped.get())))
            .and_then(|()| split.into_encoding(None, 0, OffsetType::Byte))
            .map_err(|e| unusable(&*e))?;
        let place = known.tokens.len()..known.tokens.len() + encoding.len();
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        known.tokens.extend(tokens.map(|(id, (start, end))| Token { id: *id, start: *start as u32, end: *end as u32 }));
        if piece.len() <= N_BYTES_MAX {
            let places = if is_first { &mut known.first_places } else { &mut known.places };
            places.insert(piece.into(), place.clone());
        }
        Ok(place)
    }
}

/// Calls `encode` with what `pattern` matches, and with what lies between.
fn by_pattern(
    pattern: &SysRegex,
    text: &str,
    mut encode: impl FnMut(usize, usize) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut done = 0;
    for (start, end) in pattern.find_iter(text) {
        if done < start {
            encode(done, start)?;
        }
        if start < end {
            encode(start, end)?;
        }
        done = end;
    }
    if done < text.len() { encode(done, text.len()) } else { Ok(()) }
}

/// Calls `encode` with what begins with a space behind another character, and with what is before the first of these.
fn before_spaces(
    text: &str,
    mut encode: impl FnMut(usize, usize) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let (mut start, mut is_in_spaces) = (0, true);
    for (at, character) in text.char_indices() {
        let is_space = character == ' ' || character == SPACE;
        if is_space && !is_in_spaces {
            encode(start, at)?;
            start = at;
        }
        is_in_spaces = is_space;
    }
    if start < text.len() { encode(start, text.len()) } else { Ok(()) }
}

/// Of a byte-level tokenizer.
fn by_bytes(tokenizer: &Tokenizer) -> Option<Cut> {
    let is_plain =
        |byte_level: &ByteLevel, use_regex: bool| !byte_level.add_prefix_space && byte_level.use_regex == use_regex;
    let pattern = match tokenizer.get_pre_tokenizer()? {
        PreTokenizerWrapper::ByteLevel(byte_level) if is_plain(byte_level, true) => GPT2_PIECES,
        PreTokenizerWrapper::Sequence(sequence) => match sequence.as_ref() {
            [PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(byte_level)]
                if is_plain(byte_level, false)
                    && !split.invert
                    && split.behavior == SplitDelimiterBehavior::Isolated =>
            {
                let SplitPattern::Regex(pattern) = &split.pattern else { return None };
                pattern
            }
            _ => return None,
        },
        _ => return None,
    };
    let byte_level = ByteLevel::new(false, false, false);
    Some(Cut::Bytes { pattern: SysRegex::new(pattern).ok()?, byte_level })
}

/// Of a tokenizer as SentencePiece's BPE becomes one, of which no merge crosses the place before a space.
fn by_words(tokenizer: &Tokenizer, normalizer: Option<&Value>, json: &[u8]) -> Option<Cut> {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE.to_string() });
    let prepend = json!({ "type": "Prepend", "prepend": SPACE.to_string() });
    let pre_tokenizer = tokenizer.get_pre_tokenizer().map(|pre_tokenizer| json!(pre_tokenizer));
    let cut = match (normalizer, pre_tokenizer) {
        (Some(normalizer), pre_tokenizer) => {
            // Gemma splits at spaces, when none is left.
            let is_idle = |split: &Value| split["type"] == "Split" && split["pattern"] == json!({ "String": " " });
            if !pre_tokenizer.as_ref().is_none_or(is_idle) {
                return None;
            }
            let wrapper = |value: &Value| serde_json::from_value(value.clone()).ok().map(Spaces::Normalizer);
            let both = json!({ "type": "Sequence", "normalizers": [prepend, replace] });
            let first = if *normalizer == both {
                Some(wrapper(normalizer)?)
            } else if *normalizer == replace {
                None
            } else {
                return None;
            };
            Cut::Words { rest: wrapper(&replace)?, first, is_of_text: false }
        }
        (None, Some(metaspace)) if metaspace["type"] == "Metaspace" && metaspace["split"] == false => {
            if metaspace["replacement"] != json!(SPACE) {
                return None;
            }
            let with = |scheme: &str| {
                let mut metaspace = metaspace.clone();
                metaspace["prepend_scheme"] = scheme.into();
                serde_json::from_value(metaspace).ok().map(Spaces::PreTokenizer)
            };
            let scheme = metaspace["prepend_scheme"].as_str()?;
            let first = match scheme {
                "never" => None,
                "first" | "always" => Some(with("always")?),
                _ => return None,
            };
            Cut::Words { rest: with("never")?, first, is_of_text: scheme == "first" }
        }
        _ => return None,
    };
    merges_stay_in_words(tokenizer, json).then_some(cut)
}

/// Whether no merge joins a `▁` to another character before it, and every character has a token, if only of its bytes.
fn merges_stay_in_words(tokenizer: &Tokenizer, json: &[u8]) -> bool {
    /// The rest of the file is passed over.
    #[derive(serde::Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        merges: Vec<Merge>,
        #[serde(default)]
        byte_fallback: bool,
        #[serde(default)]
        ignore_merges: bool,
        continuing_subword_prefix: Option<String>,
        end_of_word_suffix: Option<String>,
    }
    /// As older and newer versions of the library write it.
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Merge {
        Joined(String),
        Pair(String, String),
    }
    let Ok(File { model }) = serde_json::from_slice::<File>(json) else { return false };
    let stays = |merge: &Merge| {
        let parts = match merge {
            Merge::Joined(text) => text.split_once(' '),
            Merge::Pair(left, right) => Some((left.as_str(), right.as_str())),
        };
        parts.is_some_and(|(left, right)| {
            let mut is_behind_other = false;
            left.chars().chain(right.chars()).all(|character| {
                let crosses = is_behind_other && character == SPACE;
                is_behind_other = character != SPACE;
                !crosses
            })
        })
    };
    let is_whole = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    let has_bytes = || (0..=255).all(|byte| tokenizer.token_to_id(&format!("<0x{byte:02X}>")).is_some());
    model.byte_fallback
        && !model.ignore_merges
        && is_whole(&model.continuing_subword_prefix)
        && is_whole(&model.end_of_word_suffix)
        && has_bytes()
        && model.merges.iter().all(stays)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters, `▁` and all bytes, with these merges.
    fn of(normalizer: Value, pre_tokenizer: Value, merges: &[[&str; 2]]) -> Option<Pieces> {
        let merged = merges.iter().map(|[left, right]| format!("{left}{right}"));
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        let texts = bytes.chain(["a", "b", "▁"].map(str::to_string)).chain(merged);
        let vocab: serde_json::Map<String, Value> = texts.zip(0..).map(|(text, id)| (text, json!(id))).collect();
        let json = json!({
            "version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "added_tokens": [],
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": true, "fuse_unk": true},
        });
        let json = json.to_string().into_bytes();
        Pieces::of(&Tokenizer::from_bytes(&json).expect("a tokenizer"), &json)
    }

    #[test]
    fn words_are_cut_where_no_merge_crosses() {
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let inside = [["▁", "▁"], ["▁▁", "a"], ["a", "b"]];
        assert!(of(replace.clone(), Value::Null, &inside).is_some_and(|pieces| pieces.takes_parts(true)));
        assert!(of(replace.clone(), Value::Null, &[["a", "▁"]]).is_none());
        assert!(of(replace.clone(), Value::Null, &[["▁", "▁"], ["▁", "a"], ["▁a", "▁▁"]]).is_none());
        // What else may change a text or cut it is not known here.
        assert!(of(json!({"type": "Lowercase"}), Value::Null, &inside).is_none());
        assert!(of(replace, json!({"type": "Whitespace"}), &inside).is_none());
        assert!(of(Value::Null, Value::Null, &inside).is_none());
    }

    #[test]
    fn a_piece_begins_with_its_spaces() {
        let pieces = |text: &str| {
            let mut pieces = Vec::new();
            before_spaces(text, |start, end| {
                pieces.push(text[start..end].to_string());
                Ok(())
            })
            .expect("nothing fails");
            pieces
        };
        assert_eq!(pieces("the cat,  the▁end "), ["the", " cat,", "  the", "▁end", " "]);
        assert_eq!(pieces(" a"), [" a"]);
        assert_eq!(pieces(""), [""; 0]);
    }
}
