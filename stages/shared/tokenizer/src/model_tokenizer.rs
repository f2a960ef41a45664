//! A model folder's `tokenizer.json`, made safe for training data.
//!
//! The tokenizer's post-processor is taken off and its constant part kept: the ids it puts before and after every text.
//! Spans then come from the text alone; a byte-level post-processor would trim the white space off them, and a token
//! that is only a line break would cover nothing and never be supervised.

use std::ops::Range;
use std::sync::OnceLock;

use pipe_contract::Artifact;
use pipe_records::{Example, SpecialTokens};
use rayon::prelude::*;
use tokenizers::Tokenizer;

use crate::control::{StandIns, Words};
use crate::pieces::Pieces;
use crate::special::{BOS, EOS, ModelFiles};
use crate::{Prompt, TokenizerError, generated};

/// A text's ids, and the characters each covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Below the model's vocabulary size.
    pub ids: Vec<u32>,
    /// Start and end of each id in characters (Unicode scalar values) of the text, end excluded. An id that the
    /// post-processor added covers nothing: `(0, 0)` at the front, `(n, n)` at the back. A character whose bytes are
    /// several ids is covered by each of them.
    pub spans: Vec<(u32, u32)>,
}

/// A tokenizer with the limits and special ids of its model.
pub struct ModelTokenizer {
    tokenizer: Tokenizer,
    /// Where a text is no more than its pieces.
    pieces: Option<Pieces>,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    special_ids: Vec<u32>,
    special_words: Words,
    /// Made for the first text of a template.
    stand_ins: OnceLock<StandIns>,
    unknown_id: Option<u32>,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    end_ids: Vec<u32>,
    vocab_size: usize,
    max_positions: Option<usize>,
}

impl ModelTokenizer {
    /// Loads the tokenizer of a `model` artifact: its `tokenizer.json`, or the one that is made in its place ([`crate::generated`]).
    ///
    /// # Errors
    /// A missing `tokenizer.json` or `config.json`, one that cannot be read, or a special token that does not exist.
    pub fn load(model: &Artifact) -> Result<Self, TokenizerError> {
        ModelTokenizer::from_parts(&generated::tokenizer_json(model)?, &ModelFiles::read(model)?)
    }

