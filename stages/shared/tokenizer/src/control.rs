//! A text of a template, in which some special tokens are the template's and others are only words of the data.
//!
//! ```text
//! text     <s>say </s> twice</s>        the template's: 0..3 and 18..22
//! stand-in XsayY.. </s> twiceY          each of them as one private character, with the id it stands for
//! ids      1  say  <  /  s  >  twice 2
//! ```
//!
//! A stand-in is added to a copy of the tokenizer with the rules of its token (whether it strips white space beside it), and
//! special tokens stay ordinary characters there as everywhere. So the text is tokenized once and whole, the ids are those of
//! transformers' `apply_chat_template(tokenize=True)`, and data makes no special id.
//!
//! Where a tokenizer encodes what lies between two special tokens as if it were alone, no stand-in is needed: the parts are encoded by
//! their pieces ([`StandIns::leave_parts`]).

use std::collections::HashMap;
use std::ops::Range;

use tokenizers::{AddedToken, Tokenizer};

use crate::TokenizerError;
use crate::pieces::Pieces;

/// The first of the stand-ins: private plane 16.
const FIRST: u32 = 0x10_0000;
/// Stand-ins there are room for.
const N_MAX: usize = 0xf000;
/// The first byte of every character of plane 16 in UTF-8.
const PLANE_16: u8 = 0xf4;

/// A tokenizer with stand-ins for its special tokens.
pub(crate) struct StandIns {
    pub(crate) tokenizer: Tokenizer,
    /// Text of a special token to its stand-in.
    of_text: HashMap<String, char>,
    /// Id of a stand-in to the id it stands for.
    ids: HashMap<u32, u32>,
    n: u32,
    /// Whether none changes what stands beside it.
    are_plain: bool,
    /// Whether one is looked for in normalized text.
    are_normalized: bool,
}

/// A text with stand-ins, and the way back to its characters.
pub(crate) struct StoodIn {
    pub(crate) text: String,
    /// Of each stand-in: its place in `text`, and how many characters it left out by there, both in characters.
    places: Vec<(u32, u32)>,
}

impl StandIns {
    /// `tokenizer` takes special tokens for ordinary characters; they become stand-ins.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        let mut tokenizer = tokenizer.clone();
        let added = tokenizer.get_added_tokens_decoder();
        let mut special: Vec<(u32, AddedToken)> = added.into_iter().filter(|(_, token)| token.special).collect();
        special.sort_unstable_by_key(|(id, _)| *id);
        special.truncate(N_MAX);
        let characters = (FIRST..).map(|code| char::from_u32(code).expect("plane 16 has only characters"));
        let (mut of_text, mut tokens) = (HashMap::new(), Vec::new());
        for ((_, token), character) in special.iter().zip(characters) {
            of_text.insert(token.content.clone(), character);
            tokens.push(AddedToken { content: character.to_string(), special: false, ..token.clone() });
        }
        tokenizer.add_tokens(tokens.clone()).map_err(|e| TokenizerError::Tokenizer { message: e.to_string() })?;
        let id_of = |token: &AddedToken| tokenizer.token_to_id(&token.content);
        let ids = tokens.iter().zip(&special).filter_map(|(token, (id, _))| Some((id_of(token)?, *id))).collect();
        let is_plain = |token: &AddedToken| !(token.lstrip || token.rstrip || token.single_word);
        let are_plain = special.iter().all(|(_, token)| is_plain(token));
        let are_normalized = special.iter().any(|(_, token)| token.normalized);
        Ok(StandIns { ids, of_text, n: tokens.len() as u32, tokenizer, are_plain, are_normalized })
    }

    /// The id that `id` stands for.
    pub(crate) fn id(&self, id: u32) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// Whether what lies between two special tokens may be encoded for itself, by these pieces.
    pub(crate) fn leave_parts(&self, pieces: &Pieces) -> bool {
        self.are_plain && pieces.takes_parts(self.are_normalized)
    }

    /// The special id of a text.
    pub(crate) fn id_of(&self, text: &str) -> Option<u32> {
        let stand_in = self.of_text.get(text)?;
        self.id(self.tokenizer.token_to_id(stand_in.encode_utf8(&mut [0; 4]))?)
    }

    /// `text` with stand-ins at `control`, in characters, rising and apart.
    pub(crate) fn stand_in(&self, text: &str, control: &[Range<u32>]) -> Result<StoodIn, TokenizerError> {
        self.check_free(text)?;
        let mut stood_in =
            StoodIn { text: String::with_capacity(text.len()), places: Vec::with_capacity(control.len()) };
        // Byte and character up to which `text` is copied.
        let (mut byte, mut at, mut n_left_out) = (0, 0, 0);
        let bytes_of = |from: usize, n_characters: u32| {
            text[from..].char_indices().nth(n_characters as usize).map_or(text.len(), |(bytes, _)| from + bytes)
        };
        for span in control {
            let start = bytes_of(byte, span.start - at);
            let end = bytes_of(start, span.end - span.start);
            let token = &text[start..end];
            let stand_in = self.of_text.get(token);
            let stand_in = stand_in.ok_or_else(|| TokenizerError::NoSpecialToken { token: token.to_string() })?;
            stood_in.text.push_str(&text[byte..start]);
            stood_in.text.push(*stand_in);
            n_left_out += span.end - span.start - 1;
            stood_in.places.push((span.end - 1 - n_left_out, n_left_out));
            (byte, at) = (end, span.end);
        }
        stood_in.text.push_str(&text[byte..]);
        Ok(stood_in)
    }

    fn check_free(&self, text: &str) -> Result<(), TokenizerError> {
        if !text.as_bytes().contains(&PLANE_16) {
            return Ok(());
        }
        let is_taken = |character: &char| (FIRST..FIRST + self.n).contains(&u32::from(*character));
        match text.chars().find(is_taken) {
            Some(character) => Err(TokenizerError::ReservedCharacter { character }),
            None => Ok(()),
        }
    }
}

impl StoodIn {
    /// The character of the whole text at the boundary `at` of the text with stand-ins.
    pub(crate) fn whole(&self, at: u32) -> u32 {
        let n_before = self.places.partition_point(|(place, _)| *place < at);
        at + n_before.checked_sub(1).map_or(0, |last| self.places[last].1)
    }
}

/// The texts of tokens, to be looked for in others.
#[derive(Default)]
pub(crate) struct Words {
    by_first_byte: Vec<(u8, Vec<String>)>,
}

impl Words {
    pub(crate) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        let mut words = Words::default();
        for text in texts {
            let Some(byte) = text.bytes().next() else { continue };
            match words.by_first_byte.iter_mut().find(|(first, _)| *first == byte) {
                Some((_, texts)) => texts.push(text),
                None => words.by_first_byte.push((byte, vec![text])),
            }
        }
        words
    }

    /// Whether `text` has one of them.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.by_first_byte.iter().any(|(byte, words)| {
            let places = text.bytes().enumerate().filter(|(_, found)| found == byte);
            let mut rests = places.map(|(at, _)| &text.as_bytes()[at..]);
            rests.any(|rest| words.iter().any(|word| rest.starts_with(word.as_bytes())))
        })
    }
}
