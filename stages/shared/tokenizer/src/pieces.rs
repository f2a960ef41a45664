//! Byte-level tokenizers encode a text piece by piece, and most pieces were seen before.
//!
//! ```text
//! "the cat, the end"   --regular expression-->   the | _cat | , | _the | _end
//! piece seen before    --table of this thread--> ids with the bytes that each covers
//! new piece            --the tokenizers library--> the same, and into the table
//! ```
//!
//! What the ids of a piece are depends on the piece alone, so the result is the library's, some five times as fast: it builds an alignment of
//! every byte for every text. This holds for tokenizers that have no normalizer, cut a text by one regular expression, map bytes to
//! characters and know no added token that a text may create: GPT-2, XGen, Llama 3 and their relatives. [`Pieces::of`] says `None` for the
//! others, and for dropout; then the library encodes the whole text.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::tokenizer::pre_tokenizer::PreTokenizedString;
use tokenizers::utils::SysRegex;
use tokenizers::{Model as _, OffsetType, PreTokenizer as _, SplitDelimiterBehavior, Tokenizer};

use crate::TokenizerError;
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
    tokens: Vec<Token>,
}

/// How a tokenizer cuts texts into pieces.
pub(crate) struct Pieces {
    /// From 1.
    number: u64,
    pattern: SysRegex,
    byte_level: ByteLevel,
}

impl Pieces {
    /// `None` where a text is more than its pieces.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let is_context_free = matches!(tokenizer.get_model(), ModelWrapper::BPE(bpe) if bpe.dropout.is_none());
        let has_ordinary_added = tokenizer.get_added_tokens_decoder().values().any(|token| !token.special);
        if !is_context_free || has_ordinary_added || tokenizer.get_normalizer().is_some() {
            return None;
        }
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
        Some(Pieces {
            number: N_MADE.fetch_add(1, Ordering::Relaxed) + 1,
            pattern: SysRegex::new(pattern).ok()?,
            byte_level: ByteLevel::new(false, false, false),
        })
    }

    /// Calls `take` with each id of `text` and the bytes of `text` that it covers, in order.
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
            let mut encode = |start: usize, end: usize| {
                let piece = &text[start..end];
                let place = match known.places.get(piece).cloned() {
                    Some(place) => place,
                    None => self.learn(piece, model, known)?,
                };
                let mut tokens = known.tokens[place].iter();
                tokens.try_for_each(|token| take(token.id, start + token.start as usize, start + token.end as usize))
            };
            let mut done = 0;
            for (start, end) in self.pattern.find_iter(text) {
                if done < start {
                    encode(done, start)?;
                }
                if start < end {
                    encode(start, end)?;
                }
                done = end;
            }
            if done < text.len() { encode(done, text.len()) } else { Ok(()) }
        })
    }

    /// The library's tokens of a piece; where they are in the table. Those of a long piece are last in it and will be dropped.
    fn learn(&self, piece: &str, model: &ModelWrapper, known: &mut Known) -> Result<Range<usize>, TokenizerError> {
        if known.places.len() >= N_KNOWN_MAX || known.tokens.len() >= N_KNOWN_MAX * 8 {
            known.places.clear();
            known.tokens.clear();
        }
        let mut split = PreTokenizedString::from(piece);
        let encoding = self
            .byte_level
            .pre_tokenize(&mut split)
            .and_then(|()| split.tokenize(|mapped| model.tokenize(mapped.get())))
            .and_then(|()| split.into_encoding(None, 0, OffsetType::Byte))
            .map_err(|e| unusable(&*e))?;
        let place = known.tokens.len()..known.tokens.len() + encoding.len();
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        known.tokens.extend(tokens.map(|(id, (start, end))| Token { id: *id, start: *start as u32, end: *end as u32 }));
        if piece.len() <= N_BYTES_MAX {
            known.places.insert(piece.into(), place.clone());
        }
        Ok(place)
    }
}