    fn from_parts(tokenizer_json: &[u8], files: &ModelFiles) -> Result<Self, TokenizerError> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer_json).map_err(|e| unusable(&*e))?;
        // A file may carry the truncation and padding of whoever saved it; both would be silent here.
        tokenizer.with_truncation(None).map_err(|e| unusable(&*e))?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(true);
        let (prefix, suffix) = surrounding_ids(&tokenizer)?;
        tokenizer.with_post_processor(None::<tokenizers::PostProcessorWrapper>);

        let added = tokenizer.get_added_tokens_decoder();
        let mut special_ids: Vec<u32> = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        special_ids.sort_unstable();
        let token_to_id = |token: &str| tokenizer.token_to_id(token);
        let vocab_size = files.config_number("vocab_size")?.ok_or(TokenizerError::Field {
            file: "config.json",
            key: "vocab_size",
            value: "null".to_string(),
            expected: "a whole number above 0",
        })?;
        let mut loaded = ModelTokenizer {
            bos_id: files.special_id(BOS, token_to_id)?,
            eos_id: files.special_id(EOS, token_to_id)?,
            end_ids: files.end_ids(token_to_id)?,
            unknown_id: unknown_id(tokenizer_json, &tokenizer),
            // GPT-2 has its own name for them.
            max_positions: match files.config_number("max_position_embeddings")? {
                Some(n_positions) => Some(n_positions),
                None => files.config_number("n_positions")?,
            },
            pieces: Pieces::of(&tokenizer, tokenizer_json),
            special_words: Words::new(added.into_values().filter(|token| token.special).map(|token| token.content)),
            stand_ins: OnceLock::new(),
            tokenizer,
            prefix,
            suffix,
            special_ids,
            vocab_size,
        };
        // At most one beginning: some files ask for it in the template and in the model's settings.
        if let Some(bos_id) = loaded.bos_id {
            let n_leading = loaded.prefix.iter().take_while(|id| **id == bos_id).count();
            loaded.prefix.drain(..n_leading.saturating_sub(1));
        }
        let constant = loaded.prefix.iter().chain(&loaded.suffix).chain(&loaded.bos_id).chain(&loaded.eos_id);
        constant.copied().try_for_each(|id| loaded.check_id(id))?;
        Ok(loaded)
    }

    /// The ids of `text` with what the tokenizer's post-processor adds (a beginning-of-sequence id, where it does).
    ///
    /// # Errors
    /// An id at or above the model's `vocab_size`, or a tokenizer that fails on the text.
    pub fn encode(&self, text: &str) -> Result<Encoded, TokenizerError> {
        let characters = CharacterIndex::new(text)?;
        let mut encoded = Encoded::default();
        encoded.push_all(&self.prefix, 0);
        let mut take = |id: u32, start: usize, end: usize| {
            self.check_id(id)?;
            self.check_ordinary(id)?;
            encoded.ids.push(id);
            encoded.spans.push(characters.span(start, end));
            Ok(())
        };
        match self.pieces.as_ref().filter(|pieces| pieces.takes(text)) {
            Some(pieces) => pieces.encode(text, self.tokenizer.get_model(), take)?,
            None => {
                let encoding = self.tokenizer.encode(text, false).map_err(|e| unusable(&*e))?;
                let mut tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
                tokens.try_for_each(|(id, (start, end))| take(*id, *start, *end))?;
            }
        }
        encoded.push_all(&self.suffix, characters.n_characters);
        Ok(encoded)
    }

    /// The ids of `text` alone, without what the post-processor adds.
    ///
    /// # Errors
    /// As [`ModelTokenizer::encode`].
    pub fn pieces_of(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode(text)?.ids;
        Ok(ids[self.prefix.len()..ids.len() - self.suffix.len()].to_vec())
    }

    /// The ids of an example's text: [`ModelTokenizer::encode`], with the special tokens that its template wrote. What a
    /// template alone makes has no other ones; a beginning of the sequence is not doubled.
    ///
    /// # Errors
    /// As [`ModelTokenizer::encode`]; `NoSpecialToken` where the template wrote a token that this tokenizer does not have.
    pub fn encode_example(&self, example: &Example) -> Result<Encoded, TokenizerError> {
        let marks = &example.marks;
        if marks.special_tokens == SpecialTokens::Tokenizer {
            return self.encode(&example.text);
        }
        let mut encoded = Encoded::default();
        let is_shared = marks.special_tokens == SpecialTokens::Both;
        if is_shared {
            encoded.push_all(&self.prefix, 0);
        }
        let n_characters = self.encode_with_control(&example.text, &marks.control, &mut encoded)?;
        if is_shared {
            encoded.push_all(&self.suffix, n_characters);
        }
        encoded.keep_one_beginning(self.bos_id);
        Ok(encoded)
    }

    /// The ids of `text` with special tokens at `control`, behind those of `encoded`. Returns the characters of the text.
    fn encode_with_control(
        &self,
        text: &str,
        control: &[Range<u32>],
        encoded: &mut Encoded,
    ) -> Result<u32, TokenizerError> {
        let stand_ins = self.stand_ins()?;
        let pieces = self.pieces.as_ref().filter(|pieces| stand_ins.leave_parts(pieces) && pieces.takes(text));
        if let Some(pieces) = pieces {
            return self.encode_between(pieces, stand_ins, text, control, encoded);
        }
        let stood_in = stand_ins.stand_in(text, control)?;
        let encoding = stand_ins.tokenizer.encode(stood_in.text.as_str(), false).map_err(|e| unusable(&*e))?;
        let characters = CharacterIndex::new(&stood_in.text)?;
        let mut n_special = 0;
        for (id, (start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let id = match stand_ins.id(*id) {
                Some(special_id) => {
                    n_special += 1;
                    special_id
                }
                None => {
                    self.check_ordinary(*id)?;
                    *id
                }
            };
            self.check_id(id)?;
            let (start, end) = characters.span(*start, *end);
            encoded.ids.push(id);
            encoded.spans.push((stood_in.whole(start), stood_in.whole(end)));
        }
        if n_special != control.len() {
            return Err(TokenizerError::LostSpecialToken { n_written: control.len(), n_found: n_special });
        }
        Ok(stood_in.whole(characters.n_characters))
    }

    /// The same, where what lies between two special tokens is encoded as if it were alone.
    fn encode_between(
        &self,
        pieces: &Pieces,
        stand_ins: &StandIns,
        text: &str,
        control: &[Range<u32>],
        encoded: &mut Encoded,
    ) -> Result<u32, TokenizerError> {
        let characters = CharacterIndex::new(text)?;
        let model = self.tokenizer.get_model();
        let mut done = 0;
        let between = |from: usize, to: usize, encoded: &mut Encoded| {
            pieces.encode(&text[from..to], model, |id, start, end| {
                self.check_id(id)?;
                self.check_ordinary(id)?;
                encoded.ids.push(id);
                encoded.spans.push(characters.span(from + start, from + end));
                Ok(())
            })
        };
        for (span, bytes) in control.iter().zip(byte_ranges(text, control)) {
            between(done, bytes.start, encoded)?;
            let token = &text[bytes.clone()];
            let no_token = || TokenizerError::NoSpecialToken { token: token.to_string() };
            let id = stand_ins.id_of(token).ok_or_else(no_token)?;
            self.check_id(id)?;
            encoded.ids.push(id);
            encoded.spans.push((span.start, span.end));
            done = bytes.end;
        }
        between(done, text.len(), encoded)?;
        Ok(characters.n_characters)
    }

    /// The special tokens, as texts.
    pub fn special_tokens(&self) -> Vec<String> {
        let token = |id: &u32| self.tokenizer.get_added_tokens_decoder().get(id).map(|token| token.content.clone());
        self.special_ids.iter().filter_map(token).collect()
    }

    /// Whether `text` has the words of a special token, which are ordinary characters unless a template wrote them.
    pub fn has_special_words(&self, text: &str) -> bool {
        self.special_words.is_in(text)
    }

    /// The id of the special token that the template wrote at the end of the completion: at it the model is to stop too.
    ///
    /// # Errors
    /// A tokenizer that cannot be copied.
    pub fn turn_end_id(&self, example: &Example) -> Result<Option<u32>, TokenizerError> {
        let said = example.said();
        let first = example.marks.control.iter().find(|control| said.end <= control.start);
        let token = first.filter(|control| control.end <= example.completion.end);
        let Some(token) = token else { return Ok(None) };
        Ok(self.stand_ins()?.id_of(example.part(token.clone())))
    }

    fn stand_ins(&self) -> Result<&StandIns, TokenizerError> {
        match self.stand_ins.get() {
            Some(stand_ins) => Ok(stand_ins),
            // Two threads may both make them; one is kept.
            None => StandIns::new(&self.tokenizer).map(|made| self.stand_ins.get_or_init(|| made)),
        }
    }

    /// [`ModelTokenizer::encode`] of each text, in order, on the threads of the current rayon pool.
    ///
    /// # Errors
    /// The position of the first text that fails, and its error.
    pub fn encode_batch<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Encoded>, (usize, TokenizerError)> {
        let results: Vec<Result<Encoded, TokenizerError>> =
            texts.par_iter().map(|text| self.encode(text.as_ref())).collect();
        results.into_iter().enumerate().map(|(i, result)| result.map_err(|error| (i, error))).collect()
    }

    /// The ids that a model is given to go on from: those of the example's text before its completion. See [`crate::prompt`].
    ///
    /// # Errors
    /// As [`ModelTokenizer::encode_example`].
    pub fn prompt(&self, example: &Example) -> Result<Prompt, TokenizerError> {
        Ok(self.prompt_of(&self.encode_example(example)?, example))
    }

    /// [`ModelTokenizer::prompt`] of an example that is encoded already.
    pub fn prompt_of(&self, encoded: &Encoded, example: &Example) -> Prompt {
        let n_behind = match example.marks.special_tokens {
            SpecialTokens::Template => 0,
            SpecialTokens::Tokenizer | SpecialTokens::Both => self.suffix.len(),
        };
        let n_ids = encoded.ids.len() - n_behind;
        Prompt::new(&encoded.ids[..n_ids], &encoded.spans[..n_ids], example.completion.start)
    }

    /// The text of `new_ids` as it stands behind `prompt_ids`: alone, its first token could lose a space.
    ///
    /// # Errors
    /// A decoder that fails.
    pub fn continuation(&self, prompt_ids: &[u32], new_ids: &[u32]) -> Result<String, TokenizerError> {
        // Behind a beginning alone the text begins here: the space that some tokenizers put before a text goes.
        if prompt_ids == self.prefix {
            return self.decode(new_ids);
        }
        let whole = self.decode(&[prompt_ids, new_ids].concat())?;
        match whole.strip_prefix(&self.decode(prompt_ids)?) {
            Some(text) => Ok(text.to_string()),
            // A decoder may change what stands before; then there is no better than the ids alone.
            None => self.decode(new_ids),
        }
    }

    /// The text of `ids`, special tokens written out.
    ///
    /// # Errors
    /// A decoder that fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer.decode(ids, false).map_err(|e| unusable(&*e))
    }

    /// The id that ends a sequence, where the model has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Every id at which a model stops: [`ModelTokenizer::eos_id`], and those that `generation_config.json` or else
    /// `config.json` lists. Rising.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// The id that begins a sequence, where the model has one. Whether texts get it is the post-processor's choice.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// Rows of the model's embedding: `vocab_size` of `config.json`.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The longest sequence the model was made for: `max_position_embeddings` of `config.json`.
    pub fn max_positions(&self) -> Option<usize> {
        self.max_positions
    }

    fn check_id(&self, id: u32) -> Result<(), TokenizerError> {
        if (id as usize) < self.vocab_size {
            return Ok(());
        }
        Err(TokenizerError::IdOutsideVocabulary { id, token: self.token(id), vocab_size: self.vocab_size })
    }

    /// Special ids other than the unknown one are not for texts. The added vocabulary already leaves them alone;
    /// a vocabulary that holds them as ordinary pieces may still match them.
    fn check_ordinary(&self, id: u32) -> Result<(), TokenizerError> {
        if Some(id) == self.unknown_id || self.special_ids.binary_search(&id).is_err() {
            return Ok(());
        }
        Err(TokenizerError::SpecialFromText { id, token: self.token(id) })
    }

    fn token(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_else(|| "?".to_string())
    }
}

impl Encoded {
    fn push_all(&mut self, ids: &[u32], at: u32) {
        self.ids.extend_from_slice(ids);
        self.spans.extend(ids.iter().map(|_| (at, at)));
    }

    /// Takes out what begins the sequence a second time: a template writes it, and a tokenizer adds it.
    fn keep_one_beginning(&mut self, bos_id: Option<u32>) {
        let Some(bos_id) = bos_id else { return };
        let n_more = self.ids.iter().take_while(|id| **id == bos_id).count().saturating_sub(1);
        // The last of them stays: its characters are the template's.
        self.ids.drain(..n_more);
        self.spans.drain(..n_more);
    }
}

/// The ids that the post-processor puts before and after every text: those it marks as special around a probe.
fn surrounding_ids(tokenizer: &Tokenizer) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    let probe = tokenizer.encode("a", true).map_err(|e| unusable(&*e))?;
    let is_added: Vec<bool> = probe.get_special_tokens_mask().iter().map(|mask| *mask == 1).collect();
    let n_before = is_added.iter().take_while(|added| **added).count();
    let n_after = is_added[n_before..].iter().rev().take_while(|added| **added).count();
    let ids = probe.get_ids();
    Ok((ids[..n_before].to_vec(), ids[ids.len() - n_after..].to_vec()))
}

/// The id for what the vocabulary does not cover: a special token that a text may well create.
fn unknown_id(tokenizer_json: &[u8], tokenizer: &Tokenizer) -> Option<u32> {
    /// The rest of the file, some MB of it, is passed over.
    #[derive(serde::Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        unk_token: Option<String>,
        unk_id: Option<u32>,
    }
    let File { model } = serde_json::from_slice(tokenizer_json).ok()?;
    match model.unk_token {
        Some(token) => tokenizer.token_to_id(&token),
        None => model.unk_id,
    }
}

/// Ranges of characters, rising and apart, as ranges of bytes.
fn byte_ranges<'t>(text: &'t str, ranges: &'t [Range<u32>]) -> impl Iterator<Item = Range<usize>> + 't {
    let mut offsets = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).zip(0u32..);
    let mut byte_of =
        move |character: u32| offsets.by_ref().find(|(_, at)| *at == character).map_or(text.len(), |(byte, _)| byte);
    let mut last = (0, 0);
    ranges.iter().map(move |range| {
        // A range may begin where the one before it ends.
        let start = if range.start == last.0 && last.0 > 0 { last.1 } else { byte_of(range.start) };
        let end = byte_of(range.end);
        last = (range.end, end);
        start..end
    })
}

/// Byte offsets of a text to character offsets.
struct CharacterIndex {
    /// Byte to the index of the character it belongs to; nothing where every character is one byte.
    of_byte: Option<Vec<u32>>,
    n_characters: u32,
}

impl CharacterIndex {
    fn new(text: &str) -> Result<Self, TokenizerError> {
        let n_characters = text.chars().count();
        if n_characters > (u32::MAX / 2) as usize {
            return Err(TokenizerError::TextTooLong { n_characters });
        }
        let of_byte = (n_characters != text.len()).then(|| {
            let indexed = text.chars().zip(0u32..);
            indexed.flat_map(|(c, i)| std::iter::repeat_n(i, c.len_utf8())).collect()
        });
        Ok(CharacterIndex { of_byte, n_characters: n_characters as u32 })
    }

    /// The characters that bytes `start..end` touch.
    fn span(&self, start: usize, end: usize) -> (u32, u32) {
        let Some(of_byte) = &self.of_byte else { return (start as u32, end as u32) };
        let first = of_byte.get(start).copied().unwrap_or(self.n_characters);
        if end <= start {
            return (first, first);
        }
        (first, of_byte.get(end - 1).map_or(self.n_characters, |last| last + 1))
    }
}

pub(crate) fn unusable(error: &(dyn std::error::Error + Send + Sync)) -> TokenizerError {
    TokenizerError::Tokenizer { message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use pipe_records::Marks;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn bytes_become_the_characters_they_touch() {
        let text = "aé😀b"; // 1 + 2 + 4 + 1 bytes
        let index = CharacterIndex::new(text).unwrap();
        assert_eq!(index.span(0, 1), (0, 1));
        assert_eq!(index.span(1, 2), (1, 2)); // half of é is all of é
        assert_eq!(index.span(2, 4), (1, 3)); // the end of é and the start of 😀
        assert_eq!(index.span(3, 8), (2, 4));
        assert_eq!(index.span(7, 7), (3, 3));
        assert_eq!(index.span(8, 8), (4, 4));
    }

    #[test]
    fn ranges_of_characters_are_ranges_of_bytes() {
        let text = "é<s></s>😀<s>";
        let ranges = [1..4, 4..8, 9..12];
        let parts: Vec<&str> = byte_ranges(text, &ranges).map(|range| &text[range]).collect();
        assert_eq!(parts, ["<s>", "</s>", "<s>"]);
    }

    /// Llama 2's form: letters, `▁`, bytes, and two special tokens.
    fn words_json(normalizer: &Value, pre_tokenizer: &Value) -> Vec<u8> {
        let merges = [["▁", "a"], ["▁", "▁"], ["▁a", "n"], ["▁an", "d"], ["t", "h"]];
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        let letters = "▁abcdefghijklmnopqrstuvwxyz".chars().map(String::from);
        let texts = ["<s>".to_string(), "</s>".into()].into_iter().chain(bytes).chain(letters);
        let texts = texts.chain(merges.map(|[left, right]| format!("{left}{right}")));
        let vocab: serde_json::Map<String, Value> = texts.zip(0..).map(|(text, id)| (text, json!(id))).collect();
        let special = |id: u32, content: &str| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true,
            })
        };
        let json = json!({
            "version": "1.0", "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            "added_tokens": [special(0, "<s>"), special(1, "</s>")],
            "model": {"type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": true, "fuse_unk": true},
        });
        json.to_string().into_bytes()
    }

    /// What lies between special tokens, by pieces and with stand-ins in the whole text.
    #[test]
    fn pieces_between_special_tokens_are_those_of_the_whole_text() {
        let texts = ["the cat and the hat", "Grüße, 你好 😀\n\n  end", "  two  spaces "];
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        let prepend = json!({"type": "Sequence", "normalizers": [prepend, replace]});
        let metaspace =
            |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
        let forms = [
            (crate::train_bpe(&texts, 300, &["<s>", "</s>"]).expect("a tokenizer"), true),
            (words_json(&replace, &Value::Null), true),
            (words_json(&prepend, &Value::Null), true),
            (words_json(&Value::Null, &metaspace("always")), true),
            (words_json(&Value::Null, &metaspace("first")), false),
        ];
        for (json, is_fast) in forms {
            let folder = tempfile::tempdir().expect("a temporary folder");
            std::fs::write(folder.path().join("tokenizer.json"), json).expect("written");
            std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 300}"#).expect("written");
            let model = Artifact::from_folder(pipe_contract::ArtifactKind::Model, folder.path()).expect("a folder");
            let load = || ModelTokenizer::load(&model).expect("a tokenizer");
            let (fast, slow) = (load(), ModelTokenizer { pieces: None, ..load() });
            let pieces = fast.pieces.as_ref().expect("a form that is known");
            assert_eq!(fast.stand_ins().expect("stand-ins").leave_parts(pieces), is_fast);
            // The character of a stand-in is one like others where there are none.
            let marks = Marks { special_tokens: SpecialTokens::Template, ..Marks::default() };
            let private = Example { text: "a\u{100000}".into(), marks, ..Example::default() };
            assert_eq!(fast.encode_example(&private).is_ok(), is_fast);
            let error = slow.encode_example(&private).expect_err("it stands for <s>").to_string();
            assert!(error.contains("U+100000"), "{error}");
            let n = |text: &str| text.chars().count() as u32;
            for first in texts {
                for second in texts.into_iter().chain([""]) {
                    // A second pair of tokens side by side, and one that is data.
                    let text = format!("<s>{first}</s><s>{second} </s>x</s>");
                    let starts = [0, 3 + n(first), 7 + n(first), 10 + n(first) + n(second) + 5 + 1];
                    let control = starts.into_iter().zip([3, 4, 3, 4]).map(|(start, n)| start..start + n).collect();
                    let marks = Marks { control, special_tokens: SpecialTokens::Template, ..Marks::default() };
                    let example = Example { text, marks, ..Example::default() };
                    let (fast, slow) = (fast.encode_example(&example), slow.encode_example(&example));
                    assert_eq!(fast.expect("ids"), slow.expect("ids"), "{}", example.text);
                }
            }
        }
    }

    #[test]
    fn one_byte_characters_need_no_table() {
        let index = CharacterIndex::new("plain").unwrap();
        assert!(index.of_byte.is_none());
        assert_eq!(index.span(2, 5), (2, 5));
    }
}
